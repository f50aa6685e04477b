//! `DOCMILL_HOME`: where parts, data, logs, secrets and run-time state of the embedded stack live.
//!
//! As root everything belongs to an own system user under `/var/lib/docmill`, because Postgres refuses root and a
//! dropped user cannot reach root's home; as a normal user it is the XDG data folder.

use crate::files::{io_failure, private_dir};
use docmill_model::{Failure, Sha256Hex};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The system user children run as when Docmill is started by root.
const SYSTEM_USER: &str = "docmill";

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

impl Home {
    /// The home at `configured`, else the default for this user, with all folders created.
    ///
    /// `data_dir` is the user's XDG data folder (used when not root).
    ///
    /// # Errors
    /// `CONFIG_INVALID` when a folder cannot be created or given to the system user.
    pub fn open(configured: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<Self, Failure> {
        let root = configured.unwrap_or_else(|| {
            if is_root() { PathBuf::from("/var/lib/docmill") } else { data_dir.unwrap_or_else(std::env::temp_dir).join("docmill") }
        });
        let root = std::path::absolute(&root).map_err(|e| io_failure("resolve", &root, &e))?;
        let home = Self { root, run_as: is_root().then(system_user) };
        std::fs::create_dir_all(&home.root).map_err(|e| io_failure("create", &home.root, &e))?;
        for folder in [home.parts(), home.data(), home.logs(), home.secrets(), home.run()] {
            private_dir(&folder)?;
            home.give(&folder)?;
        }
        home.give(&home.root)?;
        Ok(home)
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

    /// State of running services. A Unix socket path is at most 107 bytes, so a long root gets a short folder in /tmp.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        let run = self.root.join("run");
        if run.as_os_str().len() < 80 {
            return run;
        }
        let hash = Sha256Hex::of(self.root.as_os_str().as_encoded_bytes());
        std::env::temp_dir().join(format!("docmill-{}-{}", rustix::process::geteuid().as_raw(), &hash.as_str()[..12]))
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
        let owned = std::fs::metadata(path).is_ok_and(|m| m.uid() == uid);
        if owned { Ok(()) } else { chown(path, Some(uid), Some(gid)).map_err(|e| io_failure("hand over", path, &e)) }
    }

    /// Gives a whole tree to the children's user.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the path.
    pub fn give_tree(&self, path: &Path) -> Result<(), Failure> {
        self.give(path)?;
        let Ok(entries) = std::fs::read_dir(path) else { return Ok(()) };
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
    let table = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields: Vec<&str> = table.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f[0] == name)?;
    Some(RunAs { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
}
