//! Who is asking: the bearer key becomes a [`Principal`] before any handler runs.
//!
//! A handler names the scope it needs by the extractor it takes; without one it cannot see a tenant. Revocation takes
//! effect at the next request: nothing about a key is cached.

use crate::problem::Problem;
use crate::state::ApiState;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use docmill_model::scope::Scope;
use docmill_model::{Code, KeyId, PrincipalId, TenantId};
use docmill_retrieval::Caller;

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The tenant all its work is bound to.
    pub tenant_id: TenantId,
    /// Who it is.
    pub principal_id: PrincipalId,
    /// The key that was shown.
    pub key_id: KeyId,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Access labels it holds.
    pub labels: Vec<String>,
}

impl Principal {
    /// True when it holds the scope.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The same identity as retrieval knows it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { tenant_id: self.tenant_id, principal_id: self.principal_id, labels: self.labels.clone() }
    }

    /// Passes a caller that holds one of `scopes`.
    fn require(self, scopes: &[Scope]) -> Result<Self, Problem> {
        if scopes.iter().any(|scope| self.may(*scope)) {
            return Ok(self);
        }
        let names: Vec<String> = scopes.iter().map(|scope| format!("`{}`", scope.as_str())).collect();
        Err(Problem::new(Code::ScopeMissing, format!("this needs the scope {}", names.join(" or "))))
    }
}

async fn authenticate(parts: &Parts, state: &ApiState) -> Result<Principal, Problem> {
    let header = parts.headers.get(axum::http::header::AUTHORIZATION);
    let Some(header) = header else {
        return Err(Problem::new(Code::KeyMissing, "the request has no API key"));
    };
    let malformed = || Problem::new(Code::KeyMalformed, "the Authorization header is not `Bearer <api key>`");
    let text = header.to_str().map_err(|_| malformed())?;
    let (scheme, key) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    let key = key.trim();
    crate::keys::check_form(key)?;
    let principal = look_up(state, &crate::keys::hash(&state.pepper, key)).await?;
    state.limits.check(&principal)?;
    Ok(principal)
}

async fn look_up(state: &ApiState, hash: &[u8; 32]) -> Result<Principal, Problem> {
    #[derive(sqlx::FromRow)]
    struct Row {
        tenant_id: uuid::Uuid,
        id: uuid::Uuid,
        principal_id: uuid::Uuid,
        scopes: Vec<String>,
        labels: Vec<String>,
        live: bool,
        stale: bool,
    }
    let row: Option<Row> = sqlx::query_as(
        "SELECT tenant_id, id, principal_id, scopes, labels,
                revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS live,
                last_used_at IS NULL OR last_used_at < now() - interval '1 minute' AS stale
         FROM api_keys WHERE hash = $1",
    )
    .bind(hash.as_slice())
    .fetch_optional(state.database.engine())
    .await?;
    let row = row.filter(|row| row.live);
    let row = row.ok_or_else(|| Problem::new(Code::KeyRevoked, "the API key is unknown, expired or revoked"))?;
    if row.stale {
        sqlx::query("UPDATE api_keys SET last_used_at = now() WHERE tenant_id = $1 AND id = $2")
            .bind(row.tenant_id)
            .bind(row.id)
            .execute(state.database.engine())
            .await?;
    }
    Ok(Principal {
        tenant_id: row.tenant_id.into(),
        principal_id: row.principal_id.into(),
        key_id: row.id.into(),
        scopes: row.scopes.iter().filter_map(|s| Scope::parse(s)).collect(),
        labels: row.labels,
    })
}

macro_rules! scoped {
    ($($(#[$doc:meta])* $name:ident => $($scope:ident)|+),+ $(,)?) => {$(
        $(#[$doc])*
        pub struct $name(pub Principal);

        impl FromRequestParts<ApiState> for $name {
            type Rejection = Problem;
            async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
                authenticate(parts, state).await?.require(&[$(Scope::$scope),+]).map($name)
            }
        }
    )+};
}

scoped! {
    /// A caller that may create and delete documents.
    Uploader => Upload,
    /// A caller that may see which documents there are, not what they say.
    Viewer => Upload | Query | ContentRead,
    /// A caller that may search and ask.
    Asker => Query,
    /// A caller that may see and steer jobs.
    Operator => Operate,
    /// A caller that may see what was used.
    Overseer => Operate | Admin,
    /// A caller that may read the text of documents.
    Reader => ContentRead,
    /// A caller that may manage keys, endpoints and settings.
    Administrator => Admin,
    /// Any caller with a valid key.
    Anyone => Upload | Query | Operate | ContentRead | Admin,
}
