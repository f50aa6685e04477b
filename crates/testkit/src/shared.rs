//! The servers that all test processes share: found or started once per process, under a file lock.

use docmill_embedded::ocr::{self, Tesseract};
use docmill_embedded::parts::PartPaths;
use docmill_embedded::{Home, Stack, Wanted, database, files::io_failure};
use docmill_model::{Failure, Sha256Hex};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Template databases of older migrations that are kept: another build may still clone from them.
const KEPT_TEMPLATES: i64 = 4;

/// One Postgres, one NATS server and a migrated template database.
#[derive(Debug)]
pub struct Shared {
    /// The folder of the servers.
    pub home: Home,
    /// The servers.
    pub stack: Stack,
    /// Name of the template database of this build's migrations.
    pub(crate) template: String,
}

/// The pinned libraries and OCR that the test servers' home holds.
#[derive(Clone, Debug)]
pub struct Engines {
    /// `libpdfium.so`, `libonnxruntime.so` and the embedding model.
    pub parts: PartPaths,
    /// OCR, where it could be installed.
    pub tesseract: Option<Tesseract>,
}

/// Fetches the parts when necessary and says where they are; starts nothing. Blocks: call from a blocking thread.
///
/// # Panics
/// When they cannot be fetched; the message says why.
pub fn engines() -> &'static Engines {
    static ENGINES: OnceLock<Result<Engines, Failure>> = OnceLock::new();
    let fetch = || {
        let home = home()?;
        Stack::of(&home)?.set_up(&mut |line| eprintln!("test engines: {line}"))?;
        Ok(Engines { parts: PartPaths::of(&home)?, tesseract: ocr::find(&home) })
    };
    match ENGINES.get_or_init(fetch) {
        Ok(engines) => engines,
        Err(failure) => panic!("the parts cannot be fetched: {failure}"),
    }
}

/// The shared servers, started when necessary. Blocks: call from a blocking thread.
///
/// # Panics
/// When they cannot be set up or started; the message says why.
pub fn shared() -> &'static Shared {
    static SHARED: OnceLock<Result<Shared, Failure>> = OnceLock::new();
    match SHARED.get_or_init(start) {
        Ok(shared) => shared,
        Err(failure) => panic!("the test servers cannot be started: {failure}"),
    }
}

fn start() -> Result<Shared, Failure> {
    let home = home()?;
    let stack = Stack::of(&home)?;
    stack.set_up(&mut |line| eprintln!("test servers: {line}"))?;
    let path = home.root().join("testkit.lock");
    let lock = fs::File::create(&path).map_err(|e| io_failure("create", &path, &e))?;
    lock.lock().map_err(|e| io_failure("lock", &path, &e))?;
    stack.start(Wanted { objects: false, ..Wanted::ALL }, &[])?;
    let shared = Shared { template: format!("template_{}", database::schema_hash()), home, stack };
    shared.prepare_template()?;
    shared.sweep()?;
    Ok(shared)
}

/// A home of its own for a whole stack, with the shared parts; nothing runs in it yet. Whoever makes it removes it.
///
/// # Panics
/// When the parts cannot be fetched.
///
/// # Errors
/// `CONFIG_INVALID` when a folder cannot be made.
pub fn scratch_home(name: &str) -> Result<Home, Failure> {
    engines();
    let shared = home()?;
    let root = shared.root().join("homes").join(name);
    fs::create_dir_all(&root).map_err(|e| io_failure("create", &root, &e))?;
    shared.give(&root)?;
    let own = Home::open(Some(root), None)?;
    let parts = own.parts();
    let linked = fs::remove_dir(&parts).and_then(|()| std::os::unix::fs::symlink(shared.parts(), &parts));
    linked.map_err(|e| io_failure("link", &parts, &e))?;
    Ok(own)
}

/// The folder of real files: `DOCMILL_CORPORA`, else `shared/corpora` beside the workspace, where it exists.
#[must_use]
pub fn corpora() -> Option<PathBuf> {
    let beside = || workspace().join("../shared/corpora");
    Some(std::env::var_os("DOCMILL_CORPORA").map_or_else(beside, PathBuf::from)).filter(|folder| folder.is_dir())
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."))
}

/// Under `target/`; as root in a folder the servers' user can enter, if it cannot enter that one.
pub fn home() -> Result<Home, Failure> {
    let workspace = workspace();
    let near = workspace.join("target/docmill-test");
    let far = || {
        let hash = Sha256Hex::of(workspace.as_os_str().as_encoded_bytes());
        PathBuf::from(format!("/var/tmp/docmill-test-{}", &hash.as_str()[..12]))
    };
    Home::open(Some(near), None).or_else(|failure| Home::open(Some(far()), None).map_err(|_| failure))
}

impl Shared {
    /// Clones the template.
    pub(crate) fn create_database(&self, name: &str) -> Result<(), Failure> {
        database::create_database(&self.stack.admin_url("postgres")?, name, Some(&self.template)).map(|_| ())
    }

    pub(crate) fn drop_database(&self, name: &str) -> Result<(), Failure> {
        database::drop_database(&self.stack.admin_url("postgres")?, name)
    }

    /// Migrates under another name first, so that a killed process leaves no half template behind.
    fn prepare_template(&self) -> Result<(), Failure> {
        let admin = self.stack.admin_url("postgres")?;
        if database::names(&admin, &self.template)?.contains(&self.template) {
            return Ok(());
        }
        let staging = format!("new_{}", self.template);
        database::drop_database(&admin, &staging)?;
        database::create_database(&admin, &staging, None)?;
        database::create_extension(&self.stack.admin_url(&staging)?)?;
        database::migrate(&self.stack.database_urls(&staging)?.owner)?;
        database::rename_database(&admin, &staging, &self.template)
    }

    /// Removes what killed test processes left behind.
    fn sweep(&self) -> Result<(), Failure> {
        let admin = self.stack.admin_url("postgres")?;
        for name in database::names(&admin, "test_")? {
            if owner(&name).is_some_and(|pid| !alive(pid)) {
                database::drop_database(&admin, &name)?;
            }
        }
        let templates = database::names(&admin, "template_")?;
        let surplus = templates.len().saturating_sub(KEPT_TEMPLATES as usize);
        for name in templates.iter().take(surplus).filter(|name| **name != self.template) {
            database::drop_database(&admin, name)?;
        }
        let Ok(folders) = fs::read_dir(self.objects()) else { return Ok(()) };
        for folder in folders.flatten() {
            if owner(&folder.file_name().to_string_lossy()).is_some_and(|pid| !alive(pid)) {
                let _ = fs::remove_dir_all(folder.path());
            }
        }
        Ok(())
    }

    /// Folder of the object stores, one folder a world.
    pub(crate) fn objects(&self) -> PathBuf {
        self.home.data().join("objects")
    }
}

/// A name nobody else has; holds the process id so that leftovers can be told.
pub(crate) fn fresh_name() -> String {
    format!("test_{}_{}", std::process::id(), &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// The process id in a name made by [`fresh_name`].
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("test_")?.split('_').next()?.parse().ok()
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
