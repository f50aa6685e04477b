//! Everything one test needs, and nothing another test can see.

use crate::shared::{Shared, fresh_name, shared};
use crate::store::{self, Store};
use docmill_embedded::LocalParts;
use docmill_embedded::objects::Faults;
use docmill_model::TenantId;
use docmill_platform::artifacts::Artifacts;
use docmill_platform::blobs::{Blobs, S3Blobs, S3Config};
use docmill_platform::database::{Database, DatabaseConfig};
use docmill_platform::embedder::{Embedder, HashEmbedder};
use futures::TryStreamExt;
use secrecy::{ExposeSecret, SecretString};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A database, an object store and a stream prefix of its own.
pub struct World {
    /// Pools of the app and the engine role.
    pub database: Database,
    /// The object store, over a real socket.
    pub blobs: Arc<dyn Blobs>,
    /// Artifacts over both.
    pub artifacts: Artifacts,
    /// Deterministic embeddings: equal words give close vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Plans failures of the object store's reads.
    pub faults: Faults,
    /// How to reach the store, for a second client.
    pub s3: S3Config,
    /// NATS with its token.
    pub nats_url: SecretString,
    /// Prefix of all streams of this test.
    pub stream_prefix: String,
    /// URL of the role that owns the schema.
    pub owner_url: SecretString,
    /// URL of the role bound by row-level security.
    pub app_url: SecretString,
    /// URL of the role that moves jobs.
    pub engine_url: SecretString,
    /// Paths of the pinned parts (pdfium, ONNX Runtime, the model) and tesseract.
    pub parts: LocalParts,
    name: String,
    shared: &'static Shared,
    store: Store,
}

/// A fresh world.
///
/// # Panics
/// When the shared servers cannot be started or the database cannot be made.
pub async fn world() -> World {
    let prepared = tokio::task::spawn_blocking(|| {
        let (shared, name) = (shared(), fresh_name());
        let made = shared.create_database(&name).and_then(|()| shared.stack.database_urls(&name));
        let urls = made.unwrap_or_else(|failure| panic!("no database for the test: {failure}"));
        let nats_url = shared.stack.nats_url().unwrap_or_else(|failure| panic!("no broker for the test: {failure}"));
        let store = Store::start(shared.objects().join(&name));
        (shared, name, urls, nats_url, store)
    });
    let (shared, name, urls, nats_url, store) =
        prepared.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let config = DatabaseConfig {
        app_url: urls.app.clone().into(),
        engine_url: urls.engine.clone().into(),
        max_connections: 8,
        acquire_timeout: Duration::from_secs(20),
    };
    let database = Database::connect(&config).await.unwrap_or_else(|failure| panic!("no pool for the test: {failure}"));
    let s3 = S3Config {
        endpoint: store.endpoint.clone(),
        public_endpoint: None,
        region: "us-east-1".to_owned(),
        bucket: store::BUCKET.to_owned(),
        access_key: store::ACCESS_KEY.to_owned(),
        secret_key: SecretString::from(store::SECRET_KEY),
        path_style: true,
    };
    let blobs: Arc<dyn Blobs> = Arc::new(S3Blobs::new(&s3));
    World {
        artifacts: Artifacts::new(database.clone(), blobs.clone()),
        database,
        blobs,
        embedder: Arc::new(HashEmbedder::new()),
        faults: store.faults.clone(),
        s3,
        nats_url: nats_url.into(),
        stream_prefix: name.clone(),
        owner_url: urls.owner.into(),
        app_url: urls.app.into(),
        engine_url: urls.engine.into(),
        parts: shared.stack.local_parts(),
        name,
        shared,
        store,
    }
}

impl World {
    /// Where the object store keeps its files.
    pub(crate) fn store_root(&self) -> &Path {
        &self.store.root
    }

    /// A connection to the broker.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn nats(&self) -> async_nats::Client {
        let connected = connect(self.nats_url.expose_secret()).await;
        connected.unwrap_or_else(|error| panic!("no broker for the test: {error}"))
    }

    /// A fresh tenant.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn tenant(&self) -> TenantId {
        let tenant = TenantId::fresh();
        let made = sqlx::query("INSERT INTO tenants (id, name) VALUES ($1, $2)")
            .bind(tenant.0)
            .bind(tenant.to_string())
            .execute(self.database.engine())
            .await;
        made.unwrap_or_else(|error| panic!("no tenant for the test: {error}"));
        tenant
    }
}

impl Drop for World {
    /// On a thread of its own: the synchronous driver may not run inside the test's runtime.
    fn drop(&mut self) {
        let (shared, name) = (self.shared, self.name.clone());
        let (nats_url, prefix) = (self.nats_url.clone(), self.stream_prefix.clone());
        let cleaned = std::thread::spawn(move || {
            let dropped = shared.drop_database(&name);
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                let _ = runtime.block_on(remove_streams(nats_url.expose_secret(), &prefix));
            }
            dropped
        });
        // A leftover is swept by the next test process; failing here would hide the test's own failure.
        if let Ok(Err(failure)) = cleaned.join() {
            eprintln!("the database of a test was left behind: {failure}");
        }
    }
}

/// A connection with the credentials in the URL, which the client does not look at by itself.
///
/// # Errors
/// The client's.
pub async fn connect(nats_url: &str) -> Result<async_nats::Client, async_nats::Error> {
    let address: async_nats::ServerAddr = nats_url.parse()?;
    let (user, password) = (address.username().unwrap_or_default(), address.password().unwrap_or_default());
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    Ok(options.connect(address).await?)
}

async fn remove_streams(nats_url: &str, prefix: &str) -> Result<(), async_nats::Error> {
    let client = tokio::time::timeout(Duration::from_secs(2), connect(nats_url)).await??;
    let context = async_nats::jetstream::new(client);
    let names: Vec<String> = context.stream_names().try_collect().await?;
    for name in names.into_iter().filter(|name| name.starts_with(prefix)) {
        context.delete_stream(name).await?;
    }
    Ok(())
}
