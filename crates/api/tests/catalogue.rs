//! What the database itself enforces, read from its catalogue: the tenant boundary does not rest on handlers.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_testkit::World;
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection, Row};

/// Tables of the installation rather than of a tenant.
const SHARED: [&str; 13] = [
    "active_spaces",
    "embedding_spaces",
    "index_nodes",
    "parked_events",
    "pipeline_versions",
    "prompt_evaluations",
    "prompt_rollouts",
    "prompt_versions",
    "schema_migrations",
    "space_drops",
    "space_indexes",
    "pauses",
    "tenant_deletions",
];
/// Tables whose key does not lead with the tenant: a queue's order, a counter per node, the tenants themselves.
const OTHER_KEYS: [&str; 3] = ["outbox", "index_watermarks", "tenants"];

async fn owner(world: &World) -> PgConnection {
    PgConnection::connect(world.owner_url.expose_secret()).await.unwrap()
}

async fn names(connection: &mut PgConnection, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenant_table_is_bound_by_policy() {
    let world = docmill_testkit::world().await;
    let mut owner = owner(&world).await;
    let rows = sqlx::query(
        "SELECT c.relname::text AS name, c.relrowsecurity, c.relforcerowsecurity,
                EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull) AS has_tenant,
                (SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                 WHERE i.indrelid = c.oid AND i.indisprimary) AS leading_key,
                EXISTS (SELECT 1 FROM pg_policies p WHERE p.tablename = c.relname AND 'docmill_app' = ANY (p.roles) AND p.cmd = 'ALL'
                        AND p.permissive = 'PERMISSIVE' AND p.qual LIKE '%current_tenant()%' AND p.with_check LIKE '%current_tenant()%') AS is_bound,
                (SELECT count(*) FROM pg_policies p WHERE p.tablename = c.relname AND 'docmill_app' = ANY (p.roles)) AS app_policies,
                EXISTS (SELECT 1 FROM pg_policies p WHERE p.tablename = c.relname AND 'public' = ANY (p.roles)) AS has_public_policy
         FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(rows.len() > 25, "only {} tables", rows.len());
    for row in rows {
        let name: String = row.get("name");
        if SHARED.contains(&name.as_str()) {
            assert!(!row.get::<bool, _>("has_tenant"), "{name} holds tenants' rows and is not bound");
            continue;
        }
        assert!(row.get::<bool, _>("has_tenant") || name == "tenants", "{name} has no tenant");
        assert!(
            row.get::<bool, _>("relrowsecurity") && row.get::<bool, _>("relforcerowsecurity"),
            "{name}: ENABLE and FORCE"
        );
        assert!(row.get::<bool, _>("is_bound"), "{name}: a policy with USING and WITH CHECK");
        assert_eq!(row.get::<i64, _>("app_policies"), 1, "{name}: one policy, so that none widens another");
        assert!(!row.get::<bool, _>("has_public_policy"), "{name}: no policy for everybody");
        let key: Option<String> = row.get("leading_key");
        assert!(
            key.as_deref() == Some("tenant_id") || OTHER_KEYS.contains(&name.as_str()),
            "{name}: key leads with {key:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_of_the_services_own_nothing_and_bypass_nothing() {
    let world = docmill_testkit::world().await;
    let mut owner = owner(&world).await;
    let roles = names(
        &mut owner,
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('docmill_app', 'docmill_engine') AND rolcanlogin AND NOT rolsuper
         AND NOT rolbypassrls AND NOT rolcreaterole AND NOT rolcreatedb AND NOT rolreplication ORDER BY 1",
    )
    .await;
    assert_eq!(roles, ["docmill_app", "docmill_engine"]);
    let owned = "SELECT c.relname::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
                 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'S', 'p') AND r.rolname <> 'docmill_owner'";
    assert!(names(&mut owner, owned).await.is_empty(), "every table is the owner's");
    let member = "SELECT m.member::regrole::text FROM pg_auth_members m
                  WHERE m.member::regrole::text IN ('docmill_app', 'docmill_engine')";
    assert!(names(&mut owner, member).await.is_empty(), "no membership lends rights");
    let definer = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef";
    assert!(names(&mut owner, definer).await.is_empty(), "no SECURITY DEFINER");
    let views =
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
                 AND NOT coalesce(reloptions::text LIKE '%security_invoker=true%', false)";
    assert!(names(&mut owner, views).await.is_empty(), "views run as their caller");
    let creates = "SELECT r::text FROM unnest(ARRAY['docmill_app', 'docmill_engine']) r
                   WHERE has_schema_privilege(r, 'public', 'CREATE')";
    assert!(names(&mut owner, creates).await.is_empty(), "the services create nothing");
    let rewrite =
        "SELECT t || ' ' || p FROM unnest(ARRAY['audit_log']) t, unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) p
                   WHERE has_table_privilege('docmill_app', t, p) OR has_table_privilege('docmill_engine', t, p)";
    assert!(names(&mut owner, rewrite).await.is_empty(), "the audit log is append-only");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_role_reads_no_text() {
    let world = docmill_testkit::world().await;
    let mut owner = owner(&world).await;
    let readable = names(
        &mut owner,
        "SELECT DISTINCT table_name || '.' || column_name FROM information_schema.columns
         WHERE table_schema = 'public' AND has_column_privilege('docmill_engine', format('%I.%I', table_schema, table_name)::regclass, column_name, 'SELECT')
           AND (table_name IN ('chunks', 'vectors', 'extractions', 'summaries', 'answers', 'webhook_endpoints', 'document_events',
                               'idempotency_keys', 'audit_log', 'stage_cache', 'ledger', 'answer_feedback', 'conversations',
                               'conversation_messages', 'model_cache', 'condemned')
                OR (table_name, column_name) IN (('documents', 'name'), ('documents', 'metadata'), ('documents', 'external_id'),
                    ('documents', 'labels'), ('documents', 'origin_path'), ('document_versions', 'title'), ('deliveries', 'payload'),
                    ('deletions', 'subject')))",
    )
    .await;
    assert!(readable.is_empty(), "the engine role can read {readable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tenant_nothing_is_seen_and_nothing_foreign_is_written() {
    let api = support::Api::start().await;
    let (a, b) = (api.tenant().await, api.tenant().await);
    support::publish(&api, &a, "a.txt", &["Some words."]).await;
    let mut app = PgConnection::connect(api.world.app_url.expose_secret()).await.unwrap();
    let tables = names(
        &mut app,
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant_id'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT')",
    )
    .await;
    assert!(tables.len() > 15);
    for table in &tables {
        let counted: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut app)
            .await
            .unwrap();
        assert_eq!(counted, 0, "{table} is seen without a tenant");
    }
    // As B: A's rows are not there, and a row for A cannot be written or moved.
    sqlx::query("SELECT set_config('docmill.tenant', $1, false)")
        .bind(b.id.to_string())
        .execute(&mut app)
        .await
        .unwrap();
    let foreign: i64 = sqlx::query_scalar("SELECT count(*) FROM documents").fetch_one(&mut app).await.unwrap();
    assert_eq!(foreign, 0);
    let write =
        sqlx::query("INSERT INTO documents (tenant_id, id, name) VALUES ($1, gen_random_uuid(), 'x')").bind(a.id.0);
    let refused = write.execute(&mut app).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"));
    let moved = sqlx::query("UPDATE documents SET name = 'x' WHERE tenant_id = $1")
        .bind(a.id.0)
        .execute(&mut app)
        .await
        .unwrap();
    assert_eq!(moved.rows_affected(), 0);
    let pause = sqlx::query("INSERT INTO pauses (kind, subject) VALUES ('tenant', $1)").bind(a.id.to_string());
    assert!(pause.execute(&mut app).await.is_err(), "a tenant stops no other");
}
