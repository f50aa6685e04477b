//! summarize: a few sentences of the document that stand for the whole, each cited with its place.
//!
//! Without a provider the summary is extractive: sentences of running text are embedded, ranked by how much of the
//! document they resemble and where they stand, and picked so that they do not repeat each other. Nothing is rewritten:
//! the words of a summary sentence are the words of its span, with line breaks as spaces. Headings, tables, code, page
//! furniture and hidden text are not quoted; a document without sentences is summarised by its first lines. With
//! `provider: llm` a model words the sentences, each resting on sentences of the document. Reads `parsed`, writes
//! `summary`.

mod candidates;
mod llm;
mod rank;
mod remembered;

pub use candidates::{Candidate, candidates};
pub use rank::{Choice, choose};

use crate::models::{Provider, StageModels, WhenDown, without_model};
use crate::settings::within;
use docmill_model::document::ParsedDocument;
use docmill_model::manifest::{FALLBACK, Manifest, kind};
use docmill_model::results::{Place, Summary, SummarySentence};
use docmill_model::{Code, Failure};
use docmill_platform::embedder::Embedder;
use docmill_runtime::{JobContext, Stage, StageError};
use remembered::Remembered;
use sqlx::PgConnection;
use std::sync::Arc;

/// Sentences embedded at once; between two calls a cancelled job stops.
const BATCH: usize = 64;

/// Settings of the summarize stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SummarizeConfig {
    /// Most sentences of a summary, 1 to 50; short documents get fewer.
    #[serde(deserialize_with = "within::<_, 1, 50>")]
    #[schemars(range(min = 1, max = 50))]
    pub sentences: u32,
    /// Most sentences of a document that are compared, 10 to 2,000; a longer document is sampled. Bounds time and memory.
    #[serde(deserialize_with = "within::<_, 10, 2000>")]
    #[schemars(range(min = 10, max = 2000))]
    pub considered: u32,
    /// `builtin`: chosen sentences. `llm`: worded by a model of `llm.uses.summarize`.
    pub provider: Provider,
    /// With `llm`, when no model answers: `builtin` chooses sentences, `wait` waits.
    pub when_down: WhenDown,
}

impl Default for SummarizeConfig {
    fn default() -> Self {
        Self { sentences: 5, considered: 300, provider: Provider::default(), when_down: WhenDown::default() }
    }
}

/// The summarize stage.
pub struct Summarize {
    embedder: Arc<dyn Embedder>,
    models: StageModels,
}

impl Summarize {
    /// Comparing sentences with `embedder`, asking `models` where the pipeline says so.
    pub(crate) fn new(embedder: Arc<dyn Embedder>, models: StageModels) -> Self {
        Self { embedder, models }
    }

    /// The best sentences of the document, and the vectors they were compared by.
    async fn chosen(
        &self,
        job: &JobContext,
        config: &SummarizeConfig,
        sentences: Vec<Candidate>,
    ) -> Result<(Summary, Remembered), StageError> {
        let remembered = self.remembered(job, &sentences).await?;
        let vectors: Vec<Vec<f32>> =
            sentences.iter().map(|sentence| remembered.get(&sentence.text).unwrap_or_default()).collect();
        let most = config.sentences as usize;
        let (sentences, chosen) = tokio::task::spawn_blocking(move || {
            let chosen = choose(&sentences, &vectors, &Choice::new(most));
            (sentences, chosen)
        })
        .await
        .map_err(|_| Failure::new(Code::Internal, "ranking sentences failed"))?;
        let quoted = |at: usize| {
            let place = Place { span: sentences[at].span, page: sentences[at].page };
            SummarySentence { text: sentences[at].text.clone(), citations: vec![place] }
        };
        let sentences = chosen.into_iter().map(quoted).collect();
        Ok((Summary { engine: "extractive".to_owned(), sentences }, remembered))
    }

    /// The vector of every sentence: those of the last summary, and embedded ones.
    async fn remembered(&self, job: &JobContext, sentences: &[Candidate]) -> Result<Remembered, StageError> {
        let model = self.embedder.fingerprint();
        let last = Remembered::last(job, model.clone()).await;
        let mut now = Remembered::of(model);
        let mut new = Vec::new();
        for Candidate { text, .. } in sentences {
            match last.get(text) {
                Some(vector) => now.insert(text, &vector),
                None => new.push(text.clone()),
            }
        }
        for batch in new.chunks(BATCH) {
            if job.cancel.is_cancelled() {
                return Err(StageError::Cancelled);
            }
            for (text, vector) in batch.iter().zip(self.embedder.embed(batch).await?) {
                now.insert(text, &vector);
            }
        }
        Ok(now)
    }
}

#[async_trait::async_trait]
impl Stage for Summarize {
    const NAME: &'static str = "summarize";
    const VERSION: u32 = 2;
    type Config = SummarizeConfig;
    type Prepared = Summary;

    fn fingerprint(&self) -> String {
        format!("{} {}", self.embedder.fingerprint(), self.models.fingerprint(llm::USE)).trim_end().to_owned()
    }

    async fn run(&self, job: &JobContext, config: &SummarizeConfig) -> Result<Manifest, StageError> {
        let document: ParsedDocument = job.load(kind::PARSED).await?;
        let sentences = candidates(&document, config.considered as usize);
        let mut manifest = Manifest::default();
        let mut generated = None;
        if config.provider == Provider::Llm {
            match llm::summarize(&self.models, job, &sentences, config.sentences).await {
                Ok(summary) => generated = Some(summary),
                Err(failure) => {
                    let code = without_model(failure, config.when_down)?;
                    manifest.facts.insert(FALLBACK.to_owned(), code.as_str().into());
                }
            }
        }
        let summary = match generated {
            Some(summary) => summary,
            None => {
                let (summary, vectors) = self.chosen(job, config, sentences).await?;
                manifest.artifacts.insert(remembered::KIND.to_owned(), job.store(&vectors).await?);
                summary
            }
        };
        manifest.facts.insert("sentences".to_owned(), summary.sentences.len().into());
        manifest.facts.insert("engine".to_owned(), summary.engine.clone().into());
        manifest.artifacts.insert(kind::SUMMARY.to_owned(), job.store(&summary).await?);
        Ok(manifest)
    }

    async fn prepare(&self, job: &JobContext, _: &SummarizeConfig, manifest: &Manifest) -> Result<Summary, StageError> {
        let missing = || Failure::new(Code::Internal, "the manifest of summarize names no summary");
        let reference = manifest.artifacts.get(kind::SUMMARY).ok_or_else(missing)?;
        Ok(job.load_ref(reference).await?)
    }

    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        _: &Manifest,
        summary: Summary,
    ) -> Result<(), StageError> {
        sqlx::query(
            "INSERT INTO summaries (tenant_id, version_id, document_id, run_id, sentences, engine)
             VALUES (current_tenant(), $1, $2, $3, $4, $5)
             ON CONFLICT (tenant_id, version_id) DO UPDATE
             SET run_id = excluded.run_id, sentences = excluded.sentences, engine = excluded.engine, created_at = now()",
        )
        .bind(job.version_id.0)
        .bind(job.document_id.0)
        .bind(job.run_id.0)
        .bind(serde_json::to_value(&summary.sentences).unwrap_or_default())
        .bind(&summary.engine)
        .execute(connection)
        .await?;
        Ok(())
    }
}
