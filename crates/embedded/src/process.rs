//! Children that outlive the process that started them: log files, process groups, and recognition by command line so
//! that a reused process id is never mistaken for ours.

use crate::files::io_failure;
use crate::home::Home;
use docmill_model::{Code, Failure};
use rustix::process::{Pid, Signal};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn pid_file(home: &Home, name: &str) -> PathBuf {
    home.run().join(format!("{name}.pid"))
}

/// Starts `command` in a process group of its own with output appended to `logs/NAME.log`, and remembers its id.
///
/// # Errors
/// `PART_MISSING` when the program cannot be started.
pub fn spawn(home: &Home, name: &str, mut command: Command) -> Result<u32, Failure> {
    let log_path = home.logs().join(format!("{name}.log"));
    let log = fs::OpenOptions::new().create(true).append(true).open(&log_path);
    let log = log.map_err(|e| io_failure("open", &log_path, &e))?;
    home.give(&log_path)?;
    let again = log.try_clone().map_err(|e| io_failure("open", &log_path, &e))?;
    command.stdout(Stdio::from(log)).stderr(Stdio::from(again)).process_group(0);
    let mut child = command
        .spawn()
        .map_err(|e| Failure::new(Code::PartMissing, format!("cannot start {name}: {e}; run `docmill setup`")))?;
    let pid = child.id();
    fs::write(pid_file(home, name), pid.to_string()).map_err(|e| io_failure("write", &pid_file(home, name), &e))?;
    // Reaps the child if it ends while this process lives; does nothing else.
    std::thread::spawn(move || child.wait());
    Ok(pid)
}

/// The process id of `name` if it runs and its command line mentions this home.
#[must_use]
pub fn running(home: &Home, name: &str) -> Option<u32> {
    let pid: u32 = fs::read_to_string(pid_file(home, name)).ok()?.trim().parse().ok()?;
    is_ours(home, pid).then_some(pid)
}

/// True when the process exists, is no zombie, and its command line mentions this home.
#[must_use]
pub fn is_ours(home: &Home, pid: u32) -> bool {
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')));
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !zombie && String::from_utf8_lossy(&line).contains(&*home.root().to_string_lossy())
}

/// Signals `name` and waits until it is gone; after `patience` it and its group are killed.
pub fn stop(home: &Home, name: &str, signal: Signal, patience: Duration) {
    let Some(pid) = running(home, name) else {
        let _ = fs::remove_file(pid_file(home, name));
        return;
    };
    let Some(target) = Pid::from_raw(pid as i32) else { return };
    let _ = rustix::process::kill_process(target, signal);
    if !wait_until(patience, || !is_ours(home, pid)) {
        let _ = rustix::process::kill_process_group(target, Signal::KILL);
        wait_until(Duration::from_secs(5), || !is_ours(home, pid));
    }
    let _ = fs::remove_file(pid_file(home, name));
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

/// The last lines of a service's log, for an error message about a start that failed.
#[must_use]
pub fn log_tail(home: &Home, name: &str) -> String {
    let path: PathBuf = Path::new(&home.logs()).join(format!("{name}.log"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    format!("{} (see {})", lines.into_iter().rev().collect::<Vec<_>>().join(" | "), path.display())
}
