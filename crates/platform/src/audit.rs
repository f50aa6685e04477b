//! The audit log: who changed what, one row per change in the transaction of the change, each bound to the one before.
//!
//! `hash` covers the row and the hash before it, so a row that is edited, removed or put elsewhere is found by
//! [`verify`]. The database role that writes may insert and read, never update or delete. Rows hold ids, names of keys
//! and counts; never document text, keys or secrets. Not here: what is worth a row, which whoever makes the change knows.

use crate::database::DbError;
use docmill_model::{Code, Failure, PrincipalId, TenantId};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;

/// Hash before the first row.
const GENESIS: [u8; 32] = [0; 32];
/// Rows read at once by [`verify`].
const VERIFY_PAGE: i64 = 1_000;

/// Writes one row; `principal` is none for what nobody asked for at that moment, like a timer. Call it last in the
/// transaction: rows of one tenant wait for each other until the commit.
///
/// # Errors
/// Database failures.
pub async fn record(
    connection: &mut PgConnection,
    principal: Option<PrincipalId>,
    action: &str,
    subject: &str,
    data: Value,
) -> Result<(), DbError> {
    // Two statements, so that the second one sees what the holder of the lock before has committed, and one way to the
    // server and back while others wait; the time as a number, since such rows come as text, and sqlx reads no time of a
    // whole second from text. The chain is that of the tenant that is acted on, which an operator of the installation need
    // not belong to.
    let rows = sqlx::raw_sql(
        "DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtextextended('audit:' || current_tenant()::text, 0)); END $$;
         SELECT current_tenant() AS tenant, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros,
                last.seq, last.hash FROM (SELECT) AS one
         LEFT JOIN (SELECT seq, hash FROM audit_log WHERE tenant_id = current_tenant() ORDER BY seq DESC LIMIT 1) AS last ON true",
    );
    let row = rows.fetch_one(&mut *connection).await?;
    let (tenant, micros): (uuid::Uuid, i64) = (row.try_get("tenant")?, row.try_get("micros")?);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000);
    let at = at.map_err(|_| Failure::new(Code::Internal, "the database's clock is beyond all years"))?;
    let (seq, hash): (Option<i64>, Option<Vec<u8>>) = (row.try_get("seq")?, row.try_get("hash")?);
    let last = seq.zip(hash);
    let (seq, previous) = last.map_or((1, GENESIS.to_vec()), |(seq, hash)| (seq + 1, hash));
    let principal = principal.map(|principal| principal.0);
    let row = Entry { seq, principal_id: principal, action: action.to_owned(), subject: subject.to_owned(), data, at };
    let hash = row.hash(tenant.into(), &previous);
    sqlx::query(
        "INSERT INTO audit_log (tenant_id, seq, principal_id, action, subject, data, at, previous_hash, hash)
         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(seq)
    .bind(principal)
    .bind(action)
    .bind(subject)
    .bind(&row.data)
    .bind(at)
    .bind(previous)
    .bind(hash.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// A row, less the hashes: what they cover.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Entry {
    /// Number from 1, without gaps.
    pub seq: i64,
    /// Who did it; none for a timer.
    pub principal_id: Option<uuid::Uuid>,
    /// What was done, e.g. `document.delete`.
    pub action: String,
    /// Identifier of what it was done to.
    pub subject: String,
    /// Ids and counts.
    pub data: Value,
    /// When.
    pub at: OffsetDateTime,
}

impl Entry {
    fn hash(&self, tenant: TenantId, previous: &[u8]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let micros = (self.at.unix_timestamp_nanos() / 1_000).to_be_bytes();
        let (seq, data) = (self.seq.to_be_bytes(), canonical(&self.data));
        let principal = self.principal_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let parts: [&[u8]; 8] = [
            previous,
            tenant.0.as_bytes(),
            &seq,
            &principal,
            self.action.as_bytes(),
            self.subject.as_bytes(),
            data.as_bytes(),
            &micros,
        ];
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

/// JSON with sorted keys: what is hashed does not depend on the order a database or a map keeps.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries =
                entries.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

/// The number of the first row that does not fit the chain; `None` when all rows stand as they were written. Rows cut
/// off the end leave no gap to find: compare [`Verified::rows`] with what an earlier check saw.
///
/// # Errors
/// Database failures.
pub async fn verify(connection: &mut PgConnection, tenant: TenantId) -> Result<Verified, DbError> {
    #[derive(sqlx::FromRow)]
    struct Chained {
        #[sqlx(flatten)]
        row: Entry,
        previous_hash: Vec<u8>,
        hash: Vec<u8>,
    }
    let mut verified = Verified { rows: 0, first_broken: None };
    let mut previous = GENESIS.to_vec();
    loop {
        let page: Vec<Chained> = sqlx::query_as(
            "SELECT seq, principal_id, action, subject, data, at, previous_hash, hash FROM audit_log
             WHERE tenant_id = current_tenant() AND seq > $1 ORDER BY seq LIMIT $2",
        )
        .bind(verified.rows)
        .bind(VERIFY_PAGE)
        .fetch_all(&mut *connection)
        .await?;
        if page.is_empty() {
            return Ok(verified);
        }
        for chained in page {
            let is_next = chained.row.seq == verified.rows + 1 && chained.previous_hash == previous;
            if !is_next || chained.row.hash(tenant, &previous) != chained.hash.as_slice() {
                verified.first_broken = Some(verified.rows + 1);
                return Ok(verified);
            }
            (verified.rows, previous) = (chained.row.seq, chained.hash);
        }
    }
}

/// What [`verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Rows that fit the chain, from the first.
    pub rows: i64,
    /// Number of the first row that does not fit or is missing.
    pub first_broken: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_covers_every_field_and_ignores_the_order_of_keys() {
        let tenant = TenantId::fresh();
        let row = |action: &str, data: Value, seq| Entry {
            seq,
            principal_id: None,
            action: action.to_owned(),
            subject: "s".to_owned(),
            data,
            at: OffsetDateTime::UNIX_EPOCH,
        };
        let base = row("a", json!({"x": 1, "y": [true, null]}), 1).hash(tenant, &GENESIS);
        assert_eq!(base, row("a", json!({"y": [true, null], "x": 1}), 1).hash(tenant, &GENESIS));
        for other in [row("b", json!({"x": 1, "y": [true, null]}), 1), row("a", json!({"x": 2, "y": [true, null]}), 1)]
        {
            assert_ne!(base, other.hash(tenant, &GENESIS));
        }
        assert_ne!(base, row("a", json!({"x": 1, "y": [true, null]}), 2).hash(tenant, &GENESIS));
        assert_ne!(base, row("a", json!({"x": 1, "y": [true, null]}), 1).hash(tenant, &[1; 32]));
        assert_ne!(base, row("a", json!({"x": 1, "y": [true, null]}), 1).hash(TenantId::fresh(), &GENESIS));
    }
}
