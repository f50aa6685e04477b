//! Roles, databases and migrations, over the synchronous driver.
//!
//! Blocking: call from a blocking thread. Migrations are the committed SQL files, embedded in the binary, applied in
//! order, each in one transaction under an advisory lock, and recorded with their hash.

use docmill_model::{Code, Failure, Sha256Hex};
use postgres::{Client, NoTls};

const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_foundation", include_str!("../../../migrations/0001_foundation.sql")),
    (
        "0002_texts_stand_while_they_are_quoted",
        include_str!("../../../migrations/0002_texts_stand_while_they_are_quoted.sql"),
    ),
    (
        "0003_versions_carry_what_they_declare",
        include_str!("../../../migrations/0003_versions_carry_what_they_declare.sql"),
    ),
    (
        "0004_embedding_spaces_stand_beside_each_other",
        include_str!("../../../migrations/0004_embedding_spaces_stand_beside_each_other.sql"),
    ),
    ("0005_schedules", include_str!("../../../migrations/0005_schedules.sql")),
    ("0006_searches_know_what_changed", include_str!("../../../migrations/0006_searches_know_what_changed.sql")),
    (
        "0007_the_backlog_costs_what_is_open",
        include_str!("../../../migrations/0007_the_backlog_costs_what_is_open.sql"),
    ),
    ("0008_refused_texts_are_known", include_str!("../../../migrations/0008_refused_texts_are_known.sql")),
    ("0009_rollouts_rest_on_evaluations", include_str!("../../../migrations/0009_rollouts_rest_on_evaluations.sql")),
    (
        "0010_ended_replays_keep_counts_of_what_they_skipped",
        include_str!("../../../migrations/0010_ended_replays_keep_counts_of_what_they_skipped.sql"),
    ),
    ("0011_a_sample_is_run_and_not_shown", include_str!("../../../migrations/0011_a_sample_is_run_and_not_shown.sql")),
];

/// Serialises concurrent migrations of one database.
const MIGRATION_LOCK: i64 = 0x646f_636d_696c_6c00;

fn connect(url: &str) -> Result<Client, Failure> {
    Client::connect(url, NoTls).map_err(|_| {
        Failure::new(Code::DatabaseUnavailable, "cannot connect to Postgres; check that it runs and the URL is right")
    })
}

fn failed(what: &str, error: &postgres::Error) -> Failure {
    let state = error
        .as_db_error()
        .map_or_else(|| "connection lost".to_owned(), |db| format!("{}: {}", db.code().code(), db.message()));
    Failure::new(Code::ConfigInvalid, format!("{what}: {state}"))
}

/// Creates the three roles (or sets their passwords).
///
/// # Errors
/// `DATABASE_UNAVAILABLE` or `CONFIG_INVALID`.
pub fn create_roles(admin_url: &str, passwords: &[(&str, String)]) -> Result<(), Failure> {
    let mut client = connect(admin_url)?;
    for (role, password) in passwords {
        let exists = client
            .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[role])
            .map_err(|e| failed("reading roles", &e))?;
        if exists.is_none() {
            // Role names are constants of this crate and passwords are hex digits made by it.
            let sql = format!(
                "CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD '{password}'"
            );
            client.batch_execute(&sql).map_err(|e| failed("creating a role", &e))?;
        }
    }
    Ok(())
}

/// Creates database `name` owned by `docmill_owner`, from `template` or empty with pgvector. False when it exists.
///
/// # Errors
/// `CONFIG_INVALID` when the server refuses.
pub fn create_database(admin_url: &str, name: &str, template: Option<&str>) -> Result<bool, Failure> {
    let mut client = connect(admin_url)?;
    let exists = client
        .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
        .map_err(|e| failed("reading databases", &e))?;
    if exists.is_some() {
        return Ok(false);
    }
    let template = template.map(|t| format!(" TEMPLATE \"{t}\" STRATEGY FILE_COPY")).unwrap_or_default();
    client
        .batch_execute(&format!("CREATE DATABASE \"{name}\" OWNER docmill_owner{template}"))
        .map_err(|e| failed("creating a database", &e))?;
    Ok(true)
}

/// Creates the extension in the database `admin_url` names; needs a superuser.
///
/// # Errors
/// `CONFIG_INVALID` when pgvector is not installed.
pub fn create_extension(admin_url: &str) -> Result<(), Failure> {
    connect(admin_url)?
        .batch_execute("CREATE EXTENSION IF NOT EXISTS vector")
        .map_err(|e| failed("creating the extension vector", &e))
}

/// Drops a database, ending its connections.
///
/// # Errors
/// `CONFIG_INVALID` when the server refuses.
pub fn drop_database(admin_url: &str, name: &str) -> Result<(), Failure> {
    connect(admin_url)?
        .batch_execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"))
        .map_err(|e| failed("dropping a database", &e))
}

/// Names of the databases that start with `prefix`, oldest first.
///
/// # Errors
/// `DATABASE_UNAVAILABLE` or `CONFIG_INVALID`.
pub fn names(admin_url: &str, prefix: &str) -> Result<Vec<String>, Failure> {
    let rows = connect(admin_url)?
        .query("SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY oid", &[&prefix]);
    Ok(rows.map_err(|e| failed("reading databases", &e))?.iter().map(|row| row.get(0)).collect())
}

/// Renames a database nobody is connected to.
///
/// # Errors
/// `CONFIG_INVALID` when the server refuses.
pub fn rename_database(admin_url: &str, from: &str, to: &str) -> Result<(), Failure> {
    connect(admin_url)?
        .batch_execute(&format!("ALTER DATABASE \"{from}\" RENAME TO \"{to}\""))
        .map_err(|e| failed("renaming a database", &e))
}

/// Applies the migrations that are missing and returns their names.
///
/// # Errors
/// `CONFIG_INVALID` when an applied migration was changed or is unknown to this build, or SQL fails.
pub fn migrate(owner_url: &str) -> Result<Vec<String>, Failure> {
    let mut client = connect(owner_url)?;
    let sql = |e: postgres::Error| failed("migrating", &e);
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).map_err(sql)?;
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations
             (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .map_err(sql)?;
    let applied: Vec<(String, String)> = client
        .query("SELECT name, sha256 FROM schema_migrations ORDER BY name", &[])
        .map_err(sql)?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    check_applied(&applied)?;
    let mut done = Vec::new();
    for (name, text) in MIGRATIONS.iter().filter(|(name, _)| !applied.iter().any(|(a, _)| a == name)) {
        let mut transaction = client.transaction().map_err(sql)?;
        transaction.batch_execute(text).map_err(|e| failed(&format!("migration {name}"), &e))?;
        let hash = Sha256Hex::of(text.as_bytes()).to_string();
        transaction
            .execute("INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", &[name, &hash])
            .map_err(sql)?;
        transaction.commit().map_err(sql)?;
        done.push((*name).to_owned());
    }
    Ok(done)
}

fn check_applied(applied: &[(String, String)]) -> Result<(), Failure> {
    for (name, hash) in applied {
        let known = MIGRATIONS.iter().find(|(n, _)| n == name);
        let Some((_, text)) = known else {
            return Err(Failure::new(
                Code::ConfigInvalid,
                format!("the database has migration {name}, which this build does not know; use a newer build"),
            ));
        };
        if Sha256Hex::of(text.as_bytes()).as_str() != hash {
            return Err(Failure::new(
                Code::ConfigInvalid,
                format!(
                    "migration {name} was changed after it was applied; restore the file, or `docmill reset` an embedded stack"
                ),
            ));
        }
    }
    Ok(())
}

/// The hash over all migrations: names a template database in tests.
#[must_use]
pub fn schema_hash() -> String {
    let all: String = MIGRATIONS.iter().map(|(name, text)| format!("{name}\n{text}\n")).collect();
    Sha256Hex::of(all.as_bytes()).as_str()[..16].to_owned()
}
