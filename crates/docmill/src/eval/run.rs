//! One suite run on the services of the API role.

use super::chunking;
use super::suite::Suite;
use docmill_documents::{ParseOptions, ParseRequest, Parser, parse_in_process};
use docmill_model::document::ParsedDocument;
use docmill_model::{Code, Failure};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::tokens::TokenCounter;
use docmill_retrieval::answers::{AnswersConfig, Generator};
use docmill_retrieval::eval::fields::{FieldCounts, FieldScores};
use docmill_retrieval::eval::labelled::{Content, LabelledFormat};
use docmill_retrieval::eval::references::ReferenceFormat;
use docmill_retrieval::eval::rouge::{Rouge, rouge};
use docmill_retrieval::eval::{
    BeirFolder, Bench, InjectionCase, Measure, Outcome, evaluate_answers, evaluate_injection, evaluate_retrieval,
    fingerprint,
};
use docmill_stages::extract::{ExtractSchema, extract_document};
use docmill_stages::summarize::{Choice, candidates, choose};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sentences of a document that a summary is chosen from, as the stage has it.
const CONSIDERED: usize = 300;

/// What suites run on.
pub struct Stand {
    /// Database, model, folder and search.
    pub bench: Bench,
    /// The artifact store.
    pub artifacts: Artifacts,
    /// The model provider, where one is configured.
    pub generator: Option<Arc<dyn Generator>>,
    /// The sandboxed parser.
    pub parser: Parser,
    /// Token counts of the model, for the chunker.
    pub tokens: Arc<TokenCounter>,
    /// Folder of the extraction schemas.
    pub schemas: PathBuf,
    /// True when no progress is shown.
    pub is_quiet: bool,
}

impl Stand {
    /// Shows how much is loaded.
    pub fn progress(&self) -> impl Fn(usize, usize) + Send + Sync + use<> {
        let is_quiet = self.is_quiet;
        move |done, all| {
            if !is_quiet {
                eprint!("\rloaded {done} of {all}{}", if done == all { "\n" } else { "" });
            }
        }
    }
}

/// Runs `suite`, whose relative paths start from `root`.
///
/// # Errors
/// `FIELD_INVALID` and `CONFIG_INVALID` for data and schemas, `CONFLICT` while another evaluation runs; failures of services.
pub async fn suite(stand: &Stand, suite: &Suite, root: &Path) -> Result<Outcome, Failure> {
    match suite {
        Suite::Retrieval { name, beir, split, modes, questions } => {
            let folder = beir_folder(&root.join(beir), split.as_deref(), *questions)?;
            let report = evaluate_retrieval(&stand.bench, &folder, modes, &stand.progress()).await?;
            Ok(report.outcome(name))
        }
        Suite::Answers { name, beir, split, foreign, questions } => {
            let folder = beir_folder(&root.join(beir), split.as_deref(), *questions)?;
            let foreign = match foreign {
                Some(other) => beir_folder(&root.join(other), None, *questions)?.questions,
                None => Vec::new(),
            };
            let (generator, config, progress) = (stand.generator.clone(), AnswersConfig::default(), stand.progress());
            let (bench, artifacts) = (&stand.bench, &stand.artifacts);
            let report = evaluate_answers(bench, artifacts, generator, config, &folder, &foreign, &progress).await?;
            Ok(report.outcome(name))
        }
        Suite::Extraction { name, format, path, schema } => {
            extraction(stand, name, *format, &root.join(path), schema.as_deref()).await
        }
        Suite::Summaries { name, format, path, sentences, documents } => {
            let limit = documents.unwrap_or(usize::MAX);
            summaries(stand, name, *format, &root.join(path), *sentences, limit).await
        }
        Suite::Chunking { name, path, mode, budgets } => {
            chunking::run(stand, name, &root.join(path), *mode, budgets).await
        }
        Suite::Injection { name, path } => {
            let cases = InjectionCase::read(&root.join(path))?;
            let generator = stand.generator.clone();
            evaluate_injection(&stand.bench, &stand.artifacts, generator, name, &cases, &stand.progress()).await
        }
    }
}

fn beir_folder(path: &Path, split: Option<&str>, questions: Option<usize>) -> Result<BeirFolder, Failure> {
    let mut folder = BeirFolder::read(path, split)?;
    folder.questions.truncate(questions.unwrap_or(usize::MAX));
    Ok(folder)
}

async fn extraction(
    stand: &Stand,
    name: &str,
    format: LabelledFormat,
    path: &Path,
    schema: Option<&str>,
) -> Result<Outcome, Failure> {
    let wanted = schema.or(format.schema());
    let wanted =
        wanted.ok_or_else(|| invalid(format!("suite {name} needs `schema`: this layout has none of its own")))?;
    let schema = schema_file(&stand.schemas.join(format!("{wanted}.json")))?;
    let documents = format.read(path)?;
    let (mut scores, mut unread) = (FieldScores::default(), 0usize);
    for labelled in &documents {
        let Some(document) = read(stand, &labelled.content).await? else {
            unread += 1;
            continue;
        };
        let data = extract_document(&document, wanted, &schema).extraction.data;
        for (field, expected) in &labelled.expected {
            scores.count(&labelled.name, field, FieldCounts::of(&format.found(field, &data), expected));
        }
    }
    let data: Vec<String> = documents.iter().map(|d| format!("{} {:?}", d.name, d.expected)).collect();
    let facts = [
        ("data", fingerprint(data.iter().map(String::as_str)).into()),
        ("documents", documents.len().into()),
        ("unread", unread.into()),
        ("schema", wanted.into()),
        ("engine", "rules".into()),
    ];
    Ok(outcome(name, "extraction", facts, scores.measures()))
}

fn schema_file(path: &Path) -> Result<ExtractSchema, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| invalid(format!("{} cannot be read ({})", path.display(), e.kind())))?;
    let value = serde_json::from_str(&text).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
    ExtractSchema::read(&value).map_err(|e| invalid(format!("{}: {e}", path.display())))
}

/// The document; `None` when the file cannot be read, which is an outcome of that document.
async fn read(stand: &Stand, content: &Content) -> Result<Option<ParsedDocument>, Failure> {
    match content {
        Content::Text(text) => plain(text).map(Some),
        Content::File(path) => {
            let bytes = std::fs::read(path);
            let bytes = bytes.map_err(|e| invalid(format!("{} cannot be read ({})", path.display(), e.kind())))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let request = ParseRequest { bytes: bytes.into(), name, ..ParseRequest::default() };
            Ok(stand.parser.parse(request).await.ok().map(|parsed| parsed.document))
        }
    }
}

/// Plain text as ingest reads it.
pub fn plain(text: &str) -> Result<ParsedDocument, Failure> {
    parse_in_process(text.as_bytes(), &ParseOptions { name: Some("judged.txt".to_owned()), ..ParseOptions::default() })
}

async fn summaries(
    stand: &Stand,
    name: &str,
    format: ReferenceFormat,
    path: &Path,
    sentences: usize,
    limit: usize,
) -> Result<Outcome, Failure> {
    let documents = format.read(path, limit)?;
    let mut scores: BTreeMap<&str, BTreeMap<String, Rouge>> = BTreeMap::new();
    for document in &documents {
        let found = candidates(&plain(&document.text)?, CONSIDERED);
        let texts: Vec<String> = found.iter().map(|candidate| candidate.text.clone()).collect();
        let vectors = stand.bench.embedder.embed(&texts).await?;
        let chosen = choose(&found, &vectors, &Choice::new(sentences));
        let own: Vec<&str> = chosen.into_iter().map(|at| texts[at].as_str()).collect();
        let lead: Vec<&str> = texts.iter().take(sentences).map(String::as_str).collect();
        for (kind, words) in [("summary", own), ("lead", lead)] {
            let score = rouge(&words.join(" "), &document.references);
            scores.entry(kind).or_default().insert(document.name.clone(), score);
        }
    }
    let mut measures = Vec::new();
    for (kind, scores) in &scores {
        let mut mean = |part: &str, of: fn(&Rouge) -> f64| {
            let cases = scores.iter().map(|(document, score)| (document.clone(), of(score))).collect();
            measures.push(Measure::mean_of(format!("{kind}.{part}"), cases));
        };
        mean("rouge1", |score| score.one);
        mean("rouge2", |score| score.two);
        mean("rougeL", |score| score.longest);
        mean("coverage", |score| score.coverage);
    }
    let data = documents.iter().flat_map(|d| std::iter::once(&d.text).chain(&d.references)).map(String::as_str);
    let facts = [
        ("data", fingerprint(data).into()),
        ("documents", documents.len().into()),
        ("sentences", sentences.into()),
        ("engine", "extractive".into()),
    ];
    Ok(outcome(name, "summaries", facts, measures))
}

/// An outcome of these parts.
pub fn outcome<const N: usize>(
    suite: &str,
    kind: &str,
    facts: [(&str, serde_json::Value); N],
    measures: Vec<Measure>,
) -> Outcome {
    let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Outcome { suite: suite.to_owned(), kind: kind.to_owned(), facts, measures }
}

/// A mistake in data or settings.
pub fn invalid(message: String) -> Failure {
    Failure::new(Code::ConfigInvalid, message)
}
