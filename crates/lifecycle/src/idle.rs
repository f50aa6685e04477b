//! What runs that stand still rely on: a run that is held or paused must not keep a deletion waiting for ever.
//!
//! Of what a deletion takes away only vectors have no row that says who needs them until the index stage has written its
//! chunks. Of a run that stands between `embed` and `index` the list of chunks tells. What a job at work relies on is not
//! known: that is waited for.

use crate::Stores;
use crate::delete::chunk_list;
use docmill_model::manifest::kind;
use docmill_model::{Code, Failure, Sha256Hex, TenantId};
use docmill_platform::database::DbError;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// How long a deletion waits for runs to settle before it looks at what those that stand still rely on.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Whether what is condemned may go, as far as runs begun before `before` are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// None is open.
    Settled,
    /// Some are open and no job of theirs is at work: their vectors have to be spared.
    Idle,
    /// They may be about to use what is condemned.
    Busy,
}

pub(crate) async fn standing(connection: &mut PgConnection, before: OffsetDateTime) -> Result<Standing, DbError> {
    let (open, at_work, is_young): (bool, bool, bool) = sqlx::query_as(
        "WITH open AS (
            SELECT id FROM runs WHERE tenant_id = current_tenant() AND state = 'running' AND created_at < $1)
         SELECT EXISTS (SELECT 1 FROM open),
                EXISTS (SELECT 1 FROM jobs j JOIN open o ON o.id = j.run_id
                        WHERE j.tenant_id = current_tenant() AND j.state = 'leased'),
                $1 > now() - make_interval(secs => $2)",
    )
    .bind(before)
    .bind(PATIENCE.as_secs_f64())
    .fetch_one(connection)
    .await?;
    Ok(match (open, at_work || is_young) {
        (false, _) => Standing::Settled,
        (true, true) => Standing::Busy,
        (true, false) => Standing::Idle,
    })
}

/// Strikes the vectors that open runs begun before `before` rely on off the list of a deletion. They stay, and the
/// collection removes them once nothing uses them.
///
/// # Errors
/// Of the database, and of the store for a list that is there and cannot be read.
pub(crate) async fn spare(stores: &Stores, tenant: TenantId, id: Uuid, before: OffsetDateTime) -> Result<(), Failure> {
    let read = stores.database.read(tenant, move |connection| {
        Box::pin(async move {
            let lists: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT j.manifest -> 'artifacts' -> $2 ->> 'sha256' FROM jobs j
                 JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
                 WHERE j.tenant_id = current_tenant() AND r.state = 'running' AND r.created_at < $1
                   AND j.manifest -> 'artifacts' ? $2",
            )
            .bind(before)
            .bind(kind::CHUNKS)
            .fetch_all(connection)
            .await?;
            Ok(lists)
        })
    });
    let mut needed = BTreeSet::new();
    for list in read.await? {
        match chunk_list(&stores.artifacts, tenant, &list).await {
            Ok(list) => {
                needed.extend(list.chunks.iter().map(|c| Sha256Hex::of(c.embed_text().as_bytes()).to_string()));
            }
            // The run fails for it and needs no vector any more.
            Err(failure) if matches!(failure.code, Code::ObjectMissing | Code::HashMismatch) => {}
            Err(failure) => return Err(failure),
        }
    }
    let needed: Vec<String> = needed.into_iter().collect();
    let struck = stores.database.write(tenant, move |connection| {
        Box::pin(async move {
            let struck = sqlx::query(
                "DELETE FROM condemned WHERE tenant_id = current_tenant() AND deletion_id = $1 AND kind = 'vector'
                   AND name = ANY ($2)",
            );
            Ok(struck.bind(id).bind(needed).execute(connection).await?.rows_affected())
        })
    });
    struck.await?;
    Ok(())
}
