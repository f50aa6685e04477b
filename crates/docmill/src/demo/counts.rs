//! How many rows the documents of the demo came to: the one thing no route tells in one answer.

use crate::cli::Cli;
use crate::client::connect;
use crate::config::{Config, load};
use docmill_embedded::{Home, Stack};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DatabaseConfig};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::time::Duration;

const COUNTS: &str = "
    SELECT (SELECT coalesce(sum(greatest(page_count, 1)), 0) FROM document_versions WHERE document_id = ANY ($1) AND upload_state = 'accepted') AS pages,
           (SELECT count(*) FROM chunks c JOIN documents d ON d.visible_generation = c.generation_id AND d.tenant_id = c.tenant_id
            WHERE d.id = ANY ($1)) AS chunks,
           (SELECT count(DISTINCT v.embed_hash) FROM vectors v JOIN chunks c ON c.embed_hash = v.embed_hash AND c.tenant_id = v.tenant_id
            JOIN documents d ON d.visible_generation = c.generation_id AND d.tenant_id = c.tenant_id WHERE d.id = ANY ($1)) AS vectors,
           (SELECT count(*) FROM document_events WHERE document_id = ANY ($1)) AS events,
           (SELECT count(*) FROM jobs WHERE document_id = ANY ($1)) AS jobs,
           (SELECT count(*) FROM attempts a JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id WHERE j.document_id = ANY ($1)) AS attempts";

/// Pages, chunks, vectors, events, jobs and attempts of the documents.
///
/// # Errors
/// Database failures.
pub async fn of(cli: &Cli, home: &Home, ids: &[&str]) -> Result<Value, Failure> {
    let ids: Vec<uuid::Uuid> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    let database = database(cli, home).await?;
    let tenant: Option<uuid::Uuid> = sqlx::query_scalar("SELECT tenant_id FROM documents WHERE id = $1")
        .bind(ids.first().copied().unwrap_or_default())
        .fetch_optional(database.engine())
        .await
        .map_err(|_| Failure::new(Code::DatabaseUnavailable, "the database does not answer"))?;
    let Some(tenant) = tenant.map(TenantId) else { return Ok(json!({})) };
    let counted = database.read(tenant, move |connection| {
        Box::pin(async move {
            let row: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(COUNTS).bind(ids).fetch_one(connection).await?;
            Ok(row)
        })
    });
    let (pages, chunks, vectors, events, jobs, attempts) = counted.await?;
    database.close().await;
    Ok(
        json!({"pages": pages, "chunks": chunks, "vectors": vectors, "events": events, "jobs": jobs, "attempts": attempts}),
    )
}

async fn database(cli: &Cli, home: &Home) -> Result<Database, Failure> {
    // Asked for its failure: without an API there is nothing to count.
    connect(cli)?;
    let config = load::load(cli.config.as_deref())?;
    let urls = Stack::of(home)?.database_urls(docmill_embedded::stack::DATABASE)?;
    let configured = |url: &Option<SecretString>, embedded: String| url.clone().unwrap_or_else(|| embedded.into());
    let Config { database: settings, .. } = &config;
    Database::connect(&DatabaseConfig {
        app_url: configured(&settings.url, urls.app),
        engine_url: configured(&settings.engine_url, urls.engine),
        max_connections: 2,
        acquire_timeout: Duration::from_secs(10),
    })
    .await
}
