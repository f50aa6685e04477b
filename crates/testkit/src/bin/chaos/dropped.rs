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
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Only what answers requests.
const API: Processes = &[("api", "api")];
/// Callers at once: more than the pool has connections.
const CALLERS: u64 = 24;
/// Longest time a caller waits before it hangs up.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Longest time for which the database says nothing.
const LATE: Duration = Duration::from_millis(50);
/// How much longer than it says nothing it answers, at most.
const PROMPTER: f64 = 8.0;
/// A session that rests inside a transaction for longer than this was forgotten there.
const FORGOTTEN_SECS: i32 = 1;
/// What callers left behind is still written, one after the other: so long may that take.
const DRAIN: Duration = Duration::from_secs(60);
/// Afterwards every one of this many requests at once is answered within [`PROMPT`].
const AFTERWARDS: usize = 64;
const PROMPT: Duration = Duration::from_secs(5);

/// What the callers found out.
#[derive(Default)]
struct Found {
    begun: AtomicUsize,
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

/// Sends `count` declarations of documents, most of which are broken off.
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
        // What was begun may end.
        std::thread::sleep(Duration::from_secs(3));
        found.over.store(true, Ordering::Release);
        ensure!(panicked == 0, "{panicked} callers panicked");
        watching.join().unwrap_or_else(|_| Err(anyhow::anyhow!("watching panicked")))
    })?;
    let drained = drain(&plant, &tenant);
    let slow = afterwards(&plant, &tenant);
    judge(arguments, settings, &plant, found, (drained, slow), started.elapsed())
}

fn judge(
    arguments: &Arguments,
    settings: &Settings,
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
    ensure!(broken_off > 0, "no request was broken off: nothing was tried");
    ensure!(!acknowledged.is_empty(), "no request was answered: nothing can have been lost");
    verdict.kinds.insert(
        "dropped".to_owned(),
        json!({"requests": answers.values().sum::<usize>() + broken_off + refused, "broken_off": broken_off, "refused": refused,
               "answers": answers, "written": known.len(), "drained_secs": drained.as_secs_f64()}),
    );
    Ok(verdict)
}

fn call(plant: &Plant, tenant: &Tenant, found: &Found, count: usize, mut rng: StdRng) {
    loop {
        let number = found.begun.fetch_add(1, Ordering::AcqRel);
        if number >= count {
            return;
        }
        let name = format!("dropped-{number}.txt");
        let sha256 = Sha256Hex::of(name.as_bytes()).to_string();
        let body = json!({"name": name, "content_type": "text/plain", "size": 64, "sha256": sha256}).to_string();
        let patience = PATIENCE.mul_f64(rng.random_range(0.0..1.0));
        match request(plant, tenant, "POST", Some(&body), patience) {
            Ok(Some(status)) => {
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
        if matches!(request(plant, tenant, "GET", None, PROMPT), Ok(Some(200))) && asked.elapsed() < PROMPT / 5 {
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
