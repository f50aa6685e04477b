//! The invariants the doctor cannot judge: those that hold only where nothing is deleted or replayed, over all objects
//! rather than a sample, and over what others received.
//!
//! Together with the doctor's they are I1 to I12 of a campaign. Each is judged once work has ended; what is still being
//! healed then gets time (see [`crate::verdict`]).

use crate::plant::{OPERATOR, Plant, Tenant};
use anyhow::Result;
use docmill_embedded::stack::DATABASE;
use docmill_model::{Sha256Hex, TenantId};
use docmill_platform::blobs::{Blobs, S3Blobs, S3Config};
use docmill_platform::layout::{accepted_prefix, artifact_prefix};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Each counts the rows that break it.
const COUNTS: &[(&str, &str)] = &[
    (
        "accepted_upload_has_one_end",
        "SELECT count(*) FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
         WHERE v.upload_state = 'accepted' AND d.deleted_at IS NULL AND (
            d.state NOT IN ('done', 'partial', 'failed', 'cancelled') OR 1 <> (
                SELECT count(*) FROM document_events e WHERE e.tenant_id = d.tenant_id AND e.document_id = d.id AND e.kind = 'run.settled'))",
    ),
    (
        "stored_artifact_for_manifest",
        "SELECT count(*) FROM jobs j CROSS JOIN LATERAL jsonb_each(coalesce(j.manifest -> 'artifacts', '{}')) AS a (kind, ref)
         WHERE NOT EXISTS (SELECT 1 FROM artifacts s WHERE s.tenant_id = j.tenant_id AND s.sha256 = a.ref ->> 'sha256' AND s.state = 'stored')",
    ),
    ("outbox_is_sent", "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND created_at < now() - interval '30 seconds'"),
    (
        "no_session_idle_in_transaction",
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND state_change < now() - interval '5 seconds'",
    ),
    (
        "settled_run_has_one_delivery",
        "SELECT count(*) FROM runs r JOIN webhook_endpoints e ON e.tenant_id = r.tenant_id
         WHERE r.state <> 'running' AND r.created_at > e.created_at AND 1 <> (
            SELECT count(*) FROM deliveries d WHERE d.tenant_id = r.tenant_id AND d.run_id = r.id AND d.endpoint_id = e.id AND d.state = 'done')",
    ),
    // Embedding is what is paid for: once for each text of a tenant, however often its batch was begun.
    (
        "paid_once",
        "SELECT count(*) FROM tenants t WHERE
            (SELECT coalesce(sum(l.units), 0) FROM ledger l WHERE l.tenant_id = t.id AND l.feature = 'embed')
            <> (SELECT count(*) FROM vectors v WHERE v.tenant_id = t.id)",
    ),
    (
        "change_is_audited_once",
        "SELECT count(*) FROM documents d JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.document_id = d.id AND v.number = 1
         CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE a.action = 'document.create') AS created,
                                    count(*) FILTER (WHERE a.action = 'document.complete') AS completed
                             FROM audit_log a WHERE a.tenant_id = d.tenant_id AND a.subject = d.id::text) AS a
         WHERE a.created <> 1 OR a.completed <> CASE v.upload_state WHEN 'accepted' THEN 1 ELSE 0 END",
    ),
];

/// What breaks an invariant, in words.
pub fn violations(plant: &Plant) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, sql) in COUNTS {
        match plant.count(sql)? {
            0 => {}
            count => found.push(format!("{name}: {count}")),
        }
    }
    found.extend(deliveries(plant)?);
    found.extend(plant.runtime.block_on(objects(plant))?);
    found.extend(plant.runtime.block_on(tenants(plant))?);
    found.extend(foreign_documents(plant)?);
    Ok(found)
}

/// I7: the receiver saw exactly the ids of the deliveries that are done, each at least once.
fn deliveries(plant: &Plant) -> Result<Vec<String>> {
    let done: BTreeSet<String> = plant.runtime.block_on(async {
        let sql = "SELECT id::text FROM deliveries WHERE state = 'done'";
        let ids: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut plant.owner().await?).await?;
        anyhow::Ok(ids.into_iter().collect())
    })?;
    let seen: BTreeSet<String> = plant.receiver.seen().into_keys().collect();
    let (unseen, unknown) = (done.difference(&seen).count(), seen.difference(&done).count());
    Ok(match (unseen, unknown) {
        (0, 0) => Vec::new(),
        _ => vec![format!("receiver_saw_each_event: {unseen} not received, {unknown} received that are not done")],
    })
}

/// I8: every referenced object is there with its hash, and nothing else stands where results are kept.
async fn objects(plant: &Plant) -> Result<Vec<String>> {
    let store = plant.stack.endpoints(DATABASE)?.store;
    let blobs = S3Blobs::new(&S3Config {
        endpoint: store.endpoint,
        public_endpoint: None,
        region: store.region,
        bucket: store.bucket,
        access_key: store.access_key,
        secret_key: store.secret_key.into(),
        path_style: true,
    });
    let mut connection = plant.owner().await?;
    let wanted: Vec<(String, String)> = sqlx::query_as(
        "SELECT key, sha256 FROM artifacts WHERE state = 'stored'
         UNION SELECT accepted_key, sha256 FROM document_versions WHERE upload_state = 'accepted' AND raw_removed_at IS NULL",
    )
    .fetch_all(&mut connection)
    .await?;
    let mut found = Vec::new();
    for (key, sha256) in &wanted {
        let hash: Sha256Hex = sha256.parse().map_err(|_| anyhow::anyhow!("{sha256} is no hash"))?;
        if let Err(error) = blobs.get_verified(key, &hash).await {
            found.push(format!("object_is_whole: {key}: {error}"));
        }
    }
    // An intent names an object that may or may not be there.
    let intents: Vec<String> =
        sqlx::query_scalar("SELECT key FROM artifacts WHERE state = 'intent'").fetch_all(&mut connection).await?;
    let known: BTreeSet<String> = wanted.into_iter().map(|(key, _)| key).chain(intents).collect();
    let tenants: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM tenants").fetch_all(&mut connection).await?;
    for tenant in tenants.into_iter().map(TenantId) {
        for prefix in [accepted_prefix(tenant), artifact_prefix(tenant)] {
            let mut after: Option<String> = None;
            loop {
                let page = blobs.list(&prefix, after.as_deref()).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                let unknown = page.iter().filter(|entry| !known.contains(&entry.key));
                found.extend(unknown.map(|entry| format!("object_is_referenced: {}", entry.key)));
            }
        }
    }
    Ok(found)
}

/// I12 below the API: with a tenant set its role sees rows of no other, in no table; with none set it sees none.
async fn tenants(plant: &Plant) -> Result<Vec<String>> {
    let mut owner = plant.owner().await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT a.attisdropped
           AND has_table_privilege('docmill_app', c.oid, 'SELECT') ORDER BY 1",
    )
    .fetch_all(&mut owner)
    .await?;
    let ids: Vec<String> = sqlx::query_scalar("SELECT id::text FROM tenants").fetch_all(&mut owner).await?;
    let mut found = Vec::new();
    for tenant in ids.iter().map(|id| Some(id.as_str())).chain([None]) {
        let mut connection = plant.as_tenant(tenant).await?;
        for table in &tables {
            let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id::text IS DISTINCT FROM $1");
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(tenant);
            let foreign: i64 = query.fetch_one(&mut connection).await?;
            if foreign > 0 {
                found.push(format!("tenant_sees_its_own: {foreign} rows of {table} as {tenant:?}"));
            }
        }
    }
    Ok(found)
}

/// I12 at the API: a document of one tenant is not there for another.
fn foreign_documents(plant: &Plant) -> Result<Vec<String>> {
    let documents: Vec<String> = plant.runtime.block_on(async {
        let sql = "SELECT d.id::text FROM documents d JOIN tenants t ON t.id = d.tenant_id AND t.name = $1 ORDER BY d.id LIMIT 3";
        anyhow::Ok(sqlx::query_scalar(sql).bind(OPERATOR).fetch_all(&mut plant.owner().await?).await?)
    })?;
    let stranger: Tenant = plant.tenant("stranger")?;
    let mut found = Vec::new();
    for document in documents {
        let own = plant.command(&["show", &document, "--json"]).output()?.status.success();
        let foreign = plant.command_of(&stranger, &["show", &document, "--json"]).output()?.status.success();
        if foreign || !own {
            found
                .push(format!("document_is_its_tenants: {document} is shown to a stranger: {foreign}, its own: {own}"));
        }
    }
    Ok(found)
}
