//! index: a version's chunks become searchable in both halves of retrieval at one commit.
//!
//! Reads `chunks`. `run` writes the generation and its chunks, invisible, with ids that derive from content; puts an
//! `add` operation on the feed of the lexical index; and waits until every live serving node has applied it. `commit`
//! turns the document to the new generation by one row update and puts `remove` operations for what it replaces. Until
//! then, and after any failure, the old generation keeps answering. A generation that was embedded just before another
//! embedding space took over waits for its vectors there, and fails when that space's model refuses one of its texts. An
//! older version never replaces a newer one. SQL only: the lexical index
//! itself is the serving nodes'.

mod watermarks;

use crate::embed::embed_hash;
use docmill_model::chunk::{Chunk, ChunkList};
use docmill_model::id::derived_uuid;
use docmill_model::manifest::{Manifest, kind};
use docmill_model::{Code, Failure, GenerationId, VersionId};
use docmill_platform::database::DbError;
use docmill_platform::feed::{self, Op};
use docmill_runtime::{JobContext, Policy, Stage, StageError};
use sqlx::PgConnection;
use std::time::Duration;
use watermarks::Watermarks;

/// Rows of one transaction.
const ROWS: usize = 256;
/// Until the builder of the space that was switched to has filled in what a generation lacks.
const WITHOUT_VECTORS: Duration = Duration::from_secs(1);

/// How long the model's last refusal of a text counts: the builder asks it again every minute.
const REFUSAL_COUNTS_SECS: f64 = 300.0;

/// Settings of the index stage; there are none yet.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {}

/// The index stage.
#[derive(Default)]
pub struct Index {
    watermarks: Watermarks,
}

#[async_trait::async_trait]
impl Stage for Index {
    const NAME: &'static str = "index";
    const VERSION: u32 = 1;
    type Config = IndexConfig;
    type Prepared = GenerationId;

    fn policy(&self) -> Policy {
        // Mostly waiting for the serving nodes.
        Policy { concurrency: 8, ..Policy::default() }
    }

    fn cacheable(&self) -> bool {
        false
    }

    async fn run(&self, job: &JobContext, _: &IndexConfig) -> Result<Manifest, StageError> {
        let generation = job.generation_id()?;
        let list: ChunkList = job.load(kind::CHUNKS).await?;
        begin(job, generation, list.chunks.len()).await?;
        for chunks in list.chunks.chunks(ROWS) {
            if job.cancel.is_cancelled() {
                return Err(StageError::Cancelled);
            }
            store(job, generation, chunks.to_vec()).await?;
        }
        let seq = announce(job, generation).await?;
        self.watermarks.wait(job, seq).await?;
        let mut manifest = Manifest::default();
        manifest.facts.insert("chunks".to_owned(), list.chunks.len().into());
        Ok(manifest)
    }

    async fn prepare(&self, job: &JobContext, _: &IndexConfig, _: &Manifest) -> Result<GenerationId, StageError> {
        Ok(job.generation_id()?)
    }

    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        _: &Manifest,
        new: GenerationId,
    ) -> Result<(), StageError> {
        if let Some(space) = lacks_vectors(connection, new).await? {
            if is_refused(connection, new, space).await? {
                let message = "the model of the embedding space that took over fails on a text of this document";
                return Err(Failure::new(Code::EmbeddingInvalid, message).into());
            }
            return Err(StageError::Snooze(WITHOUT_VECTORS));
        }
        if !turn_to(connection, job, new).await? {
            return Ok(retire(connection, &[new.0]).await?);
        }
        let old: Vec<uuid::Uuid> = sqlx::query_scalar(
            "SELECT id FROM generations WHERE tenant_id = current_tenant() AND document_id = $1 AND state = 'visible' AND id <> $2
             ORDER BY id",
        )
        .bind(job.document_id.0)
        .bind(new.0)
        .fetch_all(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE generations SET state = 'visible', visible_at = coalesce(visible_at, now()), retired_at = NULL
             WHERE tenant_id = current_tenant() AND id = $1",
        )
        .bind(new.0)
        .execute(&mut *connection)
        .await?;
        // The one fact about a run that only this stage knows; the engine holds the row's lock.
        sqlx::query("UPDATE runs SET searchable_at = now() WHERE tenant_id = current_tenant() AND id = $1 AND searchable_at IS NULL")
            .bind(job.run_id.0)
            .execute(&mut *connection)
            .await?;
        retire(connection, &old).await?;
        Ok(feed::corpus_changed(connection).await?)
    }
}

/// Enters the generation with the text its chunks are cut from; one that was retired comes back as building. Equal chunks
/// of a text that was read anew are the same generation, and its citations are looked up in the newer one.
async fn begin(job: &JobContext, generation: GenerationId, count: usize) -> Result<(), StageError> {
    let chunks_sha256 = job.input(kind::CHUNKS)?.sha256.to_string();
    let parsed_sha256 = job.input(kind::PARSED)?.sha256.to_string();
    let (document, version) = (job.document_id.0, job.version_id.0);
    let entered = job.database.write(job.tenant_id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count, parsed_sha256)
                 VALUES (current_tenant(), $1, $2, $3, $4, $5, $6)
                 ON CONFLICT (tenant_id, id) DO UPDATE
                 SET state = CASE generations.state WHEN 'retired' THEN 'building' ELSE generations.state END, retired_at = NULL,
                     parsed_sha256 = excluded.parsed_sha256",
            )
            .bind(generation.0)
            .bind(document)
            .bind(version)
            .bind(chunks_sha256)
            .bind(count as i32)
            .bind(parsed_sha256)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    Ok(entered.await?)
}

/// Inserts up to 256 chunks; rows that are already there are the same rows.
async fn store(job: &JobContext, generation: GenerationId, chunks: Vec<Chunk>) -> Result<(), StageError> {
    let document = job.document_id.0;
    let stored = job.database.write(job.tenant_id, move |connection| {
        Box::pin(async move {
            for chunk in chunks {
                insert(connection, generation, document, &chunk).await?;
            }
            Ok(())
        })
    });
    Ok(stored.await?)
}

async fn insert(
    connection: &mut PgConnection,
    generation: GenerationId,
    document: uuid::Uuid,
    chunk: &Chunk,
) -> Result<(), sqlx::Error> {
    let page = |page: Option<u32>| page.map(|page| page as i32);
    sqlx::query(
        "INSERT INTO chunks (tenant_id, id, generation_id, document_id, ordinal, embed_hash, char_start, char_end, text, heading_path,
             kind, page_start, page_end, tokens, language, has_hidden)
         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT DO NOTHING",
    )
    .bind(derived_uuid(&[b"chunk", generation.0.as_bytes(), &chunk.ordinal.to_be_bytes()]))
    .bind(generation.0)
    .bind(document)
    .bind(chunk.ordinal as i32)
    .bind(embed_hash(chunk).to_vec())
    .bind(chunk.span.start as i32)
    .bind(chunk.span.end as i32)
    .bind(&chunk.text)
    .bind(&chunk.heading_path)
    .bind(chunk.kind.as_str())
    .bind(page(chunk.page_start))
    .bind(page(chunk.page_end))
    .bind(chunk.tokens as i32)
    .bind(&chunk.language)
    .bind(chunk.has_hidden)
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts the `add` operation on the feed unless the newest operation of the generation already is one; returns its number.
async fn announce(job: &JobContext, generation: GenerationId) -> Result<i64, StageError> {
    let announced = job.database.write(job.tenant_id, move |connection| {
        Box::pin(async move {
            // The row lock orders two attempts of the same job.
            sqlx::query("SELECT 1 FROM generations WHERE tenant_id = current_tenant() AND id = $1 FOR UPDATE")
                .bind(generation.0)
                .execute(&mut *connection)
                .await?;
            let newest: Option<(i64, String)> = sqlx::query_as(
                "SELECT seq, op FROM index_ops WHERE tenant_id = current_tenant() AND generation_id = $1 ORDER BY seq DESC LIMIT 1",
            )
            .bind(generation.0)
            .fetch_optional(&mut *connection)
            .await?;
            match newest {
                Some((seq, op)) if op == "add" => Ok(seq),
                _ => Ok(feed::append(connection, Op::Add, &[generation.0]).await?.unwrap_or_default()),
            }
        })
    });
    Ok(announced.await?)
}

/// The space that answers, when the generation was embedded for another one and its builder has not caught up. The space
/// that answers stays the same until this commit has ended.
async fn lacks_vectors(connection: &mut PgConnection, generation: GenerationId) -> Result<Option<i32>, DbError> {
    let active: i32 =
        sqlx::query_scalar("SELECT space_id FROM active_spaces FOR SHARE").fetch_one(&mut *connection).await?;
    let lacks: bool = sqlx::query_scalar(
        "SELECT EXISTS (
            SELECT 1 FROM chunks c WHERE c.tenant_id = current_tenant() AND c.generation_id = $1
              AND NOT EXISTS (SELECT 1 FROM vectors v
                              WHERE v.tenant_id = c.tenant_id AND v.space_id = $2 AND v.embed_hash = c.embed_hash)
              AND EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.embed_hash = c.embed_hash
                          AND v.space_id IN (SELECT id FROM embedding_spaces WHERE id <> $2)))",
    )
    .bind(generation.0)
    .bind(active)
    .fetch_one(connection)
    .await?;
    Ok(lacks.then_some(active))
}

/// True when the model of a space has lately refused a text of the generation.
async fn is_refused(connection: &mut PgConnection, generation: GenerationId, space: i32) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (
            SELECT 1 FROM chunks c
            JOIN refused_texts r ON r.tenant_id = c.tenant_id AND r.space_id = $2 AND r.embed_hash = c.embed_hash
            WHERE c.tenant_id = current_tenant() AND c.generation_id = $1
              AND r.refused_at > now() - make_interval(secs => $3)
              AND NOT EXISTS (SELECT 1 FROM vectors v
                              WHERE v.tenant_id = c.tenant_id AND v.space_id = $2 AND v.embed_hash = c.embed_hash))",
    )
    .bind(generation.0)
    .bind(space)
    .bind(REFUSAL_COUNTS_SECS)
    .fetch_one(connection)
    .await?)
}

/// Points the document at the generation, and gives it the name, metadata and labels of its version; false when a newer
/// version is visible or the document is gone.
async fn turn_to(connection: &mut PgConnection, job: &JobContext, generation: GenerationId) -> Result<bool, DbError> {
    let VersionId(version) = job.version_id;
    let turned = sqlx::query(
        "UPDATE documents d SET visible_generation = $2, visible_version = $3, updated_at = now(),
                name = coalesce(mine.name, d.name), metadata = coalesce(mine.metadata, d.metadata),
                labels = coalesce(mine.labels, d.labels)
         FROM document_versions mine
         WHERE d.tenant_id = current_tenant() AND d.id = $1 AND d.deleted_at IS NULL
           AND mine.tenant_id = d.tenant_id AND mine.id = $3
           AND NOT EXISTS (
               SELECT 1 FROM document_versions shown
               WHERE shown.tenant_id = d.tenant_id AND shown.id = d.visible_version AND shown.number > mine.number)",
    )
    .bind(job.document_id.0)
    .bind(generation.0)
    .bind(version)
    .execute(connection)
    .await?;
    Ok(turned.rows_affected() == 1)
}

async fn retire(connection: &mut PgConnection, generations: &[uuid::Uuid]) -> Result<(), DbError> {
    if generations.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE generations SET state = 'retired', retired_at = now() WHERE tenant_id = current_tenant() AND id = ANY ($1)",
    )
    .bind(generations)
    .execute(&mut *connection)
    .await?;
    feed::append(connection, Op::Remove, generations).await?;
    Ok(())
}
