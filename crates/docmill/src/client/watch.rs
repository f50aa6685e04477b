//! `upload --watch`: what appears or changes in the given folders is uploaded once it has stopped changing.

use super::api::Api;
use super::files::{self, is_hidden};
use super::upload::{Declaration, tell};
use crate::cli::Cli;
use crate::exit::Ending;
use docmill_model::{Code, Failure};
use indicatif::{MultiProgress, ProgressBar};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A file that has not changed for this long is whole.
const QUIET: Duration = Duration::from_millis(800);

/// What appears or changes from [`Changes::begin`] on.
pub struct Changes {
    paths: mpsc::UnboundedReceiver<PathBuf>,
    #[expect(dead_code, reason = "held for its drop")]
    watcher: RecommendedWatcher,
}

impl Changes {
    /// Begins to watch files and folders.
    pub fn begin(watched: &[PathBuf]) -> Result<Self, Failure> {
        let (sender, paths) = mpsc::unbounded_channel();
        let refused = |e: notify::Error| Failure::new(Code::ConfigInvalid, format!("cannot watch: {e}"));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_)) {
                for path in event.paths {
                    let _ = sender.send(path);
                }
            }
        })
        .map_err(refused)?;
        for path in watched {
            watcher.watch(path, RecursiveMode::Recursive).map_err(refused)?;
        }
        Ok(Self { paths, watcher })
    }
}

/// Uploads what changes until it is interrupted.
pub async fn run(cli: &Cli, api: &Api, declaration: &Declaration, mut changes: Changes) -> Result<(), Ending> {
    if !cli.json {
        eprintln!("watching; press Ctrl-C to end");
    }
    let stop = crate::roles::on_signal()?;
    let mut pending: HashMap<PathBuf, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(path) = changes.paths.recv() => {
                if !is_hidden(&path) {
                    pending.insert(path, Instant::now());
                }
            }
            () = tokio::time::sleep(QUIET / 4) => {}
        }
        let ready: Vec<PathBuf> =
            pending.iter().filter(|(_, changed)| changed.elapsed() >= QUIET).map(|(path, _)| path.clone()).collect();
        for path in ready {
            pending.remove(&path);
            // A folder that was moved in tells of itself only.
            let Ok(files) = files::find(&[path]) else { continue };
            for path in files {
                if path.is_file() {
                    upload(cli, declaration, api, &path).await;
                }
            }
        }
    }
}

async fn upload(cli: &Cli, declaration: &Declaration, api: &Api, path: &Path) {
    match declaration.upload(api, path, &ProgressBar::hidden()).await {
        Ok(done) => tell(cli, &MultiProgress::new(), &done),
        Err(ending) => {
            eprintln!("{}:", path.display());
            ending.report();
        }
    }
}
