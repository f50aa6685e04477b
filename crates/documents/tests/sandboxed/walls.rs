//! The child cannot get out, and whatever it does wrong ends as a typed failure with no process left behind.

use crate::support::{parser, request};
use docmill_documents::ParseOptions;
use docmill_model::Code;

#[tokio::test]
async fn every_attempt_to_escape_is_denied() {
    let victim = std::path::Path::new("/tmp/docmill-probe-victim");
    std::fs::write(victim, b"still here").expect("writes");
    let report = parser().sandbox_report().await.expect("a sandbox");
    assert_eq!(report.check(), Ok(()));
    assert!(report.probe.len() >= 23 && report.lockdown.seccomp);
    assert!(victim.is_file() && !std::path::Path::new("/tmp/docmill-probe").exists());
    println!("landlock: {}", report.lockdown.landlock);
    std::fs::remove_file(victim).expect("removes");
}

/// Longer than any way of misbehaving may last, on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

#[tokio::test]
async fn misbehaviour_ends_typed() {
    let parser = parser();
    let mut options = ParseOptions::default();
    options.limits.cpu_secs = 1;
    options.limits.memory_bytes = 128 << 20;
    options.limits.output_bytes = 4 << 20;
    for (how, code) in [
        ("spin", Code::ParserCpu),
        ("sleep", Code::ParserTimeout),
        ("memory", Code::ParserMemory),
        ("flood", Code::OutputLimit),
        ("abort", Code::ParserCrashed),
        ("overflow", Code::ParserCrashed),
        ("panic", Code::ParserCrashed),
        ("close", Code::ParserCrashed),
        ("garble", Code::ParserCrashed),
        ("images", Code::ParserCrashed),
    ] {
        // Only sleep has to wait for the wall clock; the others get time enough on a busy machine.
        let mut options = options.clone();
        options.limits.wall_secs = if how == "sleep" { 2 } else { 60 };
        let ending = tokio::time::timeout(PATIENCE, parser.misbehave(how, &options)).await;
        let failure = ending.unwrap_or_else(|_| panic!("{how} is not ended")).expect_err("misbehaves");
        assert_eq!(failure.code, code, "{how}: {failure}");
        assert!(failure.limit.is_some() || code == Code::ParserCrashed, "{how} names no limit");
    }
    assert_eq!(children_left(), 0);
}

/// Children of this process with the limits of [`misbehaviour_ends_typed`], which no other test sets. Unlike those
/// with the default limits none of them waits for work, so that each one found was left behind.
fn children_left() -> usize {
    let of = |pid: &std::ffi::OsStr, file: &str| {
        std::fs::read_to_string(std::path::Path::new("/proc").join(pid).join(file)).unwrap_or_default()
    };
    let parent = format!("PPid:\t{}\n", std::process::id());
    let ours =
        |pid: &std::ffi::OsStr| of(pid, "status").contains(&parent) && of(pid, "cmdline").contains("\"cpu_secs\":1,");
    std::fs::read_dir("/proc").expect("proc").flatten().filter(|entry| ours(&entry.file_name())).count()
}

#[tokio::test]
async fn a_crash_harms_only_its_own_document() {
    let parser = parser();
    let options = ParseOptions::default();
    let (crashed, read) =
        tokio::join!(parser.misbehave("abort", &options), parser.parse(request("Some words here.", "a.txt")));
    assert_eq!(crashed.map_err(|f| f.code), Err(Code::ParserCrashed));
    assert_eq!(read.expect("reads").document.text, "Some words here.");
}

#[tokio::test]
async fn the_cost_of_isolation_is_small() {
    let parser = parser();
    parser.warm_up().await;
    let mut millis: Vec<u64> = Vec::new();
    for _ in 0..20 {
        millis.push(parser.parse(request("A short text.", "a.txt")).await.expect("reads").millis);
        // The successor of the child that was used starts meanwhile, as it does between real documents.
        parser.warm_up().await;
    }
    millis.sort_unstable();
    println!("sandboxed parse of a short text: median {} ms, max {} ms", millis[10], millis[19]);
    // Many times what it takes on an idle machine, for one where other tests have both cores.
    assert!(millis[10] <= 400, "{millis:?}");
}
