//! Settings become how searches are done, and the reranking model they may use.

use crate::assembly::blocking;
use crate::config::Config;
use docmill_model::{Code, Failure};
use docmill_platform::reranker::{FastReranker, FastRerankerConfig, Reranker};
use docmill_retrieval::SearchConfig;
use docmill_retrieval::search::RerankConfig;
use std::sync::Arc;

/// Most candidates that may be read again.
const MAX_CANDIDATES: usize = 100;

/// The reranking model, where one is configured and `needed`.
///
/// # Errors
/// `PART_MISSING` or `CONFIG_INVALID` for files that cannot be used; `CONFIG_INVALID` naming a setting.
pub async fn reranker(config: &Config, needed: bool) -> Result<Option<Arc<dyn Reranker>>, Failure> {
    let search = &config.search;
    check(search.rerank_candidates, search.rerank && search.rerank_model_dir.is_none())?;
    let Some(folder) = search.rerank_model_dir.clone().filter(|_| needed) else { return Ok(None) };
    let settings = FastRerankerConfig {
        onnxruntime: Config::need(&config.embedding.onnxruntime, "DOCMILL_ONNXRUNTIME")?.clone(),
        model_dir: folder,
        threads: search.rerank_threads,
    };
    Ok(Some(Arc::new(blocking(move || FastReranker::load(&settings)).await?)))
}

fn check(candidates: usize, lacks_model: bool) -> Result<(), Failure> {
    let invalid = |what: &str| Err(Failure::new(Code::ConfigInvalid, what));
    if lacks_model {
        return invalid("DOCMILL_RERANK is on without a model; set DOCMILL_RERANK_MODEL_DIR to the folder of one");
    }
    if !(1..=MAX_CANDIDATES).contains(&candidates) {
        return invalid("DOCMILL_RERANK_CANDIDATES must be between 1 and 100");
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
        for (candidates, lacks_model, ok) in
            [(1, false, true), (100, false, true), (0, false, false), (101, false, false), (20, true, false)]
        {
            assert_eq!(check(candidates, lacks_model).is_ok(), ok, "{candidates} {lacks_model}");
        }
    }
}
