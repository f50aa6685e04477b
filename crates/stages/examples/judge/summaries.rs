//! Extractive summaries against reference summaries: ROUGE-1, -2 and -L beside the lead baseline.

use docmill_platform::embedder::{Embedder, FastEmbedder, FastEmbedderConfig, LocalModel};
use docmill_retrieval::eval::references::{ReferenceFormat, Referenced};
use docmill_retrieval::eval::rouge::{Rouge, rouge};
use docmill_stages::summarize::{Choice, candidates, choose};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn judge(corpora: &Path) {
    let config = FastEmbedderConfig {
        onnxruntime: PathBuf::from(std::env::var_os("DOCMILL_ONNXRUNTIME").unwrap_or_default()),
        model_dir: crate::model_dir(),
        threads: 2,
        model: LocalModel::MiniLm,
    };
    let embedder: Arc<dyn Embedder> = Arc::new(FastEmbedder::load(config).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let abstracts = ReferenceFormat::Scitldr.read(&corpora.join("scitldr/dev.jsonl"), 300).unwrap();
    runtime.block_on(compare("scitldr", &abstracts, 1, &embedder));
    let stories = ReferenceFormat::Squality.read(&corpora.join("squality/dev.jsonl"), usize::MAX).unwrap();
    runtime.block_on(compare("squality", &stories, 15, &embedder));
}

async fn compare(name: &str, documents: &[Referenced], sentences: usize, embedder: &Arc<dyn Embedder>) {
    let mut prepared = Vec::new();
    for document in documents {
        let found = candidates(&crate::plain(&document.text), 300);
        let texts: Vec<String> = found.iter().map(|candidate| candidate.text.clone()).collect();
        let vectors = embedder.embed(&texts).await.unwrap();
        prepared.push((found, vectors, &document.references));
    }
    println!("== {name}: {} documents, {sentences} sentences", documents.len());
    let lead = prepared.iter().map(|(found, _, references)| {
        let words: Vec<&str> = found.iter().take(sentences).map(|candidate| candidate.text.as_str()).collect();
        rouge(&words.join(" "), references)
    });
    show("lead", lead);
    for (label, choice) in variants(sentences) {
        let ours = prepared.iter().map(|(found, vectors, references)| {
            let words: Vec<&str> =
                choose(found, vectors, &choice).into_iter().map(|at| found[at].text.as_str()).collect();
            rouge(&words.join(" "), references)
        });
        show(&label, ours);
    }
}

fn variants(most: usize) -> Vec<(String, Choice)> {
    let base = Choice::new(most);
    let mut all = vec![("default".to_owned(), base)];
    for lead_weight in [0.0, 0.25, 1.0, 2.0] {
        all.push((format!("lead_weight {lead_weight}"), Choice { lead_weight, ..base }));
    }
    for own_weight in [0.5, 0.85, 1.0] {
        all.push((format!("own_weight {own_weight}"), Choice { own_weight, ..base }));
    }
    for threshold in [0.0, 0.35] {
        all.push((format!("threshold {threshold}"), Choice { threshold, ..base }));
    }
    all
}

fn show(label: &str, scores: impl Iterator<Item = Rouge>) {
    let (mut sums, mut count) = ([0.0; 4], 0.0);
    for score in scores {
        let parts = [score.one, score.two, score.longest, score.coverage];
        sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        count += 1.0;
    }
    let [one, two, longest, coverage] = sums.map(|sum| 100.0 * sum / count);
    println!("{label:18} ROUGE-1 {one:.1}  ROUGE-2 {two:.1}  ROUGE-L {longest:.1}  coverage {coverage:.1}");
}
