//! An index node that follows the feed, with its search.

use super::{World, eventually};
use docmill_model::TenantId;
use docmill_retrieval::{Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search, SearchConfig};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A running index node with its search.
pub struct Node {
    pub id: String,
    pub lexical: Arc<LexicalIndexes>,
    pub search: Search,
    pub directory: tempfile::TempDir,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub async fn start(world: &World) -> Self {
        Self::start_in(world, tempfile::tempdir().unwrap(), super::patient()).await
    }

    pub async fn start_in(world: &World, directory: tempfile::TempDir, config: SearchConfig) -> Self {
        let id = format!("node-{}", uuid::Uuid::new_v4());
        let lexical = LexicalIndexes::new(LexicalConfig::new(directory.path())).unwrap();
        let follower = Follower::new(world.database.clone(), lexical.clone(), FollowerConfig::new(&id));
        let (stop, status) = (CancellationToken::new(), follower.status());
        let task = tokio::spawn(follower.run(stop.clone()));
        let search = Search::new(world.database.clone(), world.embedder.clone(), lexical.clone(), config);
        let search = search.following(status.clone());
        eventually("the node is in rotation", || async { status.is_live() }).await;
        Self { id, lexical, search, directory, stop, task }
    }

    /// Waits until the node has applied everything that was written for `tenant`.
    pub async fn caught_up(&self, world: &World, tenant: TenantId) {
        eventually("the watermark reaches the head", || async {
            let behind: bool = sqlx::query_scalar(
                "SELECT coalesce((SELECT w.seq FROM index_watermarks w WHERE w.node_id = $1 AND w.tenant_id = h.tenant_id), -1) < h.seq
                 FROM index_heads h WHERE h.tenant_id = $2",
            )
            .bind(&self.id)
            .bind(tenant.0)
            .fetch_one(world.database.engine())
            .await
            .unwrap();
            !behind
        })
        .await;
    }

    pub async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.task.await.unwrap();
        self.directory
    }
}
