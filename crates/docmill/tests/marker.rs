//! Nothing of what is deleted stays anywhere: a document, a collection and a tenant of a whole stack are processed, asked
//! about and deleted over the command line; afterwards their words are in no row, object, index, stream or log.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_embedded::Stack;
use docmill_embedded::parts::PartPaths;
use docmill_embedded::stack::DATABASE;
use docmill_model::TenantId;
use docmill_retrieval::{LexicalConfig, LexicalIndexes};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::Whole;

/// A word for each deletion.
const MARKERS: [&str; 3] = ["Quillonbrox", "Vexatrumb", "Zorbinock"];
const PEPPER: &str = "a pepper of one test";
const SCOPES: &str = "upload,query,operate,content:read,admin";
/// For the follower to write the files of the index anew, and the reconciler to do its rounds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether bytes hold the marker, whatever the case of ASCII letters.
fn holds(bytes: &[u8], marker: &str) -> bool {
    bytes.windows(marker.len()).any(|window| window.eq_ignore_ascii_case(marker.as_bytes()))
}

/// Every place that holds the marker: the dump of the database, with bytes as hexadecimal digits, the dictionaries of the
/// lexical indexes, whose files are compressed, and every file that the stack has, byte for byte. Postgres' own files aside:
/// what is deleted stays in its pages and log until they are written again, and no query reaches it.
fn places(whole: &Whole, marker: &str) -> Vec<String> {
    let program = PartPaths::of(&whole.home).unwrap().postgres_bin.join("pg_dump");
    let url = Stack::of(&whole.home).unwrap().admin_url(DATABASE).unwrap();
    let dump = Command::new(program).arg(url).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let mut places = Vec::new();
    let digits = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    if holds(&dump.stdout, marker) || holds(&dump.stdout, &digits(marker)) {
        places.push("database".to_owned());
    }
    if is_in_dictionaries(whole, marker) {
        places.push("lexical index".to_owned());
    }
    let (data, parts) = (whole.home.data().join("postgres"), whole.home.parts());
    let mut left: Vec<PathBuf> = vec![whole.home.root().to_owned()];
    while let Some(path) = left.pop() {
        if path == data || path == parts {
            continue;
        }
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if path.is_file() && std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, marker)) {
            places.push(path.strip_prefix(whole.home.root()).unwrap().display().to_string());
        }
    }
    places.sort();
    places
}

/// Whether the files of any tenant's lexical index know the word, also as one of removed chunks: a word that they do not know
/// weighs as much as one that nobody ever wrote. Files that change while they are copied are looked at again.
fn is_in_dictionaries(whole: &Whole, marker: &str) -> bool {
    let (folder, copy) = (whole.home.data().join("roles/lexical"), tempfile::tempdir().unwrap());
    let looked = || -> std::io::Result<bool> {
        let mut tenants: Vec<TenantId> = Vec::new();
        let mut left = vec![folder.clone()];
        while let Some(path) = left.pop() {
            let target = copy.path().join(path.strip_prefix(&folder).unwrap());
            if path.is_dir() {
                std::fs::create_dir_all(target)?;
                tenants.extend(path.file_name().and_then(|name| name.to_str()?.parse().ok()).map(TenantId));
                for entry in std::fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            } else {
                std::fs::copy(&path, target)?;
            }
        }
        let indexes = LexicalIndexes::new(LexicalConfig::new(copy.path())).map_err(std::io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        for tenant in tenants {
            let weigh = |word: &str| {
                let words = runtime.block_on(indexes.weigh(tenant, word.to_owned())).map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(words.first().map(|word| word.weight))
            };
            if weigh(marker)? != weigh("qwxzvbnmk")? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    looked().unwrap_or(true)
}

fn eventually_nowhere(whole: &Whole, marker: &str) {
    let started = Instant::now();
    loop {
        let left = places(whole, marker);
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{marker} is in {left:?}\n{}", whole.logs());
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The last line of a command that must succeed, as JSON.
fn told(command: &mut Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
}

/// Writes a file that says the marker where each stage finds it: name, title, heading, field, sentence.
fn write(folder: &Path, marker: &str, number: usize) -> String {
    let path = folder.join(format!("{marker}-{number}.md"));
    let text = format!(
        "# Contract with {marker}\n\nThe {marker} works deliver pump number {number} on 3 May 2027 for 4,500 EUR.\n\n\
         ## Duties of {marker}\n\nThe {marker} crew oils pump {number} every week and keeps a protocol of it.\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_byte_of_a_deleted_document_collection_or_tenant_stays_in_any_store() {
    let whole = Whole::new("marker", &[("DOCMILL_EMBEDDING_PROVIDER", "hash"), ("DOCMILL_PEPPER", PEPPER)]);
    whole.json(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let urls = Stack::of(&whole.home).unwrap().database_urls(DATABASE).unwrap();
    let mut make = whole.command(&["keys", "create", "--scopes", SCOPES, "--tenant", "doomed"]);
    let made = told(make.env("DOCMILL_DATABASE_URL", &urls.app).env("DOCMILL_DATABASE_ENGINE_URL", &urls.engine));
    let (doomed, key) = (made["tenant_id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let as_doomed = |arguments: &[&str]| told(whole.command(arguments).env("DOCMILL_API_KEY", key));

    let [document, collection, tenant] = MARKERS;
    let uploaded = whole.json(&["upload", &write(folder.path(), document, 1), "--collection", "one", "--wait"]);
    assert_eq!(uploaded["state"], "done");
    for number in 2..4 {
        whole.json(&["upload", &write(folder.path(), collection, number), "--collection", "many", "--wait"]);
    }
    as_doomed(&["upload", &write(folder.path(), tenant, 4), "--wait"]);
    let kept = folder.path().join("kept.txt");
    std::fs::write(&kept, "The lighthouse is painted every fourth year.").unwrap();
    whole.json(&["upload", kept.to_str().unwrap(), "--collection", "kept", "--wait"]);
    for marker in [document, collection] {
        assert!(!whole.json(&["search", marker, "pump"])["hits"].as_array().unwrap().is_empty(), "{marker}");
        whole.json(&["ask", &format!("What does the {marker} crew oil?")]);
    }
    assert!(!as_doomed(&["search", tenant, "pump"])["hits"].as_array().unwrap().is_empty());
    for marker in MARKERS {
        let before = places(&whole, marker);
        for place in ["database", "data/objects", "lexical index"] {
            assert!(before.iter().any(|found| found.contains(place)), "the scan sees {place}: {before:?}");
        }
    }

    let id = uploaded["id"].as_str().unwrap();
    let receipt = whole.json(&["delete", id, "--receipt", "--wait", "180", "--yes"]);
    let (state, removed) = (&receipt["deletions"][0]["state"], &receipt["deletions"][0]["removed"]);
    assert_eq!((state, &removed["documents"]), (&"finished".into(), &1.into()), "{receipt}");
    eventually_nowhere(&whole, document);

    // Goes on behind the answer: the wait is for the reconciler.
    let receipt = whole.json(&["delete", "--collection", "many", "--receipt", "--wait", "180", "--yes"]);
    let (state, removed) = (&receipt["deletions"][0]["state"], &receipt["deletions"][0]["removed"]);
    assert_eq!((state, &removed["documents"]), (&"finished".into(), &2.into()), "{receipt}");
    eventually_nowhere(&whole, collection);

    let receipt = whole.json(&["delete", "--tenant", doomed, "--receipt", "--wait", "180", "--yes"]);
    let deleted = &receipt["deletions"][0];
    assert!(deleted["rows_removed_at"].is_string() && deleted["removed"]["documents"] == 1, "{receipt}");
    eventually_nowhere(&whole, tenant);

    let found = whole.json(&["search", "lighthouse", "painted"]);
    assert_eq!(found["hits"][0]["document"], "kept.txt", "what was not deleted answers");
    assert_eq!(whole.json(&["doctor"])["healthy"], true);
}

#[test]
fn a_wait_for_a_receipt_ends_in_time_and_says_what_goes_on() {
    let whole = Whole::new("waits", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    whole.json(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pump.txt");
    std::fs::write(&path, "The pump is oiled every week.").unwrap();
    let uploaded = whole.json(&["upload", path.to_str().unwrap(), "--wait"]);
    // A run that is under way may rely on what the document leaves behind, and keeps the deletion open.
    whole.json(&["pause", "stage", "chunk"]);
    std::fs::write(&path, "The valve is closed at night.").unwrap();
    whole.json(&["upload", path.to_str().unwrap()]);
    let started = Instant::now();
    let id = uploaded["id"].as_str().unwrap();
    let open = whole.run(&["delete", id, "--receipt", "--wait", "2", "--yes", "--json"]);
    assert_eq!(open.status.code(), Some(6), "{}", String::from_utf8_lossy(&open.stderr));
    assert!((2..30).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    let receipt: Value = serde_json::from_slice(&open.stdout).unwrap();
    assert_eq!(receipt["deletions"][0]["state"], "open", "{receipt}");
    assert!(String::from_utf8_lossy(&open.stderr).contains("1 of 1 still go on"));
    let receipt = receipt["deletions"][0]["id"].as_str().unwrap().to_owned();

    // Once the run has settled the reconciler ends the deletion, and a replay is waited for to its end.
    whole.json(&["resume", "stage", "chunk"]);
    let ended = Instant::now();
    loop {
        let shown = whole.json(&["deletions"]);
        let shown =
            shown["deletions"].as_array().unwrap().iter().find(|shown| shown["id"] == receipt.as_str()).unwrap();
        if shown["state"] == "finished" {
            break;
        }
        assert!(ended.elapsed() < PATIENCE, "{shown}\n{}", whole.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
    let replayed = whole.json(&["replay", "--stage", "ingest", "--recompute", "--yes"]);
    assert_eq!((&replayed["state"], &replayed["runs"]["done"]), (&"done".into(), &1.into()), "waited for: {replayed}");
}
