//! `DOCMILL_HOME`: where parts, data, logs, secrets and run-time state of the embedded stack live.
//!
//! As root everything belongs to an own system user under `/var/lib/docmill`, because Postgres refuses root and a
//! dropped user cannot reach root's home; as a normal user it is the XDG data folder.

use crate::files::{io_failure, private_dir};
use docmill_model::{Code, Failure, Sha256Hex};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The system user children run as when Docmill is started by root.
const SYSTEM_USER: &str = "docmill";

/// Longest path of the folder of sockets: 107 bytes less `/.s.PGSQL.5432`.
const MAX_RUN_BYTES: usize = 93;

/// A user and group the children run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
}

/// The folders of one embedded stack.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    run_as: Option<RunAs>,
}

/// True when this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user this process runs as.
#[must_use]
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Home {
    /// The home at `configured`, else the default for this user, with all folders created.
    ///
    /// `data_dir` is the user's XDG data folder (used when not root). A root folder that already existed keeps its
    /// owner, so naming a shared folder by mistake does not give it away.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when a folder cannot be created, or the children's user cannot reach it.
    pub fn open(configured: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let root = Self::location(configured, data_dir)?;
        let home = Self { root, run_as: is_root().then(system_user) };
        if !home.root.is_dir() {
            fs::create_dir_all(&home.root).map_err(|e| io_failure("create", &home.root, &e))?;
            home.give(&home.root)?;
        }
        for folder in [home.parts(), home.data(), home.logs(), home.secrets()] {
            private_dir(&folder)?;
            home.give(&folder)?;
        }
        home.create_run()?;
        home.check_reachable()?;
        Ok(home)
    }

    /// Where [`Home::open`] with the same arguments puts the home.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when no folder is known.
    pub fn location(configured: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let root = match (configured, data_dir) {
            (Some(root), _) => root,
            (None, _) if is_root() => PathBuf::from("/var/lib/docmill"),
            (None, Some(data)) => data.join("docmill"),
            (None, None) => {
                return Err(Failure::new(Code::ConfigInvalid, "no home folder is known; set DOCMILL_HOME"));
            }
        };
        std::path::absolute(&root).map_err(|e| io_failure("resolve", &root, &e))
    }

    /// The folder of sockets may lie in `/tmp`, where a stranger could have made it first: it must be ours.
    fn create_run(&self) -> Result<(), Failure> {
        let run = self.run();
        let made = fs::DirBuilder::new().mode(0o700).create(&run);
        if made.is_err() {
            let found = fs::symlink_metadata(&run).map_err(|e| io_failure("create", &run, &e))?;
            let me = rustix::process::geteuid().as_raw();
            if !found.is_dir() || !(found.uid() == me || self.run_as.is_some_and(|user| user.uid == found.uid())) {
                return Err(Failure::new(
                    Code::ConfigInvalid,
                    format!("{} belongs to somebody else; remove it", run.display()),
                ));
            }
            private_dir(&run)?;
        }
        self.give(&run)
    }

    /// Children start inside the root folder as their own user; find out now, with a clear message.
    fn check_reachable(&self) -> Result<(), Failure> {
        let Some(RunAs { uid, .. }) = self.run_as else { return Ok(()) };
        match self.command(Path::new("/bin/true")).status() {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Failure::new(
                Code::ConfigInvalid,
                format!(
                    "user {uid} (which runs the services) cannot enter {}; choose a DOCMILL_HOME outside private folders",
                    self.root.display()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The root folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unpacked parts; kept by `reset`.
    #[must_use]
    pub fn parts(&self) -> PathBuf {
        self.root.join("parts")
    }

    /// Databases, streams and objects.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Log files, one per service.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Generated passwords and keys, mode 0600.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// Sockets and ports. A Unix socket path is at most 107 bytes, so a long root gets a short folder in /tmp.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        let run = self.root.join("run");
        if run.as_os_str().len() <= MAX_RUN_BYTES { run } else { PathBuf::from("/tmp").join(self.tag()) }
    }

    /// A short name of this home, used to recognise its own services.
    #[must_use]
    pub fn tag(&self) -> String {
        let hash = Sha256Hex::of(self.root.as_os_str().as_encoded_bytes());
        format!("docmill-{}", &hash.as_str()[..12])
    }

    /// Who the children run as; `None` when Docmill itself is a normal user.
    #[must_use]
    pub fn run_as(&self) -> Option<RunAs> {
        self.run_as
    }

    /// A command that will run as the children's user, with an empty environment and no input.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).current_dir(&self.root);
        if let Some(RunAs { uid, gid }) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a folder or file to the children's user.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the path.
    pub fn give(&self, path: &Path) -> Result<(), Failure> {
        let Some(RunAs { uid, gid }) = self.run_as else { return Ok(()) };
        let owned = fs::metadata(path).is_ok_and(|m| m.uid() == uid);
        if owned { Ok(()) } else { chown(path, Some(uid), Some(gid)).map_err(|e| io_failure("hand over", path, &e)) }
    }

    /// Gives a whole tree to the children's user.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the path.
    pub fn give_tree(&self, path: &Path) -> Result<(), Failure> {
        self.give(path)?;
        let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                self.give_tree(&entry.path())?;
            } else {
                self.give(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// The `docmill` system user, created when absent; `nobody` where users cannot be created.
fn system_user() -> RunAs {
    if let Some(found) = look_up(SYSTEM_USER) {
        return found;
    }
    let made = Command::new("useradd")
        .args(["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => look_up(SYSTEM_USER),
        _ => None,
    }
    .unwrap_or(RunAs { uid: 65534, gid: 65534 })
}

fn look_up(name: &str) -> Option<RunAs> {
    let table = fs::read_to_string("/etc/passwd").ok()?;
    let fields: Vec<&str> = table.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f[0] == name)?;
    Some(RunAs { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
}
