//! Workers, relay, NATS, Postgres and the object store are killed at random while two hundred documents are uploaded and
//! processed: every document ends done, exactly once.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_embedded::process::Service;
use rand::RngExt;
use rand::seq::IndexedRandom;
use sqlx::Connection;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::Whole;

const DOCUMENTS: usize = 200;
const STAGES: usize = 7;
/// Without kills the work takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(600);
/// After everything that was killed is back, healing takes a fraction of this.
const HEALING: Duration = Duration::from_secs(180);
/// Each part is uploaded once its share of these has happened to those before: also a quick machine meets them all.
const MIN_KILLS: usize = 12;
const PARTS: usize = 4;

#[test]
fn every_document_is_done_exactly_once_whatever_is_killed() {
    let whole = Whole::new(
        "kills",
        &[("DOCMILL_EMBEDDING_PROVIDER", "hash"), ("DOCMILL_ENGINE_LEASE", "2s"), ("DOCMILL_LOG", "warn")],
    );
    whole.json(&["up"]);
    let folder = whole.home.data().join("upload");
    for part in 0..PARTS {
        std::fs::create_dir_all(folder.join(part.to_string())).unwrap();
    }
    for number in 0..DOCUMENTS {
        let text = format!(
            "Protocol {number}\n\nPump {number} ran for {} hours and was oiled by crew {}.\n",
            number * 3,
            number % 7
        );
        let part = folder.join((number * PARTS / DOCUMENTS).to_string());
        std::fs::write(part.join(format!("protocol-{number:03}.txt")), text).unwrap();
    }
    let (done, kills) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_until(&whole, &done, &kills));
        // Released also when an assertion below fails, or the scope would wait for the killer for ever.
        let _release = Release(&done);
        for part in 0..PARTS {
            upload(&whole, &folder.join(part.to_string()));
            wait_killed(&kills, MIN_KILLS * (part + 1) / PARTS);
        }
        wait_settled(&whole);
        done.store(true, Ordering::Release);
        killer.join().unwrap();
    });
    check_once(&whole);
    wait_healthy(&whole);
}

/// Uploads a folder as a person would, who repeats the command when its own tries were not enough.
fn upload(whole: &Whole, folder: &Path) {
    let started = Instant::now();
    loop {
        let uploaded = whole.run(&["upload", folder.to_str().unwrap(), "--parallel", "8"]);
        if uploaded.status.success() {
            return;
        }
        let told = String::from_utf8_lossy(&uploaded.stderr).into_owned();
        assert!(started.elapsed() < PATIENCE, "{told}\n{}", whole.logs());
    }
}

fn wait_killed(kills: &AtomicUsize, count: usize) {
    let started = Instant::now();
    while kills.load(Ordering::Acquire) < count {
        assert!(started.elapsed() < PATIENCE, "nothing is killed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the doctor finds nothing: what was killed last may still be on its way back.
fn wait_healthy(whole: &Whole) {
    let started = Instant::now();
    loop {
        let examined = whole.run(&["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&examined.stdout).unwrap_or_default();
        if report["healthy"] == true && report["invariants"].as_array().is_some_and(|all| !all.is_empty()) {
            return;
        }
        assert!(started.elapsed() < HEALING, "{report}\n{}", whole.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
}

struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Kills one thing at a time, with pauses in which work gets somewhere; the supervisor and this thread restart. Every other
/// time a client is answered first: how long that takes is the machine's, and without it a slow one would never be up.
fn kill_until(whole: &Whole, done: &AtomicBool, kills: &AtomicUsize) {
    let home = &whole.home;
    let services = [
        Service::new(home, "roles", "docmill-roles", home.root()),
        Service::new(home, "postgres", "postgres", &home.data().join("postgres")),
        Service::new(home, "nats", "nats-server", &home.run().join("nats.conf")),
        Service::new(home, "objects", "docmill-object-store", home.root()),
    ];
    let extra = |roles: &str| {
        let root = home.root().to_str().unwrap();
        let mut command = whole.command(&["serve", "--embedded", root, "--roles", roles]);
        command
            .env("DOCMILL_LISTEN", "127.0.0.1:0")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.spawn().unwrap()
    };
    let mut children: Vec<(&str, Child)> = ["worker", "relay,reconciler"].map(|roles| (roles, extra(roles))).into();
    let mut rng = rand::rng();
    while !done.load(Ordering::Acquire) {
        if rng.random_bool(0.5) {
            whole.run(&["docs", "--limit", "1"]);
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(300..1200)));
        if rng.random_bool(0.4) {
            let index = rng.random_range(0..children.len());
            let (roles, child) = &mut children[index];
            let _ = child.kill();
            let _ = child.wait();
            *child = extra(roles);
            kills.fetch_add(1, Ordering::AcqRel);
        } else if let Some(service) = services.choose(&mut rng)
            && service.pid().is_some()
        {
            service.signal(docmill_embedded::process::Signal::KILL);
            kills.fetch_add(1, Ordering::AcqRel);
        }
    }
    for (_, mut child) in children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits until every document has settled, asking as a client would, through all restarts.
fn wait_settled(whole: &Whole) {
    let started = Instant::now();
    loop {
        let listed = whole.run(&["docs", "--limit", "200", "--json"]);
        let list: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        let states: Vec<&str> =
            list["documents"].as_array().into_iter().flatten().filter_map(|d| d["state"].as_str()).collect();
        let settled = states.iter().filter(|state| !matches!(**state, "processing" | "uploading")).count();
        if settled >= DOCUMENTS {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{settled} of {DOCUMENTS} settled\n{}", whole.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Connects; the supervisor may still be bringing Postgres back after the last kill.
async fn connect(url: &str) -> sqlx::PgConnection {
    let started = Instant::now();
    loop {
        match sqlx::PgConnection::connect(url).await {
            Ok(connection) => return connection,
            Err(error) => assert!(started.elapsed() < HEALING, "Postgres stays away: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn check_once(whole: &Whole) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let count = |sql: &'static str| {
        let url = whole.owner_url();
        runtime.block_on(async move {
            let mut connection = connect(&url).await;
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut connection).await.unwrap()
        })
    };
    // Stages that run after settlement may still be on their way.
    let started = Instant::now();
    while count("SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'dead', 'cancelled')") > 0 {
        assert!(started.elapsed() < HEALING, "jobs do not end\n{}", whole.logs());
        std::thread::sleep(Duration::from_millis(200));
    }
    let all = DOCUMENTS as i64;
    for (what, sql, expected) in [
        ("documents done", "SELECT count(DISTINCT name) FROM documents WHERE state = 'done'", all),
        ("runs of accepted versions", "SELECT count(*) FROM runs WHERE state = 'done'", all),
        ("jobs done", "SELECT count(*) FROM jobs WHERE state = 'done'", all * STAGES as i64),
        ("dead jobs", "SELECT count(*) FROM jobs WHERE state = 'dead'", 0),
        (
            "jobs completed twice",
            "SELECT count(*) FROM (SELECT 1 FROM attempts WHERE outcome = 'done' GROUP BY tenant_id, job_id HAVING count(*) > 1) twice",
            0,
        ),
        ("visible generations", "SELECT count(*) FROM generations WHERE state = 'visible'", all),
        (
            "chunks per document other than one",
            "SELECT count(*) FROM (SELECT 1 FROM chunks GROUP BY document_id HAVING count(*) <> 1) other",
            0,
        ),
        ("vectors", "SELECT count(*) FROM vectors", all),
        ("summaries", "SELECT count(*) FROM summaries", all),
        ("settlements told", "SELECT count(*) FROM document_events WHERE kind = 'run.settled'", all),
    ] {
        assert_eq!(count(sql), expected, "{what}");
    }
}
