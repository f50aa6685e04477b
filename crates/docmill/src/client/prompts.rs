//! `prompts …`: which prompts there are, what differs, who gets which version, and going back.

use super::api::{Api, encode};
use crate::cli::Cli;
use crate::exit::Ending;
use crate::output::{self, field, plain};
use clap::Subcommand;
use docmill_model::{Code, Failure};
use serde_json::{Map, Value, json};

/// The commands.
#[derive(Subcommand)]
pub enum PromptsCommand {
    /// List prompts with their versions and the one in use.
    List,
    /// Show the text and history of a prompt.
    Show {
        /// Its name.
        name: String,
        /// Which version; the one in use when absent.
        #[arg(long)]
        version: Option<i64>,
    },
    /// Show what differs between two versions.
    Diff {
        /// Its name.
        name: String,
        /// The older version.
        from: i64,
        /// The newer version.
        to: i64,
    },
    /// Use a version: for everybody, for a share of the calls, or for single tenants.
    #[command(after_help = "Example: docmill prompts rollout answer 2 --percent 10")]
    Rollout {
        /// Its name.
        name: String,
        /// The version.
        version: i64,
        /// Of a hundred calls; the version in use stays for the others.
        #[arg(long, conflicts_with = "tenants", value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: Option<u8>,
        /// Only for this tenant; may be repeated.
        #[arg(long = "tenant")]
        tenants: Vec<String>,
        /// Why, although the evaluation that the settings ask for is missing or failed; kept in the audit log.
        #[arg(long, value_name = "REASON")]
        force: Option<String>,
    },
    /// Go back to what held before.
    Rollback {
        /// Its name.
        name: String,
    },
}

/// Runs a prompts command.
pub async fn run(cli: &Cli, command: &PromptsCommand, api: &Api) -> Result<(), Ending> {
    let one = |name: &str| format!("/v1/operate/prompts/{}", encode(name));
    match command {
        PromptsCommand::List => list(cli, &api.get("/v1/operate/prompts", &[]).await?),
        PromptsCommand::Show { name, version } => {
            let prompt = api.get(&one(name), &[]).await?;
            if cli.json {
                output::json(&prompt);
                return Ok(());
            }
            let version = version.or(prompt["rule"]["version"].as_i64()).unwrap_or(1);
            output::line(plain(text_of(&prompt, version)?));
            for entry in prompt["history"].as_array().into_iter().flatten() {
                output::line(format!("{}  {}", field(entry, "/created_at"), describe(&entry["rule"])));
            }
            for run in prompt["evaluations"].as_array().into_iter().flatten() {
                output::line(format!("{}  {}", field(run, "/created_at"), judged(run)));
            }
        }
        PromptsCommand::Diff { name, from, to } => {
            let prompt = api.get(&one(name), &[]).await?;
            let lines = diff(text_of(&prompt, *from)?, text_of(&prompt, *to)?);
            if cli.json {
                output::json(&json!({"name": name, "from": from, "to": to, "lines": changes(&lines)}));
                return Ok(());
            }
            lines.iter().for_each(|line| output::line(plain(line)));
        }
        PromptsCommand::Rollout { name, version, percent, tenants, force } => {
            let current = api.get(&one(name), &[]).await?["rule"].clone();
            let mut rule = wanted(current, *version, *percent, tenants);
            if let Some(reason) = force {
                rule["force"] = json!(reason);
            }
            said(cli, name, &api.post(&format!("{}/rollout", one(name)), &rule).await?);
        }
        PromptsCommand::Rollback { name } => {
            said(cli, name, &api.post(&format!("{}/rollback", one(name)), &Value::Null).await?);
        }
    }
    Ok(())
}

fn list(cli: &Cli, prompts: &Value) {
    if cli.json {
        output::json(prompts);
        return;
    }
    let row = |prompt: &Value| {
        let versions = prompt["versions"].as_array().into_iter().flatten().map(|version| field(version, "/version"));
        vec![field(prompt, "/name"), versions.collect::<Vec<_>>().join(", "), describe(&prompt["rule"])]
    };
    output::table(&["prompt", "versions", "in use"], prompts["prompts"].as_array().into_iter().flatten().map(row));
}

fn said(cli: &Cli, name: &str, rule: &Value) {
    if cli.json {
        output::json(rule);
    } else {
        output::line(format!("{name}: {}, in effect within two seconds", describe(rule)));
    }
}

/// A rule in words.
fn describe(rule: &Value) -> String {
    let mut words = format!("version {}", field(rule, "/version"));
    if let Some(percent) = rule["share"]["percent"].as_u64() {
        words.push_str(&format!(", {percent} % version {}", field(rule, "/share/version")));
    }
    for (tenant, version) in rule["tenants"].as_object().into_iter().flatten() {
        words.push_str(&format!(", {tenant} version {version}"));
    }
    words
}

/// An evaluation in words.
fn judged(run: &Value) -> String {
    let failed: Vec<&str> = run["failed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let outcome = if failed.is_empty() { "passed".to_owned() } else { format!("failed: {}", failed.join("; ")) };
    format!("version {} in `{}` {outcome}", field(run, "/version"), field(run, "/evaluation"))
}

/// The rule that is asked for, made from the one that holds.
fn wanted(mut current: Value, version: i64, percent: Option<u8>, tenants: &[String]) -> Value {
    if let Some(percent) = percent {
        current["share"] = json!({"version": version, "percent": percent});
        return current;
    }
    if tenants.is_empty() {
        return json!({"version": version});
    }
    let mut own: Map<String, Value> = current["tenants"].as_object().cloned().unwrap_or_default();
    own.extend(tenants.iter().map(|tenant| (tenant.clone(), json!(version))));
    current["tenants"] = Value::Object(own);
    current
}

fn text_of(prompt: &Value, version: i64) -> Result<&str, Failure> {
    let found = prompt["versions"].as_array().into_iter().flatten().find(|row| row["version"] == version);
    let missing = || Failure::new(Code::NotFound, format!("there is no version {version}"));
    found.and_then(|row| row["text"].as_str()).ok_or_else(missing)
}

/// Lines that went (`-`), came (`+`) and stayed, by the longest common subsequence.
fn diff(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines
}

/// The lines of a difference for programs.
fn changes(lines: &[String]) -> Vec<Value> {
    let one = |line: &String| {
        let (mark, text) = line.split_at(2);
        let change = match mark {
            "- " => "removed",
            "+ " => "added",
            _ => "kept",
        };
        json!({"change": change, "text": text})
    };
    lines.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_lines_that_went_and_came() {
        assert_eq!(diff("a\nb\nc", "a\nx\nc\nd"), ["  a", "- b", "+ x", "  c", "+ d"]);
        assert_eq!(diff("", "a"), ["+ a"]);
        let told = Value::from(changes(&diff("a\nß", "ß\n- c")));
        let line = |change: &str, text: &str| json!({"change": change, "text": text});
        assert_eq!(told, json!([line("removed", "a"), line("kept", "ß"), line("added", "- c")]));
    }

    #[test]
    fn a_rollout_changes_what_it_names() {
        let current = json!({"version": 1, "tenants": {"t": 3}});
        assert_eq!(wanted(current.clone(), 2, None, &[]), json!({"version": 2}));
        let share = json!({"version": 1, "tenants": {"t": 3}, "share": {"version": 2, "percent": 10}});
        assert_eq!(wanted(current.clone(), 2, Some(10), &[]), share);
        assert_eq!(wanted(current, 2, None, &["u".to_owned()])["tenants"], json!({"t": 3, "u": 2}));
    }
}
