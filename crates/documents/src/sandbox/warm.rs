//! Children that are started, locked and waiting before there is work, so that isolation costs a pipe, not a start.
//!
//! Each serves one request and ends. A waiting child whose parent disappears reads the end of its pipe and ends too.

use super::parent::{self, Running};
use super::tool::Launcher;
use super::{ParseSetup, Setup};
use crate::frames::{Failed, Kind, Lockdown};
use docmill_model::{Code, Failure};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Patience with a child that locks itself.
const START: Duration = Duration::from_secs(30);

/// Waiting children of one setup.
#[derive(Clone)]
pub(crate) struct Nursery {
    launcher: Launcher,
    setup: ParseSetup,
    size: usize,
    waiting: Arc<Mutex<Vec<Running>>>,
}

impl Nursery {
    /// Keeps up to `size` children of this setup waiting; none is started yet.
    pub fn new(launcher: Launcher, setup: ParseSetup, size: usize) -> Self {
        Self { launcher, setup, size, waiting: Arc::default() }
    }

    /// The setup of the waiting children.
    pub fn setup(&self) -> &ParseSetup {
        &self.setup
    }

    /// A locked child; a waiting one when there is one of this setup. Starts its successor in the background.
    ///
    /// # Errors
    /// `SANDBOX_UNAVAILABLE` when no child can be started or locked.
    pub async fn take(&self, setup: &ParseSetup) -> Result<Running, Failure> {
        if *setup != self.setup || self.size == 0 {
            return start(&self.launcher, setup).await;
        }
        let mut taken = self.pop();
        while taken.as_mut().is_some_and(|child| !child.is_alive()) {
            taken = self.pop();
        }
        let child = match taken {
            Some(child) => child,
            None => start(&self.launcher, setup).await?,
        };
        let nursery = self.clone();
        tokio::spawn(async move { nursery.refill().await });
        Ok(child)
    }

    /// Starts children until enough wait.
    pub async fn refill(&self) {
        while self.waiting.lock().map_or(usize::MAX, |waiting| waiting.len()) < self.size {
            let Ok(child) = start(&self.launcher, &self.setup).await else { return };
            let Ok(mut waiting) = self.waiting.lock() else { return };
            if waiting.len() < self.size {
                waiting.push(child);
            }
        }
    }

    fn pop(&self) -> Option<Running> {
        self.waiting.lock().ok()?.pop()
    }
}

/// Starts a child and waits until it is locked.
async fn start(launcher: &Launcher, setup: &ParseSetup) -> Result<Running, Failure> {
    let unavailable = |message: &str| Failure::new(Code::SandboxUnavailable, message);
    let mut command = launcher.command(&Setup::Parse(setup.clone()))?;
    command.stderr(Stdio::piped());
    let child = command.spawn().map_err(|_| unavailable("the parser's process cannot be started"))?;
    let mut running = Running::of(child)?;
    let first = tokio::time::timeout(START, parent::read_frame(&mut running.stdout, 1 << 20)).await;
    match first {
        Ok(Ok(Some((Kind::Ready, payload)))) => {
            running.lockdown = serde_json::from_slice::<Lockdown>(&payload).unwrap_or_default();
            Ok(running)
        }
        Ok(Ok(Some((Kind::Failed, payload)))) => Err(serde_json::from_slice::<Failed>(&payload)
            .map_or_else(|_| unavailable("the sandbox cannot be built"), |failed| failed.failure)),
        Ok(_) => Err(unavailable("the parser's process ended before it was locked")),
        Err(_) => Err(unavailable("the parser's process was not locked in time")),
    }
}
