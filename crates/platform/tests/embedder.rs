//! The local model against vectors of its reference implementation, and the embedder under load.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::Code;
use docmill_platform::embedder::{Embedder, FastEmbedder, FastEmbedderConfig, LocalModel, Pooling};
use docmill_platform::tokens::{TokenCounter, WINDOW};
use support::{config, embedder};

#[derive(serde::Deserialize)]
struct Golden {
    text: String,
    vector: Vec<f32>,
}

/// From sentence-transformers on torch: float32, window 256, mean pooling, unit norm, one text at a time.
fn golden() -> Vec<Golden> {
    include_str!("golden/all-minilm-l6-v2.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[tokio::test]
async fn vectors_equal_the_reference_alone_and_in_batches() {
    let (embedder, golden) = (embedder().await, golden());
    assert_eq!(golden.len(), 24);
    let texts: Vec<String> = golden.iter().map(|golden| golden.text.clone()).collect();
    let together = embedder.embed(&texts).await.unwrap();
    for ((text, known), vector) in texts.iter().zip(&golden).zip(&together) {
        let alone = embedder.embed(std::slice::from_ref(text)).await.unwrap().remove(0);
        let start: String = text.chars().take(40).collect();
        assert!(cosine(vector, &known.vector) >= 0.9999, "{start}: {}", cosine(vector, &known.vector));
        assert!(cosine(&alone, vector) >= 0.99999, "{start}: {}", cosine(&alone, vector));
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
    }
    assert_eq!(embedder.dimensions(), 384);
    assert!(embedder.embed(&[]).await.unwrap().is_empty());
    let name = embedder.fingerprint();
    assert!(name.contains("53aa51172d142c89") && name.contains("onnxruntime@1.") && name.contains("fp32"), "{name}");
}

#[tokio::test]
async fn odd_texts_have_vectors_too() {
    let odd = ["", " ", "\0", "\u{feff}", "🙂", &"a".repeat(100_000), &"word ".repeat(20_000)].map(str::to_owned);
    let vectors = embedder().await.embed(&odd).await.unwrap();
    assert!(vectors.iter().all(|vector| (cosine(vector, vector) - 1.0).abs() < 1e-5));
}

#[tokio::test]
async fn unusable_parts_are_refused_with_a_reason() {
    let (config, folder) = (config().await, tempfile::tempdir().unwrap());
    embedder().await;
    let load = |model_dir: &std::path::Path| {
        let model_dir = model_dir.to_owned();
        FastEmbedder::load(FastEmbedderConfig { model_dir, ..config.clone() }).err().unwrap()
    };
    assert_eq!(load(&folder.path().join("absent")).code, Code::PartMissing);
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::copy(config.model_dir.join(file), folder.path().join(file)).unwrap();
    }
    let mut weights = std::fs::read(config.model_dir.join("model.safetensors")).unwrap();
    let write = |bytes: &[u8]| std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    for (what, bytes) in
        [("empty", &weights[..0]), ("header only", &weights[..100]), ("cut off", &weights[..50_000_000])]
    {
        write(bytes);
        let failure = load(folder.path());
        assert!(
            failure.code == Code::ConfigInvalid && failure.message.contains("embedding model"),
            "{what}: {failure}"
        );
    }
    let start = weights.len() - 3_000_000;
    weights[start..].iter_mut().for_each(|byte| *byte ^= 0x10);
    write(&weights);
    let failure = load(folder.path());
    assert!(failure.message.contains("known text") || failure.message.contains("does not"), "{failure}");
}

#[tokio::test]
async fn a_named_model_has_vectors_and_a_fingerprint_of_its_own() {
    let named = |pooling, query_prefix: &str, max_tokens| LocalModel::Named {
        name: "other".to_owned(),
        pooling,
        max_tokens,
        query_prefix: query_prefix.to_owned(),
        passage_prefix: String::new(),
    };
    let load = |model: LocalModel, base: FastEmbedderConfig| {
        FastEmbedder::load(FastEmbedderConfig { model, threads: 1, ..base }).unwrap()
    };
    let base = config().await;
    let (first, text) = (embedder().await, "The pier is closed in winter.");
    let mean = load(named(Pooling::Mean, "", WINDOW), base.clone());
    let cls = load(named(Pooling::Cls, "query: ", 64), base);
    let one = |model: &FastEmbedder| {
        let embedded = futures::executor::block_on(model.embed(&[text.to_owned()]));
        embedded.unwrap().remove(0)
    };
    assert!(cosine(&one(first), &one(&mean)) > 0.99999, "the same weights, pooled alike");
    assert!(cosine(&one(first), &one(&cls)) < 0.99, "pooled otherwise");
    let (asked, as_passage) =
        (cls.embed_query(text).await.unwrap(), cls.embed(&[format!("query: {text}")]).await.unwrap().remove(0));
    assert!(
        cosine(&asked, &as_passage) > 0.99999 && cosine(&asked, &one(&cls)) < 0.9999,
        "a question is embedded as one"
    );
    let names = [first.fingerprint(), mean.fingerprint(), cls.fingerprint()];
    assert!(names[0] != names[1] && names[1] != names[2] && names[2].starts_with("other@"), "{names:?}");
    assert_eq!(cls.dimensions(), 384);
}

#[tokio::test]
async fn tokens_are_counted_without_truncation_or_padding() {
    let tokens = TokenCounter::load(&config().await.model_dir).unwrap();
    assert_eq!(tokens.count(""), 2);
    assert_eq!(tokens.count("hello world"), 4);
    assert_eq!(tokens.count(&"hello ".repeat(WINDOW - 2)), WINDOW);
    assert_eq!(tokens.count(&"hello ".repeat(5000)), 5002);
    let absent = TokenCounter::load(std::path::Path::new("/absent")).err().unwrap();
    assert_eq!(absent.code, Code::PartMissing);
    assert_eq!(TokenCounter::words().count(" one  two\nthree "), 3);
}
