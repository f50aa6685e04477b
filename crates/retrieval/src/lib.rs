//! Retrieval: from a question to passages a caller may see, and from passages to an answer that can be checked.
//!
//! Two halves look in parallel, BM25 over tantivy ([`lexical`]) and cosine over pgvector ([`dense`]); [`search`] fuses
//! them and lets one Postgres snapshot decide what is visible. [`answers`] cites exact spans of canonical text.
//! [`follower`] keeps the lexical index a projection of Postgres that can be lost at any time. [`spaces`] builds, switches
//! and drops embedding spaces. [`eval`] holds the measures. Not here: writing chunks and vectors of documents (the
//! stages'), HTTP (the API's).

pub mod among;
pub mod answers;
pub mod audit;
pub mod caller;
pub mod dense;
pub mod eval;
pub mod filters;
pub mod follower;
pub mod lexical;
pub mod search;
pub mod spaces;

pub use answers::{Answer, AnswerRequest, Answers, AnswersConfig};
pub use caller::Caller;
pub use filters::Filters;
pub use follower::{Follower, FollowerConfig};
pub use lexical::{LexicalConfig, LexicalIndexes};
pub use search::{Search, SearchConfig, SearchRequest, SearchResponse};
