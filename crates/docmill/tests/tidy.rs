//! Rules of the house that no compiler checks: which crate may import which, who names an outside service, who reads
//! the environment, file headers and sizes, the top level, that every error code has a page and every watched metric a source.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file in lines, its unit tests aside.
const MAX_FILE_LINES: usize = 350;

/// The top level is fixed.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "crates",
    "deploy",
    "docker-compose.yml",
    "migrations",
    "pipelines",
    "sample-docs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Names in `[dependencies]` of every crate.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        let names =
            section.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty());
        all.insert(folder.file_name().unwrap().to_string_lossy().into_owned(), names.map(str::to_owned).collect());
    }
    all
}

#[test]
fn imports_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("model", [].as_slice()),
        ("platform", &["model"]),
        ("documents", &["model"]),
        ("embedded", &["model"]),
        ("runtime", &["model", "platform"]),
        ("lifecycle", &["model", "platform"]),
        ("retrieval", &["model", "platform"]),
        ("stages", &["model", "platform", "runtime", "documents", "retrieval"]),
        ("api", &["model", "platform", "runtime", "lifecycle", "retrieval", "documents"]),
        ("testkit", &["model", "platform", "embedded"]),
    ]);
    for (name, found) in dependencies() {
        let Some(allowed) = allowed.get(name.as_str()) else {
            assert_eq!(name, "docmill", "a crate without an import rule");
            continue;
        };
        let own: Vec<&str> = found.iter().filter_map(|dependency| dependency.strip_prefix("docmill-")).collect();
        for import in own {
            assert!(allowed.contains(&import), "crates/{name} may not import {import}");
        }
    }
}

#[test]
fn one_crate_names_each_outside_service() {
    let owners = [
        ("async-nats", "runtime"),
        ("aws-sdk-s3", "platform"),
        ("tantivy", "retrieval"),
        ("axum", "api"),
        ("s3s", "embedded"),
    ];
    for (name, found) in dependencies() {
        for (service, owner) in owners {
            let exempt = name == owner || name == "testkit";
            assert!(!found.contains(service) || exempt, "crates/{name} names {service}, which is {owner}'s");
        }
    }
}

#[test]
fn only_the_binary_reads_the_environment() {
    for path in files(&root().join("crates"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let is_code =
            place.contains("/src/") && !place.starts_with("crates/docmill/") && !place.starts_with("crates/testkit/");
        if is_code {
            for call in ["env::var(", "env::var_os(", "env::vars("] {
                assert!(!text.contains(call), "{place} reads the environment");
            }
        }
    }
}

#[test]
fn every_file_says_why_it_exists_and_stays_readable() {
    let mut wrong = Vec::new();
    for path in files(&root().join("crates"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{place} has no `//!` header"));
        }
        let lines = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().lines().count();
        if lines > MAX_FILE_LINES && place.contains("/src/") {
            wrong.push(format!("{place} has {lines} lines, limit {MAX_FILE_LINES}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let pages: BTreeSet<String> = files(&root().join("deploy/codes"), "md")
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|stem| stem != "README")
        .collect();
    let codes: BTreeSet<String> = docmill_model::Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(pages, codes);
}

#[test]
fn every_metric_that_is_watched_is_told_by_some_code() {
    let sources: String =
        files(&root().join("crates"), "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut watched = 0;
    for name in ["docmill.json", "alerts.yaml"] {
        let text = fs::read_to_string(root().join("deploy/dashboards").join(name)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("docmill_")) {
            let told = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(sources.contains(&format!("\"{told}\"")), "{name}: nothing tells {metric}");
            watched += 1;
        }
    }
    assert!(watched > 30, "only {watched} are watched");
}

#[test]
fn the_top_level_holds_only_what_belongs_there() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let belongs = name.starts_with('.') || name == "target" || TOP_LEVEL.contains(&name.as_str());
        assert!(belongs, "{name} does not belong at the top level");
    }
}
