//! How the two halves should be fused, by cross-validation on the judged questions of a BEIR folder.
//!
//! `cargo run --release -p docmill-retrieval --example tune -- DIR [--split NAME] [--cache FOLDER]`
//! Every question is searched once with explanations; each way of fusing is then applied to the same candidates. Five
//! folds: a fold is judged with the weight that is best on the other four. Vectors are kept in `--cache`.
#![allow(clippy::unwrap_used)]

use docmill_platform::embedder::{Embedder, FastEmbedder, FastEmbedderConfig, LocalModel};
use docmill_retrieval::eval::measures::{mean, ndcg};
use docmill_retrieval::eval::scratch::Scratch;
use docmill_retrieval::eval::significance::paired_bootstrap;
use docmill_retrieval::eval::{BeirFolder, Bench};
use docmill_retrieval::search::{SearchConfig, SearchRequest};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

const FOLDS: usize = 5;

/// A chunk that either half proposed.
struct Candidate {
    entry: String,
    bm25: f64,
    cosine: f64,
    bm25_rank: Option<u32>,
    dense_rank: Option<u32>,
}

struct Asked {
    candidates: Vec<Candidate>,
    grades: HashMap<String, u32>,
}

/// A way to fuse: a score for each candidate, given a weight of the dense half.
type Fuse = fn(&[Candidate], f64) -> Vec<f64>;

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let (mut folder, mut split, mut cache) = (PathBuf::new(), None, PathBuf::from("target/docmill-measure"));
    while let Some(word) = words.next() {
        match word.as_str() {
            "--split" => split = words.next(),
            "--cache" => cache = PathBuf::from(words.next().unwrap()),
            _ => folder = PathBuf::from(word),
        }
    }
    let asked = ask(&BeirFolder::read(&folder, split.as_deref()).unwrap(), cache).await;
    let weights: Vec<f64> = (0..=20).map(|step| f64::from(step) / 20.0).collect();
    let ways: [(&str, Fuse); 4] = [
        ("best BM25 + cosine", by_best),
        ("min-max both", by_min_max),
        ("z-scores", by_z),
        ("reciprocal ranks", by_ranks),
    ];
    let mut reference: Option<Vec<f64>> = None;
    for (name, fuse) in ways {
        let table: Vec<Vec<f64>> = weights.iter().map(|&weight| judge(&asked, fuse, weight)).collect();
        let validated = cross_validate(&table, &weights);
        println!("{name}: cross-validated nDCG@10 {:.4}", mean(&validated.0));
        println!("  weights chosen by fold: {:?}", validated.1);
        let curve: Vec<String> =
            weights.iter().zip(&table).map(|(weight, scores)| format!("{weight:.2} {:.4}", mean(scores))).collect();
        println!("  {}", curve.join("  "));
        match &reference {
            None => reference = Some(validated.0),
            Some(first) => {
                println!("  less the first way: {:?}", paired_bootstrap(first, &validated.0, 10_000).unwrap())
            }
        }
    }
}

async fn ask(folder: &BeirFolder, cache: PathBuf) -> Vec<Asked> {
    let world = docmill_testkit::world().await;
    let (onnxruntime, model_dir) = (world.parts.onnxruntime.clone(), world.parts.model_dir.clone());
    let model =
        FastEmbedder::load(FastEmbedderConfig { onnxruntime, model_dir, threads: 2, model: LocalModel::MiniLm })
            .unwrap();
    let (embedder, search): (Arc<dyn Embedder>, _) = (Arc::new(model), SearchConfig::default());
    let bench = Bench { database: world.database.clone(), embedder, directory: cache, search };
    let scratch = Scratch::build(&bench, &folder.entries, None, &|_, _| {}).await.unwrap();
    let mut asked = Vec::new();
    for question in &folder.questions {
        let request = SearchRequest { k: 100, explain: true, ..SearchRequest::new(question.text.as_str()) };
        let hits = scratch.search().search(&scratch.caller(), &request).await.unwrap().hits;
        let candidates = hits.iter().map(|hit| {
            let explanation = hit.explanation.as_ref().unwrap();
            Candidate {
                entry: scratch.entry_id(hit.document_id).unwrap().to_owned(),
                bm25: explanation.bm25_score.unwrap_or(0.0),
                cosine: explanation.dense_cosine.unwrap_or(0.0).max(0.0),
                bm25_rank: explanation.bm25_rank,
                dense_rank: explanation.dense_rank,
            }
        });
        let grades = folder.judgements.get(&question.id).cloned().unwrap_or_default();
        asked.push(Asked { candidates: candidates.collect(), grades });
    }
    scratch.remove().await.unwrap();
    asked
}

/// nDCG@10 of every question.
fn judge(asked: &[Asked], fuse: Fuse, weight: f64) -> Vec<f64> {
    let score = |asked: &Asked| {
        let scores = fuse(&asked.candidates, weight);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let ranking: Vec<String> = order.into_iter().take(10).map(|at| asked.candidates[at].entry.clone()).collect();
        ndcg(&ranking, &asked.grades, 10)
    };
    asked.iter().map(score).collect()
}

/// Scores of every question with the weight that is best on the other folds, and those weights.
fn cross_validate(table: &[Vec<f64>], weights: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = table[0].len();
    let (mut scores, mut chosen) = (vec![0.0; count], Vec::new());
    for fold in 0..FOLDS {
        let learned = |row: &Vec<f64>| -> f64 {
            row.iter().enumerate().filter(|(at, _)| at % FOLDS != fold).map(|(_, score)| score).sum()
        };
        let best = (0..table.len()).max_by(|&a, &b| learned(&table[a]).total_cmp(&learned(&table[b]))).unwrap();
        chosen.push(weights[best]);
        (fold..count).step_by(FOLDS).for_each(|at| scores[at] = table[best][at]);
    }
    (scores, chosen)
}

fn by_best(candidates: &[Candidate], weight: f64) -> Vec<f64> {
    let best = candidates.iter().map(|c| c.bm25).fold(1e-9, f64::max);
    candidates.iter().map(|c| (1.0 - weight) * c.bm25 / best + weight * c.cosine).collect()
}

fn by_min_max(candidates: &[Candidate], weight: f64) -> Vec<f64> {
    let scaled = |of: fn(&Candidate) -> f64| {
        let (low, high) =
            candidates.iter().map(of).fold((f64::MAX, 1e-9f64), |(low, high), x| (low.min(x), high.max(x)));
        candidates.iter().map(|c| (of(c) - low) / (high - low).max(1e-9)).collect::<Vec<f64>>()
    };
    let (words, meaning) = (scaled(|c| c.bm25), scaled(|c| c.cosine));
    words.iter().zip(meaning).map(|(words, meaning)| (1.0 - weight) * words + weight * meaning).collect()
}

fn by_z(candidates: &[Candidate], weight: f64) -> Vec<f64> {
    let scaled = |of: fn(&Candidate) -> f64| {
        let values: Vec<f64> = candidates.iter().map(of).collect();
        let middle = mean(&values);
        let spread = mean(&values.iter().map(|x| (x - middle).powi(2)).collect::<Vec<_>>()).sqrt().max(1e-9);
        values.into_iter().map(|x| (x - middle) / spread).collect::<Vec<f64>>()
    };
    let (words, meaning) = (scaled(|c| c.bm25), scaled(|c| c.cosine));
    words.iter().zip(meaning).map(|(words, meaning)| (1.0 - weight) * words + weight * meaning).collect()
}

fn by_ranks(candidates: &[Candidate], weight: f64) -> Vec<f64> {
    let share = |rank: Option<u32>| rank.map_or(0.0, |rank| 1.0 / (60.0 + f64::from(rank)));
    let score = |c: &Candidate| (1.0 - weight) * share(c.bm25_rank) + weight * share(c.dense_rank);
    candidates.iter().map(score).collect()
}
