//! What is shown while documents are processed: a line for each document in a terminal, else one for each event.

use crate::client::upload::Uploaded;
use crate::output::{field, plain};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

/// Longest name that is shown whole.
const NAME_CHARS: usize = 34;

/// The lines.
pub struct Progress {
    names: Vec<String>,
    bars: Option<Vec<ProgressBar>>,
    _screen: MultiProgress,
    seen: Mutex<BTreeMap<(usize, String), String>>,
}

impl Progress {
    /// One line for each document.
    pub fn new(uploaded: &[Uploaded]) -> Self {
        let screen = MultiProgress::new();
        let short = |name: &str| plain(name).chars().take(NAME_CHARS).collect::<String>();
        let names: Vec<String> = uploaded.iter().map(|u| short(&u.name)).collect();
        let bars = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix:34} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = |name: &String| {
                screen.add(ProgressBar::new_spinner()).with_style(style.clone()).with_prefix(name.clone())
            };
            names.iter().map(bar).collect()
        });
        Self { names, bars, _screen: screen, seen: Mutex::default() }
    }

    /// Shows the jobs of one document; true when something changed.
    pub fn show(&self, index: usize, jobs: &[Value]) -> bool {
        let mut changed = Vec::new();
        for job in jobs {
            let (stage, state) = (field(job, "/stage"), field(job, "/state"));
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.insert((index, stage), state.clone()).as_ref() != Some(&state) {
                changed.push(job);
            }
        }
        match &self.bars {
            Some(bars) => {
                bars[index].set_message(jobs.iter().map(mark).collect::<Vec<_>>().join("  "));
                bars[index].tick();
            }
            None => {
                for job in
                    changed.iter().filter(|job| matches!(job["state"].as_str(), Some("done" | "dead" | "waiting")))
                {
                    eprintln!("{:34} {}", self.names[index], mark(job));
                }
            }
        }
        !changed.is_empty()
    }

    /// Shows how a document ended.
    pub fn finish(&self, index: usize, view: &Value) {
        let (state, code) = (field(view, "/state"), field(view, "/code"));
        match &self.bars {
            Some(bars) if state == "done" => bars[index].finish(),
            Some(bars) => bars[index].finish_with_message(format!("{state} {code}")),
            None => eprintln!("{:34} {state} {code}", self.names[index]),
        }
    }
}

/// A stage in a few characters.
fn mark(job: &Value) -> String {
    let stage = field(job, "/stage");
    match job["state"].as_str().unwrap_or_default() {
        "done" if job["cached"] == true => format!("{stage} cached"),
        "done" => format!("{stage} {:.2} s", job["run_secs"].as_f64().unwrap_or_default()),
        "leased" => format!("{stage} …"),
        "dead" => format!("{stage} {}", field(job, "/code")),
        "waiting" => format!("{stage} again: {}", field(job, "/code")),
        _ => format!("({stage})"),
    }
}
