//! The one binary: every role, the embedded stack, and the command line client.

mod assembly;
mod cli;
mod client;
mod config;
mod confirm;
mod demo;
mod embedders;
mod eval;
mod exit;
mod inspect;
mod logging;
mod models;
mod operator;
mod output;
mod pipelines;
mod roles;
mod searching;
mod stack;
mod supervise;

use clap::Parser;
use cli::{Cli, Command};
use exit::Ending;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else runs: the child locks itself down while it still has one thread.
    if std::env::args_os().nth(1).is_some_and(|first| first == "parse-child") {
        return docmill_documents::child_main();
    }
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("docmill: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended.map_or_else(Ending::report, |()| ExitCode::SUCCESS)
}

async fn run(cli: Cli) -> Result<(), Ending> {
    match &cli.command {
        Command::Serve(_) | Command::Worker { .. } | Command::Supervise { .. } | Command::ObjectStore { .. } => {}
        _ => logging::quiet(),
    }
    match &cli.command {
        Command::Demo(args) => demo::run(&cli, args).await,
        Command::Setup | Command::Up | Command::Down | Command::Status | Command::Reset { .. } => {
            stack::run(&cli).await
        }
        Command::Serve(args) => roles::serve(&cli, args).await,
        Command::Worker { stages } => roles::worker(&cli, stages).await,
        Command::ObjectStore { root } => supervise::object_store(root).await,
        Command::Supervise { root } => supervise::run(root).await,
        Command::Eval(command) => eval::run(&cli, command).await,
        Command::Pipelines(command) => pipelines::run(&cli, command).await,
        Command::Migrate | Command::Doctor(_) | Command::Inspect(_) | Command::Health { .. } => {
            operator::run(&cli).await
        }
        Command::ParseChild => Ok(()),
        _ => client::run(&cli).await,
    }
}
