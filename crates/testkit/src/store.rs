//! An object store in this process for one world: a real socket, real signatures, faults on demand.
//!
//! It runs on a thread that outlives the runtime of any single test.

use docmill_embedded::objects::{self, Faults, ObjectStoreConfig};
use std::path::PathBuf;
use std::sync::OnceLock;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The bucket of every test store.
pub(crate) const BUCKET: &str = "docmill";
/// The access key of every test store.
pub(crate) const ACCESS_KEY: &str = "docmill-test";
/// The secret key of every test store.
pub(crate) const SECRET_KEY: &str = "docmill-test-secret";

/// One running store.
pub(crate) struct Store {
    pub(crate) endpoint: String,
    pub(crate) faults: Faults,
    pub(crate) root: PathBuf,
    stop: CancellationToken,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        match builder.worker_threads(1).thread_name("test-store").enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime for the test store: {error}"),
        }
    })
}

impl Store {
    /// Starts a store in `root`. Blocks.
    pub(crate) fn start(root: PathBuf) -> Self {
        let bound = runtime().block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)));
        let listener = bound.unwrap_or_else(|error| panic!("no loopback port for the test store: {error}"));
        let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
        let (faults, stop) = (Faults::default(), CancellationToken::new());
        let config = ObjectStoreConfig {
            root: root.clone(),
            name: "docmill-test".to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            buckets: vec![BUCKET.to_owned()],
        };
        runtime().spawn(objects::serve(config, listener, faults.clone(), stop.clone()));
        Self { endpoint: format!("http://127.0.0.1:{port}"), faults, root, stop }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
