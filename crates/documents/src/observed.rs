//! What is known of a parse besides its result: what the bytes are, and where the time went.

use docmill_model::document::Format;
use std::time::Duration;

/// What the bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Detected {
    /// Media type.
    pub media_type: String,
    /// The format in which they are read, unless they are refused.
    pub format: Option<Format>,
}

/// Where the time of a parse went, in milliseconds, all tries together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Steps {
    /// Waiting for a locked child.
    pub start_millis: u64,
    /// The child's own work.
    pub read_millis: u64,
    /// Recognition, for which the child waited.
    pub recognise_millis: u64,
    /// Taking over the result.
    pub decode_millis: u64,
}

/// What was observed of one parse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The type as declared: the media type, or else the name's extension.
    pub declared: Option<String>,
    /// What the bytes are; `None` when that cannot be said.
    pub detected: Option<Detected>,
    /// Where the time went.
    pub steps: Steps,
}

/// What was observed of one child.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// What it said of the bytes.
    pub detected: Option<Detected>,
    /// Time of its own work.
    pub own: Duration,
    /// Time during which it waited for recognition.
    pub recognising: Duration,
}

impl Observed {
    /// Adds what was seen of a child that took `start` to get.
    pub(crate) fn add(&mut self, start: Duration, sight: &Sight) {
        self.detected = sight.detected.clone().or(self.detected.take());
        self.steps.start_millis += millis(start);
        self.steps.read_millis += millis(sight.own);
        self.steps.recognise_millis += millis(sight.recognising);
    }
}

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
