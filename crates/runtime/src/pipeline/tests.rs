//! Pipeline files: what they mean, and what is refused with place and reason.

use super::*;
use crate::stage::{JobContext, Stage, StageError};
use docmill_model::manifest::Manifest;
use serde_json::json;

macro_rules! stage {
    ($name:ident, $text:literal, $config:ty, $remembered:literal) => {
        struct $name;
        #[async_trait::async_trait]
        impl Stage for $name {
            const NAME: &'static str = $text;
            const VERSION: u32 = 1;
            type Config = $config;
            type Prepared = ();
            fn cacheable(&self) -> bool {
                $remembered
            }
            async fn run(&self, _: &JobContext, _: &Self::Config) -> Result<Manifest, StageError> {
                Ok(Manifest::default())
            }
            async fn prepare(&self, _: &JobContext, _: &Self::Config, _: &Manifest) -> Result<(), StageError> {
                Ok(())
            }
            async fn commit(
                &self,
                _: &mut sqlx::PgConnection,
                _: &JobContext,
                _: &Manifest,
                _: (),
            ) -> Result<(), StageError> {
                Ok(())
            }
        }
    };
}

/// Settings of a toy stage.
#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Sized {
    /// How many.
    target: u32,
}

impl Default for Sized {
    fn default() -> Self {
        Self { target: 180 }
    }
}

/// Settings that name a schema.
#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Shaped {
    schema: Option<String>,
}

/// No settings.
#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

stage!(Ingest, "ingest", Nothing, true);
stage!(Chunk, "chunk", Sized, true);
stage!(Extract, "extract", Shaped, true);
stage!(Notify, "notify", Nothing, false);

fn registry() -> Registry {
    Registry::builder().with(Ingest).with(Chunk).with(Extract).with(Notify).build()
}

const FILE: &str = "\
name: default
description: everything
stages:
  notify:  {when: settled}
  extract: {after: [ingest], required: false, settings: {schema: general}}
  chunk:
    after: [ingest]
    settings:
      target: 200
  ingest:
";

fn read(text: &str) -> Result<Pipeline, Failure> {
    parse("p.yaml", text, &registry(), &|name| Ok(json!({"title": name})))
}

fn refusal(text: &str) -> String {
    let failure = read(text).expect_err("refused");
    assert_eq!(failure.code, Code::PipelineInvalid);
    failure.message
}

#[test]
fn a_file_becomes_a_sorted_pipeline_with_full_settings() {
    let pipeline = read(FILE).expect("valid");
    let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["ingest", "extract", "chunk", "notify"]);
    assert_eq!(pipeline.stage("chunk").map(|stage| stage.settings.clone()), Some(json!({"target": 200})));
    assert_eq!(pipeline.stage("ingest").map(|stage| stage.settings.clone()), Some(json!({})));
    assert!(pipeline.stage("notify").is_some_and(|stage| stage.on_settled && !stage.required));
    assert_eq!(pipeline.schemas.get("general"), Some(&json!({"title": "general"})));
    assert_eq!(pipeline.ancestors("chunk").into_iter().collect::<Vec<_>>(), ["ingest"]);
    assert_eq!(pipeline.ancestors("notify").len(), 3);
    assert_eq!(pipeline.descendants("ingest").into_iter().collect::<Vec<_>>(), ["chunk", "extract"]);
}

#[test]
fn the_version_follows_the_content() {
    let one = read(FILE).expect("valid");
    assert_eq!(one.version.len(), 64);
    assert_eq!(one.version, read(&FILE.replace("target: 200", "target:   200 # same")).expect("valid").version);
    assert_ne!(one.version, read(&FILE.replace("200", "201")).expect("valid").version);
    let other = parse("p.yaml", FILE, &registry(), &|_| Ok(json!({"title": "changed"}))).expect("valid");
    assert_ne!(one.version, other.version, "the schema's content is part of it");
    let (mine, theirs) = (one.stage("extract").expect("a stage"), other.stage("extract").expect("a stage"));
    assert_ne!(one.settings_hash(mine), other.settings_hash(theirs), "and of the cache key");
    let stored = Pipeline::from_definition(&one.version, &one.definition()).expect("readable");
    assert_eq!(stored, one, "what is stored is the whole pipeline");
}

#[test]
fn mistakes_are_refused_where_they_stand() {
    let table = [
        ("name: x\nstages: {ingest: {}}\ncolour: red\n", "p.yaml:3:1: ", "colour"),
        ("name: x\nstages:\n  ingest: {afterwards: []}\n", "p.yaml:3:12: ", "afterwards"),
        ("name: x\nstages:\n  ingest: {}\n  embbed: {after: [ingest]}\n", "p.yaml:4:3: ", "unknown stage `embbed`"),
        (
            "name: x\nstages:\n  ingest: {}\n  chunk: {after: [ingest], settings: {\n    size: 5}}\n",
            "p.yaml:5:5: ",
            "size",
        ),
        ("name: x\nstages:\n  chunk: {settings: {target: many}}\n", "p.yaml:3:21: ", "invalid type"),
        (
            "name: x\nstages:\n  ingest: {after: [chunk]}\n  chunk: {after: [ingest]}\n",
            "p.yaml:3:3: ",
            "wait for each other",
        ),
        ("name: x\nstages:\n  chunk: {after: [ingest]}\n", "p.yaml:3:3: ", "not in this pipeline"),
        ("name: x\nstages:\n  ingest: {when: later}\n", "p.yaml:3:18: ", "later"),
        ("name: x\nstages:\n  ingest: {}\n  notify: {when: settled, after: [ingest]}\n", "p.yaml:4:3: ", "keep one"),
        (
            "name: x\nstages:\n  ingest: {required: false}\n  chunk: {after: [ingest]}\n",
            "p.yaml:4:3: ",
            "comes after optional",
        ),
        ("name: x\nstages:\n  notify: {when: settled}\n", "p.yaml:3:3: ", "at least one stage"),
        ("name: Bad Name\nstages: {ingest: {}}\n", "p.yaml:1:7: ", "`name`"),
        ("name: x\nstages: {}\n", "p.yaml:1:1: ", "at least one stage"),
        ("name: [\n", "p.yaml:", ""),
    ];
    for (text, place, part) in table {
        let message = refusal(text);
        assert!(message.starts_with(place) && message.contains(part), "{text}\n  gave {message}");
    }
    let twice = refusal("name: x\nstages:\n  ingest: {}\n  ingest: {}\n");
    assert!(twice.contains("p.yaml:4:") && twice.to_lowercase().contains("ingest"), "{twice}");
}

#[test]
fn schedules_are_policy_and_mistakes_in_them_are_refused_where_they_stand() {
    let plain = read(FILE).expect("valid");
    let text = format!(
        "{FILE}\nschedules:\n  nightly: {{cron: \"30 2 * * mon-fri\", stage: chunk, recompute: true, max_cost_usd: 2.5}}\n"
    );
    let scheduled = read(&text).expect("valid");
    assert_eq!(scheduled.version, plain.version, "no part of the version");
    let nightly = &scheduled.schedules["nightly"];
    assert_eq!((nightly.cron.as_str(), nightly.wanted.max_documents), ("30 2 * * mon-fri", 1000));
    let validator = jsonschema::validator_for(&registry().schema()).expect("a JSON Schema");
    assert!(validator.is_valid(&serde_saphyr::from_str::<Value>(&text).expect("YAML")));
    for (entry, part) in [
        ("nightly: {cron: \"30 2 * *\"}", "`cron`: five fields are expected"),
        ("nightly: {cron: \"0 0 31 4 *\"}", "this day never comes"),
        ("nightly: {cron: \"0 0 * * *\", stage: lunch}", "`stage`: the pipeline has no stage lunch"),
        ("nightly: {cron: \"0 0 * * *\", recompute: true}", "`recompute` needs `stage`"),
        ("nightly: {cron: \"0 0 * * *\", embed_into: second}", "`embed_into`: the pipeline has no stage embed"),
        ("nightly: {cron: \"0 0 * * *\", status: good}", "`status`"),
        ("nightly: {cron: \"0 0 * * *\", max_documents: 0}", "`max_documents` is 1 to 100000"),
        ("nightly: {cron: \"0 0 * * *\", max_cost_usd: -1}", "`max_cost_usd`"),
        ("nightly: {cron: \"0 0 * * *\", per_minute: 0}", "`per_minute`"),
        ("nightly: {cron: \"0 0 * * *\", older_than_days: 40000}", "`older_than_days`"),
        ("nightly: {cron: \"0 0 * * *\", every: 7d}", "every"),
        ("nightly: {stage: ingest}", "cron"),
        ("Night: {cron: \"0 0 * * *\"}", "schedule `Night`"),
    ] {
        let message = refusal(&format!("name: x\nstages: {{ingest: {{}}}}\nschedules:\n  {entry}\n"));
        assert!(message.starts_with("p.yaml:4:") && message.contains(part), "{entry}\n  gave {message}");
    }
}

#[test]
fn nothing_is_computed_anew_by_force_where_nothing_is_remembered() {
    let text = |stage: &str| {
        format!(
            "name: x\nstages: {{ingest: {{}}, notify: {{when: settled}}}}\nschedules:\n  nightly: {{cron: \"0 0 * * *\", stage: {stage}, recompute: true}}\n"
        )
    };
    assert!(read(&text("ingest")).is_ok());
    let message = refusal(&text("notify"));
    assert!(
        message.starts_with("p.yaml:4:") && message.contains("`recompute` does nothing for stage notify"),
        "{message}"
    );

    let pipelines = Pipelines::from_text("name: x\nstages: {ingest: {}}\n", &registry()).expect("valid");
    let replayed = |stage: &str| {
        let filter =
            crate::replay::ReplayFilter { stage: Some(stage.to_owned()), recompute: true, ..Default::default() };
        crate::replay::check(&registry(), &pipelines, &filter)
    };
    assert!(replayed("ingest").is_ok());
    assert_eq!(replayed("notify").expect_err("refused").code, Code::FieldInvalid);
}

#[test]
fn a_schema_that_is_missing_is_refused_at_the_settings() {
    let missing = parse("p.yaml", FILE, &registry(), &|name| Err(format!("schema `{name}` is missing")));
    let message = missing.expect_err("refused").message;
    assert!(message.starts_with("p.yaml:5:"), "{message}");
}

#[test]
fn a_file_at_its_size_limit_and_one_byte_past_it() {
    let limit = 256 * 1024;
    let fill = |size: usize| {
        let head = "name: x\nstages: {ingest: {}}\n# ";
        format!("{head}{}", "x".repeat(size - head.len()))
    };
    assert!(read(&fill(limit)).is_ok());
    let past = read(&fill(limit + 1)).expect_err("refused");
    assert_eq!((past.limit, past.measured), (Some(limit as u64), Some(limit as u64 + 1)));
}

#[test]
fn pictures() {
    let pipeline = read(FILE).expect("valid");
    let drawn = pipeline.ascii();
    let (_, graph) = drawn.split_once('\n').expect("a title line");
    assert_eq!(
        graph,
        "└─ ingest\n   ├─ extract  (optional)\n   └─ chunk\nthen notify, when everything above has ended\n"
    );
    assert_eq!(
        pipeline.mermaid(),
        "flowchart LR\n  ingest[ingest]\n  extract[extract?]\n  chunk[chunk]\n  notify([notify])\n  ingest -.-> extract\n  \
         ingest --> chunk\n  extract -. settled .-> notify\n  chunk -. settled .-> notify\n"
    );
}

#[test]
fn the_published_schema_accepts_the_file_and_refuses_mistakes() {
    let schema = registry().schema();
    let validator = jsonschema::validator_for(&schema).expect("a JSON Schema");
    let as_json = |text: &str| serde_saphyr::from_str::<Value>(text).expect("YAML");
    assert!(validator.is_valid(&as_json(FILE)));
    for mistake in
        [FILE.replace("target:", "size:"), FILE.replace("settled", "later"), FILE.replace("chunk:", "lunch:")]
    {
        assert!(!validator.is_valid(&as_json(&mistake)), "{mistake}");
    }
}
