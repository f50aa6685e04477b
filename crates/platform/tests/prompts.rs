//! The registry of prompts in a real database: versions that never change, rollouts, history, rollback.
#![allow(clippy::unwrap_used)]

use docmill_model::{Code, PrincipalId, TenantId};
use docmill_platform::gateway::prompts::evaluations::{newest, record};
use docmill_platform::gateway::prompts::registry::{history, roll_back, roll_out, versions};
use docmill_platform::gateway::prompts::{Prompt, Prompts, Rule, Share};
use docmill_testkit::{World, world};

fn prompt(version: i32, words: &str) -> Prompt {
    let text =
        format!("name: greet\nversion: {version}\ndescription: Greets.\n\n# system\n{words}\n# user\n{{{{name}}}}\n");
    Prompt::parse(&text).unwrap()
}

async fn apply(world: &World, rule: Rule) -> Result<(), docmill_model::Failure> {
    let tenant = world.tenant().await;
    let written = world.database.write(tenant, move |connection| {
        Box::pin(async move { roll_out(connection, "greet", &rule, PrincipalId::fresh()).await })
    });
    written.await.map_err(Into::into)
}

async fn back(world: &World) -> Result<Rule, docmill_model::Failure> {
    let tenant = world.tenant().await;
    let written = world.database.write(tenant, |connection| {
        Box::pin(async move { roll_back(connection, "greet", PrincipalId::fresh()).await })
    });
    written.await.map_err(Into::into)
}

/// A process that starts now.
async fn fresh(world: &World, files: Vec<Prompt>) -> Prompts {
    Prompts::register(world.database.clone(), files).await.unwrap()
}

async fn version(prompts: &Prompts, tenant: TenantId) -> i32 {
    prompts.choose("greet", tenant, "input").await.unwrap().version
}

#[tokio::test]
async fn versions_are_immutable_and_new_ones_wait_for_their_rollout() {
    let world = world().await;
    let tenant = world.tenant().await;
    let prompts = fresh(&world, vec![prompt(1, "Hello.")]).await;
    assert_eq!(version(&prompts, tenant).await, 1);
    let changed = Prompts::register(world.database.clone(), vec![prompt(1, "Good day.")]).await.err().unwrap();
    assert!(changed.code == Code::ConfigInvalid && changed.message.contains("greet@1"), "{changed}");
    let prompts = fresh(&world, vec![prompt(1, "Hello."), prompt(2, "Good day.")]).await;
    assert_eq!(version(&prompts, tenant).await, 1, "a file alone changes nothing");
    assert_eq!(prompts.choose("unknown", tenant, "").await.unwrap_err().code, Code::ConfigInvalid);
    let rows = world.database.read(tenant, |connection| Box::pin(async move { Ok(versions(connection, None).await?) }));
    assert_eq!(rows.await.unwrap().iter().map(|row| row.version).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_rollout_reaches_tenants_and_shares_and_a_rollback_goes_one_further_each_time() {
    let world = world().await;
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    let files = || vec![prompt(1, "Hello."), prompt(2, "Good day."), prompt(3, "Dear reader.")];
    fresh(&world, vec![prompt(1, "Hello.")]).await;
    let first = fresh(&world, files()).await.fingerprint("greet");
    let mut rule = Rule::all(1);
    rule.tenants.insert(tenant, 2);
    apply(&world, rule).await.unwrap();
    let prompts = fresh(&world, files()).await;
    assert_eq!((version(&prompts, tenant).await, version(&prompts, other).await), (2, 1));
    apply(&world, Rule { share: Some(Share { version: 3, percent: 100 }), ..Rule::all(2) }).await.unwrap();
    let prompts = fresh(&world, files()).await;
    assert_eq!((version(&prompts, tenant).await, version(&prompts, other).await), (3, 3));

    assert_eq!(back(&world).await.unwrap().tenants.get(&tenant), Some(&2));
    assert_eq!(back(&world).await.unwrap(), Rule::all(1));
    assert_eq!(
        fresh(&world, files()).await.fingerprint("greet"),
        first,
        "back at an earlier rule nothing differs from then"
    );
    assert_eq!(back(&world).await.unwrap_err().code, Code::Conflict);
    let rows =
        world.database.read(tenant, |connection| Box::pin(async move { Ok(history(connection, "greet").await?) }));
    assert_eq!(rows.await.unwrap().len(), 5, "nothing of the history is lost");

    assert_eq!(apply(&world, Rule::all(9)).await.unwrap_err().code, Code::FieldInvalid);
    let share = Rule { share: Some(Share { version: 2, percent: 101 }), ..Rule::all(1) };
    assert_eq!(apply(&world, share).await.unwrap_err().limit, Some(100));
}

#[tokio::test]
async fn a_running_process_follows() {
    let world = world().await;
    let tenant = world.tenant().await;
    let prompts = fresh(&world, vec![prompt(1, "Hello."), prompt(2, "Good day.")]).await;
    assert_eq!(version(&prompts, tenant).await, 2, "the first start takes the highest version");
    apply(&world, Rule::all(1)).await.unwrap();
    docmill_testkit::eventually("the rule is in effect", std::time::Duration::from_secs(60), || async {
        version(&prompts, tenant).await == 1
    })
    .await;
}

#[tokio::test]
async fn a_pinned_version_is_used_by_whoever_pinned_it_and_nobody_else() {
    let world = world().await;
    let tenant = world.tenant().await;
    fresh(&world, vec![prompt(1, "Hello.")]).await;
    let prompts = fresh(&world, vec![prompt(1, "Hello."), prompt(2, "Good day.")]).await;
    let pinned = prompts.pinned("greet", 2).await.unwrap();
    assert_eq!((version(&pinned, tenant).await, version(&prompts, tenant).await), (2, 1));
    let unknown = prompts.pinned("greet", 3).await.err().unwrap();
    assert!(unknown.code == Code::FieldInvalid && unknown.message.contains("greet has no version 3"), "{unknown}");
    assert_eq!(prompts.names(), ["greet"]);
}

#[tokio::test]
async fn of_what_a_version_measured_the_newest_of_each_suite_file_counts() {
    let world = world().await;
    let tenant = world.tenant().await;
    fresh(&world, vec![prompt(1, "Hello."), prompt(2, "Good day.")]).await;
    let suites = |value: f64| serde_json::json!([{"suite": "faq", "measures": [{"name": "f1", "value": value}]}]);
    let failed = ["faq.f1 < 0.5: faq.f1 is 0.4000".to_owned()];
    for (version, evaluation, value, failed) in
        [(2, "nightly", 0.4, &failed[..]), (2, "nightly", 0.6, &[]), (2, "weekly", 0.7, &[]), (1, "nightly", 0.5, &[])]
    {
        record(&world.database, "greet", version, evaluation, &suites(value), failed).await.unwrap();
    }
    assert!(record(&world.database, "greet", 3, "nightly", &suites(0.9), &[]).await.is_err(), "no such version");
    let rows =
        world.database.read(tenant, |connection| Box::pin(async move { Ok(newest(connection, "greet").await?) }));
    let rows = rows.await.unwrap();
    let kept: Vec<_> = rows.iter().map(|row| (row.version, row.evaluation.as_str(), row.suites.clone())).collect();
    assert_eq!(kept, [(2, "nightly", suites(0.6)), (2, "weekly", suites(0.7)), (1, "nightly", suites(0.5))]);
    assert!(rows.iter().all(|row| row.failed.is_empty()));
}
