//! The signature of Standard Webhooks 1.0: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docmill_model::{Code, Failure};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

const PREFIX: &str = "whsec_";

/// A new signing secret of 32 random bytes.
#[must_use]
pub fn fresh_secret() -> SecretString {
    let key: [u8; 32] = rand::random();
    format!("{PREFIX}{}", STANDARD.encode(key)).into()
}

/// True for `whsec_` and base64 of 24 to 64 bytes.
#[must_use]
pub fn is_secret(secret: &SecretString) -> bool {
    key(secret).is_ok()
}

/// The signature of one message.
///
/// # Errors
/// `CONFIG_INVALID` when the secret is not `whsec_` and base64 of 24 to 64 bytes.
pub fn sign(secret: &SecretString, id: &str, timestamp: i64, body: &[u8]) -> Result<String, Failure> {
    signature(&key(secret)?, id, timestamp, body)
}

fn signature(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> Result<String, Failure> {
    let unusable = |_| Failure::new(Code::ConfigInvalid, "a webhook secret cannot be used as a key");
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(unusable)?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

fn key(secret: &SecretString) -> Result<Vec<u8>, Failure> {
    let encoded = secret.expose_secret().strip_prefix(PREFIX);
    let key = encoded.and_then(|encoded| STANDARD.decode(encoded).ok()).filter(|key| (24..=64).contains(&key.len()));
    key.ok_or_else(|| Failure::new(Code::ConfigInvalid, "a webhook secret is `whsec_` and base64 of 24 to 64 bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// From the reference libraries of Standard Webhooks and of its origin, Svix.
    #[test]
    fn the_published_vectors_hold() {
        let vectors = [
            (
                "whsec_plJ3nmyCDGBKInavdOK15jsl",
                "msg_loFOjxBNrRLzqYUf",
                1_731_705_121,
                r#"{"event_type":"ping","data":{"success":true}}"#,
                "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ];
        for (secret, id, timestamp, body, expected) in vectors {
            let key = STANDARD.decode(&secret[PREFIX.len()..]).unwrap();
            assert_eq!(signature(&key, id, timestamp, body.as_bytes()).unwrap(), expected);
            // One key is published with 18 bytes, less than the specification's 24: not one we would register.
            assert_eq!(sign(&secret.into(), id, timestamp, body.as_bytes()).is_ok(), key.len() >= 24);
        }
    }

    #[test]
    fn secrets_are_told_from_other_strings() {
        assert!(is_secret(&fresh_secret()));
        assert_ne!(fresh_secret().expose_secret(), fresh_secret().expose_secret());
        for bad in ["", "whsec_", "whsec_short", "whsec_!!!!", "plJ3nmyCDGBKInavdOK15jslplJ3nmyCDGBKInavdOK15jsl"] {
            assert!(!is_secret(&bad.into()), "{bad}");
        }
    }
}
