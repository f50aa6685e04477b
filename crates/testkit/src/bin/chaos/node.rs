//! A campaign against the index node: the process that holds the lexical index dies again and again while documents are
//! indexed, and its files are damaged between its lives. Somebody searches all the while.
//!
//! The order of kills and damages follows from the seed. A search may find less while the node is away, is being built
//! or has not said that it is ready; it may never find what is not there.

use crate::Arguments;
use crate::campaign::{self, FaultFree, Worked};
use crate::documents::Documents;
use crate::index_files::{self, DAMAGES, Damaged};
use crate::plant::{APART, Plant, Settings, Tenant};
use crate::requests::request;
use crate::searches::{self, Asked, Said};
use crate::verdict::{self, Verdict};
use crate::work::{Pace, Progress};
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use sqlx::PgConnection;
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
/// How long a kill waits until there is something to index.
const INDEXING: Duration = Duration::from_secs(20);
/// How often is looked whether there is, and the longest random moment from then to the kill.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const MOMENT_MILLIS: u64 = 150;
/// Kills at most for each that shall count.
const MOST_KILLS: usize = 2;
/// Documents that are uploaded ahead of the first kill.
const AHEAD: usize = 8;
/// Pause between two searches, and searches until questions are chosen anew.
const SEARCH_EVERY: Duration = Duration::from_millis(20);
const SEARCHES: usize = 25;
/// Whether something is being indexed: a job of that stage is under way, or the node is behind the feed.
const IS_INDEXING: &str = "SELECT EXISTS (SELECT 1 FROM jobs WHERE stage = 'index' AND state = 'leased')
     OR EXISTS (SELECT 1 FROM index_heads h WHERE h.seq > coalesce(
        (SELECT max(w.seq) FROM index_watermarks w WHERE w.tenant_id = h.tenant_id), 0))";

/// Counts of what was done to the node.
#[derive(Debug, Default, serde::Serialize)]
pub struct Figures {
    pub kills: usize,
    /// Of them those of a node that had recovered from the one before and had something to index.
    pub while_indexing: usize,
    /// Of them those of a node that had not recovered from the one before.
    pub while_recovering: usize,
    /// Of them those of a node that had nothing to index in all the time it was waited for; they do not count.
    pub while_idle: usize,
    /// By kind of damage.
    pub damages: BTreeMap<&'static str, usize>,
    /// Indexes that the node built from the database.
    pub rebuilt: usize,
}

impl Figures {
    /// Kills that met the node at work.
    fn counted(&self) -> usize {
        self.while_indexing + self.while_recovering
    }
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

/// Kills the node while the documents are indexed, until `count` kills met it at work, and judges what came out.
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
    let (mut searches, missed, wrong) = searched;
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
    searches::judge(&plant, &tenants, missed, &mut searches, &mut verdict)?;
    let (counted, kills) = (node.counted(), node.kills);
    let what = format!("{count} kills while indexing or recovering: {counted} of {kills} were");
    verdict.tried(&what, usize::from(counted > 0 && counted >= count));
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
        let documents = self.arguments.documents();
        // Half of what the kills do not need is kept for those that find no work: the last one may be such a one.
        let pace = Pace { documents, steps: count, ahead: AHEAD, spare: documents.saturating_sub(count) / 2 };
        let most = count.saturating_mul(MOST_KILLS);
        let mut is_recovered = true;
        while self.figures.counted() < count && self.figures.kills < most {
            let counted = self.figures.counted();
            // Uploads keep step with the kills, so that the last kill still finds work; one that found none lets one in.
            progress.allowed.fetch_max(pace.at(counted + 1) + self.figures.while_idle, Ordering::AcqRel);
            let finds_work = !is_recovered || self.wait_for_indexing()?;
            let damage = if finds_work { schedule[counted] } else { None };
            bar.set_message(format!("{}/{count} kills, {}", counted + 1, damage.unwrap_or(UNDAMAGED)));
            let killed = Instant::now();
            self.plant.kill(NODE)?;
            self.figures.kills += 1;
            self.figures.while_recovering += usize::from(!is_recovered);
            self.figures.while_indexing += usize::from(is_recovered && finds_work);
            self.figures.while_idle += usize::from(!finds_work);
            let damaged = self.damage(damage)?;
            use std::io::Write;
            let name = damage.unwrap_or(UNDAMAGED);
            let target = damaged.as_ref().map_or("", |damaged| damaged.target.as_str());
            let met = if finds_work { "at work" } else { "idle" };
            writeln!(log, "{} {name} {target} {met}", time::OffsetDateTime::now_utc())?;
            let life = self.shared.life.fetch_add(1, Ordering::AcqRel) + 1;
            self.plant.run(NODE, &[])?;
            let is_last = self.figures.counted() == count || self.figures.kills == most;
            is_recovered = is_last || !self.rng.random_bool(HASTY);
            if is_recovered {
                self.recover(life).with_context(|| format!("after kill {} ({name} {target})", self.figures.kills))?;
                self.recovery.entry(name.to_owned()).or_default().push(killed.elapsed().as_secs_f64());
            } else {
                std::thread::sleep(HASTE.mul_f64(self.rng.random_range(0.0..1.0)));
            }
            drop(damaged);
        }
        Ok((self.figures, self.recovery))
    }

    /// Does what damage there shall be, while the node is down.
    fn damage(&mut self, kind: Option<&'static str>) -> Result<Option<Damaged>> {
        let Some(kind) = kind else { return Ok(None) };
        let done = index_files::damage(kind, &index_files::folder(self.plant), &mut self.rng);
        let damaged = done.with_context(|| format!("damage {kind} after kill {}", self.figures.kills))?;
        *self.figures.damages.entry(kind).or_default() += usize::from(damaged.is_some());
        Ok(damaged)
    }

    /// Until there is something to index, and still is after a random moment; false when there was nothing for long.
    fn wait_for_indexing(&mut self) -> Result<bool> {
        let mut moment = Duration::from_millis(self.rng.random_range(0..MOMENT_MILLIS));
        self.plant.runtime.block_on(async {
            let mut connection = self.plant.owner().await?;
            let started = Instant::now();
            while started.elapsed() < INDEXING {
                if is_indexing(&mut connection).await? {
                    tokio::time::sleep(moment).await;
                    if is_indexing(&mut connection).await? {
                        return Ok(true);
                    }
                    // Over before the kill: the next time sooner.
                    moment /= 2;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(false)
        })
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

async fn is_indexing(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar(IS_INDEXING).fetch_one(connection).await?)
}

/// Searches until the campaign is over; counts, what a ready node did not find, each once, and what was wrong.
fn search<'a>(
    plant: &Plant,
    tenants: &'a [Tenant],
    shared: &Shared,
    seed: u64,
) -> Result<(searches::Figures, Vec<Asked<'a>>, Vec<String>)> {
    let (mut figures, mut missed, mut wrong) = (searches::Figures::default(), Vec::new(), Vec::new());
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
                    let asked = Asked { tenant, question: question.clone(), mode, missed: 1 };
                    figures.misses(&mut missed, asked);
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
    Ok((figures, missed, wrong))
}
