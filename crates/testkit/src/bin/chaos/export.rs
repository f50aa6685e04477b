//! The canonical export: everything a user can get out, free of random ids, times and attempts.
//!
//! Documents are named by the hash of their bytes, vectors by the hash of what was embedded, and the ledger is summed,
//! because which of two documents pays for a passage both have depends on the order. Two runs over the same documents
//! have equal exports, whatever broke in one of them.

use crate::plant::{Plant, Tenant};
use anyhow::Result;
use sqlx::{PgConnection, Row};
use std::collections::BTreeMap;

/// Least cosine of two embeddings of the same text: the shape of a batch changes last bits.
const SAME: f64 = 0.99999;

/// One run's results.
#[derive(Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Export {
    /// Section and identity → content.
    pub rows: BTreeMap<String, String>,
    /// Space and hash of the text → embedding.
    pub vectors: BTreeMap<String, Vec<f32>>,
}

/// Each yields `(identity, content)`; documents are those that are visible to users.
const SECTIONS: &[(&str, &str)] = &[
    (
        "document",
        "SELECT v.sha256, jsonb_build_object('state', d.state, 'code', d.code, 'format', v.format, 'language', v.language, 'pages', v.page_count,
                'chars', v.char_count, 'parsed', v.parsed_sha256, 'title', v.title, 'visible', g.state, 'chunks', g.chunk_count,
                'list', g.chunks_sha256)::text
         FROM documents d JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.document_id = d.id
         LEFT JOIN generations g ON g.tenant_id = d.tenant_id AND g.id = d.visible_generation",
    ),
    (
        "job",
        "SELECT v.sha256 || ' ' || j.stage, jsonb_build_object('state', j.state, 'code', j.code, 'manifest', j.manifest)::text
         FROM jobs j JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
         JOIN document_versions v ON v.tenant_id = r.tenant_id AND v.id = r.version_id",
    ),
    (
        "chunk",
        "SELECT v.sha256 || ' ' || c.ordinal, jsonb_build_array(c.char_start, c.char_end, c.text, c.heading_path, c.kind, c.page_start, c.page_end,
                c.tokens, c.language, c.has_hidden, encode(c.embed_hash, 'hex'))::text
         FROM chunks c JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id
         JOIN document_versions v ON v.tenant_id = g.tenant_id AND v.id = g.version_id",
    ),
    (
        "extraction",
        "SELECT v.sha256, jsonb_build_array(e.schema_name, e.fields, e.data, e.engine)::text FROM extractions e
         JOIN document_versions v ON v.tenant_id = e.tenant_id AND v.id = e.version_id",
    ),
    (
        "summary",
        "SELECT v.sha256, jsonb_build_array(s.sentences, s.engine)::text FROM summaries s
         JOIN document_versions v ON v.tenant_id = s.tenant_id AND v.id = s.version_id",
    ),
    (
        "ledger",
        "SELECT feature || ' ' || task || ' ' || provider || ' ' || model || ' ' || outcome,
                jsonb_build_array(sum(units), sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(cost_microusd))::text
         FROM ledger GROUP BY feature, task, provider, model, outcome",
    ),
    (
        "index",
        "SELECT v.sha256 || ' ' || o.op, count(*)::text FROM index_ops o
         JOIN generations g ON g.tenant_id = o.tenant_id AND g.id = o.generation_id
         JOIN document_versions v ON v.tenant_id = g.tenant_id AND v.id = g.version_id
         WHERE o.seq = (SELECT max(n.seq) FROM index_ops n WHERE n.tenant_id = o.tenant_id AND n.generation_id = o.generation_id)
         GROUP BY 1",
    ),
];

impl Export {
    /// Reads what a tenant has, as that tenant sees it, from a plant whose work has ended.
    pub fn of(plant: &Plant, tenant: &Tenant) -> Result<Self> {
        plant.runtime.block_on(async {
            let mut connection = plant.as_tenant(Some(&tenant.id)).await?;
            let mut export = Self::default();
            for (section, sql) in SECTIONS {
                let rows: Vec<(String, String)> = sqlx::query_as(*sql).fetch_all(&mut connection).await?;
                export
                    .rows
                    .extend(rows.into_iter().map(|(identity, content)| (format!("{section} {identity}"), content)));
            }
            export.vectors = vectors(&mut connection).await?;
            Ok(export)
        })
    }

    /// The first differences, in words.
    pub fn differences(&self, other: &Self, limit: usize) -> Vec<String> {
        let mut found = differing(&self.rows, &other.rows, |a, b| a == b);
        found.extend(differing(&self.vectors, &other.vectors, |a, b| cosine(a, b) >= SAME));
        found.truncate(limit);
        found
    }
}

fn differing<T: std::fmt::Debug>(
    here: &BTreeMap<String, T>,
    there: &BTreeMap<String, T>,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<String> {
    let shown = |value: Option<&T>| {
        value.map_or("nothing".to_owned(), |value| format!("{value:.300?}").chars().take(300).collect())
    };
    let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let unlike = keys.into_iter().filter(|key| match (here.get(*key), there.get(*key)) {
        (Some(a), Some(b)) => !same(a, b),
        _ => true,
    });
    unlike.map(|key| format!("{key}: {} instead of {}", shown(here.get(key)), shown(there.get(key)))).collect()
}

async fn vectors(connection: &mut PgConnection) -> Result<BTreeMap<String, Vec<f32>>> {
    let rows = sqlx::query("SELECT space_id || ' ' || encode(embed_hash, 'hex'), embedding::real[] FROM vectors")
        .fetch_all(connection)
        .await?;
    let vector =
        |row: &sqlx::postgres::PgRow| Ok((format!("vector {}", row.try_get::<String, _>(0)?), row.try_get(1)?));
    rows.iter().map(vector).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    if a == b { 1.0 } else { dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() }
}
