//! Settings become services: everything a role needs, built and checked in one place.
//!
//! What can be wrong for good (versions, roles, models, files) is found here, before anything is served.

use crate::config::{Config, EmbeddingProvider};
use crate::embedders::embedders;
use crate::models;
use crate::roles::Roles;
use crate::searching;
use docmill_documents::{Parser, ParserConfig, TesseractConfig};
use docmill_embedded::checks;
use docmill_model::{Code, Failure, Sha256Hex};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::blobs::{Blobs, S3Blobs, S3Config, UploadExpiry};
use docmill_platform::database::{Database, DatabaseConfig};
use docmill_platform::embedder::{Embedders, bind_space};
use docmill_platform::failpoints::{Action, Failpoints};
use docmill_platform::gateway::Gateway;
use docmill_platform::gateway::prompts::{COMMITTED as BUILTIN_PROMPTS, Prompts};
use docmill_platform::reranker::Reranker;
use docmill_platform::tokens::TokenCounter;
use docmill_runtime::pipeline::Pipelines;
use docmill_runtime::{Engine, EngineConfig, Registry};
use docmill_stages::StageDeps;
use secrecy::{ExposeSecret, SecretString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The pipeline files this build was made with, for installations that bring none.
const BUILTIN_PIPELINES: &[(&str, &str)] = &[
    ("default.yaml", include_str!("../../../pipelines/default.yaml")),
    ("contracts.yaml", include_str!("../../../pipelines/contracts.yaml")),
    ("invoices.yaml", include_str!("../../../pipelines/invoices.yaml")),
    ("schemas/general.json", include_str!("../../../pipelines/schemas/general.json")),
    ("schemas/contracts.json", include_str!("../../../pipelines/schemas/contracts.json")),
    ("schemas/invoices.json", include_str!("../../../pipelines/schemas/invoices.json")),
];

/// The services of one process.
pub struct Assembly {
    pub database: Database,
    pub artifacts: Artifacts,
    pub embedders: Embedders,
    /// Where a model is configured and searches are served.
    pub reranker: Option<Arc<dyn Reranker>>,
    pub parser: Arc<Parser>,
    pub registry: Arc<Registry>,
    pub pipelines: Arc<Pipelines>,
    pub engine: Engine,
    pub gateway: Option<Arc<Gateway>>,
    pub prompts: Prompts,
    pub data_dir: PathBuf,
}

impl Assembly {
    /// Builds what `roles` need.
    ///
    /// # Errors
    /// One line with the fix: `CONFIG_INVALID`, `PART_MISSING`, or the service that does not answer.
    pub async fn build(config: &Config, roles: &Roles) -> Result<Self, Failure> {
        let data_dir = data_dir(config)?;
        let ((database, artifacts), embedders, reranker) = tokio::try_join!(
            stores(config),
            embedders(config, roles.needs_model()),
            searching::reranker(config, roles.api)
        )?;
        if roles.needs_model() {
            bind_space(&database, &embedders).await?;
        }
        let gateway = models::gateway(&config.llm, &database)?;
        let folder = pipelines_dir(config, &data_dir)?;
        let prompts = models::prompts(&folder, &database).await?;
        let parser = Arc::new(parser(config)?);
        let registry = Arc::new(docmill_stages::registry(StageDeps {
            parser: parser.clone(),
            embedders: embedders.clone(),
            tokens: tokens(config, roles.needs_model())?,
            gateway: gateway.clone(),
            prompts: prompts.clone(),
        }));
        let pipelines = Arc::new(Pipelines::load(&folder, &registry)?);
        pipelines.register(&database).await?;
        let engine_config = EngineConfig { failpoints: database.failpoints().clone(), ..engine_config(config, roles)? };
        let engine =
            Engine::new(engine_config, database.clone(), artifacts.clone(), registry.clone(), pipelines.clone());
        if roles.needs_broker() {
            engine.check().await?;
        }
        Ok(Self {
            database,
            artifacts,
            embedders,
            reranker,
            parser,
            registry,
            pipelines,
            engine,
            gateway,
            prompts,
            data_dir,
        })
    }

    /// What deletions and retention work on.
    pub fn stores(&self) -> docmill_lifecycle::Stores {
        docmill_lifecycle::Stores { database: self.database.clone(), artifacts: self.artifacts.clone() }
    }
}

/// Postgres and the object store, checked.
async fn stores(config: &Config) -> Result<(Database, Artifacts), Failure> {
    let database = database(config).await?;
    let blobs = S3Blobs::new(&s3_config(config)?);
    blobs.check().await?;
    let blobs: Arc<dyn Blobs> = Arc::new(blobs);
    let database = database.with_failpoints(failpoints(config)?);
    Ok((database.clone(), Artifacts::new(database, blobs)))
}

/// Puts the lifecycle rule for uploads on the bucket, unless the settings leave the bucket alone. A store that refuses or
/// has no such rules is told in the log: the collection removes the same objects as long as a reconciler runs.
///
/// # Errors
/// `CONFIG_INVALID` for a number of days that would let go of uploads that are still waited for.
pub async fn expire_uploads(config: &Config, blobs: &dyn Blobs) -> Result<(), Failure> {
    let Some(days) = config.s3.expire_uploads_days else { return Ok(()) };
    if days < 2 {
        let message = "s3.expire_uploads_days is at least 2: an upload may wait a day to be completed";
        return Err(Failure::limit(Code::ConfigInvalid, message, 2, u64::from(days)));
    }
    match blobs.set_upload_expiry(UploadExpiry { days, unfinished_days: days }).await {
        Ok(true) => tracing::info!(days, "the bucket's lifecycle rule for uploads was set"),
        Ok(false) => {}
        Err(error) => tracing::warn!(error = %error, "the bucket has no lifecycle rule for uploads"),
    }
    Ok(())
}

/// The points at which this process dies: none, unless a crash test says so.
fn failpoints(config: &Config) -> Result<Failpoints, Failure> {
    let failpoints = Failpoints::default();
    for spec in &config.engine.failpoints {
        match spec.strip_prefix("record=") {
            Some(path) => failpoints.record(path.into()),
            None if failpoints.arm(spec, Action::Abort) => {}
            None => return Err(Failure::new(Code::ConfigInvalid, format!("there is no failpoint `{spec}`"))),
        }
    }
    Ok(failpoints)
}

/// The pools, after the server, its settings and the roles were checked.
///
/// # Errors
/// `CONFIG_INVALID` with the fix, or `DATABASE_UNAVAILABLE`.
pub async fn database(config: &Config) -> Result<Database, Failure> {
    let app_url = Config::need(&config.database.url, "DOCMILL_DATABASE_URL")?.clone();
    let engine_url = Config::need(&config.database.engine_url, "DOCMILL_DATABASE_ENGINE_URL")?.clone();
    let (app, engine) = (app_url.clone(), engine_url.clone());
    blocking(move || checks::check_postgres(app.expose_secret(), engine.expose_secret())).await?;
    let pools = DatabaseConfig {
        app_url,
        engine_url,
        max_connections: config.database.max_connections,
        acquire_timeout: config.database.acquire_timeout,
    };
    Database::connect(&pools).await
}

/// Runs blocking work off the runtime's threads.
///
/// # Errors
/// Those of the work, `INTERNAL` when it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "a step of the start panicked")))
}

fn s3_config(config: &Config) -> Result<S3Config, Failure> {
    let s3 = &config.s3;
    Ok(S3Config {
        endpoint: Config::need(&s3.endpoint, "DOCMILL_S3_ENDPOINT")?.clone(),
        public_endpoint: s3.public_endpoint.clone(),
        region: s3.region.clone(),
        bucket: s3.bucket.clone(),
        access_key: Config::need(&s3.access_key, "DOCMILL_S3_ACCESS_KEY")?.clone(),
        secret_key: Config::need(&s3.secret_key, "DOCMILL_S3_SECRET_KEY")?.clone(),
        path_style: s3.path_style,
    })
}

/// Token counts of the model; of words without one.
///
/// # Errors
/// `PART_MISSING` when the tokenizer cannot be read.
pub fn tokens(config: &Config, needed: bool) -> Result<Arc<TokenCounter>, Failure> {
    let counter = match &config.embedding.model_dir {
        Some(folder) if needed && config.embedding.provider == EmbeddingProvider::Local => TokenCounter::load(folder)?,
        _ => TokenCounter::words(),
    };
    Ok(Arc::new(counter))
}

/// Asks the object store whether it is there.
///
/// # Errors
/// `CONFIG_INVALID` or `STORE_UNAVAILABLE`.
pub async fn check_store(config: &Config) -> Result<(), Failure> {
    S3Blobs::new(&s3_config(config)?).check().await
}

/// Loads the model, which compares a known vector, and says which one it is.
///
/// # Errors
/// `PART_MISSING` or `CONFIG_INVALID`.
pub async fn check_model(config: &Config) -> Result<String, Failure> {
    let models = embedders(config, true).await?;
    let model = models.first();
    let further = models.names().len() - 1;
    let beside = if further == 0 { String::new() } else { format!("; {further} for further spaces") };
    Ok(format!("{} dimensions, {}{beside}", model.dimensions(), model.fingerprint()))
}

/// The sandboxed parser: this binary, started again.
///
/// # Errors
/// `CONFIG_INVALID` for a setting that names nothing: reading would go on with less, and nobody would know why.
pub fn parser(config: &Config) -> Result<Parser, Failure> {
    let parsing = &config.parsing;
    let named = [("pdfium", &parsing.pdfium), ("tesseract", &parsing.tesseract), ("tessdata", &parsing.tessdata)];
    for (setting, path) in named {
        if let Some(path) = path.as_ref().filter(|path| !path.exists()) {
            let message = format!("`parsing.{setting}` names {}, which does not exist", path.display());
            return Err(Failure::new(Code::ConfigInvalid, message));
        }
    }
    Ok(Parser::new(ParserConfig {
        // Not by its path: the user the roles run as may not be able to reach the folder of the binary.
        child: PathBuf::from("/proc/self/exe"),
        child_args: vec!["parse-child".to_owned()],
        pdfium: config.parsing.pdfium.clone(),
        tesseract: tesseract(config),
        slots: config.parsing.slots.max(1),
        landlock_required: config.parsing.landlock_required,
        options: docmill_documents::ParseOptions::default(),
    }))
}

fn tesseract(config: &Config) -> Option<TesseractConfig> {
    let installed = docmill_embedded::ocr::installed();
    let binary = config.parsing.tesseract.clone().or_else(|| installed.as_ref().map(|found| found.binary.clone()))?;
    let tessdata =
        config.parsing.tessdata.clone().or_else(|| installed.as_ref().map(|found| found.tessdata.clone()))?;
    // An unpacked tesseract brings its libraries along: `ROOT/usr/bin/tesseract` and `ROOT/usr/lib/…`.
    let unpacked =
        binary.ancestors().nth(3).map(|root| root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
    let libraries = unpacked.filter(|folder| !folder.starts_with("/usr") && folder.is_dir());
    Some(TesseractConfig { binary, tessdata, libraries })
}

fn engine_config(config: &Config, roles: &Roles) -> Result<EngineConfig, Failure> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let worker = format!("{}-{}-{}", host.trim(), std::process::id(), &uuid::Uuid::new_v4().simple().to_string()[..6]);
    let nats = if roles.needs_broker() {
        Config::need(&config.nats.url, "DOCMILL_NATS_URL")?.clone()
    } else {
        config.nats.url.clone().unwrap_or_else(|| SecretString::from(String::new()))
    };
    let mut engine = EngineConfig::new(worker, config.nats.stream_prefix.clone(), nats);
    engine.lease = config.engine.lease;
    engine.grace = config.engine.grace;
    engine.slots = config.engine.slots.clone();
    engine.stages = roles.stages.clone();
    Ok(engine)
}

/// Where this process keeps what it can rebuild.
fn data_dir(config: &Config) -> Result<PathBuf, Failure> {
    let folder = config.data_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("docmill-data"));
    docmill_embedded::files::private_dir(&folder)?;
    Ok(folder)
}

/// The configured folder of pipeline files, or the built-in files written to one.
///
/// # Errors
/// `CONFIG_INVALID` when they cannot be written.
pub fn pipelines_dir(config: &Config, data_dir: &Path) -> Result<PathBuf, Failure> {
    if let Some(folder) = &config.pipelines {
        return Ok(folder.clone());
    }
    let files: Vec<_> = BUILTIN_PIPELINES.iter().chain(BUILTIN_PROMPTS).collect();
    let all: String = files.iter().map(|(name, text)| format!("{name}\n{text}\n")).collect();
    let folder = data_dir.join(format!("pipelines-{}", &Sha256Hex::of(all.as_bytes()).as_str()[..12]));
    for (name, text) in files {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == *text) {
            continue;
        }
        docmill_embedded::files::private_dir(path.parent().unwrap_or(&folder))?;
        docmill_embedded::files::replace(&path, text.as_bytes(), 0o600)?;
    }
    Ok(folder)
}
