//! `docs` and `show`.

use super::api::{Api, encode};
use crate::cli::{Cli, DocsArgs, ShowArgs};
use crate::exit::Ending;
use crate::output::{self, field};
use serde_json::{Value, json};

/// Largest page of the list.
const PAGE: usize = 200;

/// `docmill docs`.
pub async fn list(cli: &Cli, args: &DocsArgs, api: &Api) -> Result<(), Ending> {
    let mut documents: Vec<Value> = Vec::new();
    let mut cursor = None;
    while documents.len() < args.limit {
        let query = [
            ("collection", args.collection.clone()),
            ("state", args.state.clone()),
            ("name", args.name.clone()),
            ("limit", Some((args.limit - documents.len()).min(PAGE).to_string())),
            ("cursor", cursor),
        ];
        let page = api.get("/v1/documents", &query).await?;
        documents.extend(page["documents"].as_array().cloned().unwrap_or_default());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if cli.json {
        output::json(&json!({ "documents": documents }));
        return Ok(());
    }
    let rows = documents.iter().map(|d| {
        let pointers = ["/id", "/state", "/version/format", "/version/pages", "/collection", "/name", "/code"];
        pointers.iter().map(|pointer| field(d, pointer)).collect()
    });
    output::table(&["id", "state", "format", "pages", "collection", "name", "code"], rows);
    Ok(())
}

/// `docmill show`.
pub async fn one(cli: &Cli, args: &ShowArgs, api: &Api) -> Result<(), Ending> {
    let base = format!("/v1/documents/{}", encode(&args.id));
    let mut all =
        json!({ "document": api.get(&base, &[]).await?, "jobs": api.get(&format!("{base}/jobs"), &[]).await? });
    for (wanted, part) in [
        (args.text, "text"),
        (args.summary, "summary"),
        (args.extraction, "extraction"),
        (args.chunks, "chunks"),
        (args.events, "events"),
    ] {
        if wanted {
            all[part] = api.get(&format!("{base}/{part}"), &[]).await?;
        }
    }
    if cli.json {
        output::json(&all);
        return Ok(());
    }
    describe(&all);
    for part in ["text", "summary", "extraction", "chunks", "events"] {
        match all.get(part) {
            None => {}
            Some(value) if part == "text" => output::line(format!("\n{}", output::plain(&field(value, "/text")))),
            Some(value) => {
                let pretty = serde_json::to_string_pretty(value).unwrap_or_default();
                output::line(format!("\n{part}\n{}", output::plain(&pretty)));
            }
        }
    }
    Ok(())
}

fn describe(all: &Value) {
    let document = &all["document"];
    for (label, pointer) in [
        ("name", "/name"),
        ("state", "/state"),
        ("code", "/code"),
        ("collection", "/collection"),
        ("external id", "/external_id"),
        ("version", "/version/number"),
        ("format", "/version/format"),
        ("language", "/version/language"),
        ("pages", "/version/pages"),
        ("characters", "/version/characters"),
        ("title", "/version/title"),
    ] {
        let value = field(document, pointer);
        if !value.is_empty() {
            output::line(format!("{label:12} {}", output::plain(&value)));
        }
    }
    for failed in document.pointer("/version/failed_pages").and_then(Value::as_array).into_iter().flatten() {
        let what = if failed["part"].is_null() { "page" } else { "part" };
        let place = output::plain(&field(failed, &format!("/{what}")));
        output::line(format!("{what} {place:7} not read: {}", field(failed, "/code")));
    }
    output::line("");
    let jobs = all["jobs"].as_array().cloned().unwrap_or_default();
    let rows = jobs.iter().map(|job| {
        let mut row: Vec<String> =
            ["/stage", "/state", "/attempts", "/run_secs", "/code"].iter().map(|pointer| field(job, pointer)).collect();
        if job["cached"] == true {
            row[3] = "cached".to_owned();
        }
        row
    });
    output::table(&["stage", "state", "attempts", "seconds", "code"], rows);
}
