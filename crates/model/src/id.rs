//! Newtype identifiers. All are UUIDs; time-ordered (v7) where a row is created by an event in the world,
//! derived from content (v8 over SHA-256) where two runs must produce the same identity.

use sha2::{Digest, Sha256};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
                 schemars::JsonSchema, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A fresh, time-ordered identifier (UUID v7).
            #[must_use]
            pub fn fresh() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

ids! {
    /// The boundary nothing crosses: every content row belongs to one tenant.
    TenantId,
    /// Who acts: the owner of an API key or an OIDC subject, within one tenant.
    PrincipalId,
    /// One API key.
    KeyId,
    /// A document: a name in a collection that has versions.
    DocumentId,
    /// One uploaded set of bytes of a document.
    VersionId,
    /// One processing of one version by one pinned pipeline version.
    RunId,
    /// One stage (and shard) of one run.
    JobId,
    /// The set of chunks of a version that becomes visible at one commit. Derived from content.
    GenerationId,
    /// One chunk of one generation. Derived from content.
    ChunkId,
    /// One stored answer.
    AnswerId,
    /// One conversation: questions that refer to earlier ones.
    ConversationId,
    /// One webhook endpoint.
    EndpointId,
    /// One notification to one endpoint; the stable `webhook-id`.
    DeliveryId,
}

impl TenantId {
    /// The reserved tenant of evaluations: nothing else reads or writes its rows, and they need not be whole.
    #[must_use]
    pub fn of_evaluations() -> Self {
        Self(derived_uuid(&[b"docmill", b"evaluation tenant"]))
    }
}

/// A UUID (v8) over the SHA-256 of length-prefixed `parts`: equal parts, equal id, on every machine.
#[must_use]
pub fn derived_uuid(parts: &[&[u8]]) -> uuid::Uuid {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::derived_uuid;

    #[test]
    fn derived_ids_depend_on_every_part_and_its_boundary() {
        assert_eq!(derived_uuid(&[b"a", b"bc"]), derived_uuid(&[b"a", b"bc"]));
        assert_ne!(derived_uuid(&[b"a", b"bc"]), derived_uuid(&[b"ab", b"c"]));
        assert_eq!(derived_uuid(&[b"a"]).get_version_num(), 8);
    }
}
