//! Workers, relay, NATS, Postgres and the object store are killed at random while two hundred documents are uploaded and
//! processed: every document ends done, exactly once.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_embedded::process::Service;
use rand::RngExt;
use rand::seq::IndexedRandom;
use sqlx::Connection;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::Whole;

const DOCUMENTS: usize = 200;
const STAGES: usize = 7;
/// Without kills the work takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(300);
const MIN_KILLS: usize = 12;

#[test]
fn every_document_is_done_exactly_once_whatever_is_killed() {
    let whole = Whole::new(
        "kills",
        &[("DOCMILL_EMBEDDING_PROVIDER", "hash"), ("DOCMILL_ENGINE_LEASE", "2s"), ("DOCMILL_LOG", "warn")],
    );
    whole.json(&["up"]);
    let folder = whole.home.data().join("upload");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..DOCUMENTS {
        let text = format!(
            "Protocol {number}\n\nPump {number} ran for {} hours and was oiled by crew {}.\n",
            number * 3,
            number % 7
        );
        std::fs::write(folder.join(format!("protocol-{number:03}.txt")), text).unwrap();
    }
    let done = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_until(&whole, &done));
        // Released also when an assertion below fails, or the scope would wait for the killer for ever.
        let _release = Release(&done);
        let uploaded = whole.run(&["upload", folder.to_str().unwrap(), "--parallel", "8"]);
        assert!(uploaded.status.success(), "{}\n{}", String::from_utf8_lossy(&uploaded.stderr), whole.logs());
        wait_settled(&whole);
        done.store(true, Ordering::Release);
        killer.join().unwrap()
    });
    assert!(kills >= MIN_KILLS, "only {kills} kills: the test proved too little");
    check_once(&whole);
    wait_healthy(&whole);
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
        assert!(started.elapsed() < Duration::from_secs(60), "{report}\n{}", whole.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
}

struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Kills one thing at a time, with pauses in which work gets somewhere; the supervisor and this thread restart.
fn kill_until(whole: &Whole, done: &AtomicBool) -> usize {
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
    let (mut rng, mut kills) = (rand::rng(), 0);
    while !done.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(rng.random_range(300..1200)));
        if rng.random_bool(0.4) {
            let index = rng.random_range(0..children.len());
            let (roles, child) = &mut children[index];
            let _ = child.kill();
            let _ = child.wait();
            *child = extra(roles);
            kills += 1;
        } else if let Some(service) = services.choose(&mut rng)
            && service.pid().is_some()
        {
            service.signal(docmill_embedded::process::Signal::KILL);
            kills += 1;
        }
    }
    for (_, mut child) in children {
        let _ = child.kill();
        let _ = child.wait();
    }
    kills
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
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "Postgres stays away: {error}"),
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
        assert!(started.elapsed() < Duration::from_secs(60), "jobs do not end\n{}", whole.logs());
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
