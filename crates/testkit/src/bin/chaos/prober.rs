//! The prober of a campaign of updates: it asks the lexical and the dense half for every document, all the while.
//!
//! A document found once by its own words must be found at every later instant: every version of it says them, so a search
//! that answers in full without it is worse than before. A search that says that a half is missing, that is refused or that
//! nobody answers is not a wrong one; the last two are violations as well while the API and Postgres are up.

use crate::plant::{Plant, Tenant};
use crate::requests::request;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The halves that are asked.
pub const MODES: [&str; 2] = ["lexical", "dense"];
/// Hits among which the document must be.
const K: usize = 20;
/// Longer than the API gives each half.
const ASKED: Duration = Duration::from_secs(20);
/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The same after a question that nobody answered.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Violations that are told.
const SHOWN: usize = 20;

/// Counts of what was done and seen.
#[derive(Debug, Default, serde::Serialize)]
pub struct Figures {
    pub documents: usize,
    /// Documents by half that were found before anything happened.
    pub held: BTreeMap<&'static str, usize>,
    /// Questions by phase.
    pub asked: BTreeMap<&'static str, usize>,
    /// Kills by phase.
    pub kills: BTreeMap<&'static str, usize>,
    /// Questions whose document was found, by an answer in full.
    pub right: usize,
    /// Questions that were answered in full without a document that had been found before.
    pub fewer: usize,
    /// Questions that were refused or that nobody answered while the API and Postgres were up.
    pub unanswered: usize,
    /// Answers that said a half was missing.
    pub degraded: usize,
    /// Questions without an answer while the API or Postgres was down or had not said it was ready.
    pub away: usize,
    /// Versions accepted, and those of them that failed.
    pub versions: i64,
    pub failed_versions: i64,
    /// Runs that replays started.
    pub replayed: i64,
}

/// What the one who kills tells the one who asks.
#[derive(Default)]
pub struct Shared {
    /// Number of the life of what answers.
    pub life: AtomicUsize,
    /// The life that said it was ready.
    pub ready: AtomicUsize,
    pub phase: Mutex<&'static str>,
    pub over: AtomicBool,
}

/// A document that is asked for.
pub struct Known {
    pub id: String,
    pub words: String,
}

enum Said {
    /// In full; whether the document is among the hits.
    Found(bool),
    Degraded,
    Nothing(String),
}

fn ask(plant: &Plant, tenant: &Tenant, known: &Known, mode: &str) -> Said {
    let body = json!({"query": known.words, "k": K, "mode": mode, "copies": true}).to_string();
    let answer = match request(plant, tenant, ("POST", "/v1/search"), Some(&body), ASKED) {
        Ok(Some(answer)) => answer,
        Ok(None) => return Said::Nothing("no answer in time".to_owned()),
        Err(error) => return Said::Nothing(error.to_string()),
    };
    let Ok(body) = serde_json::from_str::<Value>(&answer.body) else {
        return Said::Nothing("half of an answer".to_owned());
    };
    // The only half that was asked is late.
    if answer.status == 504 {
        return Said::Degraded;
    }
    if answer.status != 200 {
        return Said::Nothing(format!("{} {}", answer.status, body["code"].as_str().unwrap_or_default()));
    }
    if body["degraded"].is_string() {
        return Said::Degraded;
    }
    let hits = body["hits"].as_array().into_iter().flatten();
    let mut all = hits.flat_map(|hit| std::iter::once(hit).chain(hit["copies"].as_array().into_iter().flatten()));
    Said::Found(all.any(|hit| hit["document_id"] == known.id.as_str()))
}

/// What is found before anything happens: documents by their place, with the half that found them.
pub fn baseline(plant: &Plant, tenant: &Tenant, known: &[Known]) -> Result<BTreeSet<(usize, &'static str)>> {
    plant.wait_ready()?;
    let mut held = BTreeSet::new();
    for (place, document) in known.iter().enumerate() {
        for mode in MODES {
            if matches!(ask(plant, tenant, document, mode), Said::Found(true)) {
                held.insert((place, mode));
            }
        }
    }
    Ok(held)
}

pub type Seen = Mutex<(Figures, Vec<String>)>;

/// Asks for everything that was held, again and again, until the campaign is over.
pub fn probe(
    plant: &Plant,
    tenant: &Tenant,
    known: &[Known],
    held: &BTreeSet<(usize, &'static str)>,
    shared: &Shared,
    seen: &Seen,
) {
    while !held.is_empty() && !shared.over.load(Ordering::Acquire) {
        for (place, mode) in held {
            if shared.over.load(Ordering::Acquire) {
                return;
            }
            let phase = *shared.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let life = shared.life.load(Ordering::Acquire);
            let was_ready = shared.ready.load(Ordering::Acquire) == life;
            let said = ask(plant, tenant, &known[*place], mode);
            let is_judged = was_ready && shared.life.load(Ordering::Acquire) == life;
            let pause = if matches!(said, Said::Nothing(_)) { ASK_AGAIN } else { ASK_EVERY };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let (figures, wrong) = &mut *seen;
            *figures.asked.entry(phase).or_default() += 1;
            let mut tell = |what: &str| {
                if wrong.len() < SHOWN {
                    wrong.push(format!("never_fewer: {phase}: {mode} search for {}: {what}", known[*place].id));
                }
            };
            match said {
                Said::Found(true) => figures.right += 1,
                Said::Found(false) if is_judged => {
                    figures.fewer += 1;
                    tell("was found before");
                }
                Said::Degraded => figures.degraded += 1,
                Said::Nothing(why) if is_judged => {
                    figures.unanswered += 1;
                    tell(&why);
                }
                Said::Found(false) | Said::Nothing(_) => figures.away += 1,
            }
            drop(seen);
            std::thread::sleep(pause);
        }
    }
}
