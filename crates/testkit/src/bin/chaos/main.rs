//! Breaks a whole Docmill at random while it works on real files, and checks that nothing is lost, doubled or stuck.
//!
//! Everything is real: Postgres, NATS, an S3 endpoint, and the processes of the binary. The order and kind of the
//! faults follow from the seed; their exact moments do not, as the machine has a say in them.

mod broker;
mod campaign;
mod crash_points;
mod disk;
mod documents;
mod dropped;
mod environment;
mod export;
mod faults;
mod index_files;
mod invariants;
mod node;
mod plant;
mod prober;
mod receiver;
mod repeat;
mod requests;
mod restore;
mod schedule;
mod searches;
mod updates;
mod verdict;
mod work;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use docmill_embedded::Stack;
use plant::Settings;
use schedule::Kind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use verdict::Verdict;

const EXAMPLES: &str = "\
Examples:
  chaos --documents 60 --kills 20 --seed 1
  chaos --documents 1000 --kills 200 --seed 7 --json
  chaos --documents 100 --kills 0 --faults wipe=5,rollback=5,flip=15,immediate=20 --seed 3
  chaos --documents 100 --kills 20 --embedder real
  chaos --documents 24 --crash-points --lease 1            (every point)
  chaos --documents 13 --crash-points --points 13 --lease 1 --seed 4
  chaos --drops 10000 --seed 1
  chaos --node-kills 100 --seed 1
  chaos --restore --seed 1
  chaos --updates --documents 24 --kills 40 --seed 1
  chaos --documents 1500 --kills 20 --faults kill --every 60s --rate 1.1       (a soak)
Exit code: 0 clean, 1 something was lost, doubled, stuck, violated, different or not tried, or a point not met, 2 the
campaign itself failed. A fault that hit nothing does not count; a kind of which none hit anything was not tried. What the
large campaigns came to is in deploy/bench/faults/README.md.
The fault-free run is kept and used again for the same binary, documents and embedder.";

/// Most documents of a crash-point sweep: each is read once for the record, and once a round.
const SWEPT_DOCUMENTS: usize = 24;
/// Documents where the command line says nothing, and for a campaign against the index node, which wants small ones.
const DOCUMENTS: usize = 60;
const NODE_DOCUMENTS: usize = 300;

/// Breaks a whole Docmill at random while it works, and checks that nothing is lost, doubled or stuck.
#[derive(Parser)]
#[command(name = "chaos", after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// Documents to process: real files where the corpora are, else sample documents. 60 when absent, 300 small ones with
    /// `--node-kills`.
    #[arg(long)]
    documents: Option<usize>,
    /// How many `kill -9`; the other kinds follow in proportion.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Decides about the kind, target and order of all faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds, with a number where it shall differ: kill, stop, immediate, wipe, rollback, flip, consumer,
    /// store-error, truncated, wrong-bytes, hole, orphans, disk, clock, repeat. What this machine cannot do is left out when
    /// nothing is named, and not tried when it is.
    #[arg(long, value_delimiter = ',', value_name = "KIND[=N]", value_parser = schedule::parse)]
    faults: Vec<(Kind, Option<usize>)>,
    /// `hash` (no model) or `real` (the embedding model).
    #[arg(long, default_value = "hash", value_parser = ["hash", "real"])]
    embedder: String,
    /// Length of a lease in seconds.
    #[arg(long, default_value_t = 2)]
    lease: u64,
    /// Instead of random faults: die once at every point that the documents meet, at most 24 of them, of all kinds.
    #[arg(long)]
    crash_points: bool,
    /// Only this many of the points, chosen by the seed; all when absent.
    #[arg(long, requires = "crash_points", value_name = "N")]
    points: Option<usize>,
    /// Instead of all that: callers break off this many requests while the database answers late; at most twenty are begun
    /// for each of them.
    #[arg(long, conflicts_with = "crash_points", value_name = "N")]
    drops: Option<usize>,
    /// Instead of random faults: this many `kill -9` of the process that holds the lexical index while it indexes or has
    /// not recovered from the last one, twice as many in all at most; its files are damaged between its lives.
    #[arg(long, conflicts_with_all = ["crash_points", "drops"], value_name = "N")]
    node_kills: Option<usize>,
    /// How many of those kills there are for each damage.
    #[arg(long, requires = "node_kills", default_value_t = 2, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    damage_every: u32,
    /// Instead of random faults: everything but the object store is lost, and the database comes back from a dump that
    /// was made while documents were processed.
    #[arg(long, conflicts_with_all = ["crash_points", "drops", "node_kills"])]
    restore: bool,
    /// Instead of random faults: versions, failing versions, replays, and another embedding model and back, while processes
    /// and services are killed `--kills` times and a prober asks both halves of retrieval for every document.
    #[arg(long, conflicts_with_all = ["crash_points", "drops", "node_kills", "restore"])]
    updates: bool,
    /// Pause between two faults; a random one of about a second when absent.
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    every: Option<Duration>,
    /// Most uploads per second; as many as the work allows when absent.
    #[arg(long)]
    rate: Option<f64>,
    /// The binary to break; the one beside this program, built when it is not there.
    #[arg(long, value_name = "FILE")]
    docmill: Option<PathBuf>,
    /// Leave the folder of the campaign for inspection.
    #[arg(long)]
    keep: bool,
    /// Print one line of JSON and nothing else.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn documents(&self) -> usize {
        self.documents.unwrap_or(if self.node_kills.is_some() { NODE_DOCUMENTS } else { DOCUMENTS })
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(self.lease)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.trim_end_matches('s').parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(secs).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    // The embedded store starts this very program with the name of its role and a folder.
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|first| first == "object-store") {
        return given.next().map_or(ExitCode::from(2), |root| object_store(Path::new(&root)));
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(verdict) if verdict.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Verdict> {
    let embedder = if arguments.embedder == "real" { "local" } else { "hash" };
    let settings = Settings {
        docmill: binary(arguments)?,
        embedder: embedder.to_owned(),
        lease: format!("{}s", arguments.lease),
        keep: arguments.keep,
    };
    if let Some(count) = arguments.drops {
        let verdict = dropped::run(arguments, &settings, count)?;
        report(arguments, &verdict)?;
        return Ok(verdict);
    }
    let folder = docmill_testkit::scratch_home(&format!("chaos-files-{}", std::process::id()))?;
    let max_bytes =
        if arguments.node_kills.is_some() || arguments.updates { documents::SMALL_BYTES } else { documents::MAX_BYTES };
    let chosen = documents::choose(arguments.documents(), max_bytes, &folder.data());
    let verdict = chosen.and_then(|documents| {
        if arguments.updates {
            return updates::run(arguments, &settings, &documents);
        }
        let documents = if arguments.crash_points { documents.of_all_kinds(SWEPT_DOCUMENTS) } else { documents };
        let kept = campaign::fault_free(arguments, &settings, &documents)?;
        if arguments.crash_points {
            return crash_points::run(arguments, &settings, &documents, &kept.exports[0]);
        }
        if let Some(count) = arguments.node_kills {
            return node::run(arguments, &settings, &documents, &kept, count);
        }
        if arguments.restore {
            return restore::run(arguments, &settings, &documents, &kept);
        }
        campaign::run(arguments, &settings, &documents, &kept)
    });
    let _ = std::fs::remove_file(folder.parts());
    let _ = std::fs::remove_dir_all(folder.root());
    let verdict = verdict?;
    report(arguments, &verdict)?;
    Ok(verdict)
}

fn report(arguments: &Arguments, verdict: &Verdict) -> Result<()> {
    if arguments.json {
        println!("{}", serde_json::to_string(verdict)?)
    } else {
        show(verdict)
    }
    Ok(())
}

fn show(verdict: &Verdict) {
    println!(
        "{} documents ({}), {} faults of which {} kills, seed {}, {:.0} s ({:.0} s without faults)",
        verdict.documents,
        verdict.source,
        verdict.faults,
        verdict.kills,
        verdict.seed,
        verdict.seconds,
        verdict.fault_free_seconds.unwrap_or_default()
    );
    println!("lost {}  duplicated {}  stuck {}", verdict.lost, verdict.duplicated, verdict.stuck);
    println!("export {}", if verdict.export_equal { "equal to the fault-free run's" } else { "DIFFERS" });
    verdict.differences.iter().for_each(|line| println!("  {line}"));
    println!("violations {}", verdict.invariant_violations.len());
    verdict.invariant_violations.iter().for_each(|line| println!("  {line}"));
    println!("work went on after (seconds): p50 {:?}, p99 {:?}", verdict.recovery_secs_p50, verdict.recovery_secs_p99);
    for (kind, figures) in &verdict.kinds {
        println!("  {kind:12} {figures}");
    }
    println!(
        "states {:?}\nattempts {:?}\npeak memory (MB) {:?}",
        verdict.states, verdict.attempts, verdict.peak_rss_mb
    );
    if let Some(points) = &verdict.points {
        println!("points met {} of {} that were swept, {} are known", points.met, points.swept, points.total);
        points.unmet.iter().for_each(|point| println!("  NOT MET {point}"));
    }
    let parts = [
        verdict.repeated.as_ref().map(serde_json::to_string),
        verdict.node.as_ref().map(serde_json::to_string),
        verdict.restore.as_ref().map(serde_json::to_string),
        verdict.searches.as_ref().map(serde_json::to_string),
        verdict.updates.as_ref().map(serde_json::to_string),
    ];
    parts.into_iter().flatten().flatten().for_each(|figures| println!("{figures}"));
    verdict.untried.iter().for_each(|what| println!("NOT TRIED {what}"));
    verdict.left_out.iter().for_each(|line| println!("left out: {line}"));
}

/// The binary under test: the named one, or that of this tree, built so that it is not an older one.
fn binary(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(path) = &arguments.docmill {
        ensure!(path.is_file(), "{} is no file", path.display());
        return Ok(std::path::absolute(path)?);
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this program has no folder")?.join("docmill");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "-p", "docmill", "--bin", "docmill"]).status();
    ensure!(
        built.is_ok_and(|built| built.success()) && beside.is_file(),
        "the binary cannot be built; name one with --docmill"
    );
    Ok(beside)
}

/// The life of the object store's process.
fn object_store(root: &Path) -> ExitCode {
    let served = || -> Result<()> {
        let home = docmill_embedded::Home::open(Some(root.to_owned()), None)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(runtime.block_on(Stack::of(&home)?.serve_store(tokio_util::sync::CancellationToken::new()))?)
    };
    match served() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
