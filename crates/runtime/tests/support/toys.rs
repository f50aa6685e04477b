//! Stages that do what a script says, and leave one event behind for each commit.

use async_trait::async_trait;
use docmill_model::manifest::Manifest;
use docmill_model::{Code, DocumentId, Failure};
use docmill_runtime::{JobContext, Policy, Registry, Stage, StageError};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest run of a toy, where a test says nothing else: longer than any test waits.
const LIMIT: Duration = Duration::from_secs(600);

/// What one run of a stage does.
#[derive(Clone)]
pub enum Step {
    Fail(Code),
    Snooze(Duration),
    Panic,
    /// Never returns by itself; returns `Cancelled` when asked to stop.
    Hang,
    /// Waits to be let go, whatever the cancel token says.
    Deaf(Arc<Notify>),
    /// The commit fails with this code.
    RefuseCommit(Code),
}

#[derive(Default)]
struct Inner {
    steps: Vec<(String, Option<DocumentId>, Step)>,
    limit: Option<Duration>,
    runs: BTreeMap<String, usize>,
    order: Vec<(String, DocumentId)>,
}

/// Shared by all toys of one bench.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<Inner>>);

impl Script {
    fn begin(&self, stage: &str, document: DocumentId) -> Option<Step> {
        let mut inner = self.0.lock().unwrap();
        *inner.runs.entry(stage.to_owned()).or_default() += 1;
        inner.order.push((stage.to_owned(), document));
        let index = inner.steps.iter().position(|(name, only, step)| {
            name == stage && only.is_none_or(|only| only == document) && !matches!(step, Step::RefuseCommit(_))
        })?;
        Some(inner.steps.remove(index).2)
    }

    fn limit(&self) -> Duration {
        self.0.lock().unwrap().limit.unwrap_or(LIMIT)
    }

    fn refusal(&self, stage: &str, document: DocumentId) -> Option<Code> {
        let mut inner = self.0.lock().unwrap();
        let index = inner.steps.iter().position(|(name, only, step)| {
            name == stage && only.is_none_or(|only| only == document) && matches!(step, Step::RefuseCommit(_))
        })?;
        match inner.steps.remove(index).2 {
            Step::RefuseCommit(code) => Some(code),
            _ => None,
        }
    }
}

/// The toys and their script.
#[derive(Clone, Default)]
pub struct Toys {
    pub script: Script,
}

impl Toys {
    /// The next run of `stage` does this; steps are used up in order.
    pub fn next(&self, stage: &str, step: Step) {
        self.script.0.lock().unwrap().steps.push((stage.to_owned(), None, step));
    }

    /// The same, for one document only.
    pub fn next_of(&self, stage: &str, document: DocumentId, step: Step) {
        self.script.0.lock().unwrap().steps.push((stage.to_owned(), Some(document), step));
    }

    /// From now on no run takes longer than this.
    pub fn limit(&self, limit: Duration) {
        self.script.0.lock().unwrap().limit = Some(limit);
    }

    /// How often a stage began to run.
    pub fn runs(&self, stage: &str) -> usize {
        self.script.0.lock().unwrap().runs.get(stage).copied().unwrap_or(0)
    }

    /// Documents in the order in which a stage met them.
    pub fn order(&self, stage: &str) -> Vec<DocumentId> {
        let inner = self.script.0.lock().unwrap();
        inner.order.iter().filter(|(name, _)| name == stage).map(|(_, document)| *document).collect()
    }

    pub fn registry(&self) -> Registry {
        Registry::builder()
            .with(Alpha(self.script.clone()))
            .with(Beta(self.script.clone()))
            .with(Gamma(self.script.clone()))
            .with(Side(self.script.clone()))
            .with(Tail(self.script.clone()))
            .build()
    }
}

async fn play(script: &Script, stage: &str, job: &JobContext) -> Result<Manifest, StageError> {
    match script.begin(stage, job.document_id) {
        None => {}
        Some(Step::Fail(code)) => return Err(Failure::new(code, "as scripted").into()),
        Some(Step::Snooze(delay)) => return Err(StageError::Snooze(delay)),
        Some(Step::Panic) => panic!("as scripted"),
        Some(Step::Hang) => {
            job.cancel.cancelled().await;
            return Err(StageError::Cancelled);
        }
        Some(Step::Deaf(go)) => go.notified().await,
        Some(Step::RefuseCommit(_)) => unreachable!("steps of commits are kept apart"),
    }
    let mut manifest = Manifest::default();
    manifest.facts.insert("stage".to_owned(), stage.into());
    // As real stages, whose results differ with the bytes: otherwise all documents would share one cache entry.
    manifest.facts.insert("of".to_owned(), job.version_id.to_string().into());
    manifest
        .facts
        .insert("inputs".to_owned(), job.inputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().into());
    Ok(manifest)
}

async fn mark(script: &Script, connection: &mut PgConnection, stage: &str, job: &JobContext) -> Result<(), StageError> {
    sqlx::query(
        "INSERT INTO document_events (tenant_id, document_id, run_id, kind, data)
         VALUES (current_tenant(), $1, $2, 'toy.commit', jsonb_build_object('stage', $3::text))",
    )
    .bind(job.document_id.0)
    .bind(job.run_id.0)
    .bind(stage)
    .execute(connection)
    .await?;
    match script.refusal(stage, job.document_id) {
        Some(code) => Err(Failure::new(code, "as scripted").into()),
        None => Ok(()),
    }
}

/// Toys have no settings.
#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

macro_rules! toy {
    ($name:ident, $text:literal) => {
        struct $name(Script);

        #[async_trait]
        impl Stage for $name {
            const NAME: &'static str = $text;
            const VERSION: u32 = 1;
            type Config = Nothing;
            type Prepared = ();

            fn policy(&self) -> Policy {
                Policy { backoff: Duration::from_millis(50), timeout: self.0.limit(), ..Policy::default() }
            }

            async fn run(&self, job: &JobContext, _: &Nothing) -> Result<Manifest, StageError> {
                play(&self.0, $text, job).await
            }

            async fn prepare(&self, _: &JobContext, _: &Nothing, _: &Manifest) -> Result<(), StageError> {
                Ok(())
            }

            async fn commit(
                &self,
                connection: &mut PgConnection,
                job: &JobContext,
                _: &Manifest,
                (): (),
            ) -> Result<(), StageError> {
                mark(&self.0, connection, $text, job).await
            }
        }
    };
}

toy!(Alpha, "alpha");
toy!(Beta, "beta");
toy!(Gamma, "gamma");
toy!(Side, "side");
toy!(Tail, "tail");
