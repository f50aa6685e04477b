//! Writing a declaration: the document, its new version, or the version that already holds the bytes or waits for them.

use super::create::{CreateDocument, Created, Upload};
use crate::audit;
use crate::auth::Principal;
use docmill_lifecycle::UPLOAD_TTL;
use docmill_model::{Code, DocumentId, Failure, Sha256Hex, VersionId};
use docmill_platform::artifacts::lock_accepted;
use docmill_platform::blobs::{Blobs, PresignPut};
use docmill_platform::database::DbError;
use docmill_platform::feed::{self, Op};
use docmill_platform::layout::upload_key;
use docmill_runtime::pipeline::Pipeline;
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;

/// How long a declared upload waits for `complete` before it expires.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How a version stands that was declared before with the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Declared exactly so; its bytes have not come yet.
    Open,
    /// The bytes are here, described as now.
    Held,
    /// The bytes are here under another description.
    HeldDescribedOtherwise,
}

/// A valid declaration about to be written.
pub(super) struct Declaration<'a> {
    pub principal: &'a Principal,
    pub request: &'a CreateDocument,
    pub sha256: Sha256Hex,
    pub version_id: VersionId,
    pub pipeline: Arc<Pipeline>,
    pub traceparent: Option<String>,
    pub blobs: Arc<dyn Blobs>,
}

impl Declaration<'_> {
    /// Writes the version and its document, or finds the version that already holds these bytes or was declared exactly so
    /// and waits for them: status and body of the reply.
    pub async fn declare(self, connection: &mut PgConnection) -> Result<(u16, serde_json::Value), DbError> {
        lock_accepted(connection, self.sha256.as_str()).await?;
        let existing = match self.existing(connection).await? {
            Some((held, Standing::Held)) => return reply(200, &held),
            Some((held, Standing::HeldDescribedOtherwise)) => {
                self.describe(connection, &held).await?;
                return reply(200, &held);
            }
            Some((open, Standing::Open)) => Some(open),
            None => None,
        };
        self.check_size(connection).await?;
        if let Some(open) = existing
            && self.renew(connection, open.version_id).await?
        {
            return reply(201, &Created { upload: Some(self.sign(open.version_id).await?), ..open });
        }
        let (document, state) = self.document(connection).await?;
        let version = self.version(connection, document).await?;
        let created = Created {
            id: document,
            version_id: self.version_id,
            version,
            state,
            deduplicated: false,
            upload: Some(self.sign(self.version_id).await?),
        };
        let data = json!({"version_id": self.version_id, "size_bytes": self.request.size, "sha256": self.sha256});
        audit::record(connection, self.principal, "document.create", &document.to_string(), data).await?;
        reply(201, &created)
    }

    /// Where the bytes go. Signing is arithmetic: it waits for nobody.
    async fn sign(&self, version: VersionId) -> Result<Upload, Failure> {
        let signed = self.blobs.presign_put(PresignPut {
            key: upload_key(self.principal.tenant_id, version),
            size_bytes: self.request.size as u64,
            sha256: self.sha256.clone(),
            content_type: self.request.content_type.clone(),
            expires: UPLOAD_TTL,
        });
        let signed = signed.await.map_err(Failure::from)?;
        Ok(Upload { url: signed.url, method: signed.method, headers: signed.headers, expires_at: signed.expires_at })
    }

    async fn check_size(&self, connection: &mut PgConnection) -> Result<(), DbError> {
        let limit: i64 = sqlx::query_scalar("SELECT max_file_bytes FROM tenants WHERE id = current_tenant()")
            .fetch_one(connection)
            .await?;
        if self.request.size > limit {
            let (limit, size) = (limit as u64, self.request.size as u64);
            return Err(Failure::limit(
                Code::SizeLimit,
                "the file is larger than the tenant's limit in bytes",
                limit,
                size,
            )
            .into());
        }
        Ok(())
    }

    /// The version that already holds these bytes: the newest one under the external id; without one, that of a document
    /// of the collection with the same labels and, where some are given, the same metadata. A failed document counts too:
    /// a failure is remembered, not uploaded for ever. Another pipeline is another result, and so another version.
    ///
    /// Failing that, the newest version of a document that was declared exactly so and still waits for its bytes: whoever
    /// declares again since an answer or the upload was lost goes on with it, and leaves none behind that waits in vain.
    ///
    /// With what is held, whether it is described already as declared now, in the version and, where the version is the
    /// visible one, in the document. Then no row is locked or written: what every rerun of an unchanged corpus does needs
    /// no flush of the log, and leaves no dead row behind.
    async fn existing(&self, connection: &mut PgConnection) -> Result<Option<(Created, Standing)>, DbError> {
        // Bytes are rare, documents of a collection are many, and a new tenant's tables have no statistics yet that would
        // say so: the versions with these bytes come first, whatever the planner believes. Planned at each call, since a
        // plan that was kept from when the table was small would read all of it.
        let row: Option<(uuid::Uuid, uuid::Uuid, i32, String, bool, bool)> = sqlx::query_as(
            "WITH same AS MATERIALIZED (
                SELECT tenant_id, id, document_id, number, pipeline_version, name, metadata, labels,
                       upload_state = 'pending' AS is_open
                FROM document_versions
                WHERE tenant_id = current_tenant() AND sha256 = $2 AND size_bytes = $9
                  AND (upload_state = 'accepted'
                       OR (upload_state = 'pending' AND (content_type, pipeline_version) = ($10, $11)
                           AND (name, metadata, labels) IS NOT DISTINCT FROM ($8::text, coalesce($7, '{}'), $6))))
             SELECT d.id, v.id, v.number, d.state, v.is_open,
                    (v.name, v.metadata, v.labels) IS NOT DISTINCT FROM ($8::text, coalesce($7, v.metadata), $6)
                    AND (d.visible_version <> v.id
                         OR (d.name, d.metadata, d.labels) IS NOT DISTINCT FROM ($8::text, coalesce($7, d.metadata), $6)) IS TRUE
             FROM same v
             JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
             JOIN pipeline_versions p ON p.version = v.pipeline_version
             WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND d.collection = $1
               AND d.external_id IS NOT DISTINCT FROM $3
               AND (d.labels = '{}' OR d.labels && $4) AND p.name = $5
               AND ($3 IS NOT NULL OR (d.labels @> $6 AND d.labels <@ $6 AND d.metadata = coalesce($7, d.metadata)))
               AND NOT EXISTS (SELECT 1 FROM document_versions n WHERE n.tenant_id = v.tenant_id
                               AND n.document_id = v.document_id AND n.number > v.number AND (v.is_open OR n.upload_state = 'accepted'))
             ORDER BY v.is_open, d.created_at LIMIT 1",
        )
        .persistent(false)
        .bind(self.request.collection.as_deref().unwrap_or("default"))
        .bind(self.sha256.as_str())
        .bind(&self.request.external_id)
        .bind(&self.principal.labels)
        .bind(&self.pipeline.name)
        .bind(&self.request.labels)
        .bind(&self.request.metadata)
        .bind(&self.request.name)
        .bind(self.request.size)
        .bind(&self.request.content_type)
        .bind(&self.pipeline.version)
        .fetch_optional(connection)
        .await?;
        Ok(row.map(|(id, version_id, version, state, is_open, is_described)| {
            let (id, version_id) = (id.into(), version_id.into());
            let standing = match (is_open, is_described) {
                (true, _) => Standing::Open,
                (false, true) => Standing::Held,
                (false, false) => Standing::HeldDescribedOtherwise,
            };
            (Created { id, version_id, version, state, deduplicated: !is_open, upload: None }, standing)
        }))
    }

    /// Gives an open declaration as long as a new one has; false when it has ended meanwhile.
    async fn renew(&self, connection: &mut PgConnection, version: VersionId) -> Result<bool, DbError> {
        let renewed = sqlx::query(
            "UPDATE document_versions SET upload_expires_at = now() + make_interval(secs => $2)
             WHERE tenant_id = current_tenant() AND id = $1 AND upload_state = 'pending'",
        );
        let renewed = renewed.bind(version.0).bind(UPLOAD_PATIENCE.as_secs_f64()).execute(connection).await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Unchanged bytes under an external id with another description: the description holds from now on.
    async fn describe(&self, connection: &mut PgConnection, found: &Created) -> Result<(), DbError> {
        if self.request.external_id.is_none() {
            return Ok(());
        }
        let stale = self.stale(connection, found).await?;
        let changed = sqlx::query(
            "WITH described AS (
                UPDATE document_versions v SET name = $3, metadata = coalesce($4, v.metadata), labels = $5
                WHERE v.tenant_id = current_tenant() AND v.id = $2)
             UPDATE documents d SET name = $3, metadata = coalesce($4, d.metadata), labels = $5, updated_at = now()
             WHERE d.tenant_id = current_tenant() AND d.id = $1 AND coalesce(d.visible_version, $2) = $2
               AND (d.name, d.metadata, d.labels) IS DISTINCT FROM ($3, coalesce($4, d.metadata), $5)",
        )
        .bind(found.id.0)
        .bind(found.version_id.0)
        .bind(&self.request.name)
        .bind(&self.request.metadata)
        .bind(&self.request.labels)
        .execute(&mut *connection)
        .await?;
        if changed.rows_affected() == 1 {
            let data = json!({"version_id": found.version_id, "labels": self.request.labels});
            audit::record(connection, self.principal, "document.describe", &found.id.to_string(), data).await?;
            feed::corpus_changed(connection).await?;
        }
        feed::append(connection, Op::Add, &stale).await?;
        Ok(())
    }

    /// Generations of a version whose name is another than the declared one: the lexical index holds the name, and has to
    /// take it anew. One whose chunks are still being written is not on the feed: it is announced when they are all there,
    /// under the name of then. Locks the document, the version and the generations.
    async fn stale(&self, connection: &mut PgConnection, found: &Created) -> Result<Vec<uuid::Uuid>, DbError> {
        sqlx::query("SELECT 1 FROM documents WHERE tenant_id = current_tenant() AND id = $1 FOR UPDATE")
            .bind(found.id.0)
            .execute(&mut *connection)
            .await?;
        sqlx::query("SELECT 1 FROM document_versions WHERE tenant_id = current_tenant() AND id = $1 FOR UPDATE")
            .bind(found.version_id.0)
            .execute(&mut *connection)
            .await?;
        // A statement of its own: whether one is announced is read after whoever was announcing it has ended.
        sqlx::query(
            "SELECT 1 FROM generations WHERE tenant_id = current_tenant() AND version_id = $1 ORDER BY id FOR UPDATE",
        )
        .bind(found.version_id.0)
        .execute(&mut *connection)
        .await?;
        let stale = sqlx::query_scalar(
            "SELECT g.id FROM generations g
             JOIN document_versions v ON v.tenant_id = g.tenant_id AND v.id = g.version_id
             JOIN documents d ON d.tenant_id = g.tenant_id AND d.id = g.document_id
             WHERE g.tenant_id = current_tenant() AND g.version_id = $1 AND g.state <> 'retired'
               AND coalesce(v.name, d.name) <> $2
               AND (SELECT op = 'add' FROM index_ops o WHERE o.tenant_id = g.tenant_id AND o.generation_id = g.id
                    ORDER BY o.seq DESC LIMIT 1)
             ORDER BY g.id FOR UPDATE OF g",
        )
        .bind(found.version_id.0)
        .bind(&self.request.name)
        .fetch_all(connection)
        .await?;
        Ok(stale)
    }

    /// The new document, or the one under this external id, and its state. What answers keeps its description until the new version is
    /// visible; a document that nothing answers from takes the new one at once.
    async fn document(&self, connection: &mut PgConnection) -> Result<(DocumentId, String), DbError> {
        let row: Option<(uuid::Uuid, String)> = sqlx::query_as(
            "INSERT INTO documents (tenant_id, id, collection, external_id, name, metadata, labels)
             VALUES (current_tenant(), $1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant_id, collection, external_id) WHERE external_id IS NOT NULL AND deleted_at IS NULL
             DO UPDATE SET updated_at = now(),
                name = CASE WHEN documents.visible_version IS NULL THEN excluded.name ELSE documents.name END,
                metadata = CASE WHEN documents.visible_version IS NULL THEN excluded.metadata ELSE documents.metadata END,
                labels = CASE WHEN documents.visible_version IS NULL THEN excluded.labels ELSE documents.labels END
             WHERE documents.labels = '{}' OR documents.labels && $7
             RETURNING id, state",
        )
        .bind(DocumentId::fresh().0)
        .bind(self.request.collection.as_deref().unwrap_or("default"))
        .bind(&self.request.external_id)
        .bind(&self.request.name)
        .bind(self.metadata())
        .bind(&self.request.labels)
        .bind(&self.principal.labels)
        .fetch_optional(connection)
        .await?;
        let taken = || Failure::new(Code::Conflict, "this external id belongs to a document your key may not see");
        let (id, state) = row.ok_or_else(taken)?;
        Ok((id.into(), state))
    }

    fn metadata(&self) -> serde_json::Value {
        self.request.metadata.clone().unwrap_or_else(|| json!({}))
    }

    async fn version(&self, connection: &mut PgConnection, document: DocumentId) -> Result<i32, DbError> {
        let number: i32 = sqlx::query_scalar(
            "WITH version AS (
                INSERT INTO document_versions (tenant_id, id, document_id, number, content_type, size_bytes, sha256,
                                               pipeline_version, upload_key, upload_expires_at, traceparent,
                                               name, metadata, labels)
                SELECT current_tenant(), $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5, $6, $7,
                       now() + make_interval(secs => $8), $9, $10, $11, $12
                FROM document_versions WHERE tenant_id = current_tenant() AND document_id = $2
                RETURNING number),
             told AS (
                INSERT INTO document_events (tenant_id, document_id, kind, data)
                SELECT current_tenant(), $2, 'upload.created', jsonb_build_object('version', number, 'size_bytes', $4::bigint)
                FROM version)
             SELECT number FROM version",
        )
        .bind(self.version_id.0)
        .bind(document.0)
        .bind(&self.request.content_type)
        .bind(self.request.size)
        .bind(self.sha256.as_str())
        .bind(&self.pipeline.version)
        .bind(upload_key(self.principal.tenant_id, self.version_id))
        .bind(UPLOAD_PATIENCE.as_secs_f64())
        .bind(&self.traceparent)
        .bind(&self.request.name)
        .bind(self.metadata())
        .bind(&self.request.labels)
        .fetch_one(connection)
        .await?;
        Ok(number)
    }
}

fn reply(status: u16, created: &Created) -> Result<(u16, serde_json::Value), DbError> {
    let body = serde_json::to_value(created).map_err(|_| Failure::new(Code::Internal, "reply cannot be encoded"))?;
    Ok((status, body))
}
