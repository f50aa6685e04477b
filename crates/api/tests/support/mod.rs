//! The API over a world of its own: the router that production serves, real Postgres and a real object store.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod corpus;
mod scan;

pub use corpus::{Published, chunks, parsed, publish, publish_hiding};
pub use scan::MARKER;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use docmill_api::documents::pages::PageImages;
use docmill_api::keys::{self, KeyRequest};
use docmill_api::limits::Rate;
use docmill_api::state::ApiParts;
use docmill_api::{ApiConfig, ApiState, Readiness};
use docmill_model::document::Rect;
use docmill_model::manifest::Manifest;
use docmill_model::scope::Scope;
use docmill_model::{Failure, TenantId};
use docmill_platform::embedder::{Embedder, Embedders, HashEmbedder};
use docmill_platform::feed::{self, Op};
use docmill_platform::gateway::prompts::{Prompt, Prompts};
use docmill_platform::gateway::{Gateway, GatewayConfig};
use docmill_retrieval::answers::{Generator, Models};
use docmill_retrieval::{
    Answers, AnswersConfig, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search, SearchConfig,
};
use docmill_runtime::pipeline::Pipelines;
use docmill_runtime::registry::Registry;
use docmill_runtime::{JobContext, Stage, StageError};
use docmill_testkit::World;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

pub const PEPPER: &str = "pepper of the tests";

const PIPELINE: &str = "
name: default
schedules:
  nightly: {cron: \"0 3 * * *\", max_documents: 1}
stages:
  ingest: {}
";

/// A stage that does nothing; no worker runs here.
struct Ingest;

#[async_trait::async_trait]
impl Stage for Ingest {
    const NAME: &'static str = "ingest";
    const VERSION: u32 = 1;
    type Config = BTreeMap<String, String>;
    type Prepared = ();

    async fn run(&self, _: &JobContext, _: &Self::Config) -> Result<Manifest, StageError> {
        Ok(Manifest::default())
    }

    async fn prepare(&self, _: &JobContext, _: &Self::Config, _: &Manifest) -> Result<(), StageError> {
        Ok(())
    }

    async fn commit(&self, _: &mut sqlx::PgConnection, _: &JobContext, _: &Manifest, (): ()) -> Result<(), StageError> {
        Ok(())
    }
}

/// Says what would be drawn.
struct WrittenPages;

#[async_trait::async_trait]
impl PageImages for WrittenPages {
    async fn draw(&self, file: Bytes, number: u32, scale: f32, marked: Vec<Rect>) -> Result<Vec<u8>, Failure> {
        let boxes: Vec<_> = marked.iter().map(|rect| (rect.x0, rect.y0, rect.x1, rect.y1)).collect();
        Ok(format!("page {number} of {} bytes at {scale}, marked {boxes:?}", file.len()).into_bytes())
    }
}

/// A running API.
pub struct Api {
    pub world: World,
    pub state: ApiState,
    pub router: Router,
    pub lexical: Arc<LexicalIndexes>,
    pub lexical_folder: tempfile::TempDir,
}

/// A tenant with one key.
pub struct Tenant {
    pub id: TenantId,
    pub key: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn code(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        self.json()["code"].as_str().unwrap().to_owned()
    }

    /// The status and code of an error.
    pub fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.code())
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

/// A rate no test reaches.
pub fn config() -> ApiConfig {
    ApiConfig { rate: Rate { per_sec: 1e6, burst: 1e6 }, ..ApiConfig::default() }
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub async fn start_with(config: ApiConfig) -> Self {
        Self::over(docmill_testkit::world().await, config).await
    }

    pub async fn over(world: World, config: ApiConfig) -> Self {
        Self::with_models(world, config, None).await
    }

    /// With models that word answers.
    pub async fn with_models(world: World, config: ApiConfig, gateway: Option<GatewayConfig>) -> Self {
        let generator = gateway.map(|gateway| -> Arc<dyn Generator> {
            let gateway = Gateway::new(gateway, world.database.clone()).unwrap();
            Arc::new(Models::new(Arc::new(gateway), Prompts::of_files(Prompt::committed().unwrap())))
        });
        let registry = Arc::new(Registry::builder().with(Ingest).build());
        let pipelines = Pipelines::from_text(PIPELINE, &registry).unwrap();
        pipelines.register(&world.database).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lexical = LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap();
        let second: Arc<dyn Embedder> = Arc::new(HashEmbedder::with_dimensions(64));
        let embedders = Embedders::new(world.embedder.clone(), BTreeMap::from([("second".to_owned(), second)]));
        let search = Search::new(world.database.clone(), embedders, lexical.clone(), SearchConfig::default());
        let answers = Answers::new(search.clone(), world.artifacts.clone(), generator, AnswersConfig::default());
        let state = ApiState::new(ApiParts {
            database: world.database.clone(),
            artifacts: world.artifacts.clone(),
            pipelines: Arc::new(pipelines),
            registry,
            search,
            answers,
            pages: Arc::new(WrittenPages),
            pepper: SecretString::from(PEPPER),
            readiness: Readiness::default(),
            metrics: None,
            config,
        });
        Self { world, router: docmill_api::router(state.clone()), state, lexical, lexical_folder: folder }
    }

    /// Follows the feed of the lexical index until the guard is dropped; a document is indexed once `announce`d.
    pub fn follow(&self) -> DropGuard {
        let stop = CancellationToken::new();
        let config = FollowerConfig { idle_after: Duration::from_millis(100), ..FollowerConfig::new("test") };
        let follower = Follower::new(self.world.database.clone(), self.lexical.clone(), config);
        tokio::spawn(follower.run(stop.clone()));
        stop.drop_guard()
    }

    /// Puts generations on the feed, as the index stage does.
    pub async fn announce(&self, tenant: TenantId, generations: Vec<uuid::Uuid>) {
        let put = self.world.database.write(tenant, move |connection| {
            Box::pin(async move { feed::append(connection, Op::Add, &generations).await })
        });
        put.await.unwrap();
    }

    /// Whether the files of the tenant's lexical index hold a word, also one of removed chunks: they are compressed, so
    /// its dictionary is asked. A word that it does not hold weighs as much as one that nobody ever wrote.
    pub async fn is_in_files(&self, tenant: TenantId, word: &str) -> bool {
        let weight = async |word: &str| {
            let words = self.lexical.weigh(tenant, word.to_owned()).await.unwrap();
            words.first().map(|word| word.weight)
        };
        weight(word).await != weight("qwxzvbnmk").await
    }

    /// Ids of the documents that a search of words finds; none while the index is being built.
    pub async fn found(&self, key: &str, words: &str) -> Vec<String> {
        let body = serde_json::json!({"query": words, "mode": "lexical"});
        let found = self.post(key, "/v1/search", &body).await;
        if found.text.contains("is being rebuilt") {
            return Vec::new();
        }
        let found = found.ok();
        let hits = found["hits"].as_array().unwrap_or_else(|| panic!("no hits: {found}"));
        hits.iter().map(|hit| hit["document_id"].as_str().unwrap().to_owned()).collect()
    }

    /// A fresh tenant with a key of every scope.
    pub async fn tenant(&self) -> Tenant {
        let id = self.world.tenant().await;
        Tenant { id, key: self.key(id, &Scope::ALL, &[]).await }
    }

    pub async fn key(&self, tenant: TenantId, scopes: &[Scope], labels: &[&str]) -> String {
        let request = KeyRequest {
            tenant_id: tenant,
            name: "test".to_owned(),
            scopes: scopes.to_vec(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            expires_at: None,
        };
        let new = keys::create(&self.world.database, &SecretString::from(PEPPER), request).await.unwrap();
        new.secret.expose_secret().to_owned()
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub async fn get(&self, key: &str, path: &str) -> Reply {
        self.send(request(Method::GET, path, key, None)).await
    }

    pub async fn delete(&self, key: &str, path: &str) -> Reply {
        self.send(request(Method::DELETE, path, key, None)).await
    }

    pub async fn post(&self, key: &str, path: &str, body: &Value) -> Reply {
        self.send(request(Method::POST, path, key, Some(body))).await
    }

    /// Declares, PUTs and completes `bytes`; gives the document's id.
    pub async fn upload(&self, key: &str, name: &str, bytes: &[u8]) -> String {
        let created = self.post(key, "/v1/documents", &declaration(name, bytes)).await.ok();
        put(&created["upload"], bytes).await;
        let id = created["id"].as_str().unwrap().to_owned();
        self.post(key, &format!("/v1/documents/{id}/complete"), &Value::Null).await.ok();
        id
    }
}

pub fn request(method: Method, path: &str, key: &str, body: Option<&Value>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
    match body {
        Some(body) => {
            builder.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap()
        }
        None => builder.body(Body::empty()).unwrap(),
    }
}

pub fn declaration(name: &str, bytes: &[u8]) -> Value {
    let sha256 = docmill_model::Sha256Hex::of(bytes);
    serde_json::json!({"name": name, "content_type": "text/plain", "size": bytes.len(), "sha256": sha256})
}

/// Sends the bytes as the signed URL wants them.
pub async fn put(upload: &Value, bytes: &[u8]) {
    let status = put_status(upload, bytes).await;
    assert!((200..300).contains(&status), "the store answered {status}");
}

pub async fn put_status(upload: &Value, bytes: &[u8]) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut request = reqwest::Client::new().put(upload["url"].as_str().unwrap()).body(bytes.to_vec());
    // The length is the one of the bytes that are sent; a client that claims another would send only a part.
    for (name, value) in upload["headers"].as_object().unwrap().iter().filter(|(name, _)| *name != "content-length") {
        request = request.header(name, value.as_str().unwrap());
    }
    request.send().await.unwrap().status().as_u16()
}
