//! Who asks: the identity every retrieval is bound to.
//!
//! There is no search without a caller, and nothing a request says can widen what its caller may see.

use docmill_model::{PrincipalId, TenantId};

/// The authenticated asker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant whose documents are searched; row-level security is set from it.
    pub tenant_id: TenantId,
    /// Who acts; stored with answers.
    pub principal_id: PrincipalId,
    /// Access labels held. A document with labels is visible only to callers that hold one of them.
    pub labels: Vec<String>,
}
