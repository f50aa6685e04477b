//! A processed document, written the way the stages write it.

use super::{Api, Tenant};
use docmill_model::chunk::{Chunk, ChunkKind, ChunkList};
use docmill_model::document::{Format, ParsedDocument};
use docmill_model::manifest::{Manifest, kind};
use docmill_model::{Sha256Hex, Span};
use serde_json::json;
use uuid::Uuid;

/// Identifiers of what was written.
pub struct Published {
    pub document: String,
    pub run: String,
    pub job: String,
    pub generation: Uuid,
    /// Hashes of the embedded texts.
    pub embedded: Vec<Vec<u8>>,
}

/// Uploads a document of `passages` and writes what ingest, chunk, embed, index, extract and summarize would.
pub async fn publish(api: &Api, tenant: &Tenant, name: &str, passages: &[&str]) -> Published {
    publish_hiding(api, tenant, name, passages, Vec::new()).await
}

/// The same, where a reader would not see `hidden`.
pub async fn publish_hiding(api: &Api, tenant: &Tenant, name: &str, passages: &[&str], hidden: Vec<Span>) -> Published {
    let text = passages.join("\n\n");
    let document = api.upload(&tenant.key, name, text.as_bytes()).await;
    let (chunks, parsed) = (chunks(passages), ParsedDocument { hidden, ..parsed(&text) });
    let artifact = |bytes: Vec<u8>| api.world.artifacts.put(tenant.id, bytes.into());
    let parsed = artifact(serde_json::to_vec(&parsed).unwrap()).await.unwrap();
    let list = artifact(serde_json::to_vec(&ChunkList { chunks: chunks.clone() }).unwrap()).await.unwrap();
    let mut manifest = Manifest::default();
    manifest.artifacts.insert(kind::PARSED.to_owned(), parsed.clone());
    manifest.artifacts.insert(kind::CHUNKS.to_owned(), list);
    let texts: Vec<String> = chunks.iter().map(Chunk::embed_text).collect();
    let vectors = api.world.embedder.embed(&texts).await.unwrap();
    let embedded: Vec<Vec<u8>> = texts.iter().map(|t| Sha256Hex::of(t.as_bytes()).to_bytes().to_vec()).collect();
    let (id, hashes, generation): (Uuid, _, _) = (document.parse().unwrap(), embedded.clone(), Uuid::now_v7());
    let manifest = serde_json::to_value(&manifest).unwrap();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            let version: Uuid = sqlx::query_scalar("UPDATE document_versions SET parsed_sha256 = $2, format = 'text', language = 'eng',
                    char_count = $3 WHERE document_id = $1 RETURNING id")
                .bind(id).bind(parsed.sha256.as_str()).bind(text.chars().count() as i32).fetch_one(&mut *connection).await?;
            sqlx::query("INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count, state)
                         VALUES (current_tenant(), $1, $2, $3, $4, $5, 'visible')")
                .bind(generation).bind(id).bind(version).bind(parsed.sha256.as_str()).bind(chunks.len() as i32)
                .execute(&mut *connection).await?;
            for ((chunk, hash), vector) in chunks.iter().zip(&hashes).zip(vectors) {
                sqlx::query("INSERT INTO chunks (tenant_id, id, generation_id, document_id, ordinal, embed_hash, char_start, char_end, text, tokens)
                             VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, 5)")
                    .bind(Uuid::now_v7()).bind(generation).bind(id).bind(chunk.ordinal as i32).bind(hash)
                    .bind(chunk.span.start as i32).bind(chunk.span.end as i32).bind(&chunk.text)
                    .execute(&mut *connection).await?;
                sqlx::query("INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding) VALUES (current_tenant(), 1, $1, $2)
                             ON CONFLICT DO NOTHING")
                    .bind(hash).bind(pgvector::Vector::from(vector)).execute(&mut *connection).await?;
            }
            let (run, job): (Uuid, Uuid) = sqlx::query_as("SELECT run_id, id FROM jobs WHERE document_id = $1").bind(id)
                .fetch_one(&mut *connection).await?;
            sqlx::query("UPDATE jobs SET state = 'done', manifest = $2, finished_at = now() WHERE id = $1").bind(job).bind(manifest)
                .execute(&mut *connection).await?;
            sqlx::query("UPDATE runs SET state = 'done', settled_at = now() WHERE id = $1").bind(run).execute(&mut *connection).await?;
            sqlx::query("INSERT INTO summaries (tenant_id, version_id, document_id, run_id, sentences, engine)
                         VALUES (current_tenant(), $1, $2, $3, $4, 'extractive')")
                .bind(version).bind(id).bind(run)
                .bind(json!([{"text": chunks[0].text, "citations": [{"span": chunks[0].span}]}])).execute(&mut *connection).await?;
            sqlx::query("INSERT INTO extractions (tenant_id, version_id, document_id, run_id, schema_name, fields, data, engine)
                         VALUES (current_tenant(), $1, $2, $3, 'general', $4, $5, 'rules')")
                .bind(version).bind(id).bind(run)
                .bind(json!({"title": [{"raw": chunks[0].text, "normalized": chunks[0].text, "place": {"span": chunks[0].span}, "confidence": 1.0}]}))
                .bind(json!({"title": chunks[0].text})).execute(&mut *connection).await?;
            sqlx::query("UPDATE documents SET state = 'done', visible_generation = $2, visible_version = $3 WHERE id = $1")
                .bind(id).bind(generation).bind(version).execute(&mut *connection).await?;
            Ok((run, job))
        })
    });
    let (run, job) = write.await.unwrap();
    Published { document, run: run.to_string(), job: job.to_string(), generation, embedded }
}

/// The chunks of a document of these passages.
pub fn chunks(passages: &[&str]) -> Vec<Chunk> {
    let mut start = 0;
    let chunk = |(ordinal, passage): (usize, &&str)| {
        let span = Span::new(start, start + passage.chars().count() as u32);
        start = span.end + 2;
        Chunk {
            ordinal: ordinal as u32,
            span,
            text: (*passage).to_owned(),
            heading_path: Vec::new(),
            kind: ChunkKind::Text,
            page_start: None,
            page_end: None,
            tokens: 5,
            language: None,
            has_hidden: false,
        }
    };
    passages.iter().enumerate().map(chunk).collect()
}

pub fn parsed(text: &str) -> ParsedDocument {
    ParsedDocument {
        schema: ParsedDocument::SCHEMA,
        format: Format::Text,
        engine: "text".to_owned(),
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
    }
}
