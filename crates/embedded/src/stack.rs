//! The embedded stack as one thing: set up, start or attach, stop, status, reset.
//!
//! Docmill's own roles run elsewhere; this module starts and finds Postgres, NATS and the object store, and knows the
//! credentials of all three. Everything here blocks: call from a blocking thread.

use crate::database;
use crate::files::{io_failure, private_dir};
use crate::home::Home;
use crate::nats::EmbeddedNats;
use crate::ocr::{self, Tesseract};
use crate::parts::{self, PartPaths};
use crate::postgres::EmbeddedPostgres;
use crate::store::{ACCESS_KEY, BUCKET, EmbeddedStore, REGION};
use docmill_model::{Code, Failure};
use std::fs;
use std::path::PathBuf;

/// The database of the embedded stack.
pub const DATABASE: &str = "docmill";

/// How to reach one database as each role.
#[derive(Clone, serde::Serialize)]
pub struct DatabaseUrls {
    /// The role that owns the schema and migrates.
    pub owner: String,
    /// The role bound by row-level security.
    pub app: String,
    /// The role that moves jobs.
    pub engine: String,
}

/// How to reach the object store.
#[derive(Clone, serde::Serialize)]
pub struct StoreAccess {
    /// Base URL; buckets are the first part of the path.
    pub endpoint: String,
    /// Region to sign for.
    pub region: String,
    /// The bucket, which exists.
    pub bucket: String,
    /// Key id.
    pub access_key: String,
    /// Secret.
    pub secret_key: String,
}

/// The unpacked parts that are loaded or run, not connected to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LocalParts {
    /// `libpdfium.so`.
    pub pdfium: PathBuf,
    /// `libonnxruntime.so`.
    pub onnxruntime: PathBuf,
    /// Folder of the embedding model.
    pub model_dir: PathBuf,
    /// OCR, where available.
    pub tesseract: Option<Tesseract>,
}

/// Everything the rest of the program needs to use the stack. Holds secrets: `Debug` shows none of them.
#[derive(Clone, serde::Serialize)]
pub struct Endpoints {
    /// Postgres.
    pub database: DatabaseUrls,
    /// NATS with user and password.
    pub nats_url: String,
    /// The object store.
    pub store: StoreAccess,
    /// Libraries and the model.
    pub parts: LocalParts,
}

/// The endpoints of those services that were ever started; the others are configured elsewhere.
#[derive(Clone)]
pub struct Available {
    /// Postgres.
    pub database: DatabaseUrls,
    /// NATS with user and password.
    pub nats_url: Option<String>,
    /// The object store.
    pub store: Option<StoreAccess>,
    /// Libraries and the model.
    pub parts: LocalParts,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").field("store", &self.store.endpoint).finish_non_exhaustive()
    }
}

/// The services to start; the others are somebody else's.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Postgres.
    pub postgres: bool,
    /// NATS.
    pub nats: bool,
    /// The object store.
    pub objects: bool,
}

impl Wanted {
    /// All three.
    pub const ALL: Wanted = Wanted { postgres: true, nats: true, objects: true };
}

/// State of one service.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ServiceStatus {
    /// `postgres`, `nats` or `objects`.
    pub name: &'static str,
    /// True when it answers as ours.
    pub running: bool,
    /// Process id; also set while it starts or hangs.
    pub pid: Option<u32>,
}

/// The embedded Postgres, NATS and object store of one home.
#[derive(Clone, Debug)]
pub struct Stack {
    home: Home,
    parts: PartPaths,
    postgres: EmbeddedPostgres,
    nats: EmbeddedNats,
    store: EmbeddedStore,
}

impl Stack {
    /// The stack of `home`, running or not.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the pins cannot be read, `PART_MISSING` on an architecture without pinned parts.
    pub fn of(home: &Home) -> Result<Self, Failure> {
        Ok(Self {
            home: home.clone(),
            parts: PartPaths::of(home)?,
            postgres: EmbeddedPostgres::of(home),
            nats: EmbeddedNats::of(home),
            store: EmbeddedStore::of(home),
        })
    }

    /// Fetches what is missing.
    ///
    /// # Errors
    /// `PART_MISSING` with the fix.
    pub fn set_up(&self, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        parts::fetch(&self.home, progress)?;
        ocr::provide(&self.home, progress);
        Ok(())
    }

    /// Starts or attaches to the wanted services. `store_arguments` make this binary call [`Stack::serve_store`]; the
    /// home folder is appended to them. Two starts at once wait for each other.
    ///
    /// # Errors
    /// `PART_MISSING` when set-up has not run, `CONFIG_INVALID` with the last lines of a log.
    pub fn start(&self, wanted: Wanted, store_arguments: &[&str]) -> Result<(), Failure> {
        if let Some(part) = parts::missing(&self.home)?.first() {
            let message = format!("{} {} is not unpacked; run `docmill setup`", part.package, part.version);
            return Err(Failure::new(Code::PartMissing, message));
        }
        let _lock = self.lock()?;
        let crashed = |_| Err(Failure::new(Code::Internal, "starting a service panicked"));
        std::thread::scope(|scope| {
            let nats = wanted.nats.then(|| scope.spawn(|| self.nats.start(&self.parts)));
            let store = wanted.objects.then(|| scope.spawn(|| self.store.start(store_arguments)));
            let postgres = if wanted.postgres { self.postgres.start(&self.parts) } else { Ok(()) };
            let others = [nats, store].into_iter().flatten().map(|started| started.join().unwrap_or_else(crashed));
            others.fold(postgres, Result::and)
        })?;
        self.hand_over()
    }

    /// Started by root, the stack is kept up by its own user, who has to read and replace what was written here.
    fn hand_over(&self) -> Result<(), Failure> {
        for folder in [self.home.run(), self.home.secrets(), self.home.logs()] {
            self.home.give_tree(&folder)?;
        }
        Ok(())
    }

    /// Starts or attaches to Postgres and NATS only.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub fn start_servers(&self) -> Result<(), Failure> {
        self.check_parts()?;
        let _lock = self.lock()?;
        self.nats.start(&self.parts)?;
        self.postgres.start(&self.parts)?;
        self.hand_over()
    }

    fn check_parts(&self) -> Result<(), Failure> {
        let Some(part) = parts::missing(&self.home)?.into_iter().next() else { return Ok(()) };
        let message = format!("{} {} is not unpacked; run `docmill setup`", part.package, part.version);
        Err(Failure::new(Code::PartMissing, message))
    }

    fn lock(&self) -> Result<fs::File, Failure> {
        let path = self.home.run().join("start.lock");
        let lock = fs::File::create(&path).map_err(|e| io_failure("create", &path, &e))?;
        lock.lock().map_err(|e| io_failure("lock", &path, &e))?;
        Ok(lock)
    }

    /// The life of the object store's process: serves until `stop` fires.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the folder or port cannot be used, `CONFLICT` when the folder is already served.
    pub async fn serve_store(&self, stop: tokio_util::sync::CancellationToken) -> Result<(), Failure> {
        self.store.serve(stop).await
    }

    /// Creates and migrates the database of the stack; returns the names of the migrations applied now.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when a migration fails.
    pub fn migrate(&self) -> Result<Vec<String>, Failure> {
        database::create_database(&self.admin_url("postgres")?, DATABASE, None)?;
        database::create_extension(&self.admin_url(DATABASE)?)?;
        database::migrate(&self.database_urls(DATABASE)?.owner)
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
    /// `CONFIG_INVALID`, `BROKER_UNAVAILABLE` or `STORE_UNAVAILABLE` when the stack was never started.
    pub fn endpoints(&self, database: &str) -> Result<Endpoints, Failure> {
        Ok(Endpoints {
            database: self.database_urls(database)?,
            nats_url: self.nats_url()?,
            store: self.store_access()?,
            parts: self.local_parts(),
        })
    }

    /// How to reach what was started.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when a password cannot be read.
    pub fn available(&self, database: &str) -> Result<Available, Failure> {
        Ok(Available {
            database: self.database_urls(database)?,
            nats_url: self.nats_url().ok(),
            store: self.store_access().ok(),
            parts: self.local_parts(),
        })
    }

    fn store_access(&self) -> Result<StoreAccess, Failure> {
        Ok(StoreAccess {
            endpoint: self.store.url()?,
            region: REGION.to_owned(),
            bucket: BUCKET.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: self.store.secret_key()?,
        })
    }

    /// How to reach `database` of the embedded Postgres.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when a password cannot be read.
    pub fn database_urls(&self, database: &str) -> Result<DatabaseUrls, Failure> {
        Ok(DatabaseUrls {
            owner: self.postgres.url("docmill_owner", database)?,
            app: self.postgres.url("docmill_app", database)?,
            engine: self.postgres.url("docmill_engine", database)?,
        })
    }

    /// NATS with user and password.
    ///
    /// # Errors
    /// `BROKER_UNAVAILABLE` when it was never started.
    pub fn nats_url(&self) -> Result<String, Failure> {
        self.nats.url()
    }

    /// Where the unpacked parts are.
    #[must_use]
    pub fn local_parts(&self) -> LocalParts {
        LocalParts {
            pdfium: self.parts.pdfium.clone(),
            onnxruntime: self.parts.onnxruntime.clone(),
            model_dir: self.parts.model_dir.clone(),
            tesseract: ocr::find(&self.home),
        }
    }

    /// What runs.
    #[must_use]
    pub fn status(&self) -> Vec<ServiceStatus> {
        vec![
            ServiceStatus { name: "postgres", running: self.postgres.answers(), pid: self.postgres.pid() },
            ServiceStatus { name: "nats", running: self.nats.answers(), pid: self.nats.pid() },
            ServiceStatus { name: "objects", running: self.store.answers(), pid: self.store.pid() },
        ]
    }

    /// True when one of the wanted services has no process.
    #[must_use]
    pub fn is_down(&self, wanted: Wanted) -> bool {
        (wanted.postgres && self.postgres.pid().is_none())
            || (wanted.nats && self.nats.pid().is_none())
            || (wanted.objects && self.store.pid().is_none())
    }

    /// Stops all services, also those a killed supervisor left behind.
    pub fn stop(&self) {
        self.nats.stop();
        self.store.stop();
        self.postgres.stop();
    }

    /// Deletes all data; parts and secrets stay.
    ///
    /// # Errors
    /// `CONFLICT` while something runs.
    pub fn reset(&self) -> Result<(), Failure> {
        let _lock = self.lock()?;
        if let Some(service) = self.status().iter().find(|s| s.running || s.pid.is_some()) {
            return Err(Failure::new(Code::Conflict, format!("{} is running; run `docmill down` first", service.name)));
        }
        let data = self.home.data();
        fs::remove_dir_all(&data).map_err(|e| io_failure("remove", &data, &e))?;
        private_dir(&data)?;
        self.home.give(&data)
    }
}
