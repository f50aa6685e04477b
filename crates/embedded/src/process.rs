//! Children that outlive the process that started them.
//!
//! A service is found by what it *is*: a live process whose program and arguments name our folder. There is no file of
//! process ids that could go stale, be lost by a kill, or name a stranger that got a reused id. Linux only (`/proc`).

use crate::files::io_failure;
use crate::home::Home;
use docmill_model::{Code, Failure};
use rustix::process::Pid;
pub use rustix::process::Signal;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A log that is larger than this at a start is put aside first.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// One kind of child of one home.
#[derive(Clone, Debug)]
pub struct Service {
    home: Home,
    name: &'static str,
    program: &'static str,
    marker: OsString,
}

impl Service {
    /// A service called `name` (its log is `NAME.log`) that runs `program` (file name of the first argument) with
    /// `marker` as one of its arguments.
    #[must_use]
    pub fn new(home: &Home, name: &'static str, program: &'static str, marker: &Path) -> Self {
        Self { home: home.clone(), name, program, marker: marker.as_os_str().to_owned() }
    }

    /// The process id, when it runs. Its own children are never mistaken for it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let entries = fs::read_dir("/proc").ok()?;
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let matching: Vec<u32> = ids.filter(|pid| self.is(*pid)).collect();
        matching.iter().copied().find(|pid| parent(*pid).is_none_or(|parent| !matching.contains(&parent)))
    }

    /// True when the process is this service. A zombie has no arguments any more and is not.
    #[must_use]
    pub fn is(&self, pid: u32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0).map(|part| OsString::from_vec(part.to_vec()));
        let program = arguments.next().unwrap_or_default();
        Path::new(&program).file_name().is_some_and(|name| name == self.program) && arguments.any(|a| a == self.marker)
    }

    /// Starts `command` in a process group of its own with its output appended to the log.
    ///
    /// # Errors
    /// `PART_MISSING` when the program cannot be started, `CONFIG_INVALID` when the log cannot be written.
    pub fn spawn(&self, command: Command) -> Result<(), Failure> {
        let mut child = self.spawn_kept(command)?;
        // Reaps the child if it ends while this process lives; does nothing else.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// As [`Service::spawn`], for a caller that waits for the child itself.
    ///
    /// # Errors
    /// As [`Service::spawn`].
    pub fn spawn_kept(&self, mut command: Command) -> Result<Child, Failure> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
            let _ = fs::rename(&path, path.with_extension("log.1"));
        }
        let log =
            fs::OpenOptions::new().create(true).append(true).open(&path).map_err(|e| io_failure("open", &path, &e))?;
        self.home.give(&path)?;
        let again = log.try_clone().map_err(|e| io_failure("open", &path, &e))?;
        command.stdout(Stdio::from(log)).stderr(Stdio::from(again)).process_group(0);
        command.spawn().map_err(|e| {
            Failure::new(Code::PartMissing, format!("cannot start {}: {e}; run `docmill setup`", self.name))
        })
    }

    /// Sends one signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        let target = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(target) = target {
            let _ = rustix::process::kill_process(target, signal);
        }
    }

    /// Sends each signal in turn and waits as long as it says for the process to end; then kills it.
    pub fn stop(&self, steps: &[(Signal, Duration)]) {
        let Some(pid) = self.pid() else { return };
        let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        for (signal, patience) in steps.iter().copied().chain([(Signal::KILL, Duration::from_secs(5))]) {
            let _ = rustix::process::kill_process(target, signal);
            if wait_until(patience, || !self.is(pid)) {
                return;
            }
        }
    }

    /// Waits until `answers`, or until the process is gone (false).
    pub fn wait_ready(&self, patience: Duration, mut answers: impl FnMut() -> bool) -> bool {
        let mut polls = 0u32;
        let mut ready = false;
        wait_until(patience, || {
            polls += 1;
            ready = answers();
            // Reading all of /proc is not free: look at every tenth poll only, not at the first.
            ready || (polls.is_multiple_of(10) && self.pid().is_none())
        });
        ready
    }

    fn log_path(&self) -> PathBuf {
        self.home.logs().join(format!("{}.log", self.name))
    }

    /// Bytes of the log so far.
    pub(crate) fn log_bytes(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |log| log.len())
    }

    /// Whether the log says `words` beyond its first `from` bytes; other processes may have written after them.
    pub(crate) fn log_says(&self, words: &str, from: u64) -> bool {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        let since = bytes.get(usize::try_from(from).unwrap_or(0)..).unwrap_or(&bytes);
        String::from_utf8_lossy(since).contains(words)
    }

    /// The last lines of the log, for an error message about a start that failed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let path = self.log_path();
        let bytes = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.reverse();
        format!("{} (see {})", lines.join(" | "), path.display())
    }
}

/// Asks the kernel to send SIGTERM to this process when the thread that started it ends.
///
/// # Errors
/// Of the kernel.
pub fn end_with_parent() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat).into_owned();
    text.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Polls `condition` every 10 ms; false when `patience` ran out first.
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
