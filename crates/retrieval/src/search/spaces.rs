//! Which embedding space a search compares in: question and rows are of one space, whatever is switched meanwhile.
//!
//! The question is embedded for the space that was active at the last look. The snapshot then says which space it is about;
//! when that is another one, the question is embedded again. So a search in the
//! active space costs no transaction more unless that was just switched, and never mixes two.

use super::{Search, SearchMode, SearchRequest};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::embedder::Space;
use futures::future::{self, BoxFuture, FutureExt, Shared};
use sqlx::PgConnection;
use std::sync::{PoisonError, RwLock};

/// The space that was active at the last look.
#[derive(Debug, Default)]
pub(super) struct KnownSpace(RwLock<Option<Space>>);

impl KnownSpace {
    fn get(&self) -> Option<Space> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, space: &Space) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(space.clone());
    }
}

/// A question on its way to its vector, which is made once for all who wait for it; none where it is not wanted.
pub(super) type Question = Shared<BoxFuture<'static, Option<Result<Vec<f32>, Failure>>>>;

impl Search {
    /// The space for `request` as far as it is known; `None` for a search by words alone.
    pub(super) async fn space(&self, tenant: TenantId, request: &SearchRequest) -> Result<Option<Space>, Failure> {
        if self.pinned.is_some() && request.mode != SearchMode::Lexical {
            return Ok(self.pinned.clone());
        }
        // One without a model here is looked up every time: the snapshot of a search without a vector says nothing of it.
        let is_useful = |known: &Space| {
            request.space.is_none() && request.mode != SearchMode::Lexical && self.embedders.need(known).is_ok()
        };
        match self.known.get().filter(is_useful) {
            Some(known) => Ok(Some(known)),
            None => self.space_now(tenant, request).await,
        }
    }

    /// The space for `request` as the database has it.
    pub(super) async fn space_now(&self, tenant: TenantId, request: &SearchRequest) -> Result<Option<Space>, Failure> {
        if request.mode == SearchMode::Lexical {
            return Ok(None);
        }
        let asked = request.clone();
        let read = self.database.read(tenant, |connection| Box::pin(async move { wanted(connection, &asked).await }));
        let space = read.await?;
        if request.space.is_none() {
            self.known.set(&space);
        }
        Ok(Some(space))
    }

    /// The question as a vector of `space`; begins when somebody waits for it.
    pub(super) fn question(&self, request: &SearchRequest, space: Option<&Space>) -> Question {
        let Some(space) = space else { return future::ready(None).boxed().shared() };
        let model = match self.embedders.need(space) {
            _ if self.pinned.is_some() => self.embedders.first().clone(),
            Ok(model) => model,
            Err(failure) => return future::ready(Some(Err(failure))).boxed().shared(),
        };
        let (search, text) = (self.clone(), request.query.clone());
        async move { Some(search.in_time(model.embed_query(&text)).await) }.boxed().shared()
    }
}

/// The space `request` names, or the active one.
async fn wanted(connection: &mut PgConnection, request: &SearchRequest) -> Result<Space, DbError> {
    let Some(name) = &request.space else { return Ok(Space::active(connection).await?) };
    let space = Space::named(connection, name).await?.filter(Space::is_standing);
    let space = space.ok_or_else(|| Failure::new(Code::SpaceUnknown, "there is no embedding space of this name"))?;
    if space.state == "building" && !space.is_active {
        return Err(Failure::new(Code::SpaceIncomplete, "this embedding space is still being built").into());
    }
    Ok(space)
}

/// True when `space` is the one `request` is about in this snapshot.
pub(super) async fn is_still(
    connection: &mut PgConnection,
    request: &SearchRequest,
    space: &Space,
) -> Result<bool, DbError> {
    Ok(wanted(connection, request).await?.is_same(space))
}
