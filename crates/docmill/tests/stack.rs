//! The embedded stack and the demo, as a newcomer meets them.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Whole, workspace};

#[test]
fn up_attaches_to_what_runs_and_down_stops_it() {
    let whole = Whole::new("up", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    let started = Instant::now();
    let first = whole.json(&["up"]);
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
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

#[test]
fn the_commands_of_an_uploader_an_assistant_and_an_operator() {
    let whole = Whole::new("commands", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    whole.json(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("pump.md"), "# Pump station\n\nThe pump is inspected by Rask & Daughters on 3 May 2027.\n")
        .unwrap();

    // Uploads, also what a watched folder takes in.
    let upload =
        ["upload", &path("pump.md"), "--collection", "notes", "--label", "board", "--metadata", "year=2027", "--wait"];
    let refused = whole.run(&upload);
    assert_eq!(refused.status.code(), Some(6), "a label the key does not hold");
    let upload =
        ["upload", &path("pump.md"), "--collection", "notes", "--metadata", "year=2027", "--external-id", "--wait"];
    assert_eq!(whole.json(&upload)["state"], "done");
    let mut watcher = whole.command(&["upload", "--watch", folder.path().to_str().unwrap(), "--collection", "watched"]);
    let mut watcher = watcher.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Its first uploads are over then: what comes is seen as it comes.
    let mut says = BufReader::new(watcher.stderr.take().unwrap()).lines();
    assert!(says.any(|line| line.unwrap().contains("watching")));
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("valve.txt"), "The valve is closed at night.").unwrap();
    std::fs::rename(outside.path(), path("moved-in")).unwrap();
    eventually("the watched file is there", || {
        whole.json(&["docs", "--name", "valve"])["documents"].as_array().is_some_and(|found| found.len() == 1)
    });
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    drop(says);

    // Reading, searching, asking.
    let docs = whole.json(&["docs", "--collection", "notes"]);
    let document = docs["documents"][0]["id"].as_str().unwrap().to_owned();
    let shown = whole.json(&["show", &document, "--text", "--chunks", "--events"]);
    assert!(shown["text"]["text"].as_str().unwrap().contains("inspected by Rask"), "{shown}");
    let hits = |more: &[&str]| {
        let found = whole.json(&[&["search", "pump", "inspected"], more].concat());
        found["hits"].as_array().unwrap().len()
    };
    assert!(hits(&["--metadata", "year=2027", "--collection", "notes"]) > 0);
    assert_eq!((hits(&["--metadata", "year=1999"]), hits(&["--label", "board"])), (0, 0));
    let remembered = || metric(&whole, "docmill_search_cache_total{outcome=\"hit\"}");
    let before = remembered();
    eventually("a repeated search is answered from memory, and counted", || {
        hits(&["--collection", "notes"]) > 0 && remembered() > before
    });
    let answer = whole.json(&["ask", "Who inspects the pump?"]);
    assert!(answer["sentences"][0]["text"].as_str().unwrap().contains("Rask"), "{answer}");

    // Keys.
    let made = whole.json(&["keys", "create", "--name", "reader", "--scopes", "query"]);
    let key = made["key"].as_str().unwrap();
    let as_reader = |arguments: &[&str]| whole.command(arguments).env("DOCMILL_API_KEY", key).output().unwrap();
    assert_eq!(as_reader(&["search", "pump"]).status.code(), Some(0));
    assert_ne!(as_reader(&["upload", &path("pump.md")]).status.code(), Some(0), "not its scope");
    whole.json(&["keys", "revoke", made["id"].as_str().unwrap()]);
    assert_eq!(as_reader(&["search", "pump"]).status.code(), Some(5), "revoked");
    let named = ["keys", "create", "--tenant", "beside", "--scopes", "upload,query,content:read", "--json"];
    let beside = whole.json(&named[..named.len() - 1]);
    assert_ne!(beside["tenant_id"], Value::Null);
    let key = beside["key"].as_str().unwrap();
    let as_beside = |arguments: &[&str]| whole.command(arguments).env("DOCMILL_API_KEY", key).output().unwrap();
    let docs = as_beside(&["docs", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&docs.stdout).unwrap()["documents"], json!([]), "its own tenant");
    let refused = as_beside(&named);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("FIELD_INVALID"), "a key makes none of another tenant");
    let named = [&named[..], &["--url", "http://127.0.0.1:9"]].concat();
    assert!(String::from_utf8_lossy(&whole.run(&named).stderr).contains("FIELD_INVALID"), "nor does an API");

    // Operating.
    assert_eq!(whole.json(&["dead", "list"])["jobs"].as_array().unwrap().len(), 0);
    std::fs::write(path("broken.pdf"), b"%PDF-1.4 and nothing else").unwrap();
    assert_eq!(whole.command(&["upload", &path("broken.pdf"), "--wait"]).output().unwrap().status.code(), Some(6));
    let dead = whole.json(&["dead", "list", "--stage", "ingest"]);
    let (job, code) = (&dead["jobs"][0]["job_id"], dead["jobs"][0]["code"].as_str().unwrap());
    let first = whole.json(&["dead", "show", job.as_str().unwrap()]);
    assert_eq!(first["upload"]["content_type"], "application/pdf");
    assert_eq!((&first["run"]["cause"], &first["earlier_runs"]), (&json!("upload"), &json!([])), "{first}");
    assert_eq!(whole.command(&["dead", "retry", "--code", code]).output().unwrap().status.code(), Some(1), "unasked");
    assert_eq!(&whole.json(&["dead", "retry", "--code", code, "--yes"])["done"][0]["job_id"], job);
    let again = || whole.json(&["dead", "list", "--stage", "ingest"])["jobs"][0]["job_id"].clone();
    eventually("it fails again", || again().is_string());
    let again = again().as_str().unwrap().to_owned();
    let second = whole.json(&["dead", "show", &again]);
    assert_eq!((&second["run"]["cause"], &second["earlier_runs"]), (&json!("operator"), &json!([first["run"]])));
    let shown = String::from_utf8(whole.run(&["dead", "show", &again]).stdout).unwrap();
    let (page, run) = (&second["code_page"], first["run"]["id"].as_str().unwrap());
    for part in [&page["page"], &page["meaning"], &page["remedy"]] {
        assert_eq!(shown.matches(part.as_str().unwrap()).count(), 1, "{part} is told once:\n{shown}");
    }
    assert!(shown.contains(run) && shown.contains("earlier run"), "{shown}");
    whole.json(&["pause", "stage", "embed"]);
    whole.json(&["resume", "stage", "embed"]);
    let plan = whole.json(&["replay", "--stage", "summarize", "--recompute", "--document", &document, "--dry-run"]);
    assert_eq!(plan["documents"], 1, "{plan}");
    whole.json(&["replay", "--stage", "summarize", "--recompute", "--document", &document, "--yes"]);
    assert!(whole.json(&["backlog"])["stages"].is_array());
    assert_eq!(whole.json(&["doctor"])["healthy"], true);
    let unheard = whole.command(&["doctor", "--json", "--url", "http://127.0.0.1:9"]).output().unwrap();
    assert!(!unheard.status.success(), "what cannot be examined is not healthy");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&unheard.stdout).unwrap()["healthy"], false);
    assert!(whole.json(&["pipelines", "show", "default"]).to_string().contains("summarize"));
    assert_eq!(whole.json(&["inspect", &path("pump.md")])["outcome"], "ok");
    whole.json(&["retention", "show"]);
    assert_eq!(whole.json(&["versions", &document])[0]["number"], 1);
    let receipt = whole.json(&["delete", &document, "--receipt", "--yes"]);
    assert_eq!(receipt["deletions"][0]["removed"]["documents"], 1, "{receipt}");
    assert_eq!(hits(&["--collection", "notes"]), 0);
}

#[test]
fn a_sample_says_what_would_change_and_changes_nothing() {
    let whole = Whole::new("sample", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    whole.json(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pump.md");
    let parts: Vec<String> = (1..20).map(|n| format!("Pump {n} is inspected on {n} May 2027 by office {n}.")).collect();
    std::fs::write(&path, format!("# Pump station\n\n{}\n", parts.join("\n\n"))).unwrap();
    whole.json(&["upload", path.to_str().unwrap(), "--wait"]);
    let document = whole.json(&["docs"])["documents"][0]["id"].as_str().unwrap().to_owned();
    let shown = || {
        let parts = ["--text", "--chunks", "--summary", "--extraction", "--events"];
        whole.json(&[&["show", &document], &parts[..]].concat())
    };
    let before = shown();

    let pipelines = whole.home.root().join("pipelines");
    let copied = Command::new("cp").arg("-r").arg(workspace().join("pipelines")).arg(&pipelines).status().unwrap();
    assert!(copied.success());
    let file = pipelines.join("default.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let smaller = text.replacen("  chunk:\n", "  chunk:\n    settings: {target_tokens: 60, min_tokens: 20}\n", 1);
    assert_ne!(smaller, text);
    std::fs::write(&file, smaller).unwrap();
    whole.json(&["down"]);
    let up = whole.command(&["up", "--json"]).env("DOCMILL_PIPELINES", &pipelines).output().unwrap();
    assert!(up.status.success(), "{}\n{}", String::from_utf8_lossy(&up.stderr), whole.logs());

    let question = "Who inspects pump 7?";
    let sampled = whole.json(&["replay", "--pipeline", "default", "--sample", "5", "--question", question, "--yes"]);
    let (totals, chunks) = (&sampled["difference"]["totals"], &sampled["difference"]["documents"][0]["chunks"]);
    assert_eq!(
        (&totals["documents"], &totals["chunks"], &totals["text"], &totals["failed"]),
        (&1.into(), &1.into(), &0.into(), &0.into()),
        "{sampled}"
    );
    assert!(chunks["after"].as_i64() > chunks["before"].as_i64() && chunks["before"].as_i64() > Some(0), "{chunks}");
    let computed = |stage: &str| {
        let stages = sampled["report"]["stages"].as_array().unwrap();
        stages.iter().find(|row| row["stage"] == stage).map(|row| row["computed"].as_i64().unwrap())
    };
    assert_eq!(
        (computed("ingest"), computed("chunk"), computed("index"), computed("notify")),
        (Some(0), Some(1), None, None)
    );
    assert_eq!(shown(), before, "what is shown is as it was");
    let id = sampled["report"]["id"].as_str().unwrap();
    assert_eq!(whole.json(&["replays", "difference", id])["totals"], *totals);
    assert_eq!(whole.json(&["doctor"])["healthy"], true);
}

#[test]
fn another_embedding_model_is_built_switched_to_and_the_former_dropped() {
    let whole = Whole::new("spaces", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    let settings = whole.home.root().join("settings.yaml");
    std::fs::write(&settings, "embedding: {models: {second: {provider: hash, dimensions: 64}}}\n").unwrap();
    let up = whole.command(&["up", "--json"]).env("DOCMILL_CONFIG", &settings).output().unwrap();
    assert!(up.status.success(), "{}\n{}", String::from_utf8_lossy(&up.stderr), whole.logs());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pump.md");
    std::fs::write(&path, "# Pump station\n\nThe pump is inspected on 3 May 2027.\n").unwrap();
    whole.json(&["upload", path.to_str().unwrap(), "--wait"]);

    let plan = whole.json(&["spaces", "build", "second", "--dry-run"]);
    assert_eq!((&plan["dimensions"], &plan["cached"]), (&serde_json::json!(64), &serde_json::json!(0)), "{plan}");
    let texts = plan["texts"].as_i64().unwrap();
    assert!(texts > 0 && plan["to_embed"] == texts, "{plan}");
    assert_eq!(whole.run(&["spaces", "build", "second"]).status.code(), Some(1), "unasked");
    let entered = whole.json(&["spaces", "build", "second", "--paused", "--yes"]);
    assert_eq!(
        (&entered["paused"], &entered["embedded"]),
        (&serde_json::json!(true), &serde_json::json!(0)),
        "{entered}"
    );
    let built = whole.json(&["spaces", "build", "second", "--yes"]);
    assert_eq!((&built["state"], &built["missing"]), (&serde_json::json!("ready"), &serde_json::json!(0)), "{built}");
    assert_eq!(whole.run(&["spaces", "drop", "all-minilm-l6-v2", "--yes"]).status.code(), Some(5), "it answers");
    assert_eq!(whole.json(&["spaces", "switch", "second", "--wait", "120", "--yes"])["state"], "active");
    for space in ["all-minilm-l6-v2", "second"] {
        assert!(!whole.json(&["search", "pump", "--space", space])["hits"].as_array().unwrap().is_empty(), "{space}");
    }
    let dropped = whole.json(&["spaces", "drop", "all-minilm-l6-v2", "--receipt", "--yes"]);
    assert_eq!(dropped["vectors"], texts, "{dropped}");
    assert_eq!(whole.run(&["search", "pump", "--space", "all-minilm-l6-v2"]).status.code(), Some(5), "gone");
    assert!(!whole.json(&["search", "pump"])["hits"].as_array().unwrap().is_empty());
    assert_eq!(whole.json(&["spaces", "list"])["spaces"].as_array().unwrap().len(), 1);
    assert_eq!(whole.json(&["doctor"])["healthy"], true);
}

#[test]
fn a_prompt_is_rolled_out_when_a_model_passed_its_evaluation_with_it() {
    let model = support::model::serve(|request| {
        let good = json!({"text": "The pump is inspected by Rask.", "citations": [{"passage": 1, "quote": "The pump is inspected by Rask"}]});
        match request {
            text if text.contains("Version 2.") => Some(json!({"found": false, "sentences": []})),
            text if text.contains("Version 4.") => None,
            _ => Some(json!({"found": true, "sentences": [good]})),
        }
    });
    let whole = Whole::new("rollout", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    let at = |name: &str| whole.home.root().join("given").join(name);
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), text).unwrap();
    };
    let committed = workspace().join("pipelines");
    for name in ["default.yaml", "schemas/general.json", "prompts/answer.v1.md"] {
        write(&format!("pipelines/{name}"), &std::fs::read_to_string(committed.join(name)).unwrap());
    }
    let settings = json!({"pipelines": at("pipelines"), "llm": {"base_url": model, "model": "scripted",
        "rollouts": {"answer": {"evaluation": "nightly", "fail_if": ["faq.gold_held < 1"]}}}});
    write("settings.yaml", &settings.to_string());
    let configured = |arguments: &[&str]| {
        let output = whole.command(arguments).env("DOCMILL_CONFIG", at("settings.yaml")).output().unwrap();
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    assert_eq!(configured(&["up"]).0, Some(0), "{}", whole.logs());

    // New versions come as files, and the data they are judged on.
    let first = std::fs::read_to_string(committed.join("prompts/answer.v1.md")).unwrap();
    for version in 2..=4 {
        let text = first.replace("version: 1", &format!("version: {version}"));
        let text = text.replace("# system\n", &format!("# system\nVersion {version}.\n"));
        write(&format!("pipelines/prompts/answer.v{version}.md"), &text);
    }
    write("faq/corpus.jsonl", r#"{"_id": "p", "title": "", "text": "The pump is inspected by Rask each year."}"#);
    write("faq/queries.jsonl", r#"{"_id": "q", "text": "Who inspects the pump?"}"#);
    write("faq/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\tp\t1\n");
    write("faq/answers.jsonl", r#"{"_id": "q", "answer": "inspected by Rask"}"#);
    write("nightly.yaml", "name: nightly\nsuites: [{kind: answers, name: faq, beir: faq}]\n");
    let nightly = at("nightly.yaml");
    let eval = |prompt: &str| configured(&["eval", "run", nightly.to_str().unwrap(), "--prompt", prompt]);
    let rollout = |version: &str, more: &[&str]| {
        let output = whole.run(&[&["prompts", "rollout", "answer", version], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let refused = |version: &str, code: &str| {
        let (status, told) = rollout(version, &[]);
        assert!(status == Some(5) && told.contains(code), "{told}");
        told
    };

    assert_eq!(eval("answer@2").0, Some(0), "the file itself has no condition");
    let told = refused("2", "EVALUATION_FAILED");
    assert!(told.contains("faq.gold_held < 1: faq.gold_held is 0.0000"), "{told}");
    refused("3", "EVALUATION_MISSING");
    assert_eq!(eval("answer@3").0, Some(0));
    assert_eq!(rollout("3", &[]).0, Some(0));
    // Where the model does not answer, the documents' own sentences would pass in its place.
    let (status, told) = eval("answer@4");
    assert!(status == Some(6) && told.contains("did not answer 1 of 1 calls"), "{told}");
    let told = refused("4", "EVALUATION_FAILED");
    assert!(told.contains("did not answer 1 of 1 calls"), "{told}");
    assert_eq!(rollout("4", &["--force", "tried by hand"]).0, Some(0));
    assert_eq!(whole.json(&["prompts", "rollback", "answer"]), json!({"version": 3}));

    for (prompt, expected) in [("rewrite@1", "no suite of this file asks"), ("answer@9", "has no version 9")] {
        let (status, told) = eval(prompt);
        assert!(status != Some(0) && told.contains(expected), "{told}");
    }
    let shown = whole.json(&["prompts", "show", "answer"]);
    let kept: Vec<_> = shown["evaluations"].as_array().unwrap().iter().map(|run| run["version"].clone()).collect();
    assert_eq!(kept, [4, 3, 2]);
}

#[test]
fn a_webhook_is_made_rotated_and_removed_and_what_its_receiver_did_not_take_is_sent_again() {
    let (url, arrived) = support::receiver::serve([410].into_iter().chain(std::iter::repeat(204)));
    let whole = Whole::new("webhooks", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    whole.json(&["up"]);
    for refused in [&["create", "ftp://example.com/"][..], &["create", &url, "--events", "everything"]] {
        assert_eq!(whole.run(&[&["webhooks"], refused].concat()).status.code(), Some(5), "{refused:?}");
    }

    // A secret is shown when it is made, and never again.
    let listed = || whole.json(&["webhooks", "list"])["webhooks"].clone();
    let made = whole.json(&["webhooks", "create", &url]);
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(secret.starts_with("whsec_"), "{made}");
    let rotated = whole.run(&["webhooks", "rotate", id]);
    let shown = String::from_utf8(rotated.stdout).unwrap();
    assert!(shown.contains(id) && shown.contains("whsec_") && !shown.contains(secret), "{shown}");
    let webhooks = listed();
    assert_eq!((&webhooks[0]["id"], &webhooks[0]["secrets"]), (&made["id"], &json!(2)), "{webhooks}");
    assert!(!webhooks.to_string().contains("whsec_"), "{webhooks}");

    // The receiver says that it is gone.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pump.md");
    std::fs::write(&path, "# Pump station\n\nThe pump is inspected on 3 May 2027.\n").unwrap();
    whole.json(&["upload", path.to_str().unwrap(), "--wait"]);
    eventually("its receiver switched it off", || listed()[0]["disabled_at"].is_string());
    let deliveries = |more: &[&str]| {
        let found = whole.json(&[&["webhooks", "deliveries", id], more].concat());
        found["deliveries"].as_array().unwrap().clone()
    };
    let dead = deliveries(&["--state", "dead"]);
    assert_eq!((dead.len(), &dead[0]["last_status"], &dead[0]["attempts"]), (1, &json!(410), &json!(1)), "{dead:?}");
    let delivery = dead[0]["id"].as_str().unwrap();
    let next = || arrived.recv_timeout(Duration::from_secs(90)).unwrap();
    let first = next();
    assert_eq!((first.id.as_str(), first.signatures), (delivery, 2), "both secrets sign");

    // It is back, and gets what died, under the same id.
    assert_eq!(whole.json(&["webhooks", "enable", id])["disabled_at"], Value::Null);
    assert_eq!(whole.run(&["webhooks", "retry", id]).status.code(), Some(2), "which?");
    assert_eq!(whole.run(&["webhooks", "retry", id, "--dead"]).status.code(), Some(1), "unasked");
    let again = whole.json(&["webhooks", "retry", id, "--dead", "--yes"]);
    assert_eq!((&again["done"][0]["id"], &again["passed_over"]), (&dead[0]["id"], &json!([])), "{again}");
    let is_done = || deliveries(&["--state", "done"]).iter().any(|done| done["id"] == delivery);
    assert_eq!(next().id, delivery);
    eventually("it was taken", is_done);

    // More than a page of deliveries that wait for tomorrow: what waits already is passed over.
    let more = "WITH more AS (
            INSERT INTO deliveries (tenant_id, id, endpoint_id, document_id, run_id, payload, next_at)
            SELECT tenant_id, gen_random_uuid(), endpoint_id, document_id, gen_random_uuid(), payload, now() + interval '1 day'
            FROM deliveries, generate_series(1, 250) RETURNING 1)
         SELECT count(*) FROM more";
    assert_eq!(counted(&whole, more), 250);
    assert_eq!(deliveries(&[]).len(), 50);
    let waiting = deliveries(&["--state", "ready", "--limit", "230"]);
    let ids: BTreeSet<&str> = waiting.iter().map(|waits| waits["id"].as_str().unwrap()).collect();
    assert_eq!((waiting.len(), ids.len()), (230, 230));
    let both = whole.json(&["webhooks", "retry", id, waiting[0]["id"].as_str().unwrap(), delivery]);
    assert_eq!((&both["passed_over"][0]["id"], &both["done"][0]["id"]), (&waiting[0]["id"], &dead[0]["id"]), "{both}");
    assert_eq!(next().id, delivery);
    eventually("it was taken again", is_done);
    let shown = String::from_utf8(whole.run(&["webhooks", "deliveries", id, "--state", "done"]).stdout).unwrap();
    assert!(shown.contains(delivery) && shown.contains(" 204 "), "{shown}");

    assert_eq!(whole.run(&["webhooks", "delete", id]).status.code(), Some(1), "unasked");
    whole.json(&["webhooks", "delete", id, "--yes"]);
    assert_eq!(listed(), json!([]));
    for command in ["rotate", "enable", "deliveries"] {
        assert_eq!(whole.run(&["webhooks", command, id]).status.code(), Some(5), "{command} of one that is gone");
    }
}

/// A data set in BEIR layout, small enough to know its rankings.
fn data_set(folder: &std::path::Path) {
    std::fs::create_dir_all(folder.join("qrels")).unwrap();
    let files: [(&str, &[&str]); 3] = [
        (
            "corpus.jsonl",
            &[
                r#"{"_id": "pump", "title": "Pump station", "text": "The pump is inspected by Rask each year."}"#,
                r#"{"_id": "valve", "title": "Valve", "text": "The valve beside the pump is closed at night."}"#,
                r#"{"_id": "gate", "text": "Visitors report at the northern gate before noon."}"#,
            ],
        ),
        (
            "queries.jsonl",
            &[
                r#"{"_id": "q1", "text": "Who inspects the pump station?"}"#,
                r#"{"_id": "q2", "text": "When is the valve closed?"}"#,
            ],
        ),
        ("qrels/test.tsv", &["query-id\tcorpus-id\tscore", "q1\tpump\t1", "q2\tvalve\t1"]),
    ];
    for (name, lines) in files {
        std::fs::write(folder.join(name), lines.join("\n")).unwrap();
    }
}

#[test]
fn an_evaluation_writes_its_run_is_compared_with_the_last_and_closes_its_gate() {
    let whole = Whole::new("evaluation", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    whole.json(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    data_set(&folder.path().join("faq"));

    // One mode, and its rankings as trec_eval reads them.
    let (faq, trec) = (path("faq"), path("lexical.trec"));
    let judged = whole.json(&["eval", "retrieval", "--beir", &faq, "--mode", "lexical", "--run-out", &trec]);
    let names: Vec<_> = judged["measures"].as_array().unwrap().iter().map(|measure| measure["name"].clone()).collect();
    assert!(names.contains(&json!("lexical.ndcg@10")) && !names.contains(&json!("hybrid.ndcg@10")), "{judged}");
    let run = std::fs::read_to_string(&trec).unwrap();
    let lines: Vec<Vec<&str>> = run.lines().map(|line| line.split(' ').collect()).collect();
    for (question, relevant) in [("q1", "pump"), ("q2", "valve")] {
        let ranking: Vec<_> = lines.iter().filter(|line| line[0] == question).collect();
        assert_eq!(ranking[0][..4], [question, "Q0", relevant, "1"], "{run}");
        for (place, line) in ranking.iter().enumerate() {
            assert_eq!((line.len(), line[1], line[5]), (6, "Q0", "docmill-lexical"), "{run}");
            assert_eq!(line[3], (place + 1).to_string(), "{run}");
        }
        let scores: Vec<f64> = ranking.iter().map(|line| line[4].parse().unwrap()).collect();
        assert!(scores.iter().all(|score| *score > 0.0) && scores.is_sorted_by(|a, b| a >= b), "{run}");
    }
    assert!(lines.iter().all(|line| line[0] == "q1" || line[0] == "q2"), "{run}");

    // Suites, compared with the run before.
    let suites = "name: nightly\nsuites: [{kind: retrieval, name: faq, beir: faq, modes: [lexical, hybrid]}]\n";
    std::fs::write(path("nightly.yaml"), suites).unwrap();
    let file = path("nightly.yaml");
    let eval = |more: &[&str]| {
        let output = whole.run(&[&["eval", "run", &file, "--json"], more].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let results = String::from_utf8_lossy(&output.stdout).lines().last().map(str::to_owned);
        let results: Value = serde_json::from_str(&results.unwrap_or_else(|| "null".to_owned())).unwrap();
        (output.status.code(), results, told)
    };
    let (status, _, told) = eval(&["--against", "last"]);
    assert!(status == Some(3) && told.contains("no earlier run"), "{told}");
    let (status, first, told) = eval(&[]);
    assert_eq!((status, &first["changes"], &first["failed"]), (Some(0), &json!([]), &json!([])), "{told}");
    let (status, failed, told) = eval(&["--fail-if", "faq.lexical.ndcg@10 <= 1"]);
    assert_eq!(status, Some(6), "{told}");
    assert_eq!(failed["failed"], json!(["faq.lexical.ndcg@10 <= 1: faq.lexical.ndcg@10 is 1.0000"]), "{told}");
    let unchanged = ["--fail-if", "change faq.*.ndcg@10 < -0.01", "--fail-if", "worse faq.*.recall@10"];
    let (status, again, told) = eval(&[&["--against", "last"], unchanged.as_slice()].concat());
    assert_eq!((status, &again["failed"]), (Some(0), &json!([])), "{told}");
    let changes = again["changes"].as_array().unwrap();
    for mode in ["lexical", "hybrid"] {
        let name = json!(format!("faq.{mode}.ndcg@10"));
        let change = changes.iter().find(|change| change["name"] == name).unwrap();
        assert_eq!((&change["before"], &change["after"]), (&json!(1.0), &json!(1.0)), "{change}");
        assert_eq!(change["paired"]["difference"], 0.0, "{change}");
    }
    let (status, _, told) = eval(&unchanged);
    assert!(status == Some(3) && told.contains("--against"), "{told}");
    let (status, _, told) = eval(&["--fail-if", "faqs.lexical.ndcg@10 < 1"]);
    assert!(status == Some(3) && told.contains("nothing called faqs.lexical.ndcg@10 is measured"), "{told}");

    // Other data is nothing to compare with.
    std::fs::write(path("faq/qrels/test.tsv"), "q1\tpump\t1\n").unwrap();
    let (status, _, told) = eval(&["--against", "last"]);
    assert!(status == Some(3) && told.contains("other data"), "{told}");
}

#[test]
fn injected_orphans_are_found_and_repaired_within_a_minute() {
    let whole = Whole::new("orphans", &[("DOCMILL_EMBEDDING_PROVIDER", "hash")]);
    whole.json(&["up"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pump.md");
    std::fs::write(&path, "# Pump station\n\nThe pump is inspected on 3 May 2027.\n").unwrap();
    let moving = "docmill_invariant_violations{invariant=\"document_is_moving\"}";
    eventually("the reconciler tells that it holds", || metric(&whole, moving) == Some(0.0));
    whole.json(&["upload", path.to_str().unwrap(), "--wait"]);
    assert_eq!(whole.json(&["doctor"])["healthy"], true);
    let count = |sql: &'static str| counted(&whole, sql);
    // A vector that is gone, and a document that claims to be processed while nothing does.
    assert!(count("WITH gone AS (DELETE FROM vectors RETURNING 1) SELECT count(*) FROM gone") > 0);
    count(
        "WITH left_behind AS (UPDATE documents SET state = 'processing', updated_at = now() - interval '1 minute' RETURNING 1)
         SELECT count(*) FROM left_behind",
    );
    let found = whole.run(&["doctor", "--json"]);
    assert!(!found.status.success(), "orphans are not healthy");
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    for name in ["chunk_has_vector", "document_is_moving"] {
        let invariant = found["invariants"].as_array().unwrap().iter().find(|invariant| invariant["name"] == name);
        assert_eq!(invariant.unwrap()["violations"].as_array().unwrap().len(), 1, "{name}: {found}");
    }
    let started = Instant::now();
    let repaired = whole.json(&["doctor", "--repair"]);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(repaired["healthy"], true, "{repaired}");
    assert!(count("SELECT count(*) FROM vectors") > 0);
    assert_eq!(whole.json(&["docs"])["documents"][0]["state"], "done");
}

/// What a statement, run as the owner, counts.
fn counted(whole: &Whole, sql: &'static str) -> i64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection;
        let mut owner = sqlx::PgConnection::connect(&whole.owner_url()).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut owner).await.unwrap()
    })
}

/// What `/metrics` of the API says of a series; `None` before there is anything to say.
fn metric(whole: &Whole, series: &str) -> Option<f64> {
    let url = whole.json(&["status"])["url"].as_str().unwrap().to_owned();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let value = answer.lines().find_map(|line| line.strip_prefix(series));
    value.map(|value| value.trim().parse().unwrap())
}

/// Waits up to a minute and a half.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(90);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
