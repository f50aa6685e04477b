//! Brings the embedded stack up (or down) in a folder, for development before the `docmill` binary does it.
//!
//! `up HOME` sets up, starts and prints the endpoints as JSON (they hold secrets of that local stack);
//! `up HOME down`, `up HOME status`, `up HOME reset`. `up object-store HOME` is what `up` starts for itself.

use docmill_embedded::{Home, Stack, stack::DATABASE};
use docmill_model::{Code, Failure};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(failure) = run(&arguments) {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["object-store", home] => serve(home),
        [home] => up(home),
        [home, action] => {
            let stack = open(home)?;
            match action {
                "down" => stack.stop(),
                "reset" => stack.reset()?,
                "status" => println!("{}", serde_json::json!(stack.status())),
                _ => return Err(Failure::new(Code::ConfigInvalid, "usage: up HOME [down|status|reset]")),
            }
            Ok(())
        }
        _ => Err(Failure::new(Code::ConfigInvalid, "usage: up HOME [down|status|reset]")),
    }
}

fn open(home: &str) -> Result<Stack, Failure> {
    Stack::of(&Home::open(Some(home.into()), None)?)
}

fn up(home: &str) -> Result<(), Failure> {
    let stack = open(home)?;
    stack.set_up(&mut |line| eprintln!("{line}"))?;
    let started = Instant::now();
    stack.start(&["object-store"])?;
    eprintln!("started in {:.2} s", started.elapsed().as_secs_f64());
    let applied = stack.migrate()?;
    eprintln!("migrated ({} applied) after {:.2} s", applied.len(), started.elapsed().as_secs_f64());
    println!("{:#}", serde_json::json!(stack.endpoints(DATABASE)?));
    Ok(())
}

fn serve(home: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let fire = stop.clone();
        tokio::spawn(async move {
            let term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
            if let Ok(mut term) = term {
                term.recv().await;
                fire.cancel();
            }
        });
        open(home)?.serve_store(stop).await
    })
}
