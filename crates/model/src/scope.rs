//! What a principal may do.

/// A permission carried by an API key or token.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
pub enum Scope {
    /// Create, complete, list and delete documents.
    #[serde(rename = "upload")]
    Upload,
    /// Search and ask.
    #[serde(rename = "query")]
    Query,
    /// See and steer jobs, replays, dead letters; never document text.
    #[serde(rename = "operate")]
    Operate,
    /// Read the text of documents: pages, chunks, extractions, summaries, dead-letter artifacts.
    #[serde(rename = "content:read")]
    ContentRead,
    /// Keys, endpoints and settings of the tenant.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope, in order.
    pub const ALL: [Scope; 5] = [Scope::Upload, Scope::Query, Scope::Operate, Scope::ContentRead, Scope::Admin];

    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Upload => "upload",
            Scope::Query => "query",
            Scope::Operate => "operate",
            Scope::ContentRead => "content:read",
            Scope::Admin => "admin",
        }
    }

    /// From the stored spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}
