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
    /// Show ranks and scores (search).
    #[arg(long)]
    pub explain: bool,
    /// Compare in this embedding space instead of the one that answers.
    #[arg(long)]
    pub space: Option<String>,
}

fn filters(args: &QueryArgs) -> Result<Value, Failure> {
    let mut filters = json!({"labels": args.labels, "metadata": pairs(&args.metadata)?});
    if let Some(collection) = &args.collection {
        filters["collection"] = json!(collection);
    }
    Ok(filters)
}

/// `docmill search`.
pub async fn search(cli: &Cli, args: &QueryArgs, api: &Api) -> Result<(), Ending> {
    let mut body =
        json!({"query": args.words.join(" "), "k": args.k, "filters": filters(args)?, "explain": args.explain});
    if let Some(space) = &args.space {
        body["space"] = json!(space);
    }
    let found = api.post("/v1/search", &body).await?;
    if cli.json {
        output::json(&found);
        return Ok(());
    }
    for (rank, hit) in found["hits"].as_array().into_iter().flatten().enumerate() {
        output::line(format!("{}. {}{}", rank + 1, plain(&field(hit, "/document")), place(hit, "/page_start")));
        let text: String = field(hit, "/text").split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = text.chars().take(240).collect();
        output::line(format!("   {}", plain(&short)));
        if args.explain {
            output::line(format!("   {}", hit["explanation"]));
        }
    }
    Ok(())
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
