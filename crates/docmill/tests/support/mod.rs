//! A whole stack for one test: its own home with the shared parts, driven through the binary like by a person.
#![allow(dead_code, clippy::unwrap_used)]

pub mod model;
pub mod receiver;

use docmill_embedded::{Home, Stack};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A home that is stopped and removed when the test ends.
pub struct Whole {
    pub home: Home,
    environment: Vec<(&'static str, String)>,
}

/// The repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

impl Whole {
    /// A home that nothing runs in yet. `environment` is given to every command.
    pub fn new(name: &str, environment: &[(&'static str, &str)]) -> Self {
        // Fetches the parts, once per machine.
        let shared = &docmill_testkit::shared().home;
        let root = shared.root().join("homes").join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.parent().unwrap()).unwrap();
        let home = Home::open(Some(root.clone()), None).unwrap();
        std::fs::remove_dir(home.parts()).unwrap();
        std::os::unix::fs::symlink(shared.parts(), home.parts()).unwrap();
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { home, environment }
    }

    /// The binary with this home and nothing else of the environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docmill"));
        for name in std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("DOCMILL_")) {
            command.env_remove(name);
        }
        command.args(arguments).env("DOCMILL_HOME", self.home.root()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed and returns its last line as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "docmill {arguments:?}: {}\n{errors}\n{}", output.status, self.logs());
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
    }

    /// Starts a command that runs on.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The last lines of the roles' log, for a failure's message.
    pub fn logs(&self) -> String {
        let text = std::fs::read_to_string(self.home.logs().join("roles.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.contains(" INFO ")).take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// URL of the schema's owner, who sees all rows.
    pub fn owner_url(&self) -> String {
        Stack::of(&self.home).unwrap().database_urls("docmill").unwrap().owner
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.home.root().display());
            return;
        }
        let _ = std::fs::remove_file(self.home.parts());
        let _ = std::fs::remove_dir_all(self.home.root());
    }
}
