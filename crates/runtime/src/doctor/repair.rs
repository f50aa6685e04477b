//! What the doctor can set right at once: whatever follows from facts that are still there.
//!
//! The reconciler heals what a crash or a lost broker leaves, by itself and all the time. Here is what only a hand or a
//! bug leaves: counts that are off, a settled run with open jobs, a document or version without its run. Each repair
//! takes the locks a worker takes; where nothing but the bytes is certain, the document is processed again.

use super::Violation;
use crate::pipeline::Pipelines;
use crate::runs::{self, Cause, StartRun};
use docmill_model::{DocumentId, Failure, RunId, TenantId, VersionId};
use docmill_platform::database::{Database, DbError};
use uuid::Uuid;

/// One thing that was set right.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Repair {
    /// Name of the invariant that was broken.
    pub invariant: String,
    /// What broke it.
    pub subject: String,
    /// What was done.
    pub action: String,
}

/// What helps against a violation.
enum Remedy {
    /// Jobs and outcome of the run are worked out again from its graph.
    Mend,
    /// The document's newest version is processed again.
    Process,
    /// The version that is shown is processed again.
    ProcessShown,
    /// Open attempts of the job are closed as lost.
    CloseAttempts,
}

/// The remedy for an invariant; `None` for what the reconciler heals by itself and what needs a person.
fn remedy(invariant: &str) -> Option<Remedy> {
    match invariant {
        "run_has_open_job" | "settled_run_is_still" | "blocked_counts_predecessors" => Some(Remedy::Mend),
        "document_is_moving" | "accepted_version_has_run" | "one_visible_generation" => Some(Remedy::Process),
        "chunk_has_vector" => Some(Remedy::ProcessShown),
        "attempts_end" => Some(Remedy::CloseAttempts),
        _ => None,
    }
}

/// Sets right what can be, and says what was done. Repeating it does nothing more.
///
/// # Errors
/// Database failures; what was repaired before stays.
pub async fn repair(database: &Database, pipelines: &Pipelines, found: &[Violation]) -> Result<Vec<Repair>, Failure> {
    let mut done = Vec::new();
    for violation in found {
        let Some((remedy, id)) = remedy(&violation.invariant).zip(id(&violation.subject)) else { continue };
        let kind = violation.subject.split(' ').next().unwrap_or_default();
        let action = match remedy {
            Remedy::Mend => mend(database, kind, id).await?.then_some("the run was worked out again"),
            Remedy::Process => match document(database, kind, id).await? {
                Some((tenant, document)) => process(database, pipelines, tenant, document, None).await?,
                None => false,
            }
            .then_some("processed again"),
            Remedy::ProcessShown => match shown(database, id).await? {
                Some((tenant, document, version)) => {
                    process(database, pipelines, tenant, document, Some(version)).await?
                }
                None => false,
            }
            .then_some("processed again"),
            Remedy::CloseAttempts => close_attempts(database, id).await?.then_some("open attempts were closed"),
        };
        if let Some(action) = action {
            tracing::warn!(invariant = violation.invariant, subject = violation.subject, action, "repaired");
            done.push(Repair {
                invariant: violation.invariant.clone(),
                subject: violation.subject.clone(),
                action: action.to_owned(),
            });
        }
    }
    Ok(done)
}

/// The id in `run <id>`, `job <id>`, ….
fn id(subject: &str) -> Option<Uuid> {
    subject.split(' ').nth(1)?.parse().ok()
}

async fn mend(database: &Database, kind: &str, id: Uuid) -> Result<bool, Failure> {
    let sql = match kind {
        "run" => "SELECT tenant_id, id FROM runs WHERE id = $1",
        _ => "SELECT tenant_id, run_id FROM jobs WHERE id = $1",
    };
    let Some((tenant, run)) = look_up::<(Uuid, Uuid)>(database, sql, id).await? else { return Ok(false) };
    let mended = database
        .write(TenantId(tenant), move |connection| Box::pin(async move { runs::mend(connection, RunId(run)).await }));
    Ok(mended.await?)
}

/// The document that a subject is about.
async fn document(database: &Database, kind: &str, id: Uuid) -> Result<Option<(Uuid, Uuid)>, Failure> {
    let sql = match kind {
        "document" => "SELECT tenant_id, id FROM documents WHERE id = $1",
        "version" => "SELECT tenant_id, document_id FROM document_versions WHERE id = $1",
        _ => "SELECT tenant_id, document_id FROM generations WHERE id = $1",
    };
    look_up(database, sql, id).await
}

/// Document and version of a generation.
async fn shown(database: &Database, generation: Uuid) -> Result<Option<(Uuid, Uuid, Uuid)>, Failure> {
    look_up(database, "SELECT tenant_id, document_id, version_id FROM generations WHERE id = $1", generation).await
}

/// Starts a run of an accepted version, the newest where none is named, unless one is under way.
async fn process(
    database: &Database,
    pipelines: &Pipelines,
    tenant: Uuid,
    document: Uuid,
    version: Option<Uuid>,
) -> Result<bool, Failure> {
    let newest: Option<(Uuid, String)> = sqlx::query_as(
        "SELECT id, pipeline_version FROM document_versions
         WHERE tenant_id = $1 AND document_id = $2 AND upload_state = 'accepted' AND id = coalesce($3, id)
         ORDER BY number DESC LIMIT 1",
    )
    .bind(tenant)
    .bind(document)
    .bind(version)
    .fetch_optional(database.engine())
    .await
    .map_err(DbError::from)?;
    let Some((version, pinned)) = newest else { return Ok(false) };
    let pipeline = pipelines.resolve(database, &pinned).await?;
    let started = database.write(TenantId(tenant), move |connection| {
        Box::pin(async move {
            crate::dead::idle(connection, DocumentId(document)).await?;
            let run = StartRun {
                document_id: DocumentId(document),
                version_id: VersionId(version),
                pipeline: &pipeline,
                cause: Cause::Operator,
                parent_run: None,
                priority: 0,
                traceparent: None,
            };
            runs::start_run(connection, run).await
        })
    });
    match started.await {
        Ok(_) => Ok(true),
        // Being processed or deleted by now: nothing is wrong any more.
        Err(DbError::Failed(_)) => Ok(false),
        Err(error) => Err(error.into_failure()),
    }
}

async fn close_attempts(database: &Database, job: Uuid) -> Result<bool, Failure> {
    let closed = sqlx::query(
        "UPDATE attempts a SET outcome = 'lost', finished_at = now() FROM jobs j
         WHERE a.job_id = $1 AND j.tenant_id = a.tenant_id AND j.id = a.job_id AND a.outcome IS NULL
           AND (j.state <> 'leased' OR j.fence <> a.fence)",
    )
    .bind(job)
    .execute(database.engine())
    .await
    .map_err(DbError::from)?;
    Ok(closed.rows_affected() > 0)
}

async fn look_up<T>(database: &Database, sql: &'static str, id: Uuid) -> Result<Option<T>, Failure>
where
    T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    let found = sqlx::query_as(sql).bind(id).fetch_optional(database.engine()).await;
    Ok(found.map_err(DbError::from)?)
}
