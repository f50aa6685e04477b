//! A prober: questions whose right results are known, asked again and again while something happens to the system.
//!
//! Each probe tells which right results it got. What a probe has once got it must get at every later instant, unless it was
//! withdrawn (deleted on purpose); anything less is a loss, with the phase it fell into. A probe that cannot ask has lost
//! everything. The prober knows nothing of what it asks: a search in this process, an API over HTTP, SQL.

use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Right results, or why they could not be asked for.
pub type Found = Result<BTreeSet<String>, String>;

/// Most losses that are kept.
const KEPT: usize = 100;

/// One way of asking.
#[derive(Clone)]
pub struct Probe {
    name: String,
    ask: Arc<dyn Fn() -> BoxFuture<'static, Found> + Send + Sync>,
}

impl Probe {
    /// A probe that asks by `ask`, which gives the right results it found.
    pub fn new<F, Asked>(name: impl Into<String>, ask: F) -> Self
    where
        F: Fn() -> Asked + Send + Sync + 'static,
        Asked: Future<Output = Found> + Send + 'static,
    {
        Self { name: name.into(), ask: Arc::new(move || Box::pin(ask())) }
    }
}

/// What was missing at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Name of the probe.
    pub probe: String,
    /// What was going on.
    pub phase: String,
    /// Since the prober was started.
    pub after: Duration,
    /// What it had got before and did not get.
    pub lacking: BTreeSet<String>,
    /// Why it could not ask, when it could not.
    pub failure: Option<String>,
}

/// What a prober saw.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// How often each probe asked in each phase.
    pub asked: BTreeMap<(String, String), u64>,
    /// Right results of each probe at its end.
    pub held: BTreeMap<String, BTreeSet<String>>,
    /// The first losses.
    pub losses: Vec<Loss>,
}

impl Proof {
    /// How often was asked in `phase`, by the probe that asked least.
    #[must_use]
    pub fn least(&self, phase: &str) -> u64 {
        let of = |probe: &String| self.asked.get(&(probe.clone(), phase.to_owned())).copied().unwrap_or(0);
        self.held.keys().map(of).min().unwrap_or(0)
    }

    /// Asserts that nothing was ever lost, and that every probe asked in each of `phases`.
    ///
    /// # Panics
    /// When something was.
    #[track_caller]
    pub fn never_worse(&self, phases: &[&str]) {
        assert!(self.losses.is_empty(), "worse than before: {:#?}", self.losses);
        for phase in phases {
            assert!(self.least(phase) > 0, "nothing was asked during `{phase}`: {:?}", self.asked);
        }
    }
}

#[derive(Default)]
struct State {
    phase: String,
    withdrawn: BTreeSet<String>,
    proof: Proof,
}

/// Probes that ask.
pub struct Prober {
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Prober {
    /// Lets every probe ask, each in a task of its own, with `pause` between two questions.
    #[must_use]
    pub fn start(probes: Vec<Probe>, pause: Duration) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (stop, started, mut tasks) = (CancellationToken::new(), Instant::now(), JoinSet::new());
        for probe in probes {
            lock(&state).proof.held.insert(probe.name.clone(), BTreeSet::new());
            let (state, stop) = (state.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    let found = (probe.ask)().await;
                    lock(&state).judge(&probe.name, found, started.elapsed());
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { state, stop, tasks }
    }

    /// Says what happens from now on, and waits until every probe has asked twice in it.
    ///
    /// # Panics
    /// When a probe does not ask within three minutes.
    pub async fn phase(&self, phase: &str) {
        phase.clone_into(&mut lock(&self.state).phase);
        // The first may have begun before.
        crate::eventually("every probe asks", Duration::from_secs(180), || async {
            lock(&self.state).proof.least(phase) >= 2
        })
        .await;
    }

    /// Says that `result` goes on purpose: from now on nobody has to get it. Call it before it goes.
    pub fn withdraw(&self, result: &str) {
        let mut state = lock(&self.state);
        state.withdrawn.insert(result.to_owned());
        state.proof.held.values_mut().for_each(|held| {
            held.remove(result);
        });
    }

    /// What every probe holds by now.
    #[must_use]
    pub fn held(&self) -> BTreeMap<String, BTreeSet<String>> {
        lock(&self.state).proof.held.clone()
    }

    /// Ends the asking.
    pub async fn end(mut self) -> Proof {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        lock(&self.state).proof.clone()
    }
}

impl State {
    fn judge(&mut self, probe: &str, found: Found, after: Duration) {
        *self.proof.asked.entry((probe.to_owned(), self.phase.clone())).or_default() += 1;
        let held = self.proof.held.entry(probe.to_owned()).or_default();
        let (found, failure) = match found {
            Ok(found) => (found, None),
            Err(failure) => (BTreeSet::new(), Some(failure)),
        };
        let lacking: BTreeSet<String> = held.difference(&found).cloned().collect();
        held.extend(found.difference(&self.withdrawn).cloned());
        if (!lacking.is_empty() || failure.is_some()) && self.proof.losses.len() < KEPT {
            let (probe, phase) = (probe.to_owned(), self.phase.clone());
            self.proof.losses.push(Loss { probe, phase, after, lacking, failure });
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_was_found_once_must_be_found_always_unless_it_was_withdrawn() {
        let there: Arc<Mutex<Found>> = Arc::new(Mutex::new(Ok(["a", "b"].map(str::to_owned).into())));
        let asked = there.clone();
        let probe = Probe::new("store", move || {
            let found = asked.lock().unwrap().clone();
            async move { found }
        });
        let prober = Prober::start(vec![probe], Duration::from_millis(1));
        prober.phase("both").await;
        prober.withdraw("a");
        *there.lock().unwrap() = Ok(["b"].map(str::to_owned).into());
        prober.phase("one").await;
        assert_eq!(prober.held()["store"], BTreeSet::from(["b".to_owned()]));
        *there.lock().unwrap() = Ok(BTreeSet::new());
        prober.phase("none").await;
        *there.lock().unwrap() = Err("away".to_owned());
        prober.phase("away").await;
        let proof = prober.end().await;
        let of = |phase: &str| proof.losses.iter().find(|loss| loss.phase == phase);
        assert!(of("both").is_none(), "{:?}", proof.losses);
        assert_eq!(of("none").unwrap().lacking, BTreeSet::from(["b".to_owned()]));
        assert_eq!(of("away").unwrap().failure.as_deref(), Some("away"));
        assert!(std::panic::catch_unwind(|| proof.never_worse(&[])).is_err());
    }
}
