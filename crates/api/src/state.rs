//! What every handler shares: the services below, handed in by the binary, and the settings of the HTTP side.

use crate::documents::pages::PageImages;
use crate::limits::{Intake, Limits, MAX_CONCURRENT_REQUESTS, REQUEST_TIMEOUT, Rate};
use crate::prompts::gate::RolloutGate;
use docmill_lifecycle::Stores;
use docmill_model::TenantId;
use docmill_platform::artifacts::Artifacts;
use docmill_platform::blobs::Blobs;
use docmill_platform::database::Database;
use docmill_retrieval::follower::FollowerStatus;
use docmill_retrieval::{Answers, Search};
use docmill_runtime::BrokerStatus;
use docmill_runtime::backlog::Looks;
use docmill_runtime::pipeline::Pipelines;
use docmill_runtime::registry::Registry;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Settings of the HTTP side.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Longest handling of one request before `REQUEST_TIMEOUT`.
    pub request_timeout: Duration,
    /// Requests handled at once before `OVERLOADED`.
    pub max_concurrent_requests: usize,
    /// What one principal may ask for.
    pub rate: Rate,
    /// Web origins that browsers may call from; empty means none.
    pub cors_origins: Vec<String>,
    /// When set, `/metrics` wants it as bearer token.
    pub metrics_token: Option<SecretString>,
    /// True lets webhooks point at private addresses; for the embedded stack only.
    pub allow_private_webhooks: bool,
    /// The tenant whose `operate` keys may act on the whole installation (pause a stage, examine all tenants). Without
    /// one, every operator is bound to its own tenant.
    pub operator_tenant: Option<TenantId>,
    /// Told by `/readyz` in the header `docmill-instance`, so that whoever started this process can tell it from another
    /// one on the same port.
    pub instance: Option<String>,
    /// By prompt, what a version has to pass before it is rolled out.
    pub rollout_gates: BTreeMap<String, RolloutGate>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            request_timeout: REQUEST_TIMEOUT,
            max_concurrent_requests: MAX_CONCURRENT_REQUESTS,
            rate: Rate { per_sec: 50.0, burst: 200.0 },
            cors_origins: Vec::new(),
            metrics_token: None,
            allow_private_webhooks: false,
            operator_tenant: None,
            instance: None,
            rollout_gates: BTreeMap::new(),
        }
    }
}

/// What `/readyz` looks at besides the database.
#[derive(Clone, Default)]
pub struct Readiness {
    /// The broker connection. Uploads and questions work without a broker, so it is shown, not required.
    pub broker: Option<BrokerStatus>,
    /// The lexical index node of this process; out of rotation means not ready.
    pub index: Option<FollowerStatus>,
}

/// The services a router is built over.
pub struct ApiParts {
    /// Postgres.
    pub database: Database,
    /// Artifacts, over the object store.
    pub artifacts: Artifacts,
    /// Configured pipelines.
    pub pipelines: Arc<Pipelines>,
    /// The stages of this installation.
    pub registry: Arc<Registry>,
    /// Hybrid search.
    pub search: Search,
    /// Cited answers.
    pub answers: Answers,
    /// Draws pages of documents.
    pub pages: Arc<dyn PageImages>,
    /// Secret of the installation under which keys are hashed and cursors signed.
    pub pepper: SecretString,
    /// What readiness depends on.
    pub readiness: Readiness,
    /// Renders `/metrics`; without one the route answers 404.
    pub metrics: Option<PrometheusHandle>,
    /// Settings.
    pub config: ApiConfig,
}

/// State of every handler; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Postgres.
    pub database: Database,
    /// Artifacts.
    pub artifacts: Artifacts,
    /// The object store.
    pub blobs: Arc<dyn Blobs>,
    /// Configured pipelines.
    pub pipelines: Arc<Pipelines>,
    /// The stages of this installation.
    pub registry: Arc<Registry>,
    /// Hybrid search.
    pub search: Search,
    /// Cited answers.
    pub answers: Answers,
    /// Draws pages of documents.
    pub pages: Arc<dyn PageImages>,
    /// Secret under which keys are hashed and cursors signed.
    pub pepper: Arc<SecretString>,
    /// Rates of the principals.
    pub limits: Arc<Limits>,
    /// Turns of uploads.
    pub intake: Arc<Intake>,
    /// Looks at the backlog.
    pub backlogs: Arc<Looks>,
    /// What readiness depends on.
    pub readiness: Readiness,
    /// Renders `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// Settings.
    pub config: Arc<ApiConfig>,
    /// Slots of requests handled at once.
    pub(crate) slots: Arc<Semaphore>,
}

impl ApiState {
    /// Over the services.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        Self {
            blobs: parts.artifacts.blobs().clone(),
            database: parts.database,
            artifacts: parts.artifacts,
            pipelines: parts.pipelines,
            registry: parts.registry,
            search: parts.search,
            answers: parts.answers,
            pages: parts.pages,
            pepper: Arc::new(parts.pepper),
            limits: Arc::new(Limits::new(parts.config.rate)),
            intake: Arc::default(),
            backlogs: Arc::default(),
            readiness: parts.readiness,
            metrics: parts.metrics,
            slots: Arc::new(Semaphore::new(parts.config.max_concurrent_requests)),
            config: Arc::new(parts.config),
        }
    }

    /// What deletions and retention work on.
    #[must_use]
    pub fn stores(&self) -> Stores {
        Stores { database: self.database.clone(), artifacts: self.artifacts.clone() }
    }
}
