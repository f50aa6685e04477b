//! `pipelines check|show|schema`: pipeline files without a running stack.

use crate::assembly;
use crate::cli::{Cli, PipelinesCommand};
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::output;
use docmill_model::{Code, Failure};
use docmill_platform::embedder::HashEmbedder;
use docmill_platform::gateway::prompts::Prompts;
use docmill_platform::tokens::TokenCounter;
use docmill_runtime::Registry;
use docmill_runtime::pipeline::{self, Pipeline, Pipelines};
use docmill_stages::StageDeps;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// The stages of this build: their settings matter here, not what they would run with.
fn registry(config: &Config) -> Result<Registry, Failure> {
    Ok(docmill_stages::registry(StageDeps {
        parser: Arc::new(assembly::parser(config)?),
        embedders: Arc::new(HashEmbedder::new()).into(),
        tokens: Arc::new(TokenCounter::words()),
        gateway: None,
        prompts: Prompts::of_files(Vec::new()),
    }))
}

fn folder(config: &Config) -> Result<PathBuf, Failure> {
    let scratch = std::env::temp_dir().join(format!("docmill-pipelines-{}", docmill_embedded::home::user_id()));
    docmill_embedded::files::private_dir(&scratch)?;
    assembly::pipelines_dir(config, &scratch)
}

/// Runs a pipelines command.
pub async fn run(cli: &Cli, command: &PipelinesCommand) -> Result<(), Ending> {
    let config = load::load(cli.config.as_deref())?;
    let registry = registry(&config)?;
    match command {
        PipelinesCommand::Schema => output::line(serde_json::to_string_pretty(&registry.schema()).unwrap_or_default()),
        PipelinesCommand::Check { files } => {
            let checked: Vec<Arc<Pipeline>> = if files.is_empty() {
                Pipelines::load(&folder(&config)?, &registry)?.all()
            } else {
                let checked = files.iter().map(|file| pipeline::check(file, &registry).map(Arc::new));
                checked.collect::<Result<_, _>>()?
            };
            let facts = |p: &Arc<Pipeline>| json!({"name": p.name, "version": p.version, "stages": p.stages.len()});
            if cli.json {
                output::json(&json!({"pipelines": checked.iter().map(facts).collect::<Vec<_>>()}));
            } else {
                let row =
                    |p: &Arc<Pipeline>| vec![p.name.clone(), p.version[..12].to_owned(), p.stages.len().to_string()];
                output::table(&["pipeline", "version", "stages"], checked.iter().map(row));
            }
        }
        PipelinesCommand::Show { name, mermaid } => {
            let pipelines = Pipelines::load(&folder(&config)?, &registry)?;
            let found = pipelines.get(name).ok_or_else(|| {
                let names: Vec<String> = pipelines.all().iter().map(|p| p.name.clone()).collect();
                Failure::new(
                    Code::PipelineUnknown,
                    format!("there is no pipeline `{name}`; known are {}", names.join(", ")),
                )
            })?;
            match (cli.json, mermaid) {
                (true, _) => output::json(&found.definition()),
                (_, true) => output::line(found.mermaid()),
                _ => output::line(found.ascii()),
            }
        }
    }
    Ok(())
}
