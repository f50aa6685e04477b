//! What the parent sees of a child from outside: its memory, its time, the page it is on; and, when it has ended without
//! a word, why.

use super::status::{self, Memory};
use crate::frames::Lockdown;
use crate::limits::Limits;
use crate::observed::{Detected, Sight};
use docmill_model::{Code, Failure};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// How often memory and deadline are looked at.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// What has been seen of a child so far.
pub(super) struct Watch {
    started: Instant,
    /// Time during which the child waited for OCR, which is not its own.
    pub recognising: Duration,
    pub memory: Memory,
    /// The page it is working on, and its own time when it began with it.
    pub page: Option<(u32, Duration)>,
    /// What it said of the bytes.
    pub detected: Option<Detected>,
}

impl Watch {
    /// A child that begins now.
    pub fn begun(memory: Memory) -> Self {
        Self { started: Instant::now(), recognising: Duration::ZERO, memory, page: None, detected: None }
    }

    /// Notes the child's memory and checks the wall clock.
    pub fn look(&mut self, pid: u32, recognising: bool, limits: &Limits) -> Result<(), Failure> {
        if recognising {
            self.recognising += TICK;
        }
        let memory = status::of(pid);
        self.memory.peak_rss_bytes = self.memory.peak_rss_bytes.max(memory.peak_rss_bytes);
        self.memory.peak_size_bytes = self.memory.peak_size_bytes.max(memory.peak_size_bytes);
        let own = self.own();
        if own.as_secs() >= limits.wall_secs {
            self.page = None;
            let message = "the parse took too long (seconds)";
            return Err(Failure::limit(Code::ParserTimeout, message, limits.wall_secs, own.as_secs()));
        }
        let on_page = self.page.map_or(0, |(_, began)| own.saturating_sub(began).as_secs());
        if on_page >= limits.page_secs {
            let message = "one page took too long (seconds)";
            return Err(Failure::limit(Code::ParserTimeout, message, limits.page_secs, on_page));
        }
        Ok(())
    }

    /// Time the child spent on its own work.
    pub fn own(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.recognising)
    }

    /// What there is to report.
    pub fn sight(&self) -> Sight {
        Sight { detected: self.detected.clone(), own: self.own(), recognising: self.recognising }
    }

    /// Notes which page is worked on.
    pub fn begin(&mut self, payload: &[u8]) {
        let number = payload.try_into().map_or(0, u32::from_le_bytes);
        self.page = (number > 0).then(|| (number, self.own()));
    }
}

/// Why a child ended without a final frame.
pub(super) fn autopsy(
    status: Option<std::process::ExitStatus>,
    complaint: &str,
    watch: &Watch,
    lockdown: &Lockdown,
    limits: &Limits,
) -> Failure {
    let signal = status.and_then(|s| s.signal());
    let near = lockdown.address_space_bytes > 0 && watch.memory.peak_size_bytes > lockdown.address_space_bytes / 10 * 8;
    if matches!(signal, Some(libc::SIGXCPU)) {
        return Failure::limit(
            Code::ParserCpu,
            "the parse took too much processor time (seconds)",
            limits.cpu_secs,
            limits.cpu_secs,
        );
    }
    if complaint.contains("memory allocation of") || (signal.is_some() && near) {
        let measured = watch.memory.peak_rss_bytes;
        return Failure::limit(
            Code::ParserMemory,
            "the parse needs more memory than it may (bytes)",
            limits.memory_bytes,
            measured,
        );
    }
    match signal {
        Some(signal) => Failure {
            code: Code::ParserCrashed,
            message: format!("the parser was ended by signal {signal}"),
            limit: None,
            measured: u64::try_from(signal).ok(),
        },
        None => Failure::new(Code::ParserCrashed, "the parser ended without an answer"),
    }
}
