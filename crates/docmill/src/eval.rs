//! `docmill eval`: retrieval, answers, extraction, summaries and resistance to injection on labelled data.
//!
//! Outside the live path: data is written to a reserved tenant that no key belongs to, its index lies in a folder of its
//! own, and both are gone afterwards. Results hold ids and figures, are kept under the data folder, and are compared with
//! an earlier run case by case.

mod chunking;
mod prompts;
mod results;
mod run;
mod suite;

use crate::assembly::Assembly;
use crate::cli::Cli;
use crate::exit::Ending;
use crate::operator;
use crate::output;
use crate::roles::Roles;
use clap::{Args, Subcommand, ValueEnum};
use docmill_model::{Code, Failure};
use docmill_retrieval::SearchConfig;
use docmill_retrieval::answers::Generator;
use docmill_retrieval::eval::{BeirFolder, Bench, Change, Gate, Outcome, compare, evaluate_retrieval, trec};
use docmill_retrieval::search::SearchMode;
use prompts::{Pin, Pinned};
use results::Results;
use run::Stand;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `eval …`
#[derive(Subcommand)]
pub enum EvalCommand {
    /// Index a data set in BEIR layout into a scratch tenant and judge its rankings.
    #[command(after_help = "Example: docmill eval retrieval --beir scifact --mode hybrid --run-out scifact.trec")]
    Retrieval(RetrievalArgs),
    /// Run the suites of a file, compare with an earlier run, and fail when a condition holds.
    #[command(after_help = "Example: docmill eval run suites.yaml --against last --fail-if 'worse *'")]
    Run(RunArgs),
}

/// Arguments of `eval retrieval`.
#[derive(Args)]
pub struct RetrievalArgs {
    /// Folder with corpus.jsonl, queries.jsonl and qrels/.
    #[arg(long, value_name = "DIR")]
    beir: PathBuf,
    /// Judgements to use (`qrels/NAME.tsv`); `test` where it exists, else the first.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Which halves look; all three in turn when absent.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// TREC run file to write; several modes go to NAME-MODE.
    #[arg(long, value_name = "FILE")]
    run_out: Option<PathBuf>,
    /// Embedding model of the settings to judge (`embedding.models`), once a space of its length is there.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// The modes of a search.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Lexical,
    Dense,
    Hybrid,
}

/// Arguments of `eval run`.
#[derive(Args)]
pub struct RunArgs {
    /// The suites; pipelines/eval/README.md describes the layout.
    file: PathBuf,
    /// Folder that relative paths of the file start from; the file's own when absent.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only suites whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Results to compare with: a file, or `last` for the newest of this file's.
    #[arg(long, value_name = "BASELINE")]
    against: Option<String>,
    /// Condition that ends the command with code 6; may be repeated.
    #[arg(long, value_name = "EXPR")]
    fail_if: Vec<String>,
    /// Version of a prompt to judge, which need not be rolled out; the figures are kept for its rollout. May be repeated.
    #[arg(long = "prompt", value_name = "NAME@VERSION")]
    prompts: Vec<Pin>,
    /// Where to write the results besides the data folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs one of the two commands.
pub async fn run(cli: &Cli, command: &EvalCommand) -> Result<(), Ending> {
    match command {
        EvalCommand::Retrieval(args) => retrieval(cli, args).await,
        EvalCommand::Run(args) => suites(cli, args).await,
    }
}

/// The services of an evaluation, those of the API role, with prompts as rolled out but for `pins`.
async fn stand(cli: &Cli, model: Option<&str>, pins: &[Pin]) -> Result<(Stand, Option<Arc<Pinned>>), Failure> {
    let config = operator::settings(cli).await?;
    let assembly = Assembly::build(&config, &Roles { api: true, ..Roles::default() }).await?;
    let unknown = || Failure::new(Code::ConfigInvalid, "there is no such model in the settings (`embedding.models`)");
    let embedder = match model {
        // What is judged is what answers.
        None => assembly.embedders.answering(&assembly.database).await?,
        Some(name) => assembly.embedders.named(name).cloned().ok_or_else(unknown)?,
    };
    let pinned = if pins.is_empty() { None } else { Some(Pinned::new(&assembly, pins).await?) };
    let generator = match &pinned {
        Some(pinned) => Some(pinned.clone() as Arc<dyn Generator>),
        None => crate::models::generator(&assembly),
    };
    let stand = Stand {
        bench: Bench {
            database: assembly.database.clone(),
            embedder,
            directory: assembly.data_dir.join("evaluation"),
            // A busy machine makes an evaluation slow, not wrong.
            search: patient(crate::searching::settings(&config, assembly.reranker.clone())),
        },
        artifacts: assembly.artifacts.clone(),
        generator,
        parser: crate::assembly::parser(&config)?,
        tokens: crate::assembly::tokens(&config, true)?,
        schemas: crate::assembly::pipelines_dir(&config, &assembly.data_dir)?.join("schemas"),
        is_quiet: cli.json,
    };
    Ok((stand, pinned))
}

/// The same with time enough for every half and every model.
fn patient(mut search: SearchConfig) -> SearchConfig {
    search.half_timeout = Duration::from_secs(120);
    search.rerank.timeout = Duration::from_secs(120);
    search
}

async fn retrieval(cli: &Cli, args: &RetrievalArgs) -> Result<(), Ending> {
    let folder = BeirFolder::read(&args.beir, args.split.as_deref())?;
    let modes = match args.mode {
        None => vec![SearchMode::Lexical, SearchMode::Dense, SearchMode::Hybrid],
        Some(Mode::Lexical) => vec![SearchMode::Lexical],
        Some(Mode::Dense) => vec![SearchMode::Dense],
        Some(Mode::Hybrid) => vec![SearchMode::Hybrid],
    };
    let (stand, _) = stand(cli, args.model.as_deref(), &[]).await?;
    let report = evaluate_retrieval(&stand.bench, &folder, &modes, &stand.progress()).await?;
    if let Some(path) = &args.run_out {
        for mode in &report.modes {
            let path = if modes.len() == 1 { path.clone() } else { suffixed(path, mode.mode_name()) };
            trec::write_run(&path, &mode.rankings, &format!("docmill-{}", mode.mode_name()))?;
        }
    }
    if cli.json {
        output::json(&json!(report.outcome(&folder.name)));
    } else {
        output::line(report);
    }
    Ok(())
}

/// `NAME.trec` as `NAME-MODE.trec`.
fn suffixed(path: &std::path::Path, mode: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{mode}{extension}"))
}

async fn suites(cli: &Cli, args: &RunArgs) -> Result<(), Ending> {
    let mut file = suite::SuiteFile::read(&args.file)?;
    if let Some(only) = &args.only {
        file.suites.retain(|suite| suite.name().contains(only.as_str()));
    }
    let gates = gates(&file, args)?;
    if args.against.is_none() && gates.iter().any(Gate::needs_baseline) {
        let message = "`change` and `worse` compare with an earlier run; name it with --against";
        return Err(Failure::new(Code::ConfigInvalid, message).into());
    }
    let root = args.data.clone().or_else(|| args.file.parent().map(PathBuf::from)).unwrap_or_default();
    let (stand, pinned) = stand(cli, None, &args.prompts).await?;
    let kept = stand.bench.directory.join(&file.name);
    let names: Vec<&str> = file.suites.iter().map(suite::Suite::name).collect();
    let baseline = args.against.as_deref().map(|name| Results::find(name, &kept, &names)).transpose()?;
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(file.suites.len());
    for suite in &file.suites {
        let outcome = run::suite(&stand, suite, &root).await?;
        if !cli.json {
            results::show(&outcome);
        }
        outcomes.push(outcome);
    }
    let mut results = Results::new(&file.name, outcomes);
    results.prompts = pinned.as_ref().map(|pinned| pinned.versions()).unwrap_or_default();
    let judged = judge(&gates, baseline.as_ref(), &results).and_then(|(changes, mut failed)| {
        failed.extend(pinned.as_ref().map(|pinned| pinned.objections()).transpose()?.unwrap_or_default());
        Ok((changes, failed))
    });
    // A run that could not be judged is kept too, but never as a baseline.
    results.failed = judged.as_ref().map_or_else(|why| vec![why.message.clone()], |(_, failed)| failed.clone());
    let path = results.keep(&kept)?;
    args.out.as_ref().map(|out| results.write(out)).transpose()?;
    let (changes, failed) = judged?;
    if let Some(pinned) = &pinned {
        pinned.record(&stand.bench.database, &results).await?;
    }
    if cli.json {
        output::json(&json!({"results": results, "file": path, "changes": changes, "failed": failed}));
    } else {
        results::show_changes(&changes);
        failed.iter().for_each(|why| output::line(format!("FAILED  {why}")));
        output::line(format!("kept in {}", path.display()));
    }
    if failed.is_empty() { Ok(()) } else { Err(Ending::Found) }
}

/// The conditions of file and command line. With `--only`, those of the file may be about suites that are left out.
fn gates(file: &suite::SuiteFile, args: &RunArgs) -> Result<Vec<Gate>, Failure> {
    let of_file = file.fail_if.iter().map(|text| Gate::parse(text));
    let of_file = of_file.map(|gate| if args.only.is_some() { gate.map(Gate::optional) } else { gate });
    let of_line = args.fail_if.iter().map(|text| Gate::parse(text));
    let gates: Vec<Gate> = of_file.chain(of_line).collect::<Result<_, _>>()?;
    let names: Vec<&str> = file.suites.iter().map(suite::Suite::name).collect();
    gates.iter().try_for_each(|gate| gate.check(&names))?;
    Ok(gates)
}

/// What changed against the baseline, and which conditions hold.
fn judge(gates: &[Gate], baseline: Option<&Results>, results: &Results) -> Result<(Vec<Change>, Vec<String>), Failure> {
    let changes = baseline.map(|baseline| compare(&baseline.suites, &results.suites)).transpose()?.unwrap_or_default();
    let mut failed = Vec::new();
    for gate in gates {
        failed.extend(gate.broken(&results.suites, &changes)?);
    }
    Ok((changes, failed))
}
