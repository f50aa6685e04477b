//! What building a space would take; changes nothing.

use super::{all, gaps, others, tenants};
use docmill_model::Failure;
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::Embedder;
use std::time::Instant;

/// Stored texts that are embedded to measure how fast the model is.
const SAMPLE: i64 = 16;

/// What building a space would take.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct SpacePlan {
    /// Name of the space, and of its model in the settings.
    pub name: String,
    /// Length of its vectors.
    pub dimensions: u32,
    /// The model: name, weights, runtime and settings.
    pub fingerprint: String,
    /// False when spaces of this length are scanned exactly: about 2 ms a search for each thousand passages of a tenant.
    pub is_indexed: bool,
    /// Distinct texts of all tenants that belong into the space.
    pub texts: i64,
    /// Of them with a vector in it already.
    pub cached: i64,
    /// Of them to embed.
    pub to_embed: i64,
    /// Tokens of those, as they were counted when they were cut.
    pub tokens: i64,
    /// Work of the model expected, in seconds, from a sample of the stored texts; more while documents are embedded.
    pub work_secs: f64,
    /// Cost expected, in millionths of a dollar: models on this machine cost nothing.
    pub cost_microusd: i64,
}

/// What building the space `name` with `model` would take.
///
/// # Errors
/// Of the database and the model.
pub async fn plan(database: &Database, name: &str, model: &dyn Embedder) -> Result<SpacePlan, Failure> {
    let (spaces, fingerprint) = (all(database).await?, model.fingerprint());
    let is_this = |space: &&docmill_platform::embedder::Space| space.fingerprint.as_ref() == Some(&fingerprint);
    // No space has the number 0.
    let id = spaces.iter().find(is_this).map_or(0, |space| space.id);
    let (others, mut plan) =
        (others(&spaces, id), SpacePlan { name: name.to_owned(), fingerprint, ..SpacePlan::default() });
    plan.dimensions = model.dimensions() as u32;
    plan.is_indexed = is_indexed(database, id, plan.dimensions as i32).await?;
    let (mut sample, mut sampled_tokens) = (Vec::new(), 0);
    for tenant in tenants(database).await? {
        let counted = gaps::count(database, tenant, id, &others).await?;
        plan.texts += counted.texts;
        plan.to_embed += counted.missing;
        plan.tokens += counted.tokens;
        if sample.is_empty() && counted.missing > 0 {
            let texts = gaps::first(database, tenant, id, &others, None, SAMPLE).await?;
            sampled_tokens = texts.iter().map(|gap| i64::from(gap.tokens)).sum();
            sample = texts.into_iter().map(|gap| gap.text).collect();
        }
    }
    plan.cached = plan.texts - plan.to_embed;
    if !sample.is_empty() {
        let started = Instant::now();
        model.embed(&sample).await?;
        let secs = started.elapsed().as_secs_f64() * plan.tokens as f64 / sampled_tokens.max(1) as f64;
        plan.work_secs = (secs * 10.0).round() / 10.0;
    }
    Ok(plan)
}

/// Whether the space has, or a new one of this length would get, a number with an approximate index.
async fn is_indexed(database: &Database, id: i32, dimensions: i32) -> Result<bool, Failure> {
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM space_indexes i WHERE i.dimensions = $2
                        AND (i.space_id = $1 OR ($1 = 0 AND NOT EXISTS (SELECT 1 FROM embedding_spaces s WHERE s.id = i.space_id))))",
    )
    .bind(id)
    .bind(dimensions);
    Ok(found.fetch_one(database.engine()).await.map_err(DbError::from)?)
}
