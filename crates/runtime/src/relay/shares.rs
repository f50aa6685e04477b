//! Who had how much lately: what the relay remembers between two rounds to be fair and to keep the broker's queues
//! short. All of it can be lost, and each relay has its own: the tenants then begin as equals.

use docmill_model::TenantId;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A tenant's released jobs count half after this long: one with little to do goes before one that had many turns, until
/// it had as many; one that comes back has no claim on turns it did not take.
const USE_HALVES: Duration = Duration::from_secs(5);
/// How quickly the measured pace of a stage follows.
const PACE_HALVES: Duration = Duration::from_millis(500);
/// Work of this long waits in the broker for the workers, about a round of the relay under load: whoever has little to do
/// waits behind it at every stage.
const AHEAD: Duration = Duration::from_millis(50);
/// Least and most events that wait in the broker for each slot. Whoever comes next waits behind them.
const AHEAD_PER_SLOT: (i64, i64) = (1, 3);
/// Less use than this is none.
const NOTHING: f64 = 0.5;

/// The shares of all stages.
#[derive(Default)]
pub(super) struct Shares(HashMap<String, Stage>);

struct Stage {
    at: Instant,
    /// Jobs released, older ones counting less.
    by_tenant: HashMap<TenantId, f64>,
    /// The same of all tenants, halving sooner.
    released: f64,
}

impl Stage {
    fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let left = |halves: Duration| (-passed / halves.as_secs_f64()).exp2();
        let used = left(USE_HALVES);
        self.by_tenant.retain(|_, jobs| {
            *jobs *= used;
            *jobs >= NOTHING
        });
        self.released *= left(PACE_HALVES);
        self.at = now;
    }
}

impl Shares {
    /// Events that may wait in the broker for the workers of a stage, beside those that run.
    pub fn ahead(&mut self, stage: &str, slots: i64, now: Instant) -> i64 {
        let pace = match self.0.get_mut(stage) {
            Some(stage) => {
                stage.age(now);
                stage.released * std::f64::consts::LN_2 / PACE_HALVES.as_secs_f64()
            }
            None => 0.0,
        };
        let (least, most) = AHEAD_PER_SLOT;
        ((pace * AHEAD.as_secs_f64()).ceil() as i64).clamp(least * slots, most * slots)
    }

    /// What tenants had of a stage lately, in jobs.
    pub fn used(&self, stage: &str) -> (Vec<Uuid>, Vec<i64>) {
        let used = self.0.get(stage).into_iter().flat_map(|stage| &stage.by_tenant);
        used.map(|(tenant, jobs)| (tenant.0, jobs.round() as i64)).unzip()
    }

    /// Counts what was released.
    pub fn count(&mut self, stage: &str, tenants: impl IntoIterator<Item = TenantId>, now: Instant) {
        let fresh = || Stage { at: now, by_tenant: HashMap::new(), released: 0.0 };
        let entry = self.0.entry(stage.to_owned()).or_insert_with(fresh);
        entry.age(now);
        for tenant in tenants {
            *entry.by_tenant.entry(tenant).or_default() += 1.0;
            entry.released += 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_fades_and_is_forgotten() {
        let (mut shares, start) = (Shares::default(), Instant::now());
        let (large, small) = (TenantId::fresh(), TenantId::fresh());
        shares.count("ingest", [large; 100].into_iter().chain([small]), start);
        let used = |shares: &Shares| {
            let (tenants, jobs) = shares.used("ingest");
            tenants.into_iter().zip(jobs).collect::<HashMap<_, _>>()
        };
        assert_eq!(used(&shares), HashMap::from([(large.0, 100), (small.0, 1)]));
        shares.count("ingest", [], start + USE_HALVES * 2);
        assert_eq!(used(&shares), HashMap::from([(large.0, 25)]), "one job of ten seconds ago is none");
        assert_eq!(shares.used("chunk"), (vec![], vec![]), "stages are apart");
    }

    #[test]
    fn as_much_waits_in_the_broker_as_the_workers_soon_take() {
        let (mut shares, mut now) = (Shares::default(), Instant::now());
        assert_eq!(shares.ahead("ingest", 4, now), 4, "nothing is known yet");
        for _ in 0..400 {
            now += Duration::from_millis(5);
            shares.count("ingest", [TenantId::fresh()], now);
        }
        assert!((10..=11).contains(&shares.ahead("ingest", 4, now)), "two hundred a second");
        assert_eq!(shares.ahead("ingest", 2, now), 6, "at most three for each slot");
        assert_eq!(shares.ahead("ingest", 4, now + PACE_HALVES * 8), 4, "it went slower since");
    }
}
