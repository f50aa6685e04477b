//! Opaque page cursors, bound to the tenant and the listing by an HMAC: an edited or foreign cursor is refused.

use crate::problem::Problem;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use docmill_model::{Code, TenantId};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

const TAG_BYTES: usize = 16;

fn tag(pepper: &SecretString, tenant: TenantId, listing: &str, body: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(pepper.expose_secret().as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(b"cursor\0");
    mac.update(tenant.0.as_bytes());
    mac.update(listing.as_bytes());
    mac.update(body);
    mac.finalize().into_bytes()[..TAG_BYTES].to_vec()
}

/// A cursor that carries `position` of `listing`.
pub fn encode<T: Serialize>(pepper: &SecretString, tenant: TenantId, listing: &str, position: &T) -> String {
    let body = serde_json::to_vec(position).unwrap_or_default();
    let mut bytes = tag(pepper, tenant, listing, &body);
    bytes.extend(body);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position in a cursor.
///
/// # Errors
/// `CURSOR_INVALID` when it was edited, is of another tenant or of another listing.
pub fn decode<T: DeserializeOwned>(
    pepper: &SecretString,
    tenant: TenantId,
    listing: &str,
    cursor: &str,
) -> Result<T, Problem> {
    let invalid = || Problem::new(Code::CursorInvalid, "the cursor is not one this listing gave out");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    if bytes.len() < TAG_BYTES {
        return Err(invalid());
    }
    let (seen, body) = bytes.split_at(TAG_BYTES);
    if seen != tag(pepper, tenant, listing, body) {
        return Err(invalid());
    }
    serde_json::from_slice(body).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_only_for_its_tenant_and_listing() {
        let (pepper, tenant) = (SecretString::from("pepper"), TenantId::fresh());
        let cursor = encode(&pepper, tenant, "documents", &(7, "x"));
        assert_eq!(decode::<(i32, String)>(&pepper, tenant, "documents", &cursor).expect("good"), (7, "x".to_owned()));
        let edited = format!("{}A", &cursor[..cursor.len() - 1]);
        for (tenant, listing, cursor) in
            [(TenantId::fresh(), "documents", &cursor), (tenant, "events", &cursor), (tenant, "documents", &edited)]
        {
            let problem = decode::<(i32, String)>(&pepper, tenant, listing, cursor).expect_err("refused");
            assert_eq!(problem.failure().code, Code::CursorInvalid);
        }
    }
}
