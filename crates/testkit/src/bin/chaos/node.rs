//! A campaign against the index node: the process that holds the lexical index dies again and again while documents are
//! indexed, and its files are damaged between its lives. Somebody searches all the while.
//!
//! The order of kills and damages follows from the seed. A search may find less while the node is away, is being built
//! or has not said that it is ready; it may never find what is not there.

use crate::Arguments;
use crate::campaign::{self, FaultFree, Worked};
use crate::documents::Documents;
use crate::index_files::{self, DAMAGES};
use crate::plant::{APART, Plant, Settings, Tenant};
use crate::requests::request;
use crate::searches::{self, Said};
use crate::verdict::{self, Verdict};
use crate::work::Progress;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The process with the role that searches.
const NODE: &str = "api";
/// Kind of a kill after which nothing is damaged.
const UNDAMAGED: &str = "killed";
/// Share of kills that do not wait until the node has recovered from the one before.
const HASTY: f64 = 0.2;
/// Longest life of a node that is killed in a hurry.
const HASTE: Duration = Duration::from_millis(900);
/// How long a node may take to be ready and right again.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a kill waits for the feed to move.
const FEED: Duration = Duration::from_secs(4);
/// Pause between two searches, and searches until questions are chosen anew.
const SEARCH_EVERY: Duration = Duration::from_millis(20);
const SEARCHES: usize = 25;
/// What operations of the index there are.
const FEED_LENGTH: &str = "SELECT coalesce(sum(seq), 0)::bigint FROM index_heads";

/// Counts of what was done to the node.
#[derive(Debug, Default, serde::Serialize)]
pub struct Figures {
    pub kills: usize,
    /// Of them those before which the feed of the index had moved since the last one.
    pub while_indexing: usize,
    /// Of them those of a node that had not recovered from the one before.
    pub while_recovering: usize,
    /// By kind of damage.
    pub damages: BTreeMap<&'static str, usize>,
    /// Indexes that the node built from the database.
    pub rebuilt: usize,
}

/// What the one who kills tells the one who searches.
#[derive(Default)]
struct Shared {
    /// Number of the node's life.
    life: AtomicUsize,
    /// The life that said it was ready.
    ready: AtomicUsize,
    over: AtomicBool,
}

/// Kills and damages, in order: the damage that follows each kill.
fn schedule(arguments: &Arguments, count: usize, rng: &mut StdRng) -> Vec<Option<&'static str>> {
    let every = arguments.damage_every as usize;
    let damages = (1..=count).filter(|number| number.is_multiple_of(every)).count();
    // In rounds of all kinds, so that each comes about equally often however few there are.
    let mut order = Vec::new();
    while order.len() < damages {
        let mut round = DAMAGES;
        round.shuffle(rng);
        order.extend(round);
    }
    let mut order = order.into_iter();
    (1..=count).map(|number| if number.is_multiple_of(every) { order.next() } else { None }).collect()
}

/// Kills the node `count` times while the documents are indexed, and judges what came out.
pub fn run(
    arguments: &Arguments,
    settings: &Settings,
    documents: &Documents,
    kept: &FaultFree,
    count: usize,
) -> Result<Verdict> {
    let plant = Plant::start("chaos-node", settings, APART, |_| Ok(()))?;
    let tenants = campaign::tenants(&plant)?;
    let (shared, started) = (Shared::default(), Instant::now());
    shared.life.store(1, Ordering::Release);
    let (worked, searched) = std::thread::scope(|scope| {
        let searching = scope.spawn(|| search(&plant, &tenants, &shared, arguments.seed));
        let worked = campaign::while_working(arguments, &plant, &tenants, documents, |progress, bar| {
            Killer::new(arguments, &plant, &tenants, &shared).run(count, progress, bar)
        });
        shared.over.store(true, Ordering::Release);
        let searched = searching.join().unwrap_or_else(|_| Err(anyhow::anyhow!("searching panicked")));
        worked.and_then(|worked| Ok((worked, searched?)))
    })?;
    let Worked { came_to: (mut node, recovery), acknowledged, peak_rss_mb } = worked;
    let (mut searches, wrong) = searched;
    let mut verdict = Verdict {
        documents: documents.paths.len(),
        kills: node.kills,
        faults: node.kills + node.damages.values().sum::<usize>(),
        seed: arguments.seed,
        seconds: started.elapsed().as_secs_f64(),
        fault_free_seconds: Some(kept.seconds),
        embedder: settings.embedder.clone(),
        source: documents.source.clone(),
        peak_rss_mb,
        ..Verdict::default()
    };
    verdict.recoveries(recovery);
    verdict::judge(&plant, &acknowledged, &mut verdict)?;
    verdict.invariant_violations.extend(wrong);
    campaign::compare(&plant, &tenants, kept, &mut verdict)?;
    // Before the index is built anew for comparison.
    let log = std::fs::read_to_string(plant.home.logs().join(format!("{NODE}.log")))?;
    node.rebuilt = log.matches("lexical index built from the database").count();
    searches::judge(&plant, &tenants, &mut searches, &mut verdict)?;
    verdict.tried("kills", node.kills);
    verdict.tried("kills while documents were indexed", node.while_indexing);
    for kind in DAMAGES {
        verdict.tried(&format!("damage: {kind}"), node.damages.get(kind).copied().unwrap_or_default());
    }
    verdict.tried("searches while the node died", searches.answered);
    (verdict.node, verdict.searches) = (Some(node), Some(searches));
    Ok(verdict)
}

struct Killer<'a> {
    arguments: &'a Arguments,
    plant: &'a Plant,
    tenants: &'a [Tenant],
    shared: &'a Shared,
    rng: StdRng,
    figures: Figures,
    recovery: BTreeMap<String, Vec<f64>>,
}

impl<'a> Killer<'a> {
    fn new(arguments: &'a Arguments, plant: &'a Plant, tenants: &'a [Tenant], shared: &'a Shared) -> Self {
        let rng = StdRng::seed_from_u64(arguments.seed);
        Self { arguments, plant, tenants, shared, rng, figures: Figures::default(), recovery: BTreeMap::new() }
    }

    fn run(
        mut self,
        count: usize,
        progress: &Progress,
        bar: &ProgressBar,
    ) -> Result<(Figures, BTreeMap<String, Vec<f64>>)> {
        let schedule = schedule(self.arguments, count, &mut self.rng);
        let mut log = std::fs::File::create(self.plant.home.logs().join("faults.log"))?;
        self.shared.ready.store(1, Ordering::Release);
        let mut feed = 0;
        let mut is_recovered = true;
        for (number, damage) in schedule.into_iter().enumerate() {
            // Uploads keep step with the kills, so that the last kill still finds work.
            progress.allowed.fetch_max(self.arguments.documents() * (number + 1) / count + 8, Ordering::AcqRel);
            if is_recovered {
                self.wait_for_feed(&mut feed)?;
            }
            bar.set_message(format!("{}/{count} kills, {}", number + 1, damage.unwrap_or(UNDAMAGED)));
            let killed = Instant::now();
            self.plant.kill(NODE)?;
            self.figures.kills += 1;
            self.figures.while_recovering += usize::from(!is_recovered);
            let mut damaged = None;
            if let Some(kind) = damage {
                let done = index_files::damage(kind, &index_files::folder(self.plant), &mut self.rng);
                damaged = done.with_context(|| format!("damage {kind} after kill {}", number + 1))?;
                *self.figures.damages.entry(kind).or_default() += usize::from(damaged.is_some());
            }
            use std::io::Write;
            let target = damaged.as_ref().map_or("", |damaged| damaged.target.as_str());
            writeln!(log, "{} {} {target}", time::OffsetDateTime::now_utc(), damage.unwrap_or(UNDAMAGED))?;
            let life = self.shared.life.fetch_add(1, Ordering::AcqRel) + 1;
            self.plant.run(NODE, &[])?;
            is_recovered = number + 1 == count || !self.rng.random_bool(HASTY);
            if is_recovered {
                let what = || format!("after kill {} ({} {target})", number + 1, damage.unwrap_or(UNDAMAGED));
                self.recover(life).with_context(what)?;
                let secs = self.recovery.entry(damage.unwrap_or(UNDAMAGED).to_owned()).or_default();
                secs.push(killed.elapsed().as_secs_f64());
            } else {
                std::thread::sleep(HASTE.mul_f64(self.rng.random_range(0.0..1.0)));
            }
            drop(damaged);
        }
        Ok((self.figures, self.recovery))
    }

    /// Until the index has something to do, and a random moment longer: kills that find it idle prove little.
    fn wait_for_feed(&mut self, feed: &mut i64) -> Result<()> {
        let started = Instant::now();
        let mut now = self.plant.count(FEED_LENGTH)?;
        while now == *feed && started.elapsed() < FEED {
            std::thread::sleep(Duration::from_millis(20));
            now = self.plant.count(FEED_LENGTH)?;
        }
        self.figures.while_indexing += usize::from(now > *feed);
        *feed = now;
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..400)));
        Ok(())
    }

    /// Until the node says that it is ready, and every tenant finds a passage by its words.
    fn recover(&self, life: usize) -> Result<()> {
        let started = Instant::now();
        let in_time = |what: &str| {
            let logs = self.plant.home.logs();
            ensure!(started.elapsed() < PATIENCE, "{what} after {PATIENCE:?}; logs are in {}", logs.display());
            std::thread::sleep(Duration::from_millis(20));
            anyhow::Ok(())
        };
        let ready = || request(self.plant, &self.tenants[0], ("GET", "/readyz"), None, PATIENCE);
        while !matches!(ready(), Ok(Some(answer)) if answer.status == 200) {
            self.plant.revive(&[])?;
            in_time("the node is not ready")?;
        }
        self.shared.ready.store(life, Ordering::Release);
        for tenant in self.tenants {
            for question in searches::questions(self.plant, tenant, 1, true)? {
                while !searches::ask(self.plant, tenant, &question, "lexical").holds(&question.chunk) {
                    in_time("the node does not find what is visible")?;
                }
            }
        }
        Ok(())
    }
}

/// Searches until the campaign is over; counts, and what was wrong.
fn search(plant: &Plant, tenants: &[Tenant], shared: &Shared, seed: u64) -> Result<(searches::Figures, Vec<String>)> {
    let (mut figures, mut wrong) = (searches::Figures::default(), Vec::new());
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(2));
    while !shared.over.load(Ordering::Acquire) {
        let Some(tenant) = tenants.choose(&mut rng) else { break };
        let questions = searches::questions(plant, tenant, SEARCHES as i64, true)?;
        for question in &questions {
            let mode = searches::MODES[rng.random_range(0..searches::MODES.len())];
            let life = shared.life.load(Ordering::Acquire);
            let was_ready = shared.ready.load(Ordering::Acquire) == life;
            let said = searches::ask(plant, tenant, question, mode);
            let is_same = shared.life.load(Ordering::Acquire) == life;
            let foreign = searches::wrong(plant, tenant, &said)?;
            if foreign > 0 {
                wrong.push(format!("{mode} search: {foreign} passages that are not visible to {}", tenant.id));
            }
            match &said {
                Said::Found { degraded: true, .. } => figures.degraded += 1,
                Said::Found { .. } if said.holds(&question.chunk) => figures.answered += 1,
                Said::Found { .. } if was_ready && is_same => {
                    wrong.push(format!("{mode} search: {} is not found by a node that is ready", question.chunk));
                }
                Said::Found { .. } => figures.incomplete_before_ready += 1,
                Said::Refused(status, code) if code.is_empty() => wrong.push(format!("{mode} search: {status}")),
                Said::Refused(..) => figures.refused += 1,
                Said::Away => figures.away += 1,
            }
            if shared.over.load(Ordering::Acquire) {
                break;
            }
            std::thread::sleep(SEARCH_EVERY);
        }
        std::thread::sleep(SEARCH_EVERY);
    }
    wrong.truncate(20);
    Ok((figures, wrong))
}
