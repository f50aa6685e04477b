//! Defaults, file and environment become one [`Config`].

use super::Config;
use docmill_model::{Code, Failure};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const DEFAULTS: &str = include_str!("../../../../deploy/local/defaults.yaml");

/// How the text of a variable is read.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Switch,
    List,
}

use Kind::{List, Number, Switch, Text};

/// Every variable with the setting it fills.
const VARIABLES: &[(&str, &str, Kind)] = &[
    ("DOCMILL_LISTEN", "listen", Text),
    ("DOCMILL_DATA_DIR", "data_dir", Text),
    ("DOCMILL_PIPELINES", "pipelines", Text),
    ("DOCMILL_PEPPER", "pepper", Text),
    ("DOCMILL_DATABASE_URL", "database.url", Text),
    ("DOCMILL_DATABASE_ENGINE_URL", "database.engine_url", Text),
    ("DOCMILL_DATABASE_OWNER_URL", "database.owner_url", Text),
    ("DOCMILL_DATABASE_MAX_CONNECTIONS", "database.max_connections", Number),
    ("DOCMILL_DATABASE_ACQUIRE_TIMEOUT", "database.acquire_timeout", Text),
    ("DOCMILL_NATS_URL", "nats.url", Text),
    ("DOCMILL_NATS_STREAM_PREFIX", "nats.stream_prefix", Text),
    ("DOCMILL_S3_ENDPOINT", "s3.endpoint", Text),
    ("DOCMILL_S3_PUBLIC_ENDPOINT", "s3.public_endpoint", Text),
    ("DOCMILL_S3_REGION", "s3.region", Text),
    ("DOCMILL_S3_BUCKET", "s3.bucket", Text),
    ("DOCMILL_S3_ACCESS_KEY", "s3.access_key", Text),
    ("DOCMILL_S3_SECRET_KEY", "s3.secret_key", Text),
    ("DOCMILL_S3_PATH_STYLE", "s3.path_style", Switch),
    ("DOCMILL_S3_EXPIRE_UPLOADS_DAYS", "s3.expire_uploads_days", Number),
    ("DOCMILL_ENGINE_LEASE", "engine.lease", Text),
    ("DOCMILL_ENGINE_GRACE", "engine.grace", Text),
    ("DOCMILL_FAILPOINTS", "engine.failpoints", List),
    ("DOCMILL_EMBEDDING_PROVIDER", "embedding.provider", Text),
    ("DOCMILL_MODEL_DIR", "embedding.model_dir", Text),
    ("DOCMILL_ONNXRUNTIME", "embedding.onnxruntime", Text),
    ("DOCMILL_EMBEDDING_THREADS", "embedding.threads", Number),
    ("DOCMILL_PDFIUM", "parsing.pdfium", Text),
    ("DOCMILL_TESSERACT", "parsing.tesseract", Text),
    ("DOCMILL_TESSDATA", "parsing.tessdata", Text),
    ("DOCMILL_PARSING_SLOTS", "parsing.slots", Number),
    ("DOCMILL_LANDLOCK_REQUIRED", "parsing.landlock_required", Switch),
    ("DOCMILL_SEARCH_CACHE_MIB", "search.cache_mib", Number),
    ("DOCMILL_RERANK", "search.rerank", Switch),
    ("DOCMILL_RERANK_MODEL_DIR", "search.rerank_model_dir", Text),
    ("DOCMILL_RERANK_CANDIDATES", "search.rerank_candidates", Number),
    ("DOCMILL_RERANK_TIMEOUT", "search.rerank_timeout", Text),
    ("DOCMILL_RERANK_THREADS", "search.rerank_threads", Number),
    ("DOCMILL_RATE_PER_SEC", "api.rate_per_sec", Number),
    ("DOCMILL_RATE_BURST", "api.burst", Number),
    ("DOCMILL_CORS_ORIGINS", "api.cors_origins", List),
    ("DOCMILL_METRICS_TOKEN", "api.metrics_token", Text),
    ("DOCMILL_OPERATOR_TENANT", "api.operator_tenant", Text),
    ("DOCMILL_ALLOW_PRIVATE_WEBHOOKS", "api.allow_private_webhooks", Switch),
    ("DOCMILL_LLM_BASE_URL", "llm.base_url", Text),
    ("DOCMILL_LLM_API_KEY", "llm.api_key", Text),
    ("DOCMILL_LLM_MODEL", "llm.model", Text),
    ("DOCMILL_LOG_FORMAT", "log.format", Text),
    ("DOCMILL_LOG", "log.filter", Text),
];

/// Variables that are no settings of the roles: where the home is, how the client connects, where tests look.
const OTHERS: &[&str] = &["DOCMILL_HOME", "DOCMILL_CONFIG", "DOCMILL_URL", "DOCMILL_API_KEY", "DOCMILL_CORPORA"];

fn invalid(message: String) -> Failure {
    Failure::new(Code::ConfigInvalid, message)
}

/// The settings of this process.
///
/// # Errors
/// `CONFIG_INVALID` naming the setting, the file or the variable.
pub fn load(file: Option<&Path>) -> Result<Config, Failure> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| invalid(format!("cannot read {}: {e}", path.display())))
    };
    let named = std::env::var_os("DOCMILL_CONFIG").map(PathBuf::from);
    let file = file.map(Path::to_owned).or(named);
    let file = file.map(|path| Ok::<_, Failure>((path.display().to_string(), text(&path)?))).transpose()?;
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("DOCMILL_"));
    merge(file, variables)
}

fn merge(file: Option<(String, String)>, variables: impl Iterator<Item = (String, String)>) -> Result<Config, Failure> {
    let mut tree: Value = serde_saphyr::from_str(DEFAULTS).map_err(|e| invalid(format!("the defaults: {e}")))?;
    if let Some((name, text)) = file {
        let given: Option<Map<String, Value>> =
            serde_saphyr::from_str(&text).map_err(|e| invalid(format!("{name}: {e}")))?;
        overlay(&mut tree, Value::Object(given.unwrap_or_default()), &name, "")?;
    }
    for (name, text) in variables {
        if OTHERS.contains(&name.as_str()) {
            continue;
        }
        let Some((_, path, kind)) = VARIABLES.iter().find(|(known, ..)| *known == name) else {
            return Err(invalid(format!("there is no setting {name}; deploy/local/defaults.yaml lists all")));
        };
        // An empty variable is how compose files and shells say "not set".
        if !text.is_empty()
            && let Some(place) = tree.pointer_mut(&format!("/{}", path.replace('.', "/")))
        {
            *place = read(&name, &text, *kind)?;
        }
    }
    serde_json::from_value(tree).map_err(|e| invalid(format!("the configuration cannot be used: {e}")))
}

/// Settings that hold free keys of their own.
const FREE: [&str; 5] = ["engine.slots", "embedding.models", "llm.uses", "llm.limits", "llm.rollouts"];

fn overlay(tree: &mut Value, given: Value, source: &str, at: &str) -> Result<(), Failure> {
    match (tree, given) {
        (Value::Object(known), Value::Object(given)) if !FREE.contains(&at) => {
            for (key, value) in given {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let place = known.get_mut(&key);
                let place = place.ok_or_else(|| invalid(format!("{source}: there is no setting `{path}`")))?;
                overlay(place, value, source, &path)?;
            }
            Ok(())
        }
        (Value::Object(known), Value::Object(given)) => {
            given.into_iter().for_each(|(key, value)| put(known, key, value));
            Ok(())
        }
        (place, given) => {
            *place = given;
            Ok(())
        }
    }
}

/// Sets a free key. Of settings by use, those that are not named keep their default, also beside a plain list of models.
fn put(known: &mut Map<String, Value>, key: String, value: Value) {
    match (known.get_mut(&key), value) {
        (Some(Value::Object(settings)), Value::Object(given)) => settings.extend(given),
        (Some(Value::Object(settings)), models @ Value::Array(_)) => {
            settings.insert("models".to_owned(), models);
        }
        (_, value) => {
            known.insert(key, value);
        }
    }
}

fn read(name: &str, text: &str, kind: Kind) -> Result<Value, Failure> {
    match kind {
        Text => Ok(Value::String(text.to_owned())),
        Number => serde_json::from_str::<serde_json::Number>(text)
            .map(Value::Number)
            .map_err(|_| invalid(format!("{name}: a number is expected"))),
        Switch => match text {
            "true" | "1" | "yes" | "on" => Ok(Value::Bool(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Bool(false)),
            _ => Err(invalid(format!("{name}: true or false is expected"))),
        },
        List => Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use secrecy::ExposeSecret;
    use std::time::Duration;

    fn with(file: &str, variables: &[(&str, &str)]) -> Result<Config, Failure> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        merge((!file.is_empty()).then(|| ("a.yaml".to_owned(), file.to_owned())), variables)
    }

    #[test]
    fn the_defaults_are_complete_and_every_variable_has_a_setting() {
        let config = with("", &[]).unwrap();
        assert_eq!(config.engine.lease, Duration::from_secs(10));
        let tree: Value = serde_saphyr::from_str(DEFAULTS).unwrap();
        for (name, path, _) in VARIABLES {
            assert!(tree.pointer(&format!("/{}", path.replace('.', "/"))).is_some(), "{name} fills nothing");
            assert!(DEFAULTS.contains(&format!("# {name}")), "{name} is not documented");
        }
    }

    #[test]
    fn a_variable_wins_over_the_file_which_wins_over_the_default() {
        let file = "s3: {bucket: one}\nengine: {lease: 3s, slots: {ingest: 4}}\n";
        let config =
            with(file, &[("DOCMILL_S3_BUCKET", "two"), ("DOCMILL_PEPPER", "123"), ("DOCMILL_LLM_MODEL", "")]).unwrap();
        assert_eq!((config.s3.bucket.as_str(), config.engine.lease), ("two", Duration::from_secs(3)));
        assert_eq!(config.engine.slots["ingest"], 4);
        assert_eq!(config.pepper.unwrap().expose_secret(), "123");
        assert!(config.llm.model.is_none());
    }

    #[test]
    fn a_use_has_models_and_patience_of_its_own_and_answers_are_sooner_than_the_request_ends() {
        let total = |config: &Config, used_for: &str| config.llm.uses[used_for].0.total_timeout.unwrap();
        let config = with("", &[]).unwrap();
        let both = total(&config, "answers") + total(&config, "rewrite");
        assert!(both < docmill_api::limits::REQUEST_TIMEOUT, "{both:?}");

        let file = "llm: {uses: {answers: [a/b, extractive], rewrite: {tries: 1, total_timeout: 3s}, extract: {models: [c/d]}}}";
        let config = with(file, &[]).unwrap();
        let of = |used_for: &str| config.llm.uses[used_for].0.clone();
        assert_eq!(of("answers").models.unwrap(), ["a/b", "extractive"]);
        assert_eq!(total(&config, "answers"), Duration::from_secs(25), "a list leaves the rest as it was");
        assert_eq!((of("rewrite").tries, total(&config, "rewrite")), (Some(1), Duration::from_secs(3)));
        assert_eq!(of("rewrite").try_timeout, Some(Duration::from_secs(5)));
        assert_eq!((of("extract").models.unwrap(), of("extract").total_timeout), (vec!["c/d".to_owned()], None));
    }

    #[test]
    fn a_further_embedding_model_has_settings_of_its_own() {
        let config = with("embedding: {models: {e5: {model_dir: /e5, query_prefix: 'query: '}}}", &[]).unwrap();
        let model = &config.embedding.models["e5"];
        assert_eq!((model.query_prefix.as_str(), model.max_tokens), ("query: ", 256));
        assert_eq!(model.pooling, docmill_platform::embedder::Pooling::Mean);
        let refused = with("embedding: {models: {e5: {modeldir: /e5}}}", &[]).unwrap_err();
        assert!(refused.message.contains("modeldir"), "{refused}");
    }

    #[test]
    fn what_is_unknown_or_of_another_type_is_refused_by_name() {
        for (file, variable, expected) in [
            ("s3: {buckt: a}", ("DOCMILL_LOG", "info"), "`s3.buckt`"),
            ("", ("DOCMILL_S3_BUKET", "a"), "DOCMILL_S3_BUKET"),
            ("", ("DOCMILL_PARSING_SLOTS", "many"), "a number is expected"),
            ("", ("DOCMILL_S3_PATH_STYLE", "maybe"), "true or false"),
            ("log: {format: loud}", ("DOCMILL_LOG", "info"), "loud"),
            ("- a\n", ("DOCMILL_LOG", "info"), "a.yaml"),
            ("llm: {uses: {answers: {patience: 1s}}}", ("DOCMILL_LOG", "info"), "patience"),
            ("llm: {uses: {answers: fast}}", ("DOCMILL_LOG", "info"), "a list of models"),
        ] {
            let failure = with(file, &[variable]).unwrap_err();
            assert!(failure.message.contains(expected), "{failure}");
        }
    }
}
