//! The test kit itself: worlds are complete, apart from each other, and leave nothing behind.
#![allow(clippy::unwrap_used)]

use docmill_embedded::checks::check_postgres;
use docmill_model::Code;
use docmill_platform::embedder::{Embedders, HashEmbedder, bind_space};
use docmill_testkit::{Fault, world};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::Instant;

#[tokio::test]
async fn a_world_has_a_migrated_database_and_a_store() {
    let started = Instant::now();
    let world = world().await;
    eprintln!("first world after {:.2?}", started.elapsed());
    let tenant = world.tenant().await;
    let reference = world.artifacts.put(tenant, "some bytes".into()).await.unwrap();
    assert_eq!(world.artifacts.get(tenant, &reference.sha256).await.unwrap(), "some bytes");
    let again = world.artifacts.put(tenant, "some bytes".into()).await.unwrap();
    assert_eq!(again.sha256, reference.sha256);
}

#[tokio::test]
async fn worlds_do_not_see_each_other() {
    let started = Instant::now();
    let (one, two) = tokio::join!(world(), world());
    eprintln!("two worlds after {:.2?}", started.elapsed());
    one.tenant().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tenants").fetch_one(two.database.engine()).await.unwrap();
    assert_eq!(count, 0);
    assert_ne!(one.stream_prefix, two.stream_prefix);
    let started = Instant::now();
    drop(one);
    eprintln!("dropped in {:.2?}", started.elapsed());
}

#[tokio::test]
async fn a_planned_fault_is_told_from_good_bytes() {
    let world = world().await;
    let tenant = world.tenant().await;
    let reference = world.artifacts.put(tenant, "some bytes".into()).await.unwrap();
    world.faults.plan(Fault::WrongBytes, 10);
    assert!(world.artifacts.get(tenant, &reference.sha256).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_could_pass_by_row_level_security_are_refused() {
    let world = world().await;
    let (app, engine, owner) = (world.app_url.clone(), world.engine_url.clone(), world.owner_url.clone());
    let check = |app: &secrecy::SecretString, engine: &secrecy::SecretString| {
        let (app, engine) = (app.clone(), engine.clone());
        tokio::task::spawn_blocking(move || check_postgres(app.expose_secret(), engine.expose_secret()))
    };
    check(&app, &engine).await.unwrap().unwrap();
    let refused = check(&owner, &engine).await.unwrap().unwrap_err();
    assert_eq!(refused.code, Code::ConfigInvalid);
    assert!(refused.message.contains("the app role owns tables"), "{}", refused.message);
    let refused = check(&app, &owner).await.unwrap().unwrap_err();
    assert!(refused.message.contains("the engine role owns tables"), "{}", refused.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_another_model_are_refused() {
    let world = world().await;
    let models = Embedders::from(Arc::new(HashEmbedder::new()));
    bind_space(&world.database, &models).await.unwrap();
    bind_space(&world.database, &models).await.unwrap();
    sqlx::query("UPDATE embedding_spaces SET fingerprint = 'another model'")
        .execute(world.database.engine())
        .await
        .unwrap();
    let refused = bind_space(&world.database, &models).await.unwrap_err();
    assert_eq!(refused.code, Code::ConfigInvalid);
    assert!(refused.message.contains("another model"), "{}", refused.message);
}
