//! How many tokens of the embedding model a text has.
//!
//! The tokenizer file of the model comes with truncation and padding; both are off here, or every long text would seem
//! to fit. Not here: splitting text (the chunk stage's).

use docmill_model::{Code, Failure};
use std::path::Path;
use tokenizers::Tokenizer;

/// How many tokens the embedding model sees of a text, its two special tokens included.
pub const WINDOW: usize = 256;

/// Counts tokens.
pub struct TokenCounter(Counter);

enum Counter {
    Model(Box<Tokenizer>),
    Words,
}

impl TokenCounter {
    /// The counter of the model in `model_dir`, by its `tokenizer.json`.
    ///
    /// # Errors
    /// `PART_MISSING` when there is no such file, `CONFIG_INVALID` when it cannot be read.
    pub fn load(model_dir: &Path) -> Result<Self, Failure> {
        let path = model_dir.join("tokenizer.json");
        let bytes = std::fs::read(&path)
            .map_err(|error| Failure::new(Code::PartMissing, format!("cannot read {}: {error}", path.display())))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|_| Failure::new(Code::ConfigInvalid, format!("{} is not a tokenizer", path.display())))?;
        let off = tokenizer.with_padding(None).with_truncation(None).is_ok();
        if !off {
            return Err(Failure::new(
                Code::ConfigInvalid,
                format!("{} cannot be used without truncation", path.display()),
            ));
        }
        Ok(Self(Counter::Model(Box::new(tokenizer))))
    }

    /// One token for each word between blanks: for tests without a model.
    #[must_use]
    pub fn words() -> Self {
        Self(Counter::Words)
    }

    /// Tokens of `text`, special tokens included: the model sees the whole text exactly when this is at most [`WINDOW`].
    /// Text that cannot be tokenized counts one a byte, which is never too few.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        match &self.0 {
            Counter::Model(tokenizer) => {
                tokenizer.encode_fast(text, true).map_or(text.len(), |encoding| encoding.len())
            }
            Counter::Words => text.split_whitespace().count(),
        }
    }
}
