//! One page of a listing: its size, where it begins, and the cursor of the next.

use crate::cursor;
use crate::problem::Problem;
use crate::state::ApiState;
use docmill_model::TenantId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Checks a page size: 1 to 200, 50 when absent.
///
/// # Errors
/// `FIELD_INVALID` for any other.
pub fn page_size(limit: Option<i64>) -> Result<i64, Problem> {
    match limit.unwrap_or(50) {
        limit @ 1..=200 => Ok(limit),
        _ => Err(Problem::field("limit", "1 to 200 is expected")),
    }
}

/// A page that was asked for. `P` is what identifies a row's place in the listing.
pub struct Pager<P> {
    /// Where the page before ended; nothing on the first page.
    pub after: Option<P>,
    tenant: TenantId,
    listing: String,
    limit: i64,
}

impl<P: Serialize + DeserializeOwned> Pager<P> {
    /// A page of `listing`, with `limit` and `cursor` as the request has them.
    ///
    /// # Errors
    /// `FIELD_INVALID` for a page size out of range, `CURSOR_INVALID` for a cursor that is not of this listing.
    pub fn new(
        state: &ApiState,
        tenant: TenantId,
        listing: impl Into<String>,
        limit: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<Self, Problem> {
        let (limit, listing) = (page_size(limit)?, listing.into());
        let after = cursor.map(|cursor| cursor::decode(&state.pepper, tenant, &listing, cursor)).transpose()?;
        Ok(Self { after, tenant, listing, limit })
    }

    /// Rows to ask the database for: one more than the page has tells whether another follows.
    pub fn rows(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts the rows to the page; the cursor of the next page, unless this is the last.
    pub fn cut<R>(&self, state: &ApiState, rows: &mut Vec<R>, place: impl FnOnce(&R) -> P) -> Option<String> {
        if rows.len() as i64 <= self.limit {
            return None;
        }
        rows.truncate(self.limit as usize);
        rows.last().map(|row| cursor::encode(&state.pepper, self.tenant, &self.listing, &place(row)))
    }
}
