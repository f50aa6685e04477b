//! 500 hostile documents, a model that obeys them over a real socket, and what reaches a reader.
//!
//! `cargo run --release -p docmill-retrieval --example injections [COUNT]`; ends with 1 when anything did.
#![allow(clippy::unwrap_used)]

#[path = "../tests/attack/mod.rs"]
mod attack;
#[path = "../tests/support/mod.rs"]
mod support;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(500);
    let tally = attack::run(count).await;
    println!("{tally:#?}");
    let passed = tally.active + tally.canaries + tally.foreign + tally.forged_passed + tally.unseen;
    if passed == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
