//! Settings become how searches are done, and the cross-encoder they may use.

use crate::assembly::blocking;
use crate::config::Config;
use docmill_model::{Code, Failure};
use docmill_platform::reranker::{FastReranker, FastRerankerConfig, Reranker};
use docmill_retrieval::SearchConfig;
use docmill_retrieval::search::RerankConfig;
use std::sync::Arc;

/// Most candidates that may be read again.
const MAX_CANDIDATES: usize = 100;

/// The cross-encoder, where one is configured and `needed`.
///
/// # Errors
/// `PART_MISSING` or `CONFIG_INVALID` for files that cannot be used; `CONFIG_INVALID` naming a setting.
pub async fn reranker(config: &Config, needed: bool) -> Result<Option<Arc<dyn Reranker>>, Failure> {
    let search = &config.search;
    check(search.rerank_candidates)?;
    let Some(folder) = search.rerank_model_dir.clone().filter(|_| needed) else { return Ok(None) };
    let settings = FastRerankerConfig {
        onnxruntime: Config::need(&config.embedding.onnxruntime, "DOCMILL_ONNXRUNTIME")?.clone(),
        model_dir: folder,
        threads: search.rerank_threads,
    };
    Ok(Some(Arc::new(blocking(move || FastReranker::load(&settings)).await?)))
}

fn check(candidates: usize) -> Result<(), Failure> {
    if !(1..=MAX_CANDIDATES).contains(&candidates) {
        return Err(Failure::new(Code::ConfigInvalid, "DOCMILL_RERANK_CANDIDATES must be between 1 and 100"));
    }
    Ok(())
}

/// How searches are done.
pub fn settings(config: &Config, model: Option<Arc<dyn Reranker>>) -> SearchConfig {
    let search = &config.search;
    let rerank = RerankConfig {
        model,
        is_default: search.rerank,
        candidates: search.rerank_candidates,
        timeout: search.rerank_timeout,
        slots: search.rerank_threads.max(1),
    };
    SearchConfig { rerank, cache_bytes: (search.cache_mib as usize) << 20, ..SearchConfig::default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::check;

    #[test]
    fn settings_that_cannot_hold_are_refused() {
        for (candidates, ok) in [(1, true), (100, true), (0, false), (101, false)] {
            assert_eq!(check(candidates).is_ok(), ok, "{candidates}");
        }
    }
}
