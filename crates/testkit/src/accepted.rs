//! A version whose bytes have arrived, written as the API writes it, for tests that begin after an upload.

use docmill_model::{DocumentId, Sha256Hex, VersionId};
use sqlx::PgConnection;

/// What is known of an upload that is complete.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The document; entered when it is not there.
    pub document: DocumentId,
    /// The version, which is new.
    pub version: VersionId,
    /// Number of the version, from 1.
    pub number: i32,
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Bytes.
    pub size: i64,
    /// Of the bytes.
    pub sha256: Sha256Hex,
    /// Where the bytes are in the store.
    pub key: String,
    /// Version of the pipeline that is to process it, which is registered.
    pub pipeline_version: String,
}

impl Accepted {
    /// The first version of a document nobody reads: one byte, nowhere.
    #[must_use]
    pub fn unread(document: DocumentId, pipeline_version: &str) -> Self {
        Self {
            document,
            version: VersionId::fresh(),
            number: 1,
            name: "unread.txt".to_owned(),
            content_type: "text/plain".to_owned(),
            size: 1,
            sha256: Sha256Hex::of(document.0.as_bytes()),
            key: "a".to_owned(),
            pipeline_version: pipeline_version.to_owned(),
        }
    }

    /// Enters it for the current tenant. No run is started.
    ///
    /// # Errors
    /// The driver's.
    pub async fn insert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO documents (tenant_id, id, name) VALUES (current_tenant(), $1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(self.document.0)
        .bind(&self.name)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO document_versions (tenant_id, id, document_id, number, content_type, size_bytes, sha256, pipeline_version,
                 upload_state, upload_key, upload_expires_at, accepted_key, accepted_at, name)
             VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, 'accepted', 'u', now() + interval '1 hour', $8, now(), $9)",
        )
        .bind(self.version.0)
        .bind(self.document.0)
        .bind(self.number)
        .bind(&self.content_type)
        .bind(self.size)
        .bind(self.sha256.as_str())
        .bind(&self.pipeline_version)
        .bind(&self.key)
        .bind(&self.name)
        .execute(connection)
        .await?;
        Ok(())
    }
}
