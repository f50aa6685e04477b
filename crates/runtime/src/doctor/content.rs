//! Invariants over content, which the engine's role may not see: each is asked as every tenant in turn, and counts ids
//! only. It costs what the tenants hold, so whoever asks says until when.

use super::{Examined, Invariant, SHOWN_LIMIT, Violation};
use docmill_model::{Failure, TenantId};
use docmill_platform::database::Database;
use tokio::time::Instant;

/// The invariant about vectors without a chunk; its subjects are `tenant <id>`.
pub const UNUSED_VECTOR: &str = "unused_vector_is_collected";

/// Asked as a tenant; at most 101 rows of `(subject, detail)` each.
pub(super) const ALL: &[Invariant] = &[
    Invariant {
        name: "chunk_ordinals_gapless",
        sentence: "What a document shows has exactly its chunks, numbered without a gap.",
        sql: "SELECT 'generation ' || g.id, c.found || ' chunks up to ' || c.last || ' of ' || g.chunk_count FROM generations g
              CROSS JOIN LATERAL (SELECT count(*) AS found, coalesce(max(c.ordinal) + 1, 0) AS last FROM chunks c
                                  WHERE c.tenant_id = g.tenant_id AND c.generation_id = g.id) AS c
              WHERE g.tenant_id = current_tenant() AND g.state = 'visible' AND (c.found <> g.chunk_count OR c.last <> g.chunk_count)
              LIMIT 101",
    },
    Invariant {
        name: "chunk_has_vector",
        sentence: "Every chunk that a document shows has its vector in the embedding space that answers, if its last run embedded it.",
        sql: "SELECT 'generation ' || g.id, count(*) || ' chunks without a vector' FROM generations g
              JOIN chunks c ON c.tenant_id = g.tenant_id AND c.generation_id = g.id
              WHERE g.tenant_id = current_tenant() AND g.state = 'visible' AND NOT EXISTS (
                SELECT 1 FROM vectors v JOIN active_spaces a ON a.space_id = v.space_id
                WHERE v.tenant_id = c.tenant_id AND v.embed_hash = c.embed_hash)
                AND EXISTS (
                SELECT 1 FROM jobs j WHERE j.tenant_id = g.tenant_id AND j.stage = 'embed' AND j.state = 'done' AND j.run_id = (
                    SELECT r.id FROM runs r
                    JOIN jobs i ON i.tenant_id = r.tenant_id AND i.run_id = r.id AND i.stage = 'index' AND i.state = 'done'
                    WHERE r.tenant_id = g.tenant_id AND r.version_id = g.version_id ORDER BY r.created_at DESC LIMIT 1))
              GROUP BY g.id LIMIT 101",
    },
    Invariant {
        name: "shown_text_is_stored",
        sentence: "The text behind what a document shows is a stored artifact.",
        sql: "SELECT 'generation ' || g.id, 'its text is ' || coalesce(a.state, 'gone') FROM generations g
              JOIN document_versions v ON v.tenant_id = g.tenant_id AND v.id = g.version_id
              LEFT JOIN artifacts a ON a.tenant_id = g.tenant_id AND a.sha256 = coalesce(g.parsed_sha256, v.parsed_sha256)
              WHERE g.tenant_id = current_tenant() AND g.state = 'visible' AND a.state IS DISTINCT FROM 'stored' LIMIT 101",
    },
    Invariant {
        name: "event_has_one_delivery_id",
        sentence: "A run that was told to a receiver was told to it under one id.",
        sql: "SELECT 'run ' || run_id, count(*) || ' ids for endpoint ' || endpoint_id FROM deliveries
              WHERE tenant_id = current_tenant() GROUP BY run_id, endpoint_id HAVING count(*) > 1 LIMIT 101",
    },
    Invariant {
        name: "embedding_is_charged_once",
        sentence: "The ledger has at most one row for what a job embedded.",
        sql: "SELECT 'job ' || job_id, count(*) || ' rows of the ledger' FROM ledger
              WHERE tenant_id = current_tenant() AND feature = 'embed' AND outcome = 'committed' AND job_id IS NOT NULL
              GROUP BY job_id, task HAVING count(*) > 1 LIMIT 101",
    },
    Invariant {
        name: UNUSED_VECTOR,
        sentence: "Vectors that no chunk needs are collected within a day.",
        // What a collection leaves for the next may be older than a day: one of the last day that ended excuses it. What is
        // condemned has a day as well: a removal that does not get on is no excuse.
        sql: "SELECT 'tenant ' || current_tenant(), count(*) || ' vectors without a chunk' FROM vectors v
              WHERE v.tenant_id = current_tenant() AND v.created_at < now() - interval '1 day'
                AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.tenant_id = current_tenant() AND d.cause = 'collect'
                                AND d.created_at > now() - interval '1 day' AND d.finished_at IS NOT NULL)
                AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.embed_hash = v.embed_hash)
                AND NOT EXISTS (SELECT 1 FROM condemned c JOIN deletions d ON d.tenant_id = c.tenant_id AND d.id = c.deletion_id
                                WHERE c.tenant_id = v.tenant_id AND c.kind = 'vector'
                                  AND c.name = encode(v.embed_hash, 'hex') AND d.created_at > now() - interval '1 day')
              HAVING count(*) > 0",
    },
];

/// The same whoever asks, so asked once.
pub(super) const OF_EVERYONE: &[Invariant] = &[
    Invariant {
        name: "session_ends_its_transaction",
        sentence: "No session of ours rests inside a transaction.",
        // Sees the sessions of its own role.
        sql: "SELECT 'session ' || pid, 'idle for ' || extract(epoch FROM now() - state_change)::integer || ' s' FROM pg_stat_activity
              WHERE usename = current_user AND datname = current_database() AND state = 'idle in transaction'
                AND state_change < now() - interval '10 seconds' LIMIT 101",
    },
    Invariant {
        name: "tenant_sees_its_own",
        sentence: "No table shows a tenant rows without row-level security, also to its owner.",
        sql: "SELECT 'table ' || c.relname, 'security ' || c.relrowsecurity || ', forced ' || c.relforcerowsecurity FROM pg_class c
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
              WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
                AND NOT (c.relrowsecurity AND c.relforcerowsecurity) LIMIT 101",
    },
];

/// Evaluates the invariants over content until a moment, for every tenant that is examined. Where the time does not suffice,
/// another `first` begins with another invariant; any number will do.
///
/// # Errors
/// Database failures, where they keep it from knowing the tenants; later ones leave an invariant unfinished.
pub async fn examine_content(database: &Database, until: Instant, first: usize) -> Result<Examined, Failure> {
    let tenants = database.examined_tenants().await?;
    let mut examined = Examined::default();
    // They read nothing of a tenant's, so any may ask.
    let anyone = [TenantId::of_evaluations()];
    for invariant in OF_EVERYONE {
        examined.judge(invariant.name, until, examine_one(database, invariant, &anyone)).await;
    }
    let before = examined.judged.len();
    for invariant in ALL.iter().cycle().skip(first % ALL.len()).take(ALL.len()) {
        examined.judge(invariant.name, until, examine_one(database, invariant, &tenants)).await;
    }
    examined.in_turn = examined.judged.len() - before;
    Ok(examined)
}

async fn examine_one(
    database: &Database,
    invariant: &'static Invariant,
    tenants: &[TenantId],
) -> Result<Vec<Violation>, Failure> {
    let mut violations = Vec::new();
    for tenant in tenants {
        let read = database.read(*tenant, move |connection| {
            Box::pin(async move { Ok(sqlx::query_as(invariant.sql).fetch_all(connection).await?) })
        });
        let rows: Vec<(String, String)> = read.await?;
        violations.extend(rows.into_iter().map(|row| invariant.violation(row)));
        if violations.len() >= SHOWN_LIMIT {
            break;
        }
    }
    Ok(violations)
}
