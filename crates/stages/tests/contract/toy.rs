//! A stage that joins: this file is the one new file, `.with(Toy)` the one line.

use super::bench::Bench;
use docmill_model::manifest::Manifest;
use docmill_runtime::pipeline;
use docmill_runtime::{JobContext, Stage, StageError};

/// Counts nothing, loudly.
struct Toy;

#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ToyConfig {
    volume: u32,
}

#[async_trait::async_trait]
impl Stage for Toy {
    const NAME: &'static str = "toy";
    const VERSION: u32 = 1;
    type Config = ToyConfig;
    type Prepared = ();

    async fn run(&self, _: &JobContext, config: &ToyConfig) -> Result<Manifest, StageError> {
        let mut manifest = Manifest::default();
        manifest.facts.insert("volume".to_owned(), config.volume.into());
        Ok(manifest)
    }

    async fn prepare(&self, _: &JobContext, _: &ToyConfig, _: &Manifest) -> Result<(), StageError> {
        Ok(())
    }

    async fn commit(&self, _: &mut sqlx::PgConnection, _: &JobContext, _: &Manifest, (): ()) -> Result<(), StageError> {
        Ok(())
    }
}

pub fn a_new_stage_is_one_file_and_one_line(bench: &Bench) {
    let registry = docmill_stages::stages(bench.deps.clone()).with(Toy).build();
    let file = "name: noisy\nstages:\n  ingest: {}\n  toy: {after: [ingest], settings: {volume: 11}}\n";
    let parsed = pipeline::parse("noisy.yaml", file, &registry, &|name| Err(format!("no schema {name}"))).unwrap();
    assert_eq!(parsed.stage("toy").unwrap().settings["volume"], 11);
    assert!(
        registry.schema()["properties"]["stages"]["properties"]["toy"].is_object(),
        "the published schema knows it"
    );
    assert!(bench.registry.get("toy").is_none());
    println!("test a_new_stage_is_one_file_and_one_line ... ok");
}
