//! `search` and `ask`.

use super::api::Api;
use super::upload::pairs;
use crate::cli::Cli;
use crate::exit::Ending;
use crate::output::{self, field, plain};
use clap::Args;
use docmill_model::Failure;
use serde_json::{Value, json};

/// Arguments of `search` and `ask`.
#[derive(Args)]
pub struct QueryArgs {
    /// The words.
    #[arg(required = true)]
    pub words: Vec<String>,
    /// Passages to look at.
    #[arg(short, default_value_t = 10)]
    pub k: u32,
    /// Only this collection.
    #[arg(long)]
    pub collection: Option<String>,
    /// Only documents with this access label, or one of several; may be repeated.
    #[arg(long = "label")]
    pub labels: Vec<String>,
    /// Only documents with this metadata, KEY=VALUE; may be repeated.
    #[arg(long = "metadata", value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// Compare in this embedding space instead of the one that answers.
    #[arg(long)]
    pub space: Option<String>,
}

/// Arguments of `search`.
#[derive(Args)]
pub struct SearchArgs {
    #[command(flatten)]
    pub query: QueryArgs,
    /// Show ranks and scores.
    #[arg(long)]
    pub explain: bool,
    /// How much hits should differ from each other, 0 to 1.
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    pub diversity: f64,
    /// Show where else the text of a hit stands.
    #[arg(long)]
    pub copies: bool,
    /// Show so many passages before and after each hit, 1 to 3.
    #[arg(long, value_name = "COUNT", conflicts_with = "section")]
    pub neighbours: Option<u32>,
    /// Show the section around each hit, up to so many tokens, 50 to 4000.
    #[arg(long, value_name = "TOKENS")]
    pub section: Option<u32>,
    /// Prefer newer documents: days after which half of that preference is lost.
    #[arg(long, value_name = "DAYS")]
    pub half_life: Option<f64>,
    /// Share of the score that age can take, up to 0.5; 0.2 when absent.
    #[arg(long, value_name = "SHARE", requires = "half_life")]
    pub age_weight: Option<f64>,
    /// Metadata field with the date of a document; the time of its upload when absent.
    #[arg(long, value_name = "FIELD", requires = "half_life")]
    pub date_field: Option<String>,
    /// Have the best candidates read again: by the installation's cross-encoder, else by the words that stand together.
    #[arg(long, conflicts_with = "no_rerank")]
    pub rerank: bool,
    /// Do not rerank, whatever the installation's setting is.
    #[arg(long)]
    pub no_rerank: bool,
}

fn filters(args: &QueryArgs) -> Result<Value, Failure> {
    let mut filters = json!({"labels": args.labels, "metadata": pairs(&args.metadata)?});
    if let Some(collection) = &args.collection {
        filters["collection"] = json!(collection);
    }
    Ok(filters)
}

/// `docmill search`.
pub async fn search(cli: &Cli, args: &SearchArgs, api: &Api) -> Result<(), Ending> {
    let body = body(args)?;
    let found = api.post("/v1/search", &body).await?;
    if cli.json {
        output::json(&found);
        return Ok(());
    }
    for (rank, hit) in found["hits"].as_array().into_iter().flatten().enumerate() {
        output::line(format!("{}. {}{}", rank + 1, plain(&field(hit, "/document")), place(hit, "/page_start")));
        around(&hit["context"]["before"]);
        let text: String = field(hit, "/text").split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = text.chars().take(240).collect();
        output::line(format!("   {}", plain(&short)));
        around(&hit["context"]["after"]);
        for copy in hit["copies"].as_array().into_iter().flatten() {
            let how = if copy["is_equal"] == true { "also in" } else { "nearly so in" };
            output::line(format!("   {how} {}{}", plain(&field(copy, "/document")), place(copy, "/page_start")));
        }
        if args.explain {
            output::line(format!("   {}", hit["explanation"]));
        }
    }
    if let Some(why) = found["reranking"].as_str().filter(|outcome| *outcome != "done") {
        output::line(format!("not reranked: {why}"));
    }
    Ok(())
}

/// The request: only what was asked for.
fn body(args: &SearchArgs) -> Result<Value, Failure> {
    let query = &args.query;
    let mut body = json!({"query": query.words.join(" "), "k": query.k, "filters": filters(query)?,
                          "explain": args.explain, "diversity": args.diversity, "copies": args.copies});
    if let Some(space) = &query.space {
        body["space"] = json!(space);
    }
    if let Some(count) = args.neighbours {
        body["expand"] = json!({"neighbours": count});
    }
    if let Some(tokens) = args.section {
        body["expand"] = json!({"parent": tokens});
    }
    if let Some(days) = args.half_life {
        body["freshness"] = json!({"half_life_days": days});
        if let Some(weight) = args.age_weight {
            body["freshness"]["weight"] = json!(weight);
        }
        if let Some(name) = &args.date_field {
            body["freshness"]["field"] = json!(name);
        }
    }
    if args.rerank || args.no_rerank {
        body["rerank"] = json!(args.rerank);
    }
    Ok(body)
}

/// Passages beside a hit, each on a line of its own.
fn around(passages: &Value) {
    for passage in passages.as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(format!("   | {}", one_line(passage)));
    }
}

/// `docmill ask`.
pub async fn ask(cli: &Cli, args: &QueryArgs, api: &Api) -> Result<(), Ending> {
    let mut body = json!({"question": args.words.join(" "), "k": args.k, "filters": filters(args)?});
    if let Some(space) = &args.space {
        body["space"] = json!(space);
    }
    let answer = api.post("/v1/answers", &body).await?;
    if cli.json {
        output::json(&answer);
    } else {
        print(&answer);
    }
    Ok(())
}

/// Prints an answer with its citations.
pub fn print(answer: &Value) {
    if answer["found"] != true {
        output::line("   The documents hold no answer to this.");
        return;
    }
    for sentence in answer["sentences"].as_array().into_iter().flatten() {
        output::line(format!("   {}", one_line(&field(sentence, "/text"))));
        for citation in sentence["citations"].as_array().into_iter().flatten() {
            let document = plain(&field(citation, "/document"));
            let quote = one_line(&field(citation, "/quote"));
            output::line(format!("      [{document}{}] “{quote}”", place(citation, "/page")));
        }
    }
}

fn one_line(text: &str) -> String {
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn place(value: &Value, pointer: &str) -> String {
    let page = field(value, pointer);
    if page.is_empty() { String::new() } else { format!(", page {page}") }
}
