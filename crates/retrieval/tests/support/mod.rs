//! A small corpus in a real database: documents with chunks, vectors, canonical text and index operations, written the
//! way the stages write them.
#![allow(dead_code, clippy::unwrap_used)]

mod node;
mod rows;
mod text;

#[allow(unused_imports)]
pub use node::Node;

use docmill_model::{Code, DocumentId, Failure, GenerationId, PrincipalId, TenantId, VersionId};
use docmill_platform::embedder::Embedder;
use docmill_platform::feed::{self, Op};
use docmill_retrieval::{Caller, SearchConfig};
use rows::{insert_chunks, insert_document, insert_generation};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use text::{canonical, paged};

/// What a search does by default, but for its patience: on a machine that stands still for seconds nothing of it is late.
pub fn patient() -> SearchConfig {
    let mut config = SearchConfig { half_timeout: Duration::from_secs(60), ..SearchConfig::default() };
    config.rerank.timeout = Duration::from_secs(60);
    config
}

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
        self.enter(tenant, written, Some(number), doc).await
    }

    /// Reads a version anew, as a replay does before its generation becomes visible.
    pub async fn reread(&self, tenant: TenantId, written: Written, passages: &[&str]) -> Written {
        self.enter(tenant, Written { generation: GenerationId::fresh(), ..written }, None, &Doc::new("", passages))
            .await
    }

    /// The rows of a generation, with those of its document and version where it is the first one.
    async fn enter(&self, tenant: TenantId, written: Written, number: Option<i32>, doc: &Doc) -> Written {
        let (text, spans) = canonical(&doc.passages);
        let parsed = serde_json::to_vec(&paged(&text)).unwrap();
        let parsed = self.artifacts.put(tenant, parsed.into()).await.unwrap();
        let (doc, vectors) = (doc.clone(), self.embedder.embed(&doc.passages).await.unwrap());
        self.database
            .write(tenant, move |connection| {
                Box::pin(async move {
                    if let Some(number) = number {
                        insert_document(connection, &written, number, &doc).await?;
                    }
                    insert_generation(connection, &written, &doc, &parsed.sha256).await?;
                    insert_chunks(connection, &written, &doc, &spans, &vectors).await?;
                    feed::append(connection, Op::Add, &[written.generation.0]).await?;
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
                    feed::append(connection, Op::Remove, &old).await?;
                    feed::corpus_changed(connection).await
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
                    feed::append(connection, Op::Remove, &[written.generation.0]).await?;
                    feed::corpus_changed(connection).await
                })
            })
            .await
            .unwrap();
    }

    pub fn caller(&self, tenant: TenantId) -> Caller {
        Caller { tenant_id: tenant, principal_id: PrincipalId::fresh(), labels: Vec::new() }
    }
}

/// Polls until `condition` holds; fails after 90 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    docmill_testkit::eventually(what, Duration::from_secs(90), condition).await;
}
