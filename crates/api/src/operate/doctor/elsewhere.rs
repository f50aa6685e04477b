//! Invariants about what is not in the engine's tables: this node's lexical indexes, the audit log, the object store.

use crate::audit;
use crate::state::ApiState;
use docmill_model::{Failure, TenantId};
use docmill_platform::blobs::BlobError;
use docmill_runtime::doctor::{Examined, Violation};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

/// Objects asked for in one examination, chosen at random and shared among the tenants, of whom each has one: a store of
/// millions is not read for one look.
const SAMPLED_OBJECTS: usize = 400;
/// Of them at once.
const ASKED_AT_ONCE: usize = 16;

const INDEX: &str = "index_equals_postgres";
const CHAINS: &str = "audit_chain_is_whole";
const OBJECTS: &str = "object_is_there";

/// Name and sentence of each invariant.
pub(super) const INVARIANTS: [(&str, &str); 3] = [
    (INDEX, "The lexical index of this node holds every chunk of what is visible, and nothing else."),
    (CHAINS, "Every row of the audit log stands as it was written."),
    (OBJECTS, "Stored artifacts and accepted files have their objects, of their length, in a sample of 400."),
];

/// What judges one of them.
type Look<'l> = BoxFuture<'l, Result<Vec<Violation>, Failure>>;

/// Examines all of them until a moment; another `first` begins with another one, and any number will do.
///
/// # Errors
/// Database failures, where they keep it from knowing the tenants.
pub(super) async fn examine(state: &ApiState, until: Instant, first: usize) -> Result<Examined, Failure> {
    let tenants = state.database.examined_tenants().await?;
    let mut looks: [(&'static str, Look<'_>); 3] = [
        (INDEX, index(state).boxed()),
        (CHAINS, chains(state, &tenants).boxed()),
        (OBJECTS, objects(state, &tenants).boxed()),
    ];
    let turn = first % looks.len();
    looks.rotate_left(turn);
    let mut examined = Examined::default();
    for (name, look) in looks {
        examined.judge(name, until, look).await;
    }
    examined.in_turn = examined.judged.len();
    Ok(examined)
}

fn violation(invariant: &str, subject: String, detail: String) -> Violation {
    Violation { invariant: invariant.to_owned(), subject, detail }
}

async fn index(state: &ApiState) -> Result<Vec<Violation>, Failure> {
    let differences = state.search.compare_index().await?.into_iter().map(|difference| {
        let detail = format!("{} generations differ, {} chunks too many", difference.generations, difference.surplus);
        violation(INDEX, format!("tenant {}", difference.tenant), detail)
    });
    Ok(differences.collect())
}

async fn chains(state: &ApiState, tenants: &[TenantId]) -> Result<Vec<Violation>, Failure> {
    let mut broken = Vec::new();
    for tenant in tenants.iter().copied() {
        let verified = state
            .database
            .read(tenant, move |connection| Box::pin(async move { audit::verify(connection, tenant).await }))
            .await?;
        broken.extend(verified.first_broken.map(|row| {
            let detail = format!("row {row} of the audit log does not fit the one before");
            violation(CHAINS, format!("tenant {tenant}"), detail)
        }));
    }
    Ok(broken)
}

/// Fails with the store: what it does not answer is not known to be gone.
async fn objects(state: &ApiState, tenants: &[TenantId]) -> Result<Vec<Violation>, Failure> {
    let share = (SAMPLED_OBJECTS / tenants.len().max(1)).max(1);
    let mut broken = Vec::new();
    for tenant in tenants.iter().copied() {
        let looks = stream::iter(sample(state, tenant, share).await?).map(|wanted| look(state, wanted));
        let mut looks = looks.buffer_unordered(ASKED_AT_ONCE);
        while let Some(look) = looks.next().await {
            let Some((wanted, detail)) = look? else { continue };
            // A deletion may have come between the two looks.
            if still_wanted(state, tenant, wanted.key).await? {
                broken.push(violation(OBJECTS, wanted.subject, detail));
            }
        }
    }
    Ok(broken)
}

/// An object that must be there.
#[derive(sqlx::FromRow)]
struct Wanted {
    subject: String,
    key: String,
    size_bytes: i64,
}

async fn sample(state: &ApiState, tenant: TenantId, count: usize) -> Result<Vec<Wanted>, Failure> {
    let wanted = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let wanted = sqlx::query_as(
                "SELECT subject, key, size_bytes FROM (
                    SELECT 'artifact ' || sha256 AS subject, key, size_bytes FROM artifacts
                    WHERE tenant_id = current_tenant() AND state = 'stored'
                    UNION ALL
                    SELECT 'version ' || id, accepted_key, size_bytes FROM document_versions
                    WHERE tenant_id = current_tenant() AND upload_state = 'accepted' AND raw_removed_at IS NULL) AS wanted
                 ORDER BY random() LIMIT $1",
            );
            Ok(wanted.bind(count as i64).fetch_all(connection).await?)
        })
    });
    Ok(wanted.await?)
}

/// What is wrong with the object, if anything.
async fn look(state: &ApiState, wanted: Wanted) -> Result<Option<(Wanted, String)>, BlobError> {
    Ok(match state.artifacts.blobs().head(&wanted.key).await? {
        Some(head) if i64::try_from(head.size_bytes) == Ok(wanted.size_bytes) => None,
        Some(head) => {
            let detail = format!("its object has {} bytes instead of {}", head.size_bytes, wanted.size_bytes);
            Some((wanted, detail))
        }
        None => Some((wanted, "its object is gone".to_owned())),
    })
}

async fn still_wanted(state: &ApiState, tenant: TenantId, key: String) -> Result<bool, Failure> {
    let wanted = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let wanted = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM artifacts WHERE tenant_id = current_tenant() AND key = $1 AND state = 'stored')
                     OR EXISTS (SELECT 1 FROM document_versions WHERE tenant_id = current_tenant() AND accepted_key = $1
                                AND upload_state = 'accepted' AND raw_removed_at IS NULL)",
            );
            Ok(wanted.bind(key).fetch_one(connection).await?)
        })
    });
    Ok(wanted.await?)
}
