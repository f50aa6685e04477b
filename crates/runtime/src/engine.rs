//! The engine's three loops over one core: worker, relay, reconciler. They run in one process or in many; each is
//! argument-free and idempotent, so any number of each may run.

use crate::broker::{Broker, BrokerConfig};
use crate::deliveries::{self, DeliverySender};
use crate::failpoints::Failpoints;
use crate::pipeline::Pipelines;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::{reconciler, schedule, worker};
use docmill_model::{Code, Failure};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::database::{Database, DbError};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

/// Pause of the relay after a round with work.
const RELAY_BUSY: Duration = Duration::from_millis(5);
/// Longest pause of an idle relay.
const RELAY_IDLE: Duration = Duration::from_millis(100);

/// Longest claim or relay round. Nothing else in them waits as long: a peer that vanished without a word does.
pub(crate) const LOOP_LIMIT: Duration = Duration::from_secs(15);

/// `work`, or `DATABASE_UNAVAILABLE` when it takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(DbError::Sqlx(sqlx::Error::PoolTimedOut)))
}

/// How one process takes part.
#[derive(Clone)]
pub struct EngineConfig {
    /// Name of this process in attempts and leases.
    pub worker: String,
    /// Length of a lease; renewed at a third. Also the broker's ack wait.
    pub lease: Duration,
    /// Between two rounds of the reconciler; at most 2 s in production.
    pub tick: Duration,
    /// A released job nobody has claimed for this long is emitted again; the wait doubles up to 20 s.
    pub reemit_after: Duration,
    /// How long running jobs get at shutdown before they are handed back.
    pub grace: Duration,
    /// First part of stream names and subjects: `[A-Za-z0-9_-]+`.
    pub stream_prefix: String,
    /// NATS, with its credentials.
    pub nats_url: SecretString,
    /// Stages this process works on; `None` is all of them.
    pub stages: Option<Vec<String>>,
    /// Slots by stage, where they differ from the stage's policy.
    pub slots: BTreeMap<String, usize>,
    /// Armed by tests only.
    pub failpoints: Failpoints,
}

impl EngineConfig {
    /// Production defaults: leases of 10 s, ticks of 1 s.
    #[must_use]
    pub fn new(worker: impl Into<String>, stream_prefix: impl Into<String>, nats_url: SecretString) -> Self {
        Self {
            worker: worker.into(),
            lease: Duration::from_secs(10),
            tick: Duration::from_secs(1),
            reemit_after: Duration::from_secs(5),
            grace: Duration::from_secs(5),
            stream_prefix: stream_prefix.into(),
            nats_url,
            stages: None,
            slots: BTreeMap::new(),
            failpoints: Failpoints::default(),
        }
    }
}

/// What the loops share.
pub(crate) struct Core {
    pub config: EngineConfig,
    pub database: Database,
    pub artifacts: Artifacts,
    pub registry: Arc<Registry>,
    pub pipelines: Arc<Pipelines>,
    /// Wakes the relay of this process after a commit.
    pub kick: Notify,
    broker: OnceCell<Arc<Broker>>,
}

impl Core {
    /// Slots of a stage in this process.
    pub fn slots(&self, stage: &str) -> usize {
        let configured = self.config.slots.get(stage).copied();
        configured.unwrap_or_else(|| self.registry.policy(stage).concurrency).max(1)
    }

    pub fn served_stages(&self) -> Result<Vec<String>, Failure> {
        let all: Vec<String> = self.registry.names().into_iter().map(str::to_owned).collect();
        let Some(wanted) = &self.config.stages else { return Ok(all) };
        match wanted.iter().find(|stage| !all.contains(stage)) {
            Some(unknown) => {
                let message = format!("there is no stage `{unknown}`; this build has {}", all.join(", "));
                Err(Failure::new(Code::ConfigInvalid, message))
            }
            None => Ok(wanted.clone()),
        }
    }

    pub fn broker_config(&self) -> BrokerConfig {
        BrokerConfig {
            url: self.config.nats_url.clone(),
            prefix: self.config.stream_prefix.clone(),
            ack_wait: self.config.lease,
        }
    }

    /// The broker, waiting until it is there: work waits in the database meanwhile.
    pub async fn broker(&self) -> Arc<Broker> {
        let connect = || async {
            loop {
                match Broker::connect(self.broker_config()).await {
                    Ok(broker) => return Arc::new(broker),
                    Err(failure) => tracing::warn!(code = %failure.code, "{}", failure.message),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        self.broker.get_or_init(connect).await.clone()
    }
}

/// The state of the broker connection; cheap to clone.
#[derive(Clone)]
pub struct BrokerStatus(Arc<Core>);

impl BrokerStatus {
    /// Whether the connection stands; nothing where this process has none.
    #[must_use]
    pub fn is_connected(&self) -> Option<bool> {
        self.0.broker.get().map(|broker| broker.is_connected())
    }
}

/// The engine of one process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
}

impl Engine {
    /// Connects nothing yet.
    #[must_use]
    pub fn new(
        config: EngineConfig,
        database: Database,
        artifacts: Artifacts,
        registry: Arc<Registry>,
        pipelines: Arc<Pipelines>,
    ) -> Self {
        let (kick, broker) = (Notify::new(), OnceCell::new());
        Self { core: Arc::new(Core { config, database, artifacts, registry, pipelines, kick, broker }) }
    }

    /// Checks what can be wrong for good: stage names, the stream prefix, streams of another nature. Connects the broker.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, or `BROKER_UNAVAILABLE` when NATS does not answer.
    pub async fn check(&self) -> Result<(), Failure> {
        self.core.served_stages()?;
        let connect = || async { Broker::connect(self.core.broker_config()).await.map(Arc::new) };
        self.core.broker.get_or_try_init(connect).await.map(|_| ())
    }

    /// Serves the configured stages until `stop` fires; running jobs end or are handed back first.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for an unknown stage.
    pub async fn run_worker(&self, stop: CancellationToken) -> Result<(), Failure> {
        worker::run(self.core.clone(), stop).await
    }

    /// Publishes the outbox until `stop` fires.
    ///
    /// # Errors
    /// None: a broker or database that is away is waited for.
    pub async fn run_relay(&self, stop: CancellationToken) -> Result<(), Failure> {
        let broker = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            broker = self.core.broker() => broker,
        };
        let (mut relay, mut pause) = (Relay::default(), RELAY_BUSY);
        while !stop.is_cancelled() {
            pause = match within(LOOP_LIMIT, relay.tick(&self.core, &broker)).await {
                Ok(true) => RELAY_BUSY,
                Ok(false) => (pause * 2).min(RELAY_IDLE),
                Err(error) => {
                    tracing::warn!(code = %error.into_failure().code, "the relay waits for the database");
                    RELAY_IDLE * 5
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.core.kick.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Heals until `stop` fires: expired leases, timers, events that got lost, runs to settle, uploads that expired; looks at
    /// the invariants, and fires schedules.
    ///
    /// # Errors
    /// None: a database that is away is waited for.
    pub async fn run_reconciler(&self, stop: CancellationToken) -> Result<(), Failure> {
        tokio::join!(
            reconciler::run(&self.core, stop.clone()),
            reconciler::content::run(&self.core, stop.clone()),
            schedule::run(&self.core, stop)
        );
        Ok(())
    }

    /// How this process's connection to the broker is, for readiness probes.
    #[must_use]
    pub fn broker_status(&self) -> BrokerStatus {
        BrokerStatus(self.core.clone())
    }

    /// Delivers webhooks until `stop` fires.
    ///
    /// # Errors
    /// None: failed deliveries are rows with timers.
    pub async fn run_deliveries(
        &self,
        sender: Arc<dyn DeliverySender>,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        deliveries::run(&self.core, sender, stop).await;
        Ok(())
    }
}
