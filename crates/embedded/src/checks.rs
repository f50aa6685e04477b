//! Checks of whichever Postgres is configured: a wrong one refuses to start with one line that says what to do.
//!
//! Blocking: call from a blocking thread.

use docmill_model::{Code, Failure};
use postgres::{Client, NoTls};
use std::time::{SystemTime, UNIX_EPOCH};

/// Oldest Postgres that is supported, as `server_version_num`.
const MIN_POSTGRES: i32 = 160_000;
/// Largest difference between the clocks here and there, in seconds.
const MAX_SKEW: f64 = 30.0;

/// Checks version, durability settings, clock, pgvector and the roles, as the app and the engine role.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`, or `CONFIG_INVALID` with one line and the fix.
pub fn check_postgres(app_url: &str, engine_url: &str) -> Result<(), Failure> {
    for (role, url) in [("app", app_url), ("engine", engine_url)] {
        let mut client = Client::connect(url, NoTls).map_err(|_| {
            Failure::new(
                Code::DatabaseUnavailable,
                format!("cannot connect to Postgres as the {role} role; check that it runs and the URL is right"),
            )
        })?;
        check_role(&mut client, role)?;
        if role == "app" {
            check_server(&mut client)?;
        }
    }
    Ok(())
}

fn one(client: &mut Client, sql: &str) -> Result<postgres::Row, Failure> {
    client
        .query_one(sql, &[])
        .map_err(|_| Failure::new(Code::ConfigInvalid, "Postgres refused a check; is this a Docmill database?"))
}

fn check_server(client: &mut Client) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::new(Code::ConfigInvalid, message));
    let version: i32 = one(client, "SELECT current_setting('server_version_num')::int")?.get(0);
    if version < MIN_POSTGRES {
        return refuse(format!("Postgres {version} is too old; use 16 or newer"));
    }
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value: String = one(client, &format!("SELECT current_setting('{setting}')"))?.get(0);
        if value == "off" {
            return refuse(format!(
                "Postgres runs with {setting}=off and would lose acknowledged writes; set it to on"
            ));
        }
    }
    let theirs: f64 = one(client, "SELECT extract(epoch FROM clock_timestamp())::float8")?.get(0);
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    if (theirs - ours).abs() > MAX_SKEW {
        let skew = (theirs - ours).round();
        return refuse(format!("the clock of Postgres is {skew} s off this machine's; synchronise both (NTP)"));
    }
    let vector: Option<String> =
        one(client, "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector')")?.get(0);
    match vector.as_deref() {
        None => refuse("the extension pgvector is missing; run CREATE EXTENSION vector as a superuser".into()),
        Some(v) if older_than_0_8(v) => {
            refuse(format!("pgvector {v} is too old for filtered search; use 0.8 or newer"))
        }
        Some(_) => Ok(()),
    }
}

fn older_than_0_8(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (0, 8)
}

fn check_role(client: &mut Client, role: &str) -> Result<(), Failure> {
    let row = one(
        client,
        "SELECT r.rolsuper OR r.rolbypassrls,
                EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relowner = r.oid)
         FROM pg_roles r WHERE r.rolname = current_user",
    )?;
    let (unbound, owner): (bool, bool) = (row.get(0), row.get(1));
    if unbound || owner {
        let why = if unbound { "is superuser or bypasses row-level security" } else { "owns tables" };
        return Err(Failure::new(
            Code::ConfigInvalid,
            format!("the {role} role {why}; use docmill_{role} as made by the migrations' guide"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::older_than_0_8;

    #[test]
    fn pgvector_versions_compare_by_number() {
        assert!(older_than_0_8("0.7.4"));
        assert!(!older_than_0_8("0.8.5"));
        assert!(!older_than_0_8("0.10.0"));
        assert!(!older_than_0_8("1.0"));
    }
}
