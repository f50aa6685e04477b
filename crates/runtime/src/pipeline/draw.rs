//! Pictures of a pipeline: Mermaid for documents, indented text for a terminal.

use super::{Pipeline, PipelineStage};
use std::fmt::Write;

pub(super) fn mermaid(pipeline: &Pipeline) -> String {
    let mut out = String::from("flowchart LR\n");
    for stage in &pipeline.stages {
        let _ = match (stage.on_settled, stage.required) {
            (true, _) => writeln!(out, "  {0}([{0}])", stage.name),
            (false, true) => writeln!(out, "  {0}[{0}]", stage.name),
            (false, false) => writeln!(out, "  {0}[{0}?]", stage.name),
        };
    }
    for stage in &pipeline.stages {
        for earlier in &stage.after {
            let arrow = if stage.required { "-->" } else { "-.->" };
            let _ = writeln!(out, "  {earlier} {arrow} {}", stage.name);
        }
        if stage.on_settled {
            for end in ends(pipeline) {
                let _ = writeln!(out, "  {} -. settled .-> {}", end.name, stage.name);
            }
        }
    }
    out
}

/// Stages nothing else comes after.
fn ends(pipeline: &Pipeline) -> impl Iterator<Item = &PipelineStage> {
    pipeline
        .stages
        .iter()
        .filter(|stage| !stage.on_settled && !pipeline.stages.iter().any(|other| other.after.contains(&stage.name)))
}

/// A stage with several predecessors is drawn below the last of them and names the others.
pub(super) fn ascii(pipeline: &Pipeline) -> String {
    let mut out = format!("{} ({})\n", pipeline.name, &pipeline.version[..12.min(pipeline.version.len())]);
    let roots: Vec<&PipelineStage> = pipeline.stages.iter().filter(|s| s.after.is_empty() && !s.on_settled).collect();
    for (index, root) in roots.iter().enumerate() {
        branch(pipeline, root, "", index + 1 == roots.len(), &mut out);
    }
    for stage in pipeline.stages.iter().filter(|stage| stage.on_settled) {
        let _ = writeln!(out, "then {}, when everything above has ended", stage.name);
    }
    out
}

fn branch(pipeline: &Pipeline, stage: &PipelineStage, indent: &str, last: bool, out: &mut String) {
    let others: Vec<&str> = stage.after.iter().rev().skip(1).map(String::as_str).collect();
    let join = if others.is_empty() { String::new() } else { format!("  (also after {})", others.join(", ")) };
    let optional = if stage.required { "" } else { "  (optional)" };
    let _ = writeln!(out, "{indent}{} {}{optional}{join}", if last { "└─" } else { "├─" }, stage.name);
    let below: Vec<&PipelineStage> = pipeline.stages.iter().filter(|s| s.after.last() == Some(&stage.name)).collect();
    let indent = format!("{indent}{}", if last { "   " } else { "│  " });
    for (index, next) in below.iter().enumerate() {
        branch(pipeline, next, &indent, index + 1 == below.len(), out);
    }
}
