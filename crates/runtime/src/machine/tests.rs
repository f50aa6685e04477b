//! Claims and settlements, as tables.

use super::*;
use proptest::prelude::*;

fn policy() -> Policy {
    Policy::default()
}

fn failed(code: Code) -> Outcome {
    Outcome::Failed(Failure::new(code, "x"))
}

fn counters(failed: i32, lost: i32) -> Counters {
    Counters { failed, lost, attempts: i64::from(failed + lost + 1) }
}

#[test]
fn claims() {
    let base = Claimable { job: JobState::Ready, run: RunState::Running, on_settled: false, lost: 0, paused: false };
    let table = [
        (base, Claim::Take { alone: false }),
        (Claimable { lost: 2, ..base }, Claim::Take { alone: false }),
        (Claimable { lost: 3, ..base }, Claim::Take { alone: true }),
        (Claimable { paused: true, ..base }, Claim::Hold),
        (Claimable { run: RunState::Cancelled, ..base }, Claim::Skip),
        (Claimable { run: RunState::Done, on_settled: true, ..base }, Claim::Take { alone: false }),
        (Claimable { run: RunState::Failed, on_settled: true, ..base }, Claim::Take { alone: false }),
        (Claimable { on_settled: true, ..base }, Claim::Skip),
    ];
    for (job, expected) in table {
        assert_eq!(claim(&job), expected, "{job:?}");
    }
    for &state in JobState::ALL.iter().filter(|state| **state != JobState::Ready) {
        assert_eq!(claim(&Claimable { job: state, ..base }), Claim::Skip, "{state:?}: an event is only a doorbell");
    }
}

#[test]
fn settlements() {
    let secs = Duration::from_secs;
    let table = [
        (counters(0, 0), Outcome::Done, Next::Done, (0, 0)),
        (counters(2, 1), Outcome::Done, Next::Done, (2, 1)),
        // Typed failures: permanent ones at once, others after three.
        (counters(0, 0), failed(Code::PdfMalformed), Next::Dead, (1, 0)),
        (counters(0, 0), failed(Code::ProviderError), Next::Wait(secs(1)), (1, 0)),
        (counters(1, 0), failed(Code::Internal), Next::Wait(secs(2)), (2, 0)),
        (counters(2, 0), failed(Code::ProviderError), Next::Dead, (3, 0)),
        (counters(1, 0), failed(Code::StageTimeout), Next::Wait(secs(2)), (2, 0)),
        // A dependency that is down burns nothing, however often.
        (counters(2, 0), failed(Code::StoreUnavailable), Next::Wait(secs(4)), (2, 0)),
        (Counters { attempts: 500, ..counters(2, 0) }, failed(Code::DatabaseUnavailable), Next::Wait(secs(20)), (2, 0)),
        (counters(1, 0), failed(Code::BudgetExceeded), Next::HoldBudget, (1, 0)),
        // Lost leases: at once, then alone and slower, parked at the tenth.
        (counters(0, 0), Outcome::Lost, Next::Ready, (0, 1)),
        (counters(0, 1), Outcome::Lost, Next::Ready, (0, 2)),
        (counters(0, 2), Outcome::Lost, Next::Wait(secs(1)), (0, 3)),
        (counters(0, 9), Outcome::Lost, Next::Dead, (0, 10)),
        // Shutdown and snooze burn nothing.
        (counters(2, 9), Outcome::Released, Next::Ready, (2, 9)),
        (counters(2, 9), Outcome::Snoozed(secs(30)), Next::Wait(secs(30)), (2, 9)),
        (counters(0, 0), Outcome::Snoozed(secs(86_400)), Next::Wait(BACKOFF_LIMIT), (0, 0)),
    ];
    for (counters, outcome, next, (failed, lost)) in table {
        let verdict = settle(counters, &policy(), &outcome, 0.0);
        assert_eq!((&verdict.next, verdict.failed, verdict.lost), (&next, failed, lost), "{counters:?} {outcome:?}");
    }
}

#[test]
fn a_dead_letter_says_what_was_measured() {
    let verdict = settle(counters(0, 9), &policy(), &Outcome::Lost, 0.0);
    let failure = verdict.failure.expect("a cause");
    assert_eq!((failure.code, failure.limit, failure.measured), (Code::WorkerLost, Some(10), Some(10)));
}

proptest! {
    /// Whatever happens in whatever order, a job that never succeeds ends, and typed failures alone end it at three.
    #[test]
    fn every_unlucky_job_ends(outcomes in prop::collection::vec(0u8..4, 60), jitter in 0.0f64..1.0) {
        let mut now = Counters::default();
        let (mut burnt, mut ended) = (0, false);
        for outcome in outcomes {
            now.attempts += 1;
            let outcome = match outcome {
                0 => failed(Code::ProviderError),
                1 => Outcome::Lost,
                2 => failed(Code::Internal),
                _ => Outcome::Released,
            };
            if !matches!(outcome, Outcome::Released) {
                burnt += 1;
            }
            let verdict = settle(now, &policy(), &outcome, jitter);
            prop_assert!(verdict.failed >= now.failed && verdict.lost >= now.lost, "counters never go back");
            if let Next::Wait(delay) = verdict.next {
                prop_assert!(delay <= BACKOFF_LIMIT);
            }
            (now.failed, now.lost) = (verdict.failed, verdict.lost);
            if verdict.next == Next::Dead {
                ended = true;
                break;
            }
        }
        prop_assert!(now.failed <= 3 && now.lost <= 10);
        prop_assert!(ended || burnt < 12, "dead after at most 2 + 9 + 1 burnt attempts, {burnt} burnt");
    }
}
