//! Cross-encoders: one conformance suite on the real path (fastembed, ONNX Runtime, a graph without weights) and on the
//! stand-in, and what happens to calls nobody waits for and to folders that hold no model.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{Code, TenantId};
use docmill_platform::reranker::{FastReranker, FastRerankerConfig, Passage, Reranker, ScriptedReranker};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shared-words")
}

async fn config() -> FastRerankerConfig {
    FastRerankerConfig { onnxruntime: support::config().await.onnxruntime, model_dir: files(), threads: 1 }
}

async fn real() -> FastReranker {
    let config = config().await;
    tokio::task::spawn_blocking(move || FastReranker::load(&config).unwrap()).await.unwrap()
}

fn texts(texts: &[&str]) -> Vec<Passage> {
    let passage = |text: &&str| Passage { headings: Vec::new(), text: (*text).to_owned(), language: None, fused: 0.5 };
    texts.iter().map(passage).collect()
}

async fn scores(reranker: &dyn Reranker, question: &str, passages: &[Passage]) -> Vec<f64> {
    reranker.rerank(TenantId::fresh(), question, passages.to_vec()).await.unwrap()
}

async fn conforms(reranker: &dyn Reranker) {
    let passages = texts(&[
        "fog",
        "The ferry pays harbour dues",
        "",
        "Ice on the sea in winter",
        "fog at the pier",
        "ferry",
        &"calm water ".repeat(400),
    ]);
    let found = scores(reranker, "harbour dues of the ferry", &passages).await;
    assert_eq!(found.len(), passages.len());
    assert!(found.iter().all(|score| (0.0..=1.0).contains(score)), "{found:?}");
    let best = (0..found.len()).max_by(|a, b| found[*a].total_cmp(&found[*b])).unwrap();
    assert_eq!(best, 1, "{found:?}");
    assert_eq!(scores(reranker, "harbour dues of the ferry", &passages).await, found, "always the same");
    let alone = scores(reranker, "harbour dues of the ferry", &passages[..1]).await;
    assert!((alone[0] - found[0]).abs() < 1e-6, "whatever else is read");
    assert!(scores(reranker, "harbour", &[]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_give_one_score_a_passage_in_their_order() {
    conforms(&real().await).await;
    conforms(&ScriptedReranker::preferring("dues")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_gives_its_share_of_words_through_the_sigmoid() {
    let mut passages = texts(&["the ferry pays harbour dues", "ferry on ice", "zebra", "ferry"]);
    passages[3].headings = vec!["harbour dues".to_owned()];
    let found = scores(&real().await, "ferry harbour dues pier", &passages).await;
    for (score, share) in found.iter().zip([0.75, 0.25, 0.0, 0.75]) {
        let wanted = 1.0 / (1.0 + f64::exp(4.0 - 8.0 * share));
        assert!((score - wanted).abs() < 1e-5, "{score} for a share of {share}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_nobody_waits_for_does_not_hold_up_the_next() {
    let reranker = real().await;
    let (tenant, text) = (TenantId::fresh(), "calm water of the harbour ".repeat(100));
    let read = |count: usize| reranker.rerank(tenant, "harbour", vec![texts(&[&text]).remove(0); count]);
    let given_up = tokio::time::timeout(Duration::from_millis(20), read(4_000)).await;
    assert!(given_up.is_err());
    let next = tokio::time::timeout(Duration::from_secs(20), read(1)).await;
    assert_eq!(next.unwrap().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_a_usable_model_is_refused() {
    let config = config().await;
    let folder = tempfile::tempdir().unwrap();
    let load = |model_dir: &Path| {
        FastReranker::load(&FastRerankerConfig { model_dir: model_dir.to_owned(), ..config.clone() })
    };
    assert_eq!(load(folder.path()).err().unwrap().code, Code::PartMissing);
    for name in ["tokenizer.json", "config.json", "special_tokens_map.json", "tokenizer_config.json"] {
        std::fs::copy(files().join(name), folder.path().join(name)).unwrap();
    }
    std::fs::create_dir(folder.path().join("onnx")).unwrap();
    std::fs::write(folder.path().join("onnx/model.onnx"), b"not a graph").unwrap();
    assert_eq!(load(folder.path()).err().unwrap().code, Code::ConfigInvalid);
    std::fs::copy(files().join("model.onnx"), folder.path().join("onnx/model.onnx")).unwrap();
    assert!(load(folder.path()).is_ok());
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(load(folder.path()).err().unwrap().code, Code::PartMissing);
}
