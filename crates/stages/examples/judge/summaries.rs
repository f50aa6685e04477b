//! Extractive summaries against reference summaries: ROUGE-1, -2 and -L beside the lead baseline.

use docmill_platform::embedder::{Embedder, FastEmbedder, FastEmbedderConfig};
use docmill_stages::summarize::{Choice, candidates, choose};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn judge(corpora: &Path) {
    let config = FastEmbedderConfig {
        onnxruntime: PathBuf::from(std::env::var_os("DOCMILL_ONNXRUNTIME").unwrap_or_default()),
        model_dir: crate::model_dir(),
        threads: 2,
    };
    let embedder: Arc<dyn Embedder> = Arc::new(FastEmbedder::load(config).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let abstracts = lines(&corpora.join("scitldr/dev.jsonl"), |paper| {
        let text: Vec<&str> = paper["source"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let references =
            paper["target"].as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect();
        (text.join(" "), references)
    });
    runtime.block_on(compare("scitldr", &abstracts[..abstracts.len().min(300)], 1, &embedder));
    let stories = lines(&corpora.join("squality/dev.jsonl"), |story| {
        let responses = story["questions"][0]["responses"].as_array().unwrap();
        let references = responses.iter().filter_map(|r| r["response_text"].as_str()).map(str::to_owned).collect();
        (story["document"].as_str().unwrap().to_owned(), references)
    });
    runtime.block_on(compare("squality", &stories, 15, &embedder));
}

fn lines(path: &Path, read: impl Fn(&Value) -> (String, Vec<String>)) -> Vec<(String, Vec<String>)> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| read(&serde_json::from_str(line).unwrap())).collect()
}

async fn compare(name: &str, documents: &[(String, Vec<String>)], sentences: usize, embedder: &Arc<dyn Embedder>) {
    let mut prepared = Vec::new();
    for (text, references) in documents {
        let found = candidates(&crate::plain(text), 300);
        let texts: Vec<String> = found.iter().map(|candidate| candidate.text.clone()).collect();
        let vectors = embedder.embed(&texts).await.unwrap();
        prepared.push((found, vectors, references));
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

fn show(label: &str, scores: impl Iterator<Item = [f64; 3]>) {
    let (mut sums, mut count) = ([0.0; 3], 0.0);
    for score in scores {
        (0..3).for_each(|at| sums[at] += score[at]);
        count += 1.0;
    }
    println!(
        "{label:18} ROUGE-1 {:.1}  ROUGE-2 {:.1}  ROUGE-L {:.1}",
        100.0 * sums[0] / count,
        100.0 * sums[1] / count,
        100.0 * sums[2] / count
    );
}

/// F1 of each measure against the best reference.
fn rouge(summary: &str, references: &[String]) -> [f64; 3] {
    let mut best = [0.0f64; 3];
    let ours = words(summary);
    for reference in references {
        let theirs = words(reference);
        let scores = [grams(&ours, &theirs, 1), grams(&ours, &theirs, 2), longest(&ours, &theirs)];
        (0..3).for_each(|at| best[at] = best[at].max(scores[at]));
    }
    best
}

fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn f1(shared: usize, ours: usize, theirs: usize) -> f64 {
    if shared == 0 {
        return 0.0;
    }
    let (p, r) = (shared as f64 / ours as f64, shared as f64 / theirs as f64);
    2.0 * p * r / (p + r)
}

fn grams(ours: &[String], theirs: &[String], n: usize) -> f64 {
    let count = |words: &[String]| {
        let mut counts: HashMap<Vec<String>, usize> = HashMap::new();
        words.windows(n).for_each(|gram| *counts.entry(gram.to_vec()).or_default() += 1);
        counts
    };
    let (a, b) = (count(ours), count(theirs));
    let shared = a.iter().map(|(gram, times)| (*times).min(b.get(gram).copied().unwrap_or(0))).sum();
    f1(shared, ours.len().saturating_sub(n - 1), theirs.len().saturating_sub(n - 1))
}

fn longest(ours: &[String], theirs: &[String]) -> f64 {
    let mut previous = vec![0usize; theirs.len() + 1];
    for a in ours {
        let mut current = vec![0usize; theirs.len() + 1];
        for (at, b) in theirs.iter().enumerate() {
            current[at + 1] = if a == b { previous[at] + 1 } else { current[at].max(previous[at + 1]) };
        }
        previous = current;
    }
    f1(previous[theirs.len()], ours.len(), theirs.len())
}
