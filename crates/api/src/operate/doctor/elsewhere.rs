//! Invariants about what is not in the engine's tables: this node's lexical indexes, the audit log, the object store.

use super::{InvariantView, ViolationView};
use crate::audit;
use crate::problem::Problem;
use crate::state::ApiState;
use docmill_model::TenantId;
use docmill_platform::blobs::BlobError;
use docmill_runtime::doctor;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

/// Objects asked for in one examination, chosen at random and shared among the tenants, of whom each has one: a store of
/// millions is not read for one look.
const SAMPLED_OBJECTS: usize = 400;
/// Of them at once.
const ASKED_AT_ONCE: usize = 16;

/// Name and sentence of each invariant.
const INDEX: (&str, &str) =
    ("index_equals_postgres", "The lexical index of this node holds every chunk of what is visible, and nothing else.");
const CHAINS: (&str, &str) = ("audit_chain_is_whole", "Every row of the audit log stands as it was written.");
const OBJECTS: (&str, &str) =
    ("object_is_there", "Stored artifacts and accepted files have their objects, of their length, in a sample of 400.");

/// Examines all of them until a moment; those that it did not suffice for are entered as `unfinished`.
pub(super) async fn examine(
    state: &ApiState,
    until: Instant,
    unfinished: &mut Vec<String>,
) -> Result<Vec<InvariantView>, Problem> {
    let mut tenants = state.database.tenants().await?;
    tenants.retain(|tenant| *tenant != TenantId::of_evaluations());
    let looks: [(_, BoxFuture<'_, Result<_, Problem>>); 3] = [
        (INDEX, index(state).boxed()),
        (CHAINS, chains(state, &tenants).boxed()),
        (OBJECTS, objects(state, &tenants).boxed()),
    ];
    let mut views = Vec::new();
    for ((name, sentence), look) in looks {
        let seen = match tokio::time::timeout_at(until, look).await {
            Ok(violations) => {
                let seen = view(name, sentence, violations?);
                doctor::publish(name, seen.violations.len());
                seen
            }
            Err(_) => {
                unfinished.push(name.to_owned());
                view(name, sentence, Vec::new())
            }
        };
        views.push(seen);
    }
    Ok(views)
}

fn view(name: &str, sentence: &str, mut violations: Vec<ViolationView>) -> InvariantView {
    violations.truncate(doctor::SHOWN_LIMIT);
    InvariantView { name: name.to_owned(), sentence: sentence.to_owned(), violations }
}

async fn index(state: &ApiState) -> Result<Vec<ViolationView>, Problem> {
    let differences = state.search.compare_index().await?.into_iter().map(|difference| ViolationView {
        subject: format!("tenant {}", difference.tenant),
        detail: format!("{} generations differ, {} chunks too many", difference.generations, difference.surplus),
    });
    Ok(differences.collect())
}

async fn chains(state: &ApiState, tenants: &[TenantId]) -> Result<Vec<ViolationView>, Problem> {
    let mut broken = Vec::new();
    for tenant in tenants.iter().copied() {
        let verified = state
            .database
            .read(tenant, move |connection| Box::pin(async move { audit::verify(connection, tenant).await }))
            .await?;
        broken.extend(verified.first_broken.map(|row| ViolationView {
            subject: format!("tenant {tenant}"),
            detail: format!("row {row} of the audit log does not fit the one before"),
        }));
    }
    Ok(broken)
}

async fn objects(state: &ApiState, tenants: &[TenantId]) -> Result<Vec<ViolationView>, Problem> {
    let share = (SAMPLED_OBJECTS / tenants.len().max(1)).max(1);
    let mut broken = Vec::new();
    for tenant in tenants.iter().copied() {
        let looks = stream::iter(sample(state, tenant, share).await?).map(|wanted| look(state, wanted));
        let mut looks = looks.buffer_unordered(ASKED_AT_ONCE);
        while let Some(look) = looks.next().await {
            match look {
                Ok(None) => {}
                Ok(Some((wanted, detail))) => {
                    // A deletion may have come between the two looks.
                    if still_wanted(state, tenant, wanted.key).await? {
                        broken.push(ViolationView { subject: wanted.subject, detail });
                    }
                }
                // The other invariants are still worth knowing.
                Err(error) => {
                    let store = ViolationView { subject: "object store".to_owned(), detail: error.to_string() };
                    return Ok(vec![store]);
                }
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

async fn sample(state: &ApiState, tenant: TenantId, count: usize) -> Result<Vec<Wanted>, Problem> {
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

async fn still_wanted(state: &ApiState, tenant: TenantId, key: String) -> Result<bool, Problem> {
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
