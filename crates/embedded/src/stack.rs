//! The embedded stack as one thing: set up, start or attach, stop, status, reset.
//!
//! The object store and Docmill's own roles run in our own binary; this module starts and finds Postgres and NATS and
//! knows the credentials of all three.

use crate::database;
use crate::files::secret;
use crate::home::Home;
use crate::nats::EmbeddedNats;
use crate::ocr::{self, Tesseract};
use crate::parts::{self, PartPaths};
use crate::postgres::EmbeddedPostgres;
use docmill_model::{Code, Failure};
use std::path::PathBuf;

/// The bucket of the embedded object store.
pub const BUCKET: &str = "docmill";
/// The database of the embedded stack.
pub const DATABASE: &str = "docmill";

/// Everything the rest of the program needs to reach the stack.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// URL of the role that migrates.
    pub owner_url: String,
    /// URL of the role bound by row-level security.
    pub app_url: String,
    /// URL of the role that moves jobs.
    pub engine_url: String,
    /// NATS with its token.
    pub nats_url: String,
    /// Key id of the object store.
    pub s3_access_key: String,
    /// Secret of the object store.
    pub s3_secret_key: String,
    /// `libpdfium.so`.
    pub pdfium: PathBuf,
    /// `libonnxruntime.so`.
    pub onnxruntime: PathBuf,
    /// Folder of the embedding model.
    pub model_dir: PathBuf,
    /// OCR, where available.
    pub tesseract: Option<Tesseract>,
}

/// State of one service.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ServiceStatus {
    /// `postgres` or `nats`.
    pub name: String,
    /// True when it answers as ours.
    pub running: bool,
    /// Process id.
    pub pid: Option<u32>,
}

/// The embedded Postgres and NATS of one home.
#[derive(Clone, Debug)]
pub struct Stack {
    home: Home,
    parts: PartPaths,
    postgres: EmbeddedPostgres,
    nats: EmbeddedNats,
}

impl Stack {
    /// The stack of `home`, running or not.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the pins cannot be read.
    pub fn of(home: &Home) -> Result<Self, Failure> {
        Ok(Self { home: home.clone(), parts: PartPaths::of(home)?, postgres: EmbeddedPostgres::of(home), nats: EmbeddedNats::of(home) })
    }

    /// Fetches what is missing. Blocking.
    ///
    /// # Errors
    /// `PART_MISSING` with the fix.
    pub fn set_up(&self, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        parts::fetch(&self.home, progress)?;
        ocr::provide(&self.home, progress);
        Ok(())
    }

    /// Starts or attaches to both services. Blocking.
    ///
    /// # Errors
    /// `PART_MISSING` when set-up has not run, `CONFIG_INVALID` with the last lines of a log.
    pub fn start(&self) -> Result<(), Failure> {
        let missing = parts::missing(&self.home)?;
        if let Some(part) = missing.first() {
            return Err(Failure::new(Code::PartMissing, format!("{} {} is not unpacked; run `docmill setup`", part.package, part.version)));
        }
        std::thread::scope(|scope| {
            let nats = scope.spawn(|| self.nats.start(&self.parts));
            let postgres = self.postgres.start(&self.parts);
            let nats = nats.join().unwrap_or_else(|_| Err(Failure::new(Code::Internal, "starting NATS failed")));
            postgres.and(nats)
        })
    }

    /// Creates and migrates the database of the stack. Blocking.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when a migration fails.
    pub fn migrate(&self) -> Result<Vec<String>, Failure> {
        if database::create_database(&self.admin_url("postgres")?, DATABASE, None)? {
            database::create_extension(&self.admin_url(DATABASE)?)?;
        }
        database::migrate(&self.postgres.url("docmill_owner", DATABASE)?)
    }

    /// URL of the superuser, for set-up and tests only.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the password cannot be read.
    pub fn admin_url(&self, database: &str) -> Result<String, Failure> {
        self.postgres.url("postgres", database)
    }

    /// How to reach everything, for `database`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` or `BROKER_UNAVAILABLE` when the stack was never started.
    pub fn endpoints(&self, database: &str) -> Result<Endpoints, Failure> {
        Ok(Endpoints {
            owner_url: self.postgres.url("docmill_owner", database)?,
            app_url: self.postgres.url("docmill_app", database)?,
            engine_url: self.postgres.url("docmill_engine", database)?,
            nats_url: self.nats.url()?,
            s3_access_key: "docmill".to_owned(),
            s3_secret_key: secret(&self.home.secrets().join("s3.secret"))?,
            pdfium: self.parts.pdfium.clone(),
            onnxruntime: self.parts.onnxruntime.clone(),
            model_dir: self.parts.model_dir.clone(),
            tesseract: ocr::find(&self.home),
        })
    }

    /// What runs.
    #[must_use]
    pub fn status(&self) -> Vec<ServiceStatus> {
        vec![
            ServiceStatus { name: "postgres".into(), running: self.postgres.answers(), pid: self.postgres.pid() },
            ServiceStatus { name: "nats".into(), running: self.nats.answers(), pid: self.nats.pid() },
        ]
    }

    /// Stops both services.
    pub fn stop(&self) {
        self.nats.stop();
        self.postgres.stop();
    }

    /// Deletes all data; parts and secrets stay.
    ///
    /// # Errors
    /// `CONFLICT` while something runs.
    pub fn reset(&self) -> Result<(), Failure> {
        if let Some(service) = self.status().iter().find(|s| s.running) {
            return Err(Failure::new(Code::Conflict, format!("{} is running; run `docmill down` first", service.name)));
        }
        self.postgres.erase()?;
        self.nats.erase()?;
        let objects = self.home.data();
        std::fs::remove_dir_all(&objects).map_err(|e| crate::files::io_failure("remove", &objects, &e))?;
        crate::files::private_dir(&objects)?;
        self.home.give(&objects)
    }
}
