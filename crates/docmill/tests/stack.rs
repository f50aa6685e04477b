//! The embedded stack and the demo, as a newcomer meets them.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};
use support::{Whole, workspace};

#[test]
fn up_attaches_to_what_runs_and_down_stops_it() {
    let whole = Whole::new("up", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    let started = Instant::now();
    let first = whole.json(&["up"]);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let second = whole.json(&["up"]);
    assert_eq!((&first["supervisor"], &first["roles"]), (&second["supervisor"], &second["roles"]));
    assert_eq!(whole.json(&["status"])["running"], true);

    let refused = whole.run(&["reset", "--yes"]);
    assert_eq!(refused.status.code(), Some(3), "a running stack is not reset");

    whole.json(&["down"]);
    let status = whole.run(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(6));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    for service in status["services"].as_array().unwrap() {
        assert_eq!(service["running"], false, "{service}");
    }
    whole.json(&["reset", "--yes"]);
    assert_eq!(whole.json(&["up"])["running"], true);
    assert_eq!(whole.json(&["docs"])["documents"].as_array().unwrap().len(), 0);
}

#[test]
fn the_demo_answers_questions_about_its_documents_also_the_second_time() {
    let whole = Whole::new("demo", &[]);
    let samples = workspace().join("sample-docs");
    let demo = || whole.json(&["demo", "--only", "service-manual", "--samples", samples.to_str().unwrap()]);
    let first = demo();
    assert_eq!(first["documents"][0]["state"], "done", "{first}");
    assert_eq!(first["documents"][0]["deduplicated"], false);
    let questions = first["questions"].as_array().unwrap();
    assert!(questions.len() >= 2 && questions.iter().all(|q| q["as_expected"] == true), "{first}");
    let second = demo();
    assert_eq!(second["documents"][0]["deduplicated"], true);
    assert_eq!(
        (&first["counts"], &first["documents"][0]["stages"]),
        (&second["counts"], &second["documents"][0]["stages"])
    );
}

#[test]
fn a_wrong_setting_is_one_line_that_says_what_to_do() {
    let whole = Whole::new("config", &[]);
    for (variable, value, expected) in [
        ("DOCMILL_S3_BUKET", "a", "there is no setting DOCMILL_S3_BUKET"),
        ("DOCMILL_PARSING_SLOTS", "many", "a number is expected"),
        ("DOCMILL_DATABASE_URL", "postgres://nobody@localhost:1/none", "cannot connect to Postgres"),
    ] {
        let output = whole
            .command(&["serve", "--roles", "relay"])
            .env(variable, value)
            .env("DOCMILL_DATABASE_ENGINE_URL", value)
            .output();
        let output = output.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(3 | 4)), "{errors}");
        assert!(errors.lines().last().unwrap().contains(expected), "{errors}");
    }
}
