//! Callers that hang up: requests that write are broken off at random moments while the database answers late. Whatever
//! was acknowledged must be there, no session may rest inside a transaction, and the pool must have all its connections.

use crate::Arguments;
use crate::plant::{Plant, Processes, Settings, Tenant};
use crate::requests;
use crate::verdict::Verdict;
use anyhow::{Result, ensure};
use docmill_model::Sha256Hex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Only what answers requests.
const API: Processes = &[("api", "api")];
/// Callers at once: more than the pool has connections.
const CALLERS: u64 = 24;
/// Requests that are begun at most for each that shall be broken off.
const MOST_BEGUN: usize = 20;
/// Longest time a caller waits before it hangs up.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Share of callers in a hurry: they wait no longer than about twice as long as an answer takes.
const HURRIED: f64 = 0.5;
/// Longest time for which the database says nothing.
const LATE: Duration = Duration::from_millis(50);
/// How much longer than it says nothing it answers, at most.
const PROMPTER: f64 = 8.0;
/// A session that rests inside a transaction for longer than this was forgotten there.
const FORGOTTEN_SECS: i32 = 10;
/// What callers left behind is still written, one after the other: so long may that take.
const DRAIN: Duration = Duration::from_secs(60);
/// Afterwards every one of this many requests at once is answered within [`PROMPT`].
const AFTERWARDS: usize = 64;
const PROMPT: Duration = Duration::from_secs(30);

/// What the callers found out.
#[derive(Default)]
struct Found {
    begun: AtomicUsize,
    /// About how long the answers took lately that callers without hurry got; 0 before the first.
    usual_micros: AtomicU64,
    /// Callers that hung up before the answer came.
    broken_off: AtomicUsize,
    /// Requests that failed otherwise: nobody listened, or the server hung up.
    refused: AtomicUsize,
    /// Names the API has acknowledged.
    acknowledged: Mutex<BTreeSet<String>>,
    /// How often each status was answered.
    answers: Mutex<BTreeMap<u16, usize>>,
    /// Most sessions seen resting inside a transaction.
    forgotten: AtomicI64,
    over: AtomicBool,
}

/// Sends declarations of documents until `count` were broken off, or twenty times as many were begun.
pub fn run(arguments: &Arguments, settings: &Settings, count: usize) -> Result<Verdict> {
    let plant = Plant::start("chaos-dropped", settings, API, |_| Ok(()))?;
    let tenant = plant.tenant("hasty")?;
    let (found, started) = (Found::default(), Instant::now());
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&plant, &found));
        scope.spawn(|| delay(&plant, &found, arguments.seed));
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (plant, tenant, found) = (&plant, &tenant, &found);
                let rng = StdRng::seed_from_u64(arguments.seed.wrapping_mul(1_000).wrapping_add(number));
                scope.spawn(move || call(plant, tenant, found, count, rng))
            })
            .collect();
        let panicked = callers.into_iter().map(std::thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        // What was begun may end, and what was forgotten is seen.
        std::thread::sleep(Duration::from_secs(FORGOTTEN_SECS as u64 + 3));
        found.over.store(true, Ordering::Release);
        ensure!(panicked == 0, "{panicked} callers panicked");
        watching.join().unwrap_or_else(|_| Err(anyhow::anyhow!("watching panicked")))
    })?;
    let drained = drain(&plant, &tenant);
    let slow = afterwards(&plant, &tenant);
    judge(arguments, settings, count, &plant, found, (drained, slow), started.elapsed())
}

fn judge(
    arguments: &Arguments,
    settings: &Settings,
    count: usize,
    plant: &Plant,
    found: Found,
    (drained, slow): (Duration, usize),
    took: Duration,
) -> Result<Verdict> {
    let known: BTreeSet<String> = plant.runtime.block_on(async {
        let names = sqlx::query_scalar("SELECT name FROM documents").fetch_all(&mut plant.owner().await?).await?;
        anyhow::Ok(names.into_iter().collect())
    })?;
    let acknowledged = found.acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let lost: Vec<&String> = acknowledged.difference(&known).collect();
    let forgotten = found.forgotten.into_inner();
    let mut violations = Vec::new();
    if forgotten > 0 {
        violations.push(format!("no_session_idle_in_transaction: {forgotten}"));
    }
    if slow > 0 {
        violations.push(format!("pool_is_whole: {slow} of {AFTERWARDS} requests afterwards had no answer in time"));
    }
    let mut verdict = Verdict {
        documents: known.len(),
        seed: arguments.seed,
        lost: lost.len() as i64,
        differences: lost.iter().take(5).map(|name| format!("lost: {name}")).collect(),
        invariant_violations: violations,
        export_equal: true,
        seconds: took.as_secs_f64(),
        embedder: settings.embedder.clone(),
        ..Verdict::default()
    };
    let answers = found.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (broken_off, refused) = (found.broken_off.into_inner(), found.refused.into_inner());
    let begun = answers.values().sum::<usize>() + broken_off + refused;
    let is_enough = broken_off > 0 && broken_off >= count;
    verdict.tried(&format!("{count} requests broken off: {broken_off} of {begun} were"), usize::from(is_enough));
    verdict.tried("requests that were answered: nothing else can be lost", acknowledged.len());
    verdict.kinds.insert(
        "dropped".to_owned(),
        json!({"asked": count, "begun": begun, "broken_off": broken_off, "refused": refused, "answers": answers,
               "written": known.len(), "drained_secs": drained.as_secs_f64()}),
    );
    Ok(verdict)
}

fn call(plant: &Plant, tenant: &Tenant, found: &Found, count: usize, mut rng: StdRng) {
    while found.broken_off.load(Ordering::Acquire) < count {
        let number = found.begun.fetch_add(1, Ordering::AcqRel);
        if number >= count.saturating_mul(MOST_BEGUN) {
            return;
        }
        let name = format!("dropped-{number}.txt");
        let sha256 = Sha256Hex::of(name.as_bytes()).to_string();
        let body = json!({"name": name, "content_type": "text/plain", "size": 64, "sha256": sha256}).to_string();
        let usual = Duration::from_micros(found.usual_micros.load(Ordering::Acquire));
        let is_hurried = rng.random_bool(HURRIED);
        let patience = most_patience(is_hurried, usual).mul_f64(rng.random_range(0.0..1.0));
        let asked = Instant::now();
        match request(plant, tenant, "POST", Some(&body), patience) {
            Ok(Some(status)) => {
                if !is_hurried {
                    let usual = moved(usual, asked.elapsed());
                    found.usual_micros.store(usual.as_micros() as u64, Ordering::Release);
                }
                *found.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
                if (200..300).contains(&status) {
                    found.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                }
            }
            Ok(None) => drop(found.broken_off.fetch_add(1, Ordering::AcqRel)),
            Err(_) => drop(found.refused.fetch_add(1, Ordering::AcqRel)),
        }
    }
}

/// Up to when a caller hangs up, at a random moment before: one in a hurry anywhere in the course of its request, however
/// fast the machine is. The others tell how long that is; who hangs up sooner hears of quick answers only.
fn most_patience(is_hurried: bool, usual: Duration) -> Duration {
    if is_hurried && !usual.is_zero() { (usual * 2).min(PATIENCE) } else { PATIENCE }
}

/// The usual time of an answer once another one took `took`.
fn moved(usual: Duration, took: Duration) -> Duration {
    if usual.is_zero() { took } else { (usual * 7 + took) / 8 }
}

/// The status of the answer; `None` when the caller hung up before it came.
fn request(
    plant: &Plant,
    tenant: &Tenant,
    method: &str,
    body: Option<&str>,
    patience: Duration,
) -> Result<Option<u16>> {
    let answer = requests::request(plant, tenant, (method, "/v1/documents"), body, patience)?;
    Ok(answer.map(|answer| answer.status))
}

/// The database answers late, again and again.
fn delay(plant: &Plant, found: &Found, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !found.over.load(Ordering::Acquire) {
        plant.postgres.stall();
        std::thread::sleep(LATE.mul_f64(rng.random_range(0.0..1.0)));
        plant.postgres.heal();
        std::thread::sleep(LATE.mul_f64(rng.random_range(0.0..PROMPTER)));
    }
}

/// Looks for sessions that were forgotten inside a transaction.
fn watch(plant: &Plant, found: &Found) -> Result<()> {
    plant.runtime.block_on(async {
        let mut connection = plant.owner().await?;
        while !found.over.load(Ordering::Acquire) {
            let forgotten = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE state = 'idle in transaction' AND state_change < now() - make_interval(secs => $1)",
            );
            let forgotten: i64 = forgotten.bind(f64::from(FORGOTTEN_SECS)).fetch_one(&mut connection).await?;
            found.forgotten.fetch_max(forgotten, Ordering::AcqRel);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    })
}

/// How long until a request is answered promptly again.
fn drain(plant: &Plant, tenant: &Tenant) -> Duration {
    let started = Instant::now();
    while started.elapsed() < DRAIN {
        let asked = Instant::now();
        if matches!(request(plant, tenant, "GET", None, PROMPT), Ok(Some(200))) && asked.elapsed() < PROMPT / 10 {
            break;
        }
    }
    started.elapsed()
}

/// How many of many requests at once are not answered well and promptly, now that nothing is late any more.
fn afterwards(plant: &Plant, tenant: &Tenant) -> usize {
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..AFTERWARDS).map(|_| scope.spawn(|| request(plant, tenant, "GET", None, PROMPT))).collect();
        asked
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .filter(|got| !matches!(got, Ok(Ok(Some(200)))))
            .count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_a_hurry_waits_about_as_long_as_answers_take() {
        let millis = Duration::from_millis;
        assert_eq!(most_patience(true, Duration::ZERO), PATIENCE, "nothing was answered yet");
        assert_eq!(most_patience(false, millis(20)), PATIENCE);
        assert_eq!(most_patience(true, millis(20)), millis(40));
        assert_eq!(most_patience(true, millis(9_000)), PATIENCE);
        let usual = (0..100).fold(Duration::ZERO, |usual, _| moved(usual, millis(30)));
        assert_eq!(usual, millis(30));
        assert_eq!(moved(millis(30), millis(110)), millis(40));
    }
}
