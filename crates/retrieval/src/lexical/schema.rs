//! The fields of a tenant's lexical index, and how a chunk becomes a document of it.
//!
//! No text is stored: a hit is a chunk id, and Postgres says what the chunk holds and who may see it.

use super::analysis::{analyse, language_of};
use docmill_model::{ChunkId, DocumentId, GenerationId};
use tantivy::schema::{FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions};
use tantivy::{TantivyDocument, Term};

/// Part of the directory name: an index of another layout is never opened, it is rebuilt beside it.
pub(super) const LAYOUT: &str = "v3";

/// A chunk as it is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LexicalChunk {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Its document, by which a search is narrowed: unlike the generation it outlives a new version.
    pub document_id: DocumentId,
    /// Its document's collection, which never changes.
    pub collection: String,
    /// Its generation, by which it is removed.
    pub generation_id: GenerationId,
    /// The words.
    pub text: String,
    /// Titles above it, the document's title and file name.
    pub headings: Vec<String>,
    /// ISO 639-3 language; detected from the text when absent.
    pub language: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub document: Field,
    pub collection: Field,
    pub generation: Field,
    pub chunk_high: Field,
    pub chunk_low: Field,
    pub language: Field,
    pub words: Field,
    pub stems: Field,
    pub headings: Field,
}

/// Names of the two halves of the chunk id, for the fast-field readers.
pub(super) const CHUNK_HIGH: &str = "chunk_high";
pub(super) const CHUNK_LOW: &str = "chunk_low";

impl Fields {
    /// The schema and its fields.
    pub fn schema() -> (Schema, Fields) {
        let mut builder = Schema::builder();
        let indexed = |option| {
            TextOptions::default()
                .set_indexing_options(TextFieldIndexing::default().set_tokenizer("whitespace").set_index_option(option))
        };
        let fields = Fields {
            document: builder.add_bytes_field("document", INDEXED),
            collection: builder.add_bytes_field("collection", INDEXED),
            generation: builder.add_bytes_field("generation", INDEXED),
            chunk_high: builder.add_u64_field(CHUNK_HIGH, FAST),
            chunk_low: builder.add_u64_field(CHUNK_LOW, FAST),
            language: builder.add_text_field("language", STRING),
            words: builder.add_text_field("words", indexed(IndexRecordOption::WithFreqsAndPositions)),
            stems: builder.add_text_field("stems", indexed(IndexRecordOption::WithFreqs)),
            headings: builder.add_text_field("headings", indexed(IndexRecordOption::WithFreqs)),
        };
        (builder.build(), fields)
    }

    /// The term that removes a generation.
    pub fn generation_term(&self, generation: GenerationId) -> Term {
        Term::from_field_bytes(self.generation, generation.0.as_bytes())
    }

    /// The term that narrows to a document.
    pub fn document_term(&self, document: DocumentId) -> Term {
        Term::from_field_bytes(self.document, document.0.as_bytes())
    }

    /// The term that narrows to a collection.
    pub fn collection_term(&self, collection: &str) -> Term {
        Term::from_field_bytes(self.collection, collection.as_bytes())
    }

    /// A chunk as an index document.
    pub fn document(&self, chunk: &LexicalChunk) -> TantivyDocument {
        let language = language_of(chunk.language.as_deref(), &chunk.text).unwrap_or("und");
        let body = analyse(&chunk.text, Some(language));
        let headings = analyse(&chunk.headings.join("\n"), Some(language));
        let (high, low) = chunk.chunk_id.0.as_u64_pair();
        let mut document = TantivyDocument::new();
        document.add_bytes(self.document, chunk.document_id.0.as_bytes());
        document.add_bytes(self.collection, chunk.collection.as_bytes());
        document.add_bytes(self.generation, chunk.generation_id.0.as_bytes());
        document.add_u64(self.chunk_high, high);
        document.add_u64(self.chunk_low, low);
        document.add_text(self.language, language);
        document.add_text(self.words, body.words.join(" "));
        document.add_text(self.stems, [headings.stems.as_slice(), &body.stems].concat().join(" "));
        document.add_text(self.headings, headings.stems.join(" "));
        document
    }
}
