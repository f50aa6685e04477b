//! Judges now and then, for the metric and the log, what costs too much to be judged every minute.
//!
//! A look has a limited time. Where that does not suffice for all invariants, the next look begins where this one ended; where
//! it sufficed for none, the next has twice the time.

use super::Examined;
use docmill_model::Failure;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks, and before the first.
const PAUSE: Duration = Duration::from_secs(600);
/// Between two looks while something is violated; between any two at the engine's invariants.
pub(crate) const AGAIN: Duration = Duration::from_secs(60);
/// One part of so many of the time is what looks may take.
pub(crate) const SHARE: u32 = 20;
/// Longest look at first; a query that is under way then still ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest look of all.
const PATIENCE_LIMIT: Duration = Duration::from_secs(600);

/// Looks until `stop` fires, and publishes what was judged. `look` is told until when it may take, and the number of the
/// invariant that has the first turn, modulo however many take turns.
pub async fn watch<L, F>(stop: CancellationToken, look: L)
where
    L: Fn(Instant, usize) -> F,
    F: Future<Output = Result<Examined, Failure>>,
{
    let mut turn = Turn::default();
    while tokio::time::timeout(turn.pause, stop.cancelled()).await.is_err() {
        let began = Instant::now();
        let examined = tokio::select! {
            () = stop.cancelled() => return,
            examined = look(began + turn.patience, turn.first) => examined,
        };
        let examined = examined.inspect(Examined::publish).inspect_err(|failure| {
            tracing::warn!(code = %failure.code, "invariants were not evaluated: {}", failure.message);
        });
        turn = turn.after(examined.ok().as_ref(), began.elapsed());
    }
}

/// When and how the next look is made.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    pause: Duration,
    patience: Duration,
    first: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self { pause: PAUSE, patience: PATIENCE, first: 0 }
    }
}

impl Turn {
    /// The turn after one that took so long; `None` is one that ended in a failure.
    fn after(self, examined: Option<&Examined>, took: Duration) -> Self {
        let in_turn = examined.map(|examined| examined.in_turn);
        let pause = if examined.is_some_and(|examined| !examined.violations.is_empty()) { AGAIN } else { PAUSE };
        Self {
            pause: pause.max(took.saturating_mul(SHARE)),
            patience: match in_turn {
                Some(0) => (self.patience * 2).min(PATIENCE_LIMIT),
                // What sufficed for one stays, since less may suffice for none.
                None | Some(1) => self.patience,
                Some(_) => PATIENCE,
            },
            first: self.first.wrapping_add(in_turn.unwrap_or_default().max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violation;
    use super::*;
    use std::collections::BTreeSet;

    /// Which invariants are judged in so many looks, when each takes so many seconds.
    fn judged(secs: &[u64], looks: usize) -> Vec<usize> {
        let (mut turn, mut judged) = (Turn::default(), BTreeSet::new());
        for _ in 0..looks {
            let (mut took, mut in_turn) = (Duration::ZERO, 0);
            for invariant in (0..secs.len()).map(|at| (turn.first + at) % secs.len()) {
                took += Duration::from_secs(secs[invariant]);
                if took > turn.patience {
                    took = turn.patience;
                    break;
                }
                judged.insert(invariant);
                in_turn += 1;
            }
            turn = turn.after(Some(&Examined { in_turn, ..Examined::default() }), took);
        }
        judged.into_iter().collect()
    }

    #[test]
    fn every_invariant_has_its_turn() {
        for (secs, looks, expected) in [
            ([1, 1, 1, 1, 1, 1], 1, vec![0, 1, 2, 3, 4, 5]),
            ([20, 20, 20, 20, 20, 20], 6, vec![0, 1, 2, 3, 4, 5]),
            // None within 30 s: the first look judges nothing, the others one each.
            ([45, 45, 45, 45, 45, 45], 1, vec![]),
            ([45, 45, 45, 45, 45, 45], 7, vec![0, 1, 2, 3, 4, 5]),
            // One that takes too long keeps none of the others waiting.
            ([9_999, 1, 1, 1, 1, 1], 2, vec![1, 2, 3, 4, 5]),
            ([9_999, 9_999, 1, 1, 1, 1], 3, vec![2, 3, 4, 5]),
        ] {
            assert_eq!(judged(&secs, looks), expected, "{secs:?}");
        }
    }

    #[test]
    fn what_is_violated_is_looked_at_sooner_and_what_takes_long_later() {
        let violation = Violation { invariant: "a".to_owned(), subject: "run 1".to_owned(), detail: String::new() };
        let violated = Examined { violations: vec![violation], in_turn: 3, ..Examined::default() };
        let turn = |pause: u64, patience: u64, first| Turn {
            pause: Duration::from_secs(pause),
            patience: Duration::from_secs(patience),
            first,
        };
        let nothing = Examined::default();
        for (before, examined, secs, expected) in [
            (turn(600, 30, 0), Some(&violated), 2, turn(60, 30, 3)),
            (turn(60, 60, 3), Some(&violated), 10, turn(200, 30, 6)),
            (turn(600, 30, 0), Some(&nothing), 30, turn(600, 60, 1)),
            (turn(600, 400, 1), Some(&nothing), 400, turn(8_000, 600, 2)),
            (turn(600, 60, 2), None, 0, turn(600, 60, 3)),
        ] {
            assert_eq!(before.after(examined, Duration::from_secs(secs)), expected);
        }
    }
}
