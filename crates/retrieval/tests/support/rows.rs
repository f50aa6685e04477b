//! The rows that the stages leave behind.

use super::{Doc, Written};
use docmill_model::id::derived_uuid;
use docmill_model::{Sha256Hex, Span};
use pgvector::Vector;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

pub async fn insert_document(
    connection: &mut PgConnection,
    written: &Written,
    number: i32,
    doc: &Doc,
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
             upload_key, upload_expires_at)
         VALUES (current_tenant(), $1, $2, $3, 'application/pdf', 1, $4, $5, 'k', now())",
    )
    .bind(written.version.0)
    .bind(written.document.0)
    .bind(number)
    .bind(Sha256Hex::of(doc.passages.concat().as_bytes()).to_string())
    .bind(pipeline)
    .execute(connection)
    .await?;
    Ok(())
}

/// What ingest and index write of a text.
pub async fn insert_generation(
    connection: &mut PgConnection,
    written: &Written,
    doc: &Doc,
    parsed: &Sha256Hex,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE document_versions SET parsed_sha256 = $2 WHERE tenant_id = current_tenant() AND id = $1")
        .bind(written.version.0)
        .bind(parsed.to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count, parsed_sha256)
         VALUES (current_tenant(), $1, $2, $3, 'x', $4, $5)",
    )
    .bind(written.generation.0)
    .bind(written.document.0)
    .bind(written.version.0)
    .bind(doc.passages.len() as i32)
    .bind(parsed.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn insert_chunks(
    connection: &mut PgConnection,
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
