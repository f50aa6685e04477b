//! API keys: made here, shown once, stored as an HMAC.
//!
//! A key is `dmk_`, 43 random base-62 digits (256 bits) and 6 check digits (CRC-32), so that a mistyped or truncated
//! key is told apart from an unknown one without a look-up. Only HMAC-SHA-256 under the installation's pepper is
//! stored; 256 random bits need no slow hash.

pub mod routes;

use docmill_model::scope::Scope;
use docmill_model::{Code, Failure, KeyId, PrincipalId, TenantId};
use docmill_platform::database::{Database, DbError};
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use sqlx::PgConnection;
use time::OffsetDateTime;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX: &str = "dmk_";
const RANDOM_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;

/// Length of a whole key in characters.
pub const KEY_LENGTH: usize = PREFIX.len() + RANDOM_DIGITS + CHECK_DIGITS;

/// A freshly made key: the only time its text exists outside its owner's hands.
pub struct NewKey {
    /// Identifier for listing and revoking.
    pub id: KeyId,
    /// Who acts with it.
    pub principal_id: PrincipalId,
    /// The key itself.
    pub secret: SecretString,
}

impl NewKey {
    /// The first characters, by which people recognise the key.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.secret.expose_secret()[..PREFIX.len() + 6]
    }
}

/// What to make a key for.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// The tenant.
    pub tenant_id: TenantId,
    /// A name for people.
    pub name: String,
    /// Permissions.
    pub scopes: Vec<Scope>,
    /// Access labels the holder has.
    pub labels: Vec<String>,
    /// End of validity.
    pub expires_at: Option<OffsetDateTime>,
}

/// The text of a new random key.
#[must_use]
pub fn generate() -> SecretString {
    let mut rng = rand::rng();
    let body: String = (0..RANDOM_DIGITS).map(|_| ALPHABET[rng.random_range(0..62)] as char).collect();
    SecretString::from(format!("{PREFIX}{body}{}", check_digits(&body)))
}

fn check_digits(body: &str) -> String {
    let mut crc = u64::from(crc32fast::hash(body.as_bytes()));
    let mut digits = [b'0'; CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(crc % 62) as usize];
        crc /= 62;
    }
    digits.iter().map(|&d| d as char).collect()
}

/// Checks the form of a key without a look-up.
///
/// # Errors
/// `KEY_MALFORMED` when prefix, length, alphabet or check digits are wrong.
pub fn check_form(key: &str) -> Result<(), Failure> {
    let malformed = || Failure::new(Code::KeyMalformed, "the API key is incomplete or mistyped");
    let body = key.strip_prefix(PREFIX).ok_or_else(malformed)?;
    let shaped = body.len() == RANDOM_DIGITS + CHECK_DIGITS && body.bytes().all(|b| b.is_ascii_alphanumeric());
    if shaped && check_digits(&body[..RANDOM_DIGITS]) == body[RANDOM_DIGITS..] { Ok(()) } else { Err(malformed()) }
}

/// The stored form: HMAC-SHA-256 of the key under the pepper.
#[must_use]
pub fn hash(pepper: &SecretString, key: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(pepper.expose_secret().as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(key.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Creates a tenant, or returns the one of this name.
///
/// # Errors
/// Database failures.
pub async fn ensure_tenant(database: &Database, name: &str) -> Result<TenantId, DbError> {
    let id: uuid::Uuid = sqlx::query_scalar(
        "WITH made AS (INSERT INTO tenants (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING RETURNING id)
         SELECT id FROM made UNION ALL SELECT id FROM tenants WHERE name = $2 LIMIT 1",
    )
    .bind(TenantId::fresh().0)
    .bind(name)
    .fetch_one(database.engine())
    .await?;
    Ok(TenantId(id))
}

/// Makes and stores a key with a principal of its own.
///
/// # Errors
/// Database failures.
pub async fn create(database: &Database, pepper: &SecretString, request: KeyRequest) -> Result<NewKey, DbError> {
    let (tenant, pepper) = (request.tenant_id, pepper.clone());
    let write =
        database.write(tenant, move |connection| Box::pin(async move { insert(connection, &pepper, &request).await }));
    write.await
}

/// Makes and stores a key in the current transaction, which must be the tenant's.
///
/// # Errors
/// Database failures.
pub async fn insert(
    connection: &mut PgConnection,
    pepper: &SecretString,
    request: &KeyRequest,
) -> Result<NewKey, DbError> {
    let new = NewKey { id: KeyId::fresh(), principal_id: PrincipalId::fresh(), secret: generate() };
    sqlx::query("INSERT INTO principals (tenant_id, id, kind, subject) VALUES (current_tenant(), $1, 'key', $2)")
        .bind(new.principal_id.0)
        .bind(new.id.to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO api_keys (tenant_id, id, principal_id, name, prefix, hash, scopes, labels, expires_at)
         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.id.0)
    .bind(new.principal_id.0)
    .bind(&request.name)
    .bind(new.prefix())
    .bind(hash(pepper, new.secret.expose_secret()).as_slice())
    .bind(request.scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>())
    .bind(&request.labels)
    .bind(request.expires_at)
    .execute(connection)
    .await?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_form_that_can_be_checked_offline() {
        let key = generate();
        let text = key.expose_secret();
        assert_eq!(text.len(), KEY_LENGTH);
        assert!(check_form(text).is_ok());
        let mut broken = text.to_owned();
        let last = if broken.ends_with('0') { '1' } else { '0' };
        broken.pop();
        broken.push(last);
        for bad in [broken.as_str(), &text[..20], "", "dmk_", &text.replace("dmk_", "abc_")] {
            assert_eq!(check_form(bad).expect_err("malformed").code, Code::KeyMalformed);
        }
    }

    #[test]
    fn the_stored_hash_depends_on_pepper_and_key() {
        let (a, b) = (SecretString::from("pepper-a"), SecretString::from("pepper-b"));
        assert_ne!(hash(&a, "key"), hash(&b, "key"));
        assert_ne!(hash(&a, "key"), hash(&a, "key2"));
    }
}
