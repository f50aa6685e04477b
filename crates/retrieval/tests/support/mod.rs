//! A small corpus in a real database: documents with chunks, vectors, canonical text and index operations, written the
//! way the stages write them.
#![allow(dead_code, clippy::unwrap_used)]

use docmill_model::document::{Format, Page, PageOutcome, ParsedDocument, Rect, Word};
use docmill_model::id::derived_uuid;
use docmill_model::{Code, DocumentId, Failure, GenerationId, PrincipalId, Sha256Hex, Span, TenantId, VersionId};
use docmill_platform::embedder::Embedder;
use docmill_retrieval::{Caller, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search, SearchConfig};
use pgvector::Vector;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A document to publish; one chunk for each passage.
#[derive(Clone)]
pub struct Doc {
    pub name: String,
    pub collection: String,
    pub labels: Vec<String>,
    pub metadata: serde_json::Value,
    pub passages: Vec<String>,
}

impl Doc {
    pub fn new(name: &str, passages: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            collection: "default".to_owned(),
            labels: Vec::new(),
            metadata: serde_json::json!({}),
            passages: passages.iter().map(|passage| (*passage).to_owned()).collect(),
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub document: DocumentId,
    pub version: VersionId,
    pub generation: GenerationId,
}

/// A test's own database and object store, with an embedder that can be made to fail.
pub struct World {
    world: docmill_testkit::World,
    pub embedder: Arc<Breakable>,
}

pub async fn world() -> World {
    let world = docmill_testkit::world().await;
    let embedder = Arc::new(Breakable { inner: world.embedder.clone(), is_broken: AtomicBool::new(false) });
    World { world, embedder }
}

impl std::ops::Deref for World {
    type Target = docmill_testkit::World;

    fn deref(&self) -> &Self::Target {
        &self.world
    }
}

/// An embedder that fails while it is broken.
pub struct Breakable {
    inner: Arc<dyn Embedder>,
    is_broken: AtomicBool,
}

impl Breakable {
    pub fn set_broken(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Embedder for Breakable {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::EmbeddingInvalid, "broken"));
        }
        self.inner.embed(texts).await
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

impl World {
    /// Writes the document with its first version, visible.
    pub async fn publish(&self, tenant: TenantId, doc: &Doc) -> Written {
        let written = self.write(tenant, DocumentId::fresh(), 1, doc).await;
        self.flip(tenant, written).await;
        written
    }

    /// Writes one version with its generation and vectors, and the `add` operation; nothing becomes visible.
    pub async fn write(&self, tenant: TenantId, document: DocumentId, number: i32, doc: &Doc) -> Written {
        let written = Written { document, version: VersionId::fresh(), generation: GenerationId::fresh() };
        let (text, spans) = canonical(&doc.passages);
        let parsed = serde_json::to_vec(&paged(&text)).unwrap();
        let parsed = self.artifacts.put(tenant, parsed.into()).await.unwrap();
        let (doc, vectors) = (doc.clone(), self.embedder.embed(&doc.passages).await.unwrap());
        self.database
            .write(tenant, move |connection| {
                Box::pin(async move {
                    insert_document(connection, &written, number, &doc, &parsed.sha256).await?;
                    insert_chunks(connection, &written, &doc, &spans, &vectors).await?;
                    operation(connection, "add", written.generation).await?;
                    Ok(())
                })
            })
            .await
            .unwrap();
        written
    }

    /// Makes the generation the one that answers, and retires the one before.
    pub async fn flip(&self, tenant: TenantId, written: Written) {
        self.database
            .write(tenant, move |connection| {
                Box::pin(async move {
                    let old: Vec<uuid::Uuid> = sqlx::query_scalar(
                        "UPDATE generations SET state = 'retired', retired_at = now()
                         WHERE document_id = $1 AND state = 'visible' RETURNING id",
                    )
                    .bind(written.document.0)
                    .fetch_all(&mut *connection)
                    .await?;
                    sqlx::query("UPDATE documents SET visible_generation = $2, visible_version = $3 WHERE id = $1")
                        .bind(written.document.0)
                        .bind(written.generation.0)
                        .bind(written.version.0)
                        .execute(&mut *connection)
                        .await?;
                    sqlx::query("UPDATE generations SET state = 'visible', visible_at = now() WHERE id = $1")
                        .bind(written.generation.0)
                        .execute(&mut *connection)
                        .await?;
                    for generation in old {
                        operation(connection, "remove", GenerationId(generation)).await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    pub async fn delete(&self, tenant: TenantId, written: Written) {
        self.database
            .write(tenant, move |connection| {
                Box::pin(async move {
                    sqlx::query("DELETE FROM documents WHERE id = $1")
                        .bind(written.document.0)
                        .execute(&mut *connection)
                        .await?;
                    operation(connection, "remove", written.generation).await?;
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    pub fn caller(&self, tenant: TenantId) -> Caller {
        Caller { tenant_id: tenant, principal_id: PrincipalId::fresh(), labels: Vec::new() }
    }
}

/// A running index node with its search.
pub struct Node {
    pub id: String,
    pub lexical: Arc<LexicalIndexes>,
    pub search: Search,
    pub directory: tempfile::TempDir,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub async fn start(world: &World) -> Self {
        Self::start_in(world, tempfile::tempdir().unwrap(), SearchConfig::default()).await
    }

    pub async fn start_in(world: &World, directory: tempfile::TempDir, config: SearchConfig) -> Self {
        let id = format!("node-{}", uuid::Uuid::new_v4());
        let lexical = LexicalIndexes::new(LexicalConfig::new(directory.path())).unwrap();
        let follower = Follower::new(world.database.clone(), lexical.clone(), FollowerConfig::new(&id));
        let (stop, status) = (CancellationToken::new(), follower.status());
        let task = tokio::spawn(follower.run(stop.clone()));
        let search = Search::new(world.database.clone(), world.embedder.clone(), lexical.clone(), config);
        eventually("the node is in rotation", || async { status.is_live() }).await;
        Self { id, lexical, search, directory, stop, task }
    }

    /// Waits until the node has applied everything that was written for `tenant`.
    pub async fn caught_up(&self, world: &World, tenant: TenantId) {
        eventually("the watermark reaches the head", || async {
            let behind: bool = sqlx::query_scalar(
                "SELECT coalesce((SELECT w.seq FROM index_watermarks w WHERE w.node_id = $1 AND w.tenant_id = h.tenant_id), -1) < h.seq
                 FROM index_heads h WHERE h.tenant_id = $2",
            )
            .bind(&self.id)
            .bind(tenant.0)
            .fetch_one(world.database.engine())
            .await
            .unwrap();
            !behind
        })
        .await;
    }

    pub async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.task.await.unwrap();
        self.directory
    }
}

/// Polls until `condition` holds; fails after 30 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    docmill_testkit::eventually(what, Duration::from_secs(30), condition).await;
}

/// Passages joined by blank lines, and where each stands.
fn canonical(passages: &[String]) -> (String, Vec<Span>) {
    let (mut text, mut spans, mut at) = (String::new(), Vec::new(), 0);
    for passage in passages {
        let length = passage.chars().count() as u32;
        spans.push(Span::new(at, at + length));
        text.push_str(passage);
        text.push_str("\n\n");
        at += length + 2;
    }
    (text, spans)
}

/// One page with a box for every word.
fn paged(text: &str) -> ParsedDocument {
    let length = text.chars().count() as u32;
    let mut words = Vec::new();
    let (mut start, mut current) = (0, String::new());
    for (at, c) in text.chars().chain([' ']).enumerate() {
        if c.is_whitespace() {
            if !current.is_empty() {
                let x = words.len() as f32 * 10.0;
                let rect = Rect { x0: x, y0: 10.0, x1: x + 9.0, y1: 20.0 };
                words.push(Word { span: Span::new(start, at as u32), page: 1, rect, confidence: 1.0 });
                current.clear();
            }
            start = at as u32 + 1;
        } else {
            current.push(c);
        }
    }
    let page = Page {
        number: 1,
        width: 600.0,
        height: 800.0,
        rotation: 0,
        span: Span::new(0, length),
        outcome: PageOutcome::Text,
    };
    ParsedDocument {
        schema: ParsedDocument::SCHEMA,
        format: Format::Pdf,
        engine: "pdfium".to_owned(),
        text: text.to_owned(),
        pages: vec![page],
        blocks: Vec::new(),
        words,
        tables: Vec::new(),
        links: Vec::new(),
        hidden: Vec::new(),
        language: None,
        metadata: std::collections::BTreeMap::new(),
    }
}

type Connection = sqlx::PgConnection;

async fn insert_document(
    connection: &mut Connection,
    written: &Written,
    number: i32,
    doc: &Doc,
    parsed: &Sha256Hex,
) -> Result<(), sqlx::Error> {
    let pipeline = Sha256Hex::of(b"pipeline").to_string();
    sqlx::query(
        "INSERT INTO pipeline_versions (version, name, definition) VALUES ($1, 'default', '{}') ON CONFLICT DO NOTHING",
    )
    .bind(&pipeline)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO documents (tenant_id, id, name, collection, labels, metadata) VALUES (current_tenant(), $1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(written.document.0)
    .bind(&doc.name)
    .bind(&doc.collection)
    .bind(&doc.labels)
    .bind(&doc.metadata)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO document_versions (tenant_id, id, document_id, number, content_type, size_bytes, sha256, pipeline_version,
             upload_key, upload_expires_at, parsed_sha256)
         VALUES (current_tenant(), $1, $2, $3, 'application/pdf', 1, $4, $5, 'k', now(), $6)",
    )
    .bind(written.version.0)
    .bind(written.document.0)
    .bind(number)
    .bind(Sha256Hex::of(doc.passages.concat().as_bytes()).to_string())
    .bind(pipeline)
    .bind(parsed.to_string())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count)
         VALUES (current_tenant(), $1, $2, $3, 'x', $4)",
    )
    .bind(written.generation.0)
    .bind(written.document.0)
    .bind(written.version.0)
    .bind(doc.passages.len() as i32)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_chunks(
    connection: &mut Connection,
    written: &Written,
    doc: &Doc,
    spans: &[Span],
    vectors: &[Vec<f32>],
) -> Result<(), sqlx::Error> {
    let ordinals: Vec<i32> = (0..spans.len() as i32).collect();
    let id = |ordinal: &i32| derived_uuid(&[written.generation.0.as_bytes(), &ordinal.to_be_bytes()]);
    let hashes: Vec<Vec<u8>> = doc.passages.iter().map(|passage| Sha256::digest(passage.as_bytes()).to_vec()).collect();
    sqlx::query(
        "INSERT INTO chunks (tenant_id, id, generation_id, document_id, ordinal, embed_hash, char_start, char_end, text, tokens,
             page_start, page_end, language)
         SELECT current_tenant(), row.id, $1, $2, row.ordinal, row.embed_hash, row.char_start, row.char_end, row.text, 1, 1, 1, 'eng'
         FROM unnest($3::uuid[], $4::int[], $5::bytea[], $6::int[], $7::int[], $8::text[])
              AS row (id, ordinal, embed_hash, char_start, char_end, text)",
    )
    .bind(written.generation.0)
    .bind(written.document.0)
    .bind(ordinals.iter().map(id).collect::<Vec<_>>())
    .bind(&ordinals)
    .bind(&hashes)
    .bind(spans.iter().map(|span| span.start as i32).collect::<Vec<_>>())
    .bind(spans.iter().map(|span| span.end as i32).collect::<Vec<_>>())
    .bind(&doc.passages)
    .execute(&mut *connection)
    .await?;
    for (hash, vector) in hashes.iter().zip(vectors) {
        sqlx::query(
            "INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding) VALUES (current_tenant(), 1, $1, $2)
             ON CONFLICT DO NOTHING",
        )
        .bind(hash)
        .bind(Vector::from(vector.clone()))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn operation(connection: &mut Connection, op: &str, generation: GenerationId) -> Result<(), sqlx::Error> {
    let seq: i64 = sqlx::query_scalar(
        "INSERT INTO index_heads (tenant_id, seq) VALUES (current_tenant(), 1)
         ON CONFLICT (tenant_id) DO UPDATE SET seq = index_heads.seq + 1 RETURNING seq",
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO index_ops (tenant_id, seq, op, generation_id) VALUES (current_tenant(), $1, $2, $3)")
        .bind(seq)
        .bind(op)
        .bind(generation.0)
        .execute(connection)
        .await?;
    Ok(())
}
