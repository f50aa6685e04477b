//! Joins of the run graph, over all interleavings.

use super::*;
use crate::machine::JobState::{Blocked, Cancelled, Dead, Done, Ready};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// `(name, after, required, on_settled)`.
type Stage = (&'static str, &'static [&'static str], bool, bool);

const DEFAULT: &[Stage] = &[
    ("ingest", &[], true, false),
    ("chunk", &["ingest"], true, false),
    ("embed", &["chunk"], true, false),
    ("index", &["embed"], true, false),
    ("extract", &["ingest"], false, false),
    ("summarize", &["ingest"], false, false),
    ("notify", &[], false, true),
];

const DIAMOND: &[Stage] = &[
    ("a", &[], true, false),
    ("b", &["a"], true, false),
    ("c", &["a"], true, false),
    ("d", &["a"], true, false),
    ("join", &["b", "c", "d"], true, false),
    ("end", &[], false, true),
];

struct World {
    graph: Graph,
    names: BTreeMap<JobId, &'static str>,
    settled: Vec<RunState>,
    released: Vec<&'static str>,
}

impl World {
    fn of(stages: &[Stage]) -> Self {
        let ids: BTreeMap<&str, JobId> = stages.iter().map(|stage| (stage.0, JobId::fresh())).collect();
        let job = |&(name, after, required, on_settled): &Stage| GraphJob {
            id: ids[name],
            state: if after.is_empty() && !on_settled { Ready } else { Blocked },
            required,
            on_settled,
            pending: after.len() as i32,
            successors: stages.iter().filter(|other| other.1.contains(&name)).map(|other| ids[other.0]).collect(),
            code: None,
        };
        let names = stages.iter().map(|stage| (ids[stage.0], stage.0)).collect();
        let graph = Graph { run: RunState::Running, jobs: stages.iter().map(job).collect() };
        Self { graph, names, settled: Vec::new(), released: Vec::new() }
    }

    fn id(&self, name: &str) -> JobId {
        *self.names.iter().find(|(_, other)| **other == name).expect("a stage").0
    }

    fn state(&self, name: &str) -> JobState {
        self.graph.job(self.id(name)).expect("a job").state
    }

    fn ready(&self) -> Vec<&'static str> {
        self.graph.jobs.iter().filter(|job| job.state == Ready).map(|job| self.names[&job.id]).collect()
    }

    fn finish(&mut self, name: &str, state: JobState) {
        let code = (state != Done).then_some("X");
        let changes = self.graph.finish(self.id(name), state, code);
        self.note(&changes);
    }

    fn note(&mut self, changes: &Changes) {
        for id in &changes.jobs {
            if self.graph.job(*id).is_some_and(|job| job.state == Ready) {
                self.released.push(self.names[id]);
            }
        }
        self.settled.extend(changes.settled.iter().map(|(state, _)| *state));
    }

    /// Ends jobs in every order that is possible, calling `check` at the end of each.
    fn every_order(&self, end: &dyn Fn(&str) -> JobState, check: &mut dyn FnMut(&World)) {
        let ready: Vec<&str> = self.ready();
        if ready.is_empty() {
            return check(self);
        }
        for name in ready {
            let mut next = World {
                graph: self.graph.clone(),
                names: self.names.clone(),
                settled: self.settled.clone(),
                released: self.released.clone(),
            };
            next.finish(name, end(name));
            next.every_order(end, check);
        }
    }
}

#[test]
fn every_interleaving_of_a_join_releases_it_once() {
    let mut orders = 0;
    World::of(DIAMOND).every_order(&|_| Done, &mut |world| {
        orders += 1;
        assert_eq!(world.released.iter().filter(|name| **name == "join").count(), 1);
        assert_eq!(world.released.iter().filter(|name| **name == "end").count(), 1);
        assert_eq!(world.settled, [RunState::Done]);
        assert!(world.graph.jobs.iter().all(|job| job.state == Done));
    });
    assert_eq!(orders, 6, "b, c and d end in any order");
}

#[test]
fn every_interleaving_of_the_default_pipeline_settles_once() {
    let table: &[(&[&str], RunState, &[&str])] = &[
        (&[], RunState::Done, &[]),
        (&["extract"], RunState::Partial, &[]),
        (&["extract", "summarize"], RunState::Partial, &[]),
        (&["index"], RunState::Failed, &[]),
        (&["chunk"], RunState::Failed, &["embed", "index"]),
        (&["ingest"], RunState::Failed, &["chunk", "embed", "index", "extract", "summarize"]),
        (&["embed", "extract"], RunState::Failed, &["index"]),
    ];
    for (dead, outcome, cancelled) in table {
        World::of(DEFAULT).every_order(&|name| if dead.contains(&name) { Dead } else { Done }, &mut |world| {
            assert_eq!(world.settled, [*outcome], "{dead:?}");
            for name in world.names.values() {
                let expected = match () {
                    () if dead.contains(name) => Dead,
                    () if cancelled.contains(name) => Cancelled,
                    () => Done,
                };
                assert_eq!(world.state(name), expected, "{name} when {dead:?} are dead");
            }
            assert_eq!(world.released.last(), Some(&"notify"), "notify comes last and always");
        });
    }
}

#[test]
fn the_cause_reaches_the_run() {
    let mut world = World::of(DEFAULT);
    let changes = world.graph.finish(world.id("ingest"), Dead, Some("PDF_MALFORMED"));
    assert_eq!(changes.settled, Some((RunState::Failed, Some("PDF_MALFORMED".to_owned()))));
}

#[test]
fn a_second_end_of_one_job_changes_nothing() {
    let mut world = World::of(DEFAULT);
    world.finish("ingest", Done);
    let before = world.graph.clone();
    assert_eq!(world.graph.finish(world.id("ingest"), Done, None), Changes::default());
    assert_eq!(world.graph.finish(world.id("ingest"), Dead, Some("X")), Changes::default());
    assert_eq!(world.graph, before);
}

#[test]
fn cancelling_stops_what_is_open_and_still_notifies() {
    let mut world = World::of(DEFAULT);
    world.finish("ingest", Done);
    let changes = world.graph.cancel("CANCELLED");
    world.note(&changes);
    assert_eq!(world.settled, [RunState::Cancelled]);
    assert_eq!(world.state("ingest"), Done);
    assert!(["chunk", "embed", "index", "extract", "summarize"].iter().all(|name| world.state(name) == Cancelled));
    assert_eq!(world.ready(), ["notify"]);
    assert_eq!(world.graph.cancel("CANCELLED"), Changes::default(), "twice is once");
    // A worker that was running when the run was cancelled comes too late.
    assert_eq!(world.graph.finish(world.id("chunk"), Done, None), Changes::default());
}

#[test]
fn a_run_left_running_is_settled_by_the_reconciler() {
    let mut world = World::of(DIAMOND);
    for job in world.graph.jobs.iter_mut().filter(|job| !job.on_settled) {
        job.state = Done;
    }
    let changes = world.graph.mend("CANCELLED");
    assert_eq!(changes.settled, Some((RunState::Done, None)));
    assert_eq!(world.graph.mend("CANCELLED"), Changes::default());
}

proptest! {
    /// Random graphs, random orders, random ends, a cancellation at a random point: a run settles exactly once, nothing
    /// stays open, and a job starts only when all before it are done.
    #[test]
    fn random_runs_settle_once(
        edges in prop::collection::vec(any::<u8>(), 7),
        required in prop::collection::vec(any::<bool>(), 7),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0u8..6), 20),
        cancel_at in 0usize..20,
    ) {
        let ids: Vec<JobId> = (0..8).map(|_| JobId::fresh()).collect();
        let edges = &edges;
        let before = |to: usize| (0..to).filter(move |from| edges[to] & (1 << from) != 0).collect::<Vec<_>>();
        let mut jobs: Vec<GraphJob> = (0..7).map(|index| {
            let preds = before(index);
            GraphJob {
                id: ids[index], state: if preds.is_empty() { Ready } else { Blocked }, required: required[index], on_settled: false,
                pending: preds.len() as i32, successors: (index + 1..7).filter(|to| before(*to).contains(&index)).map(|to| ids[to]).collect(),
                code: None,
            }
        }).collect();
        jobs.push(GraphJob { id: ids[7], state: Blocked, required: false, on_settled: true, pending: 0, successors: vec![], code: None });
        let mut graph = Graph { run: RunState::Running, jobs };
        let mut settled = 0;
        for (step, (choice, fate)) in steps.into_iter().enumerate() {
            if step == cancel_at {
                settled += usize::from(graph.cancel("C").settled.is_some());
            }
            let ready: Vec<usize> = (0..8).filter(|index| graph.jobs[*index].state == Ready).collect();
            if ready.is_empty() {
                break;
            }
            let index = ready[choice.index(ready.len())];
            if index < 7 {
                prop_assert!(before(index).iter().all(|pred| graph.jobs[*pred].state == Done), "started too early");
            }
            let state = if fate == 0 { Dead } else { Done };
            settled += usize::from(graph.finish(ids[index], state, (state == Dead).then_some("X")).settled.is_some());
        }
        prop_assert_eq!(settled, 1);
        prop_assert!(graph.jobs.iter().all(|job| job.state.is_final()), "nothing stays open");
    }
}
