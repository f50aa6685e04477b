//! A word that stands in every kind of store while its document does, and in none after the deletion.

use super::{Api, Published, Tenant};
use docmill_testkit::eventually;
use std::time::Duration;
use tokio_util::sync::DropGuard;

/// The word.
pub const MARKER: &str = "Beeblebrox";
const PATIENCE: Duration = Duration::from_secs(90);

impl Api {
    /// Has documents with the marker in the index of words too, which is followed until the guard is dropped.
    pub async fn index(&self, tenant: &Tenant, published: &[&Published]) -> DropGuard {
        let following = self.follow();
        self.announce(tenant.id, published.iter().map(|one| one.generation).collect()).await;
        eventually("the words are indexed", PATIENCE, || async { !self.found(&tenant.key, MARKER).await.is_empty() })
            .await;
        assert!(self.is_in_files(tenant.id, MARKER).await);
        following
    }

    /// Asserts that the scan sees the marker in each of `places`.
    pub async fn holds_marker(&self, places: &[&str]) {
        let found = self.marked().await;
        for place in places {
            assert!(found.iter().any(|found| found.contains(place)), "the scan sees {place}: {found:?}");
        }
    }

    /// Asserts that no table, object or file of the object store holds the marker, and waits for the files of the index of
    /// words.
    pub async fn holds_no_marker(&self) {
        assert_eq!(self.world.places_of(MARKER, &[]).await, Vec::<String>::new());
        eventually("the word is gone from every store", PATIENCE, || async { self.marked().await.is_empty() }).await;
    }

    /// The same, and that the compressed dictionaries of a tenant's index of words do not hold it either.
    pub async fn holds_no_marker_of(&self, tenant: &Tenant) {
        eventually("the word is gone from the files of the lexical index", PATIENCE, || async {
            !self.is_in_files(tenant.id, MARKER).await
        })
        .await;
        self.holds_no_marker().await;
    }

    async fn marked(&self) -> Vec<String> {
        self.world.places_of(MARKER, &[self.lexical_folder.path()]).await
    }
}
