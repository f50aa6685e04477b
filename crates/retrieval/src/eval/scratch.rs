//! A scratch tenant: a data set as rows, vectors and a lexical index, the way the stages leave them, and gone afterwards.
//!
//! The tenant is one fixed, reserved one; a lock lets one evaluation at a time use it, and whatever an earlier one left
//! is cleared first. Its index lives in a directory of the evaluation and its rows never enter the index feed, so serving
//! nodes do not notice. Every entry becomes one document of one chunk, its title the heading.

use super::beir::Entry;
use super::vectors::RememberingEmbedder;
use crate::lexical::analysis::detect_language;
use crate::{Caller, LexicalConfig, LexicalIndexes, Search, SearchConfig, follower};
use docmill_model::document::{Format, ParsedDocument};
use docmill_model::id::derived_uuid;
use docmill_model::text::canonical_string;
use docmill_model::{Code, DocumentId, Failure, PrincipalId, Sha256Hex, TenantId};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::{Embedder, Space};
use pgvector::Vector;
use sqlx::PgConnection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// Rows of one transaction, at most.
const BATCH: usize = 256;
/// Documents or vectors removed by one statement.
const CLEARED: i64 = 2_000;
/// The advisory lock of evaluations, any fixed number.
const LOCK: i64 = 0x646f_636d_6576_616c;
/// The reserved tenant's name.
const TENANT: &str = "docmill:evaluation";

/// Told how many of how many entries are loaded.
pub type Progress<'p> = &'p (dyn Fn(usize, usize) + Send + Sync);

/// What an evaluation runs on.
pub struct Bench {
    /// The database; one that serves may be used.
    pub database: Database,
    /// The embedding model.
    pub embedder: Arc<dyn Embedder>,
    /// Folder for the index of the evaluation (removed) and the vectors kept for the next one.
    pub directory: PathBuf,
    /// How to search.
    pub search: SearchConfig,
}

/// A loaded data set.
pub struct Scratch {
    database: Database,
    tenant: TenantId,
    index: PathBuf,
    search: Search,
    entry_ids: HashMap<DocumentId, String>,
    /// Held for its session lock.
    _lock: PgConnection,
}

impl Scratch {
    /// Loads `entries`; with `artifacts` also their canonical text, which answers need.
    ///
    /// # Errors
    /// `CONFLICT` while another evaluation runs; `FIELD_INVALID` for an id that occurs twice; failures of database,
    /// store and model.
    pub async fn build(
        bench: &Bench,
        entries: &[Entry],
        artifacts: Option<&Artifacts>,
        progress: Progress<'_>,
    ) -> Result<Self, Failure> {
        let (database, tenant) = (bench.database.clone(), TenantId::of_evaluations());
        let lock = lock(&database).await?;
        reserve(&database, tenant).await?;
        clear(&database, tenant).await?;
        let model = RememberingEmbedder::open(bench.embedder.clone(), &bench.directory)?;
        let index = bench.directory.join(format!("index-{}", Uuid::new_v4().simple()));
        let lexical = LexicalIndexes::new(LexicalConfig::new(&index))?;
        let space = space(&database, &*bench.embedder).await?;
        let entry_ids = HashMap::new();
        let mut loader = Loader { database: &database, tenant, space: space.id, model: &*model, artifacts, entry_ids };
        for (number, batch) in entries.chunks(BATCH).enumerate() {
            progress(number * BATCH, entries.len());
            loader.load(number * BATCH, batch).await?;
        }
        progress(entries.len(), entries.len());
        let entry_ids = loader.entry_ids;
        follower::build_index(&database, &lexical, tenant).await?;
        lexical.release_writer(tenant).await;
        let settings = SearchConfig { cache_bytes: 0, ..bench.search.clone() };
        let search = Search::new(database.clone(), bench.embedder.clone(), lexical, settings).pinned(space);
        Ok(Self { database, tenant, index, search, entry_ids, _lock: lock })
    }

    /// The search over the data set.
    #[must_use]
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// Who may ask it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { tenant_id: self.tenant, principal_id: PrincipalId(self.tenant.0), labels: Vec::new() }
    }

    /// The data set's id of a document.
    #[must_use]
    pub fn entry_id(&self, document: DocumentId) -> Option<&str> {
        self.entry_ids.get(&document).map(String::as_str)
    }

    /// Removes rows, vectors and index.
    ///
    /// # Errors
    /// Failures of the database; the next evaluation then clears up.
    pub async fn remove(self) -> Result<(), Failure> {
        clear(&self.database, self.tenant).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.index);
    }
}

/// A space that holds vectors of the model's length; the tenant's are apart from all others in it.
async fn space(database: &Database, model: &dyn Embedder) -> Result<Space, Failure> {
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
    let spaces = Space::all(&mut connection).await.map_err(DbError::from)?;
    let fits = |space: &Space| space.is_standing() && space.dimensions as usize == model.dimensions();
    spaces.into_iter().find(fits).ok_or_else(|| {
        Failure::new(
            Code::ConfigInvalid,
            "no embedding space has vectors of the length of the model that is to be judged",
        )
    })
}

/// Takes the lock on a connection of its own: it goes when that does, whatever happens here.
async fn lock(database: &Database) -> Result<PgConnection, Failure> {
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?.detach();
    let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut connection)
        .await
        .map_err(DbError::from)?;
    if taken {
        Ok(connection)
    } else {
        Err(Failure::new(Code::Conflict, "another evaluation is running on this database"))
    }
}

/// Makes sure that the reserved tenant exists.
async fn reserve(database: &Database, tenant: TenantId) -> Result<(), Failure> {
    let engine = database.engine();
    let statement = "INSERT INTO tenants (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    sqlx::query(statement).bind(tenant.0).bind(TENANT).execute(engine).await.map_err(DbError::from)?;
    let found: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tenants WHERE id = $1)")
        .bind(tenant.0)
        .fetch_one(engine)
        .await
        .map_err(DbError::from)?;
    if found { Ok(()) } else { Err(Failure::new(Code::Conflict, "the name of the evaluation tenant is taken")) }
}

/// Removes everything the tenant holds, in bounded statements.
async fn clear(database: &Database, tenant: TenantId) -> Result<(), Failure> {
    let statements = [
        "DELETE FROM documents WHERE tenant_id = current_tenant()
           AND id IN (SELECT id FROM documents WHERE tenant_id = current_tenant() LIMIT $1)",
        "DELETE FROM vectors WHERE tenant_id = current_tenant()
           AND embed_hash IN (SELECT embed_hash FROM vectors WHERE tenant_id = current_tenant() LIMIT $1)",
        "DELETE FROM answers WHERE tenant_id = current_tenant()
           AND id IN (SELECT id FROM answers WHERE tenant_id = current_tenant() LIMIT $1)",
        "DELETE FROM artifacts WHERE tenant_id = current_tenant()
           AND sha256 IN (SELECT sha256 FROM artifacts WHERE tenant_id = current_tenant() LIMIT $1)",
    ];
    for statement in statements {
        loop {
            let write = database.write(tenant, move |connection| {
                Box::pin(
                    async move { Ok(sqlx::query(statement).bind(CLEARED).execute(connection).await?.rows_affected()) },
                )
            });
            if write.await? == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Writes entries as documents.
struct Loader<'l> {
    database: &'l Database,
    tenant: TenantId,
    space: i32,
    model: &'l dyn Embedder,
    artifacts: Option<&'l Artifacts>,
    entry_ids: HashMap<DocumentId, String>,
}

/// One batch as columns.
#[derive(Default)]
struct Columns {
    documents: Vec<Uuid>,
    versions: Vec<Uuid>,
    generations: Vec<Uuid>,
    chunks: Vec<Uuid>,
    names: Vec<String>,
    titles: Vec<String>,
    texts: Vec<String>,
    lengths: Vec<i32>,
    languages: Vec<Option<String>>,
    parsed: Vec<Option<String>>,
    hashes: Vec<Vec<u8>>,
    vectors: Vec<Vector>,
}

impl Loader<'_> {
    async fn load(&mut self, first: usize, batch: &[Entry]) -> Result<(), Failure> {
        let mut columns = Columns::default();
        let mut embedded = Vec::new();
        for (number, entry) in batch.iter().enumerate() {
            let (title, mut text) = (canonical_string(entry.title.trim()), canonical_string(&entry.text));
            if text.trim().is_empty() {
                text.clone_from(&title);
            }
            if text.trim().is_empty() {
                continue;
            }
            let id = |what: &[u8]| derived_uuid(&[self.tenant.0.as_bytes(), what, entry.id.as_bytes()]);
            if self.entry_ids.insert(DocumentId(id(b"document")), entry.id.clone()).is_some() {
                return Err(Failure::new(Code::FieldInvalid, "corpus.jsonl holds an id twice"));
            }
            columns.documents.push(id(b"document"));
            columns.versions.push(id(b"version"));
            columns.generations.push(id(b"generation"));
            columns.chunks.push(id(b"chunk"));
            columns.names.push(format!("{:06}", first + number));
            columns.lengths.push(text.chars().count() as i32);
            columns.languages.push(detect_language(&text).map(str::to_owned));
            columns.parsed.push(self.store(&text).await?);
            let whole = if title.is_empty() { text.clone() } else { format!("{title}\n{text}") };
            columns.hashes.push(Sha256Hex::of(whole.as_bytes()).to_bytes().to_vec());
            columns.titles.push(title);
            columns.texts.push(text);
            embedded.push(whole);
        }
        columns.vectors = self.model.embed(&embedded).await?.into_iter().map(Vector::from).collect();
        let space = self.space;
        let write = self.database.write(self.tenant, move |connection| Box::pin(insert(connection, space, columns)));
        Ok(write.await?)
    }

    /// Stores the canonical text where answers look for it.
    async fn store(&self, text: &str) -> Result<Option<String>, Failure> {
        let Some(artifacts) = self.artifacts else { return Ok(None) };
        let parsed = ParsedDocument {
            schema: ParsedDocument::SCHEMA,
            format: Format::Text,
            engine: "evaluation".to_owned(),
            text: text.to_owned(),
            pages: Vec::new(),
            blocks: Vec::new(),
            words: Vec::new(),
            tables: Vec::new(),
            links: Vec::new(),
            hidden: Vec::new(),
            language: None,
            metadata: std::collections::BTreeMap::new(),
            failed_parts: Vec::new(),
        };
        let bytes =
            serde_json::to_vec(&parsed).map_err(|_| Failure::new(Code::Internal, "a document cannot be written"))?;
        Ok(Some(artifacts.put(self.tenant, bytes.into()).await?.sha256.to_string()))
    }
}

async fn insert(connection: &mut PgConnection, space: i32, columns: Columns) -> Result<(), DbError> {
    let pipeline = Sha256Hex::of(TENANT.as_bytes()).to_string();
    sqlx::query(
        "INSERT INTO pipeline_versions (version, name, definition) VALUES ($1, $2, '{}') ON CONFLICT DO NOTHING",
    )
    .bind(&pipeline)
    .bind(TENANT)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "WITH rows AS (
            SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[])
                AS row (document_id, version_id, generation_id, name, parsed, language)),
         written AS (
            INSERT INTO documents (tenant_id, id, name, state, visible_generation, visible_version)
            SELECT current_tenant(), document_id, name, 'done', generation_id, version_id FROM rows RETURNING id),
         versions AS (
            INSERT INTO document_versions (tenant_id, id, document_id, number, content_type, size_bytes, sha256, pipeline_version,
                upload_key, upload_expires_at, parsed_sha256, language)
            SELECT current_tenant(), version_id, document_id, 1, 'text/plain', 1, $1, $1, 'evaluation', now(), parsed, language
            FROM rows JOIN written ON written.id = rows.document_id RETURNING id)
         INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count, state, visible_at)
         SELECT current_tenant(), generation_id, document_id, version_id, $1, 1, 'visible', now()
         FROM rows JOIN versions ON versions.id = rows.version_id",
    )
    .bind(&pipeline)
    .bind(&columns.documents)
    .bind(&columns.versions)
    .bind(&columns.generations)
    .bind(&columns.names)
    .bind(&columns.parsed)
    .bind(&columns.languages)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO chunks (tenant_id, id, generation_id, document_id, ordinal, embed_hash, char_start, char_end, text,
             heading_path, tokens, language)
         SELECT current_tenant(), row.id, row.generation_id, row.document_id, 0, row.embed_hash, 0, row.length, row.text,
             CASE WHEN row.title = '' THEN '{}'::text[] ELSE ARRAY[row.title] END, 1, row.language
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::int[], $6::text[], $7::text[], $8::text[])
              AS row (id, generation_id, document_id, embed_hash, length, text, title, language)",
    )
    .bind(&columns.chunks)
    .bind(&columns.generations)
    .bind(&columns.documents)
    .bind(&columns.hashes)
    .bind(&columns.lengths)
    .bind(&columns.texts)
    .bind(&columns.titles)
    .bind(&columns.languages)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding)
         SELECT current_tenant(), $3, row.embed_hash, row.embedding FROM unnest($1::bytea[], $2::vector[]) AS row (embed_hash, embedding)
         ON CONFLICT DO NOTHING",
    )
    .bind(&columns.hashes)
    .bind(&columns.vectors)
    .bind(space)
    .execute(connection)
    .await?;
    Ok(())
}
