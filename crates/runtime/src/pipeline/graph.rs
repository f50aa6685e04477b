//! The order of stages: every stage after all it depends on, in the order of the file where that leaves a choice.

use super::PipelineStage;
use std::collections::BTreeSet;

/// What is wrong with a graph, and at which stage.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    pub stage: String,
    pub message: String,
}

fn problem(stage: &str, message: String) -> Problem {
    Problem { stage: stage.to_owned(), message }
}

/// Checks the graph and sorts it.
pub(super) fn order(stages: Vec<PipelineStage>) -> Result<Vec<PipelineStage>, Problem> {
    if stages.iter().all(|stage| stage.on_settled) {
        let first = stages.first().map(|stage| stage.name.clone()).unwrap_or_default();
        return Err(problem(&first, "a pipeline needs at least one stage that runs before settlement".to_owned()));
    }
    for stage in &stages {
        check_edges(stage, &stages)?;
    }
    sort(stages)
}

fn check_edges(stage: &PipelineStage, all: &[PipelineStage]) -> Result<(), Problem> {
    let name = &stage.name;
    if stage.on_settled && !stage.after.is_empty() {
        return Err(problem(name, format!("stage `{name}` has both `after` and `when: settled`; keep one")));
    }
    for (index, earlier) in stage.after.iter().enumerate() {
        if stage.after[..index].contains(earlier) {
            return Err(problem(name, format!("stage `{name}` names `{earlier}` twice in `after`")));
        }
        let Some(found) = all.iter().find(|other| &other.name == earlier) else {
            return Err(problem(
                name,
                format!("stage `{name}` comes after `{earlier}`, which is not in this pipeline"),
            ));
        };
        if found.on_settled {
            return Err(problem(
                name,
                format!("stage `{name}` cannot come after `{earlier}`, which waits for settlement"),
            ));
        }
        if stage.required && !found.required {
            return Err(problem(
                name,
                format!(
                    "required stage `{name}` comes after optional `{earlier}`; make both required or both optional"
                ),
            ));
        }
    }
    Ok(())
}

fn sort(mut rest: Vec<PipelineStage>) -> Result<Vec<PipelineStage>, Problem> {
    let mut sorted: Vec<PipelineStage> = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let ready = rest.iter().position(|stage| {
            let placed = |name: &String| sorted.iter().any(|other| &other.name == name);
            stage.after.iter().all(placed) && (!stage.on_settled || rest.iter().all(|other| other.on_settled))
        });
        match ready {
            Some(index) => sorted.push(rest.remove(index)),
            None => {
                let cycle: Vec<&str> = rest.iter().filter(|s| !s.on_settled).map(|s| s.name.as_str()).collect();
                return Err(problem(cycle[0], format!("these stages wait for each other: {}", cycle.join(", "))));
            }
        }
    }
    Ok(sorted)
}

/// Transitive predecessors; for a stage that waits for settlement, all stages that do not.
pub(super) fn ancestors<'a>(stages: &'a [PipelineStage], name: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let Some(stage) = stages.iter().find(|stage| stage.name == name) else { return found };
    if stage.on_settled {
        return stages.iter().filter(|other| !other.on_settled).map(|other| other.name.as_str()).collect();
    }
    let mut open: Vec<&str> = stage.after.iter().map(String::as_str).collect();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(stages.iter().filter(|s| s.name == next).flat_map(|s| s.after.iter().map(String::as_str)));
        }
    }
    found
}
