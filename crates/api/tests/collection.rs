//! Collecting, killed at every point it has: nothing that is used goes, nothing that is not stays.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_lifecycle::collect::{self, Ages};
use docmill_lifecycle::{Counts, Stores, sweep};
use docmill_model::{Sha256Hex, VersionId};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::failpoints::{Action, Failpoints};
use docmill_platform::layout::{accepted_key, artifact_key, tenant_prefixes, upload_key};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{Api, Tenant, publish};

const AGES: Ages = Ages { unreferenced: Duration::ZERO, cached: Duration::ZERO };

/// Over the same services, with points that may be armed.
fn stores(api: &Api, failpoints: &Failpoints) -> Stores {
    let database = api.world.database.clone().with_failpoints(failpoints.clone());
    Stores { artifacts: Artifacts::new(database.clone(), api.world.blobs.clone()), database }
}

/// One of everything that nothing uses: as failed runs, replaced generations and late uploads leave it.
async fn leave(api: &Api, tenant: &Tenant, number: usize) {
    api.world.artifacts.put(tenant.id, format!("of a failed run {number}").into()).await.unwrap();
    let nothing = Sha256Hex::of(b"");
    let stray = Sha256Hex::of(format!("stray {number}").as_bytes());
    for key in [
        accepted_key(tenant.id, stray.as_str()),
        artifact_key(tenant.id, &stray),
        upload_key(tenant.id, VersionId::fresh()),
    ] {
        api.world.blobs.put(&key, bytes::Bytes::new(), &nothing).await.unwrap();
    }
    let rows = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            for sql in [
                "INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding, created_at)
                 SELECT current_tenant(), 1, sha256(('lost' || $1)::bytea), embedding, 'epoch' FROM vectors LIMIT 1",
                "INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count, state, retired_at)
                 SELECT current_tenant(), gen_random_uuid(), document_id, version_id, 'x' || $1, 0, 'retired', now() - interval '1 day'
                 FROM generations LIMIT 1",
                "INSERT INTO stage_cache (tenant_id, key, stage, manifest, used_at)
                 VALUES (current_tenant(), encode(sha256(('key' || $1)::bytea), 'hex'), 'chunk', '{\"artifacts\": {}}', 'epoch')",
            ] {
                sqlx::query(sql).bind(number.to_string()).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    rows.await.unwrap();
}

/// Every object, and how many rows there are of what is collected.
async fn everything(api: &Api, tenant: &Tenant) -> (BTreeSet<String>, Vec<i64>) {
    let mut keys = BTreeSet::new();
    for prefix in tenant_prefixes(tenant.id) {
        keys.extend(api.world.blobs.list(&prefix, None).await.unwrap().into_iter().map(|entry| entry.key));
    }
    let read = api.world.database.read(tenant.id, |connection| {
        Box::pin(async move {
            let counts = sqlx::query_scalar(
                "SELECT ARRAY[(SELECT count(*) FROM vectors), (SELECT count(*) FROM generations), (SELECT count(*) FROM artifacts),
                              (SELECT count(*) FROM stage_cache), (SELECT count(*) FROM condemned),
                              (SELECT count(*) FROM deletions WHERE finished_at IS NULL)]",
            );
            Ok(counts.fetch_one(connection).await?)
        })
    });
    (keys, read.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_dies_anywhere_ends_the_next_time_and_takes_nothing_that_is_used() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let kept = publish(&api, &tenant, "kept.txt", &["A passage in use.", "And another."]).await;
    let before = everything(&api, &tenant).await;
    let folder = tempfile::tempdir().unwrap();
    let recorder = Failpoints::default();
    recorder.record(folder.path().join("points"));
    leave(&api, &tenant, 0).await;
    assert_ne!(everything(&api, &tenant).await, before);
    let counts = collect::pass(&stores(&api, &recorder), tenant.id, AGES).await.unwrap();
    let expected =
        Counts { generations: 1, vectors: 1, cached_results: 1, artifacts: 2, objects: 4, ..Counts::default() };
    assert_eq!(counts, expected);
    assert_eq!(everything(&api, &tenant).await, before, "all of it went, and nothing else");

    let met = std::fs::read_to_string(folder.path().join("points")).unwrap();
    let points: Vec<&str> = met.lines().collect();
    for point in ["remove.before@upload", "remove.after@artifact", "remove.after@accepted"] {
        assert!(points.contains(&point), "{points:?}");
    }
    assert!(points.iter().filter(|point| point.contains("lifecycle/src/")).count() >= 10, "{points:?}");
    for (number, point) in points.into_iter().enumerate() {
        leave(&api, &tenant, number + 1).await;
        let mortal = Failpoints::default();
        assert!(mortal.arm(point, Action::Panic), "{point}");
        let dying = stores(&api, &mortal);
        let died = tokio::spawn(async move { collect::pass(&dying, tenant.id, AGES).await });
        assert!(died.await.unwrap_err().is_panic(), "{point} was met");
        let between = everything(&api, &tenant).await;
        assert!(before.0.is_subset(&between.0), "{point}: no object in use went");
        let text = api.get(&tenant.key, &format!("/v1/documents/{}/text", kept.document)).await.ok();
        assert_eq!(text["text"], "A passage in use.\n\nAnd another.", "{point}");
        let alive = stores(&api, &Failpoints::default());
        sweep::open_deletions(&alive, &Default::default()).await.unwrap();
        collect::pass(&alive, tenant.id, AGES).await.unwrap();
        assert_eq!(everything(&api, &tenant).await, before, "{point}: what was left is gone");
    }
}
