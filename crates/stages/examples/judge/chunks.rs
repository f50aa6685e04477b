//! Chunking on stories: sizes, and how many chunks one edited sentence renews.

use docmill_model::document::ParsedDocument;
use docmill_model::sentences::sentences;
use docmill_platform::tokens::TokenCounter;
use docmill_stages::chunk::{ChunkConfig, chunk_document};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Instant;

const INSERTED: &str = " A sentence that nobody had written before stands here now.";

pub fn judge(corpora: &Path) {
    let tokens = TokenCounter::load(&crate::model_dir()).unwrap_or_else(|_| TokenCounter::words());
    let config = ChunkConfig::default();
    let stories: Vec<String> = std::fs::read_to_string(corpora.join("squality/dev.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["document"].as_str().unwrap().to_owned())
        .collect();
    let mut sizes: Vec<u32> = Vec::new();
    let mut renewed: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut seconds, mut characters) = (0.0, 0);
    for story in stories.iter().take(8) {
        let started = Instant::now();
        let before = crate::plain(story);
        let chunks = chunk_document(&before, &tokens, &config);
        seconds += started.elapsed().as_secs_f64();
        characters += story.len();
        sizes.extend(chunks.iter().map(|chunk| chunk.tokens));
        let known: HashSet<String> = chunks.iter().map(docmill_model::chunk::Chunk::embed_text).collect();
        let ends: Vec<usize> = sentences(story).into_iter().map(|range| range.end).collect();
        for at in (0..12).map(|k| ends[ends.len() * k / 12 + ends.len() / 24]) {
            for edited in [format!("{}{INSERTED}{}", &story[..at], &story[at..]), without_sentence(story, &ends, at)] {
                let after: ParsedDocument = crate::plain(&edited);
                let new = chunk_document(&after, &tokens, &config)
                    .iter()
                    .filter(|chunk| !known.contains(&chunk.embed_text()))
                    .count();
                *renewed.entry(new).or_default() += 1;
            }
        }
    }
    sizes.sort_unstable();
    let share = |q: usize| sizes[(sizes.len() - 1) * q / 100];
    println!("chunks {}  tokens p5 {} p50 {} p95 {} max {}", sizes.len(), share(5), share(50), share(95), share(100));
    println!(
        "mean {:.0} tokens; below 60: {:.1} %",
        mean(&sizes),
        100.0 * sizes.iter().filter(|s| **s < 60).count() as f64 / sizes.len() as f64
    );
    println!("chunks renewed by one inserted or removed sentence: {renewed:?}");
    println!("{:.1} MB/s (reading and chunking)", characters as f64 / 1e6 / seconds);
}

fn without_sentence(story: &str, ends: &[usize], at: usize) -> String {
    let next = ends.iter().find(|end| **end > at).copied().unwrap_or(story.len());
    format!("{}{}", &story[..at], &story[next..])
}

fn mean(sizes: &[u32]) -> f64 {
    sizes.iter().map(|size| f64::from(*size)).sum::<f64>() / sizes.len() as f64
}
