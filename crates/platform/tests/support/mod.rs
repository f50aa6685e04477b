//! The pinned parts, fetched when a machine has none, and one loaded model for the tests of a process.
#![allow(dead_code, clippy::unwrap_used)]

use docmill_embedded::{Home, parts};
use docmill_model::Sha256Hex;
use docmill_platform::embedder::{FastEmbedder, FastEmbedderConfig, LocalModel};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the parts are.
pub async fn config() -> FastEmbedderConfig {
    static CONFIG: OnceLock<FastEmbedderConfig> = OnceLock::new();
    tokio::task::spawn_blocking(|| CONFIG.get_or_init(find).clone()).await.unwrap()
}

/// The model on two threads.
pub async fn embedder() -> &'static FastEmbedder {
    static EMBEDDER: OnceLock<FastEmbedder> = OnceLock::new();
    let config = config().await;
    tokio::task::spawn_blocking(|| EMBEDDER.get_or_init(|| FastEmbedder::load(config).unwrap())).await.unwrap()
}

/// The folder the shared test servers use: under `target/`, or where the servers' user can enter.
fn find() -> FastEmbedderConfig {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let hash = Sha256Hex::of(workspace.as_os_str().as_encoded_bytes());
    let far = PathBuf::from(format!("/var/tmp/docmill-test-{}", &hash.as_str()[..12]));
    let home =
        Home::open(Some(workspace.join("target/docmill-test")), None).or_else(|_| Home::open(Some(far), None)).unwrap();
    parts::fetch(&home, &mut |line| eprintln!("parts: {line}")).unwrap();
    let paths = parts::PartPaths::of(&home).unwrap();
    FastEmbedderConfig {
        onnxruntime: paths.onnxruntime,
        model_dir: paths.model_dir,
        threads: 2,
        model: LocalModel::MiniLm,
    }
}
