//! Whether an index on disk is what was committed, bit for bit as far as an answer depends on it.
//!
//! tantivy checks the sums it keeps with its files only when asked to: opened as it is, a file in which one bit has
//! changed answers with other passages, or with fewer, and nothing says so. Its list of segments has no sum, so that one
//! is held against what it lists.

use super::schema::CHUNK_HIGH;
use std::path::Path;
use tantivy::error::DataCorruption;
use tantivy::index::SegmentComponent;
use tantivy::{Index, Searcher, TantivyError};

/// Files that every segment has.
const COMPONENTS: [SegmentComponent; 6] = [
    SegmentComponent::Postings,
    SegmentComponent::Positions,
    SegmentComponent::Terms,
    SegmentComponent::Store,
    SegmentComponent::FastFields,
    SegmentComponent::FieldNorms,
];

/// Reads every file of the index in `directory`, to which nobody writes meanwhile.
///
/// # Errors
/// `DataCorruption` when something differs; whatever tantivy says of files it cannot read.
pub(super) fn check(index: &Index, searcher: &Searcher, directory: &Path) -> tantivy::Result<()> {
    list(index, directory)?;
    for meta in index.searchable_segment_metas()? {
        let removals = meta.has_deletes().then_some(SegmentComponent::Delete);
        // All of them: an index without its positions opens, and then fails at every question.
        for component in COMPONENTS.into_iter().chain(removals) {
            if !index.directory().validate_checksum(&meta.relative_path(component))? {
                return Err(differs("a file has another checksum"));
            }
        }
        let reader = searcher.segment_readers().iter().find(|reader| reader.segment_id() == meta.id());
        let reader = reader.ok_or_else(|| differs("a listed segment is not there"))?;
        let chunks = reader.fast_fields().u64(CHUNK_HIGH)?.num_docs();
        if chunks != meta.max_doc() || reader.num_deleted_docs() != meta.num_deleted_docs() {
            return Err(differs("a segment holds another number of chunks than is listed"));
        }
    }
    Ok(())
}

/// The list of segments says nothing but what is understood of it: a key that became another would be passed over.
fn list(index: &Index, directory: &Path) -> tantivy::Result<()> {
    let unreadable = |error: serde_json::Error| TantivyError::SystemError(error.to_string());
    let metas = index.load_metas()?;
    let mut understood = serde_json::to_vec_pretty(&metas).map_err(unreadable)?;
    understood.push(b'\n');
    // Removals are listed when there are some; with none, those there are would not be read.
    let listed = serde_json::to_value(&metas.segments).map_err(unreadable)?;
    let mut removals = listed.as_array().into_iter().flatten().map(|segment| &segment["deletes"]);
    if understood != std::fs::read(directory.join("meta.json"))?
        || removals.any(|removed| !removed.is_null() && removed["num_deleted_docs"] == 0)
    {
        return Err(differs("the list of segments was changed"));
    }
    Ok(())
}

fn differs(what: &str) -> TantivyError {
    TantivyError::DataCorruption(DataCorruption::comment_only(what))
}
