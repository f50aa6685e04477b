//! The envelope on the wire. Bodies are ids only: an event is a doorbell, Postgres holds the facts.

use crate::{DocumentId, JobId, RunId, TenantId};

/// The version of [`JobEvent`] this build writes and reads.
pub const JOB_EVENT_VERSION: u16 = 1;

/// "This job may be ready": sent by the relay, consumed by the workers of one stage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobEvent {
    /// Envelope version.
    pub v: u16,
    /// Owner; checked again by row-level security at the claim.
    pub tenant_id: TenantId,
    /// The job to claim.
    pub job_id: JobId,
    /// Stage name; equals the last token of the subject.
    pub stage: String,
    /// Emission number; with the job id it forms the message id.
    pub emission: i32,
    /// W3C `traceparent` of the request that caused the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// "A run settled": for listeners outside, on the stream with limits retention.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunSettled {
    /// Envelope version.
    pub v: u16,
    /// Owner.
    pub tenant_id: TenantId,
    /// The document.
    pub document_id: DocumentId,
    /// The run.
    pub run_id: RunId,
    /// `done`, `partial`, `failed` or `cancelled`.
    pub state: String,
    /// Code of the failure, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
