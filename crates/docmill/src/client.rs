//! The commands that talk to the API, as any other client does: an address, a key, JSON.

pub mod api;
pub mod files;
mod keys;
pub mod lifecycle;
mod mcp;
pub mod prompts;
pub mod query;
mod show;
pub mod spaces;
pub mod upload;
pub mod usage;
mod watch;
pub mod webhooks;

pub use query::SearchArgs;

use crate::cli::{Cli, Command};
use crate::exit::Ending;
use crate::operator;
use crate::roles::access;
use crate::stack;
use api::Api;
use docmill_model::{Code, Failure};

/// Runs a client command.
pub async fn run(cli: &Cli) -> Result<(), Ending> {
    if let Command::Keys(command) = &cli.command {
        return keys::run(cli, command).await;
    }
    let api = connect(cli)?;
    match &cli.command {
        Command::Upload(args) => upload::run(cli, args, &api).await,
        Command::Docs(args) => show::list(cli, args, &api).await,
        Command::Show(args) => show::one(cli, args, &api).await,
        Command::Search(args) => query::search(cli, args, &api).await,
        Command::Ask(args) => query::ask(cli, args, &api).await,
        Command::Versions { document } => lifecycle::versions(cli, document, &api).await,
        Command::Delete(args) => lifecycle::delete(cli, args, &api).await,
        Command::Deletions { limit } => lifecycle::deletions(cli, *limit, &api).await,
        Command::Retention(command) => lifecycle::retention(cli, command, &api).await,
        Command::Prompts(command) => prompts::run(cli, command, &api).await,
        Command::Spaces(command) => spaces::run(cli, command, &api).await,
        Command::Usage(args) => usage::run(cli, args, &api).await,
        Command::Webhooks(command) => webhooks::run(cli, command, &api).await,
        Command::Mcp => mcp::run(&api).await,
        _ => operator::steer(cli, &api).await,
    }
}

/// The API of `--url` and `DOCMILL_API_KEY`, else of the embedded stack.
///
/// # Errors
/// `CONFIG_INVALID` with the fix when there is neither.
pub fn connect(cli: &Cli) -> Result<Api, Failure> {
    let key = std::env::var("DOCMILL_API_KEY").ok().filter(|key| !key.is_empty());
    if let (Some(url), Some(key)) = (&cli.url, &key) {
        return Api::new(url, key);
    }
    let home = stack::existing_home(cli)?;
    let kept = home.as_ref().and_then(|home| std::fs::read_to_string(access::key_path(home)).ok());
    let url = cli.url.clone().or_else(|| home.as_ref().and_then(stack::url));
    match (url, key.or(kept)) {
        (Some(url), Some(key)) => Api::new(&url, key.trim()),
        _ => Err(Failure::new(
            Code::ConfigInvalid,
            "there is no stack to talk to; run `docmill up`, or set DOCMILL_URL and DOCMILL_API_KEY",
        )),
    }
}
