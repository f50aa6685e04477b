//! Short campaigns and a part of the crash-point sweep, as the continuous integration runs them. The long ones are
//! flags of the same program.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// Runs the program; its line of JSON when nothing was lost, doubled, stuck, violated or different.
fn chaos(arguments: &[&str]) -> serde_json::Value {
    let program = Path::new(env!("CARGO_BIN_EXE_chaos"));
    let mut command = Command::new(program);
    // Built by the same `cargo test --workspace`; alone, the program builds it.
    let docmill = program.with_file_name("docmill");
    if docmill.is_file() {
        command.arg("--docmill").arg(docmill);
    }
    let output = command.args(arguments).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("chaos {}: {text}", arguments.join(" "));
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn nothing_is_lost_doubled_or_stuck_while_everything_breaks() {
    let verdict = chaos(&["--documents", "40", "--kills", "10", "--seed", "4"]);
    assert_eq!(verdict["kills"], 10);
    assert_eq!(verdict["export_equal"], true);
    let repeated = &verdict["repeated"];
    assert!(repeated["events"].as_u64().unwrap() > 2_000, "every job's event ten times: {verdict}");
    assert_eq!((&repeated["unheard"], &repeated["attempts_begun"]), (&0.into(), &0.into()), "{verdict}");
    for (kind, figures) in verdict["kinds"].as_object().unwrap() {
        assert!(figures["tried"].as_u64().unwrap() > 0, "{kind}: {verdict}");
    }
}

#[test]
fn the_broker_may_lose_its_memory_at_a_fixed_pace() {
    let faults = "wipe,rollback,repeat";
    let verdict = chaos(&["--documents", "16", "--kills", "1", "--faults", faults, "--every", "0.5s", "--seed", "4"]);
    for kind in faults.split(',') {
        let figures = &verdict["kinds"][kind];
        assert_eq!((&figures["asked"], &figures["tried"]), (&1.into(), &1.into()), "{kind}: {verdict}");
    }
}

#[test]
fn a_process_may_die_at_any_point() {
    // A lease that a slow machine loses adds points to the record which nothing meets again.
    let verdict = chaos(&["--documents", "13", "--crash-points", "--points", "20", "--lease", "3", "--seed", "4"]);
    let points = &verdict["points"];
    assert!(points["total"].as_u64().unwrap() >= 60, "{verdict}");
    assert_eq!((&points["swept"], &points["met"]), (&20.into(), &20.into()), "{verdict}");
}

#[test]
fn callers_that_hang_up_leave_nothing_behind() {
    let verdict = chaos(&["--drops", "600", "--seed", "4"]);
    let dropped = &verdict["kinds"]["dropped"];
    assert_eq!((&dropped["asked"], &dropped["refused"]), (&600.into(), &0.into()), "{verdict}");
    // Who is about to hang up when the last one is counted does so too.
    let (begun, broken_off) = (dropped["begun"].as_u64().unwrap(), dropped["broken_off"].as_u64().unwrap());
    assert!((600..640).contains(&broken_off) && begun > broken_off, "{verdict}");
}

#[test]
fn the_index_node_may_die_and_find_its_files_damaged() {
    let verdict = chaos(&["--documents", "40", "--node-kills", "14", "--damage-every", "1", "--seed", "4"]);
    let (node, searches) = (&verdict["node"], &verdict["searches"]);
    let kills = |of: &str| node[of].as_u64().unwrap();
    assert_eq!(kills("while_indexing") + kills("while_recovering"), 14, "{verdict}");
    assert_eq!(kills("kills"), 14 + kills("while_idle"), "{verdict}");
    assert_eq!(node["damages"].as_object().unwrap().len(), 7, "{verdict}");
    assert!(node["rebuilt"].as_u64().unwrap() > 3, "{verdict}");
    assert!(searches["known"].as_u64().unwrap() > 40, "{verdict}");
    assert_eq!((&searches["right"], &searches["same_anew"]), (&searches["known"], &searches["known"]), "{verdict}");
}

#[test]
fn answers_never_get_fewer_while_versions_replays_and_models_change() {
    let verdict = chaos(&["--updates", "--documents", "12", "--kills", "16", "--seed", "4"]);
    let updates = &verdict["updates"];
    assert_eq!((&updates["fewer"], &updates["unanswered"]), (&0.into(), &0.into()), "{verdict}");
    // 12 first ones, 12 second ones, 3 that fail, 9 third ones.
    assert_eq!((&updates["versions"], &updates["failed_versions"]), (&36.into(), &3.into()), "{verdict}");
    assert_eq!(updates["asked"].as_object().unwrap().len(), 8, "asked in every phase: {verdict}");
}

#[test]
fn a_dump_and_the_bucket_are_enough_to_go_on() {
    let verdict = chaos(&["--documents", "40", "--restore", "--seed", "4"]);
    let restore = &verdict["restore"];
    assert!(restore["open_jobs_in_dump"].as_u64().unwrap() > 0, "{verdict}");
    assert!(restore["accepted_after_dump"].as_u64().unwrap() > 0, "{verdict}");
    assert_eq!(verdict["searches"]["right"], verdict["searches"]["known"], "{verdict}");
}
