//! The settings of the plant's processes: real services, each behind its breakable link, and limits that no campaign
//! runs into.

use crate::plant::Settings;
use anyhow::Result;
use docmill_embedded::stack::DATABASE;
use docmill_embedded::{Home, Stack};
use docmill_testkit::proxy::Proxy;
use std::path::Path;

/// Names and values; `links` lead to Postgres, NATS and the object store.
pub fn environment(
    home: &Home,
    stack: &Stack,
    settings: &Settings,
    links: (&Proxy, &Proxy, &Proxy),
) -> Result<Vec<(String, String)>> {
    let ends = stack.endpoints(DATABASE)?;
    let through = |url: &str, role: &str| {
        let password = url.split("password=").nth(1).unwrap_or_default();
        format!("postgres://{role}:{password}@127.0.0.1:{}/{DATABASE}?sslmode=disable", links.0.port())
    };
    let nats = ends.nats_url.rsplit_once('@').map_or(ends.nats_url.as_str(), |(credentials, _)| credentials);
    let path = |path: &Path| path.display().to_string();
    let mut all = vec![
        ("DATABASE_URL", through(&ends.database.app, "docmill_app")),
        ("DATABASE_ENGINE_URL", through(&ends.database.engine, "docmill_engine")),
        ("NATS_URL", format!("{nats}@127.0.0.1:{}", links.1.port())),
        ("S3_ENDPOINT", format!("http://127.0.0.1:{}", links.2.port())),
        ("S3_REGION", ends.store.region),
        ("S3_BUCKET", ends.store.bucket),
        ("S3_ACCESS_KEY", ends.store.access_key),
        ("S3_SECRET_KEY", ends.store.secret_key),
        ("PEPPER", "a pepper for one campaign".to_owned()),
        ("EMBEDDING_PROVIDER", settings.embedder.clone()),
        ("MODEL_DIR", path(&ends.parts.model_dir)),
        ("ONNXRUNTIME", path(&ends.parts.onnxruntime)),
        ("PDFIUM", path(&ends.parts.pdfium)),
        ("ENGINE_LEASE", settings.lease.clone()),
        ("ALLOW_PRIVATE_WEBHOOKS", "true".to_owned()),
        ("RATE_PER_SEC", "100000".to_owned()),
        ("RATE_BURST", "100000".to_owned()),
        ("LOG", "info,sqlx::postgres::notice=off".to_owned()),
    ];
    // A second model of another length, which a campaign of updates changes to; nothing is embedded with it elsewhere.
    let file = home.root().join("docmill.yaml");
    std::fs::write(&file, "embedding: {models: {second: {provider: hash, dimensions: 512}}}\n")?;
    all.push(("CONFIG", path(&file)));
    if let Some(found) = &ends.parts.tesseract {
        all.push(("TESSERACT", path(&found.binary)));
        all.push(("TESSDATA", path(&found.tessdata)));
    }
    Ok(all.into_iter().map(|(name, value)| (format!("DOCMILL_{name}"), value)).collect())
}
