//! Freshness: what the age of a document takes from the score of its passages. In the caller's snapshot.

use super::fusion::{Fused, sort};
use super::options::Freshness;
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// Lowers the scores of `fused` by the age of their documents at the time of the transaction, and orders them anew.
pub(super) async fn apply(
    connection: &mut PgConnection,
    fused: &mut [Fused],
    freshness: &Freshness,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = fused.iter().map(|fused| fused.chunk_id.0).collect();
    let rows = sqlx::query(
        "SELECT c.id, d.created_at, d.metadata ->> $2 AS written, now() AS now
         FROM chunks c JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id
         WHERE c.tenant_id = current_tenant() AND c.id = ANY ($1)",
    )
    .bind(ids)
    .bind(&freshness.field)
    .fetch_all(connection)
    .await?;
    let mut kept: HashMap<Uuid, f64> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let written: Option<String> = row.try_get("written")?;
        let (created, now): (OffsetDateTime, OffsetDateTime) = (row.try_get("created_at")?, row.try_get("now")?);
        let date = written.as_deref().and_then(date).unwrap_or(created);
        kept.insert(row.try_get("id")?, freshness.kept((now - date).as_seconds_f64() / 86_400.0));
    }
    for fused in fused.iter_mut() {
        let kept = kept.get(&fused.chunk_id.0).copied().unwrap_or(1.0);
        fused.score *= kept;
        fused.explanation.freshness = Some(kept);
    }
    sort(fused);
    Ok(())
}

/// An RFC 3339 instant, or the beginning of an ISO 8601 day in UTC.
fn date(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    let day = || Date::parse(text, &Iso8601::DATE).ok().map(|day| day.midnight().assume_utc());
    OffsetDateTime::parse(text, &Rfc3339).ok().or_else(day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::date;

    #[test]
    fn days_and_instants_are_dates_and_nothing_else_is() {
        let day = date("2026-03-01").unwrap();
        assert_eq!(date(" 2026-03-01T00:00:00Z "), Some(day));
        assert_eq!(date("2026-03-01T02:00:00+02:00"), Some(day));
        for other in ["", "March 2026", "01.03.2026", "2026", "2026-13-01"] {
            assert_eq!(date(other), None, "{other}");
        }
    }
}
