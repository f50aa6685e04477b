//! What a provider's answer means: usable, or one of the ways not to be.
//!
//! Every dialect translates its answer into text, tokens and how it ended; what follows from those is decided here, for
//! all of them alike. The body itself is never part of a failure.

use docmill_model::{Code, Failure};
use std::time::Duration;

/// Tokens of one request. `cached` are part of `input`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cached: u64,
}

/// A usable answer.
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) usage: Usage,
}

/// Whether the same model is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Soon,
    After(Duration),
}

/// An unusable answer, or none.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) failure: Box<Failure>,
    pub(super) again: Again,
    /// For the ledger.
    pub(super) outcome: &'static str,
    /// True when it speaks against the provider's health.
    pub(super) counts: bool,
    /// Tokens, when the provider told.
    pub(super) usage: Option<Usage>,
    /// True when the provider may charge for it without having told the tokens.
    pub(super) may_be_charged: bool,
}

impl Fault {
    pub(super) fn new(outcome: &'static str, code: Code, message: impl Into<String>, again: Again) -> Self {
        let counts = again != Again::Never;
        Self {
            failure: Box::new(Failure::new(code, message)),
            again,
            outcome,
            counts,
            usage: None,
            may_be_charged: false,
        }
    }

    pub(super) fn charged(mut self) -> Self {
        self.may_be_charged = true;
        self
    }

    pub(super) fn used(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage;
        self
    }
}

/// The try took longer than allowed.
pub(super) fn timed_out() -> Fault {
    Fault::new("timeout", Code::ProviderError, "the model provider did not answer in time", Again::Soon).charged()
}

/// Nothing arrived for longer than a healthy stream pauses.
pub(super) fn stalled() -> Fault {
    Fault::new("stalled", Code::ProviderError, "the model's answer stopped coming", Again::Soon).charged()
}

/// The answer is not of the shape the dialect has.
pub(super) fn malformed() -> Fault {
    let message = "the model provider's answer is not the JSON it should be";
    Fault::new("malformed", Code::ProviderError, message, Again::Soon).charged()
}

/// The provider says error in the body of an answer that looked fine.
pub(super) fn error_inside() -> Fault {
    Fault::new("error", Code::ProviderError, "the model provider answered with an error", Again::Soon)
}

/// How the model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself.
    Whole,
    /// At the limit of output tokens.
    Length,
    /// The provider cut it for its content.
    Filtered,
    /// The model says that it will not.
    Refused,
    /// The connection ended before the answer did.
    Cut,
}

/// Text, tokens and end as one verdict; `estimated_input` stands in for tokens the provider does not tell.
pub(super) fn judge(text: String, end: End, told: Option<Usage>, estimated_input: u64) -> Result<Reply, Fault> {
    let refused = |outcome, message: &str| Fault::new(outcome, Code::ProviderRefused, message, Again::Never);
    match end {
        End::Whole if text.trim().is_empty() => {
            let message = "the model provider's answer is empty";
            Err(Fault::new("empty", Code::ProviderError, message, Again::Soon).used(told))
        }
        End::Whole => {
            let usage = told.unwrap_or(Usage { input: estimated_input, output: text.len() as u64 / 3 + 1, cached: 0 });
            Ok(Reply { text, usage })
        }
        End::Length => {
            let message = "the model's answer does not fit the output tokens allowed";
            Err(Fault::new("length", Code::OutputLimit, message, Again::Never).used(told).charged())
        }
        End::Filtered => Err(refused("filtered", "the model provider filtered the answer").used(told)),
        End::Refused => Err(refused("refused", "the model refused to answer").used(told)),
        End::Cut => {
            let message = "the model's answer broke off";
            Err(Fault::new("cut", Code::ProviderError, message, Again::Soon).used(told).charged())
        }
    }
}
