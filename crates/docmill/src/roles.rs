//! `serve` and `worker`: the roles of one process, from the first check to the last job handed back.

pub mod access;

use crate::assembly::{Assembly, blocking};
use crate::cli::{Cli, ServeArgs};
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::logging;
use docmill_api::{ApiConfig, ApiParts, ApiState, Readiness};
use docmill_embedded::{Home, Stack, files};
use docmill_lifecycle::collect::Ages;
use docmill_lifecycle::sweep::SweepConfig;
use docmill_model::{Code, Failure};
use docmill_platform::webhooks::{Delivery, WebhookSender};
use docmill_retrieval::spaces::{Builder, BuilderConfig};
use docmill_retrieval::{Answers, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search};
use docmill_runtime::deliveries::{DeliveryRequest, DeliverySender};
use metrics_exporter_prometheus::PrometheusHandle;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What one process does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Uploads, documents, search, answers; with a node of the lexical index.
    pub api: bool,
    /// Publishes the outbox.
    pub relay: bool,
    /// Heals, and delivers webhooks.
    pub reconciler: bool,
    /// Runs stages.
    pub worker: bool,
    /// Which stages; all when absent.
    pub stages: Option<Vec<String>>,
}

/// Pause between passes of retention and collection.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Between two looks at results of searches that nobody asks for any more.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// Stages that embed texts or count tokens.
const MODEL_STAGES: [&str; 3] = ["chunk", "embed", "summarize"];

impl Roles {
    /// From the names on the command line; all when there are none.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for an unknown name.
    pub fn parse(names: &[String]) -> Result<Self, Failure> {
        let mut roles = Self::default();
        if names.is_empty() {
            return Ok(Self { api: true, relay: true, reconciler: true, worker: true, stages: None });
        }
        for name in names {
            match name.trim() {
                "api" => roles.api = true,
                "relay" => roles.relay = true,
                "reconciler" => roles.reconciler = true,
                "worker" => roles.worker = true,
                other => {
                    let message = format!("there is no role `{other}`; known are api, relay, reconciler, worker");
                    return Err(Failure::new(Code::ConfigInvalid, message));
                }
            }
        }
        Ok(roles)
    }

    /// Whether the embedding model has to be loaded.
    pub fn needs_model(&self) -> bool {
        let stages = self.stages.as_ref();
        let embeds = stages.is_none_or(|stages| stages.iter().any(|stage| MODEL_STAGES.contains(&stage.as_str())));
        self.api || (self.worker && embeds)
    }

    /// Whether this process embeds documents, and so builds embedding spaces.
    pub fn embeds(&self) -> bool {
        self.worker && self.stages.as_ref().is_none_or(|stages| stages.iter().any(|stage| stage == "embed"))
    }

    /// Whether NATS has to answer at the start.
    pub fn needs_broker(&self) -> bool {
        self.relay || self.reconciler || self.worker
    }
}

/// `docmill serve`.
pub async fn serve(cli: &Cli, args: &ServeArgs) -> Result<(), Ending> {
    let roles = Roles::parse(&args.roles)?;
    let mut config = load::load(cli.config.as_deref())?;
    let home = match &args.embedded {
        Some(root) => Some(adopt(&mut config, root).await?),
        None => None,
    };
    Ok(run(config, roles, home).await?)
}

/// `docmill worker`.
pub async fn worker(cli: &Cli, stages: &[String]) -> Result<(), Ending> {
    let config = load::load(cli.config.as_deref())?;
    let roles = Roles { worker: true, stages: Some(stages.to_vec()), ..Roles::default() };
    Ok(run(config, roles, None).await?)
}

/// Fills what is not configured from the embedded stack in `root`.
async fn adopt(config: &mut Config, root: &Path) -> Result<Home, Failure> {
    // The supervisor's child ends with the supervisor, whichever way that ends.
    let _ = docmill_embedded::process::end_with_parent();
    let root = root.to_owned();
    let (home, endpoints, pepper) = blocking(move || {
        let home = Home::open(Some(root), None)?;
        let endpoints = Stack::of(&home)?.available(docmill_embedded::stack::DATABASE)?;
        let pepper = files::secret(&home.secrets().join("pepper"))?;
        Ok((home, endpoints, pepper))
    })
    .await?;
    access::adopt(config, &home, endpoints, pepper);
    Ok(home)
}

async fn run(mut config: Config, roles: Roles, home: Option<Home>) -> Result<(), Failure> {
    logging::start(&config.log)?;
    let metrics = docmill_api::telemetry::install();
    let stop = on_signal()?;
    let assembly = Assembly::build(&config, &roles).await?;
    let listener = access::listen(&config, home.as_ref()).await?;
    if let Some(home) = &home {
        // Whoever runs the embedded stack is its operator.
        let tenant = access::provide_key(&assembly, &config, home).await?;
        config.api.operator_tenant.get_or_insert(tenant);
    }
    let instance = home.as_ref().map(access::fresh_instance).transpose()?;
    let mut tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
    let engine = &assembly.engine;
    if roles.worker {
        let (engine, stop) = (engine.clone(), stop.clone());
        tasks.spawn(async move { engine.run_worker(stop).await });
    }
    if roles.embeds() {
        let name = format!("builder-{}", uuid::Uuid::new_v4().simple());
        let builder = Builder::new(assembly.database.clone(), assembly.embedders.clone(), BuilderConfig::new(name));
        let stop = stop.clone();
        tasks.spawn(async move {
            builder.run(stop).await;
            Ok(())
        });
    }
    if roles.relay {
        let (engine, stop) = (engine.clone(), stop.clone());
        tasks.spawn(async move { engine.run_relay(stop).await });
    }
    if roles.reconciler {
        crate::assembly::expire_uploads(&config, &**assembly.artifacts.blobs()).await?;
        let sender = Arc::new(Webhooks(WebhookSender::new(config.api.allow_private_webhooks)?));
        let (healer, deliverer) = (engine.clone(), engine.clone());
        let (heal, deliver) = (stop.clone(), stop.clone());
        tasks.spawn(async move { healer.run_reconciler(heal).await });
        tasks.spawn(async move { deliverer.run_deliveries(sender, deliver).await });
        // Whoever else sets the bucket's rules may take ours away.
        let (settings, artifacts, kept) = (config.clone(), assembly.artifacts.clone(), stop.clone());
        tasks.spawn(async move {
            while tokio::time::timeout(SWEEP_EVERY, kept.cancelled()).await.is_err() {
                crate::assembly::expire_uploads(&settings, &**artifacts.blobs()).await?;
            }
            Ok(())
        });
        let (stores, sweep, stop) = (assembly.stores(), sweep_config(&assembly), stop.clone());
        tasks.spawn(async move {
            docmill_lifecycle::sweep::run(stores, sweep, stop).await;
            Ok(())
        });
    }
    let (prompts, following) = (assembly.prompts.clone(), stop.clone());
    tasks.spawn(async move {
        prompts.follow(following).await;
        Ok(())
    });
    serve_http(&config, &roles, &assembly, Probed { metrics, instance }, listener, &stop, &mut tasks)?;
    tracing::info!(?roles, "serving");
    let ended = wait(&mut tasks, &stop).await;
    assembly.database.close().await;
    ended
}

/// What probes ask of this process.
struct Probed {
    metrics: Option<PrometheusHandle>,
    /// The name it goes by in its home.
    instance: Option<String>,
}

fn sweep_config(assembly: &Assembly) -> SweepConfig {
    let rules = assembly.pipelines.all().iter().map(|pipeline| (pipeline.name.clone(), pipeline.retention)).collect();
    SweepConfig { rules, ages: Ages::default(), every: SWEEP_EVERY }
}

/// Waits for all loops; the first that fails stops the others.
async fn wait(tasks: &mut JoinSet<Result<(), Failure>>, stop: &CancellationToken) -> Result<(), Failure> {
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "a role panicked")));
        if let Err(failure) = ended {
            tracing::error!(code = %failure.code, "{}", failure.message);
            stop.cancel();
            first = first.and(Err(failure));
        }
    }
    first
}

fn serve_http(
    config: &Config,
    roles: &Roles,
    assembly: &Assembly,
    probed: Probed,
    listener: TcpListener,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let broker = roles.needs_broker().then(|| assembly.engine.broker_status());
    let router = if roles.api {
        let lexical = LexicalIndexes::new(LexicalConfig::new(assembly.data_dir.join("lexical")))?;
        let node = FollowerConfig::new(node_id(&assembly.data_dir)?);
        let follower = Follower::new(assembly.database.clone(), lexical.clone(), node);
        let status = follower.status();
        let readiness = Readiness { broker, index: Some(status.clone()) };
        let following = stop.clone();
        tasks.spawn(async move {
            follower.run(following).await;
            Ok(())
        });
        let settings = crate::searching::settings(config, assembly.reranker.clone());
        let search = Search::new(assembly.database.clone(), assembly.embedders.clone(), lexical, settings);
        let search = search.following(status);
        let (remembering, stopped) = (search.clone(), stop.clone());
        tasks.spawn(async move {
            while stopped.run_until_cancelled(tokio::time::sleep(FORGET_EVERY)).await.is_some() {
                remembering.forget_idle();
            }
            Ok(())
        });
        let state = api_state(config, assembly, search, readiness, probed)?;
        let (examined, stopped) = (state.clone(), stop.clone());
        tasks.spawn(async move {
            docmill_api::operate::doctor::watch(examined, stopped).await;
            Ok(())
        });
        docmill_api::router(state)
    } else {
        let readiness = Readiness { broker, index: None };
        let token = config.api.metrics_token.clone();
        docmill_api::serve::probes(assembly.database.clone(), readiness, probed.metrics, token)
    };
    let stop = stop.clone();
    tasks.spawn(async move {
        let served = docmill_api::serve::serve(listener, router, stop).await;
        served.map_err(|e| Failure::new(Code::Internal, format!("the HTTP side ended: {e}")))
    });
    Ok(())
}

fn api_state(
    config: &Config,
    assembly: &Assembly,
    search: Search,
    readiness: Readiness,
    probed: Probed,
) -> Result<ApiState, Failure> {
    let answers = Answers::new(
        search.clone(),
        assembly.artifacts.clone(),
        crate::models::generator(assembly),
        Default::default(),
    );
    let settings = ApiConfig {
        rate: docmill_api::limits::Rate { per_sec: config.api.rate_per_sec, burst: config.api.burst },
        cors_origins: config.api.cors_origins.clone(),
        metrics_token: config.api.metrics_token.clone(),
        allow_private_webhooks: config.api.allow_private_webhooks,
        operator_tenant: config.api.operator_tenant,
        instance: probed.instance,
        rollout_gates: crate::models::rollout_gates(&config.llm, &assembly.prompts)?,
        ..ApiConfig::default()
    };
    Ok(ApiState::new(ApiParts {
        database: assembly.database.clone(),
        artifacts: assembly.artifacts.clone(),
        pipelines: assembly.pipelines.clone(),
        registry: assembly.registry.clone(),
        search,
        answers,
        pages: assembly.parser.clone(),
        pepper: Config::need(&config.pepper, "DOCMILL_PEPPER")?.clone(),
        readiness,
        metrics: probed.metrics,
        config: settings,
    }))
}

/// The identity of the index node that lives in a folder: it stays when the process restarts.
fn node_id(data_dir: &Path) -> Result<String, Failure> {
    let secret = files::secret(&data_dir.join("node-id"))?;
    Ok(format!("node-{}", &secret[..16]))
}

/// Fires on SIGTERM and SIGINT.
///
/// # Errors
/// `INTERNAL` when handlers cannot be installed.
pub fn on_signal() -> Result<CancellationToken, Failure> {
    let refused = |e: std::io::Error| Failure::new(Code::Internal, format!("no signal handler: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let stop = CancellationToken::new();
    let fire = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        fire.cancel();
    });
    Ok(stop)
}

/// The platform's sender, as the engine wants it.
struct Webhooks(WebhookSender);

#[async_trait::async_trait]
impl DeliverySender for Webhooks {
    async fn send(&self, request: &DeliveryRequest) -> Result<u16, Failure> {
        let delivery = Delivery {
            id: request.id.to_string(),
            url: request.url.clone(),
            secrets: request.secrets.iter().map(|secret| secret.as_str().into()).collect(),
            timestamp: request.timestamp.unix_timestamp(),
            body: request.body.clone().into(),
        };
        self.0.send(&delivery).await
    }
}
