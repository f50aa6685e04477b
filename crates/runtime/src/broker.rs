//! JetStream: the doorbell. The only file that names the client library.
//!
//! Two streams: job events (work queue, file, refuses when full, short age) and settled runs for listeners outside
//! (limits, seven days). Both are created when missing and compared when there; losing them loses nothing. Pulls use
//! single-message batches without idle heartbeats (the client's batch forgets its waker on a heartbeat); silence is
//! noticed by our own clock instead.

use async_nats::jetstream::{self, AckKind, ErrorCode, consumer, context, message::PublishMessage, stream};
use docmill_model::{Code, Failure};
use futures::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long a pull waits at the server.
pub(crate) const PULL_WAIT: Duration = Duration::from_secs(4);
/// Longest wait for any answer of the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// Job events are doorbells: what nobody heard for this long is rung again by the reconciler anyway.
const JOB_EVENT_AGE: Duration = Duration::from_secs(600);
const JOB_EVENTS_LIMIT: i64 = 100_000;
const SETTLED_EVENT_AGE: Duration = Duration::from_secs(7 * 86_400);
const SETTLED_EVENTS_LIMIT: i64 = 1_000_000;
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
const EVENT_LIMIT_BYTES: i32 = 8 * 1024;

/// Where the broker is and how this deployment's subjects begin.
#[derive(Clone)]
pub(crate) struct BrokerConfig {
    pub url: SecretString,
    /// `[A-Za-z0-9_-]+`.
    pub prefix: String,
    /// Redelivery after this long without progress: the lease.
    pub ack_wait: Duration,
}

/// One event to publish.
pub(crate) struct Outgoing {
    pub subject: String,
    pub message_id: String,
    pub body: Vec<u8>,
}

/// What a pull came to.
pub(crate) enum Pulled {
    /// An event.
    Event(Box<Delivery>),
    /// Nothing within the wait.
    Nothing,
    /// The broker did not answer as it should: create stream and consumer again.
    Broken(&'static str),
}

/// One delivered event.
pub(crate) struct Delivery {
    message: jetstream::Message,
}

impl Delivery {
    pub fn body(&self) -> &[u8] {
        &self.message.payload
    }

    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// Where the broker hears about progress.
    pub fn reply(&self) -> Option<String> {
        self.message.reply.as_ref().map(ToString::to_string)
    }

    /// Finishes the event, waiting for the broker's confirmation.
    pub async fn ack(&self) {
        // Unconfirmed, it is delivered again and finds the job done.
        if !matches!(tokio::time::timeout(REQUEST_TIMEOUT, self.message.double_ack()).await, Ok(Ok(()))) {
            tracing::debug!("an ack was not confirmed");
        }
    }

    /// Keeps the broker from delivering the event again for as long as it waits for an answer.
    pub async fn is_in_progress(&self) {
        if self.message.ack_with(AckKind::Progress).await.is_err() {
            tracing::debug!("progress was not sent");
        }
    }

    /// Asks for another delivery later.
    pub async fn nak(&self, delay: Duration) {
        if self.message.ack_with(AckKind::Nak(Some(delay))).await.is_err() {
            tracing::debug!("a nak was not sent");
        }
    }
}

/// A durable consumer of one stage.
#[derive(Clone)]
pub(crate) struct StageConsumer(consumer::Consumer<consumer::pull::Config>);

impl StageConsumer {
    /// Waits for one event.
    pub async fn pull(&self) -> Pulled {
        let request = self.0.batch().max_messages(1).expires(PULL_WAIT).messages();
        let mut batch = match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(batch)) => batch,
            _ => return Pulled::Broken("pull request failed"),
        };
        match tokio::time::timeout(PULL_WAIT + Duration::from_secs(2), batch.next()).await {
            Ok(Some(Ok(message))) => Pulled::Event(Box::new(Delivery { message })),
            Ok(Some(Err(_))) => Pulled::Broken("consumer refused the pull"),
            Ok(None) => Pulled::Nothing,
            Err(_) => Pulled::Broken("no answer to a pull"),
        }
    }
}

/// A connection with this deployment's names.
pub(crate) struct Broker {
    context: jetstream::Context,
    config: BrokerConfig,
}

async fn client(config: &BrokerConfig) -> Result<async_nats::Client, Failure> {
    let unreadable =
        |_| Failure::new(Code::ConfigInvalid, "the NATS URL cannot be read; nats://user:password@host:4222");
    let address: async_nats::ServerAddr = config.url.expose_secret().parse().map_err(unreadable)?;
    // The client does not look at credentials in a URL by itself; a user without a password is a token.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        (Some(token), None) => async_nats::ConnectOptions::with_token(token.to_owned()),
        _ => async_nats::ConnectOptions::new(),
    };
    let connecting = options
        .name("docmill")
        .ping_interval(PING_INTERVAL)
        .connection_timeout(REQUEST_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .reconnect_delay_callback(|attempts| Duration::from_millis((100 * attempts as u64).min(1000)))
        .event_callback(|event| async move { tracing::debug!(%event, "broker connection") })
        .connect(address);
    let client = connecting.await.map_err(|error| unavailable(&error.kind().to_string()))?;
    // Older servers ignore what they do not know, silently: filters of consumers, durable syncing.
    if !client.is_server_compatible(2, 10, 0) {
        let version = client.server_info().version;
        let message = format!("nats-server {version} is too old; run 2.10 or newer");
        return Err(Failure::new(Code::ConfigInvalid, message));
    }
    Ok(client)
}

/// True when the broker has the stream and has stopped it, since it cannot read the files of it or of a consumer.
fn is_stopped(error: &context::CreateStreamError) -> bool {
    matches!(error.kind(), context::CreateStreamErrorKind::JetStream(error)
        if [ErrorCode::STREAM_OFFLINE_REASON, ErrorCode::CONSUMER_OFFLINE_REASON].contains(&error.error_code()))
}

fn unavailable(what: &str) -> Failure {
    Failure::new(Code::BrokerUnavailable, format!("NATS: {what}"))
}

impl Broker {
    /// Connects, and creates or compares both streams.
    pub async fn connect(config: BrokerConfig) -> Result<Self, Failure> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if config.prefix.is_empty() || !config.prefix.chars().all(plain) {
            return Err(Failure::new(Code::ConfigInvalid, "the stream prefix is letters, digits, `_` and `-`"));
        }
        let context = jetstream::context::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client(&config).await?);
        let broker = Self { context, config };
        broker.ensure_streams().await?;
        Ok(broker)
    }

    /// Whether the connection stands at this moment.
    pub fn is_connected(&self) -> bool {
        self.context.client().connection_state() == async_nats::connection::State::Connected
    }

    /// Subject of a stage's job events.
    pub fn job_subject(&self, stage: &str) -> String {
        format!("{}.job.{stage}", self.config.prefix)
    }

    /// Subject of settled runs of a tenant.
    pub fn settled_subject(&self, tenant: docmill_model::TenantId) -> String {
        format!("{}.event.settled.{tenant}", self.config.prefix)
    }

    fn jobs_stream(&self) -> String {
        format!("{}-jobs", self.config.prefix)
    }

    fn events_stream(&self) -> String {
        format!("{}-events", self.config.prefix)
    }

    /// Creates what is missing; brings limits up to date; refuses a stream of another nature.
    pub async fn ensure_streams(&self) -> Result<(), Failure> {
        let base = stream::Config {
            storage: stream::StorageType::File,
            num_replicas: 1,
            duplicate_window: DUPLICATE_WINDOW,
            max_message_size: EVENT_LIMIT_BYTES,
            ..Default::default()
        };
        let jobs = stream::Config {
            name: self.jobs_stream(),
            subjects: vec![format!("{}.job.>", self.config.prefix)],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::New,
            max_age: JOB_EVENT_AGE,
            max_messages: JOB_EVENTS_LIMIT,
            ..base.clone()
        };
        let events = stream::Config {
            name: self.events_stream(),
            subjects: vec![format!("{}.event.>", self.config.prefix)],
            retention: stream::RetentionPolicy::Limits,
            discard: stream::DiscardPolicy::Old,
            max_age: SETTLED_EVENT_AGE,
            max_messages: SETTLED_EVENTS_LIMIT,
            ..base
        };
        self.ensure(jobs).await?;
        self.ensure(events).await
    }

    async fn ensure(&self, wanted: stream::Config) -> Result<(), Failure> {
        let mut made = self.context.get_or_create_stream(wanted.clone()).await;
        // Postgres holds all that is to be done. What listeners outside have not read yet is theirs: that stream is left.
        if wanted.retention == stream::RetentionPolicy::WorkQueue && made.as_ref().is_err_and(is_stopped) {
            tracing::warn!(stream = wanted.name, "the broker cannot read the files of a stream; it is created anew");
            let deleted = self.context.delete_stream(&wanted.name).await;
            deleted.map_err(|error| unavailable(&format!("stream `{}`: {}", wanted.name, error.kind())))?;
            made = self.context.get_or_create_stream(wanted.clone()).await;
        }
        let made = made.map_err(|error| unavailable(&format!("stream `{}`: {}", wanted.name, error.kind())))?;
        let found = &made.cached_info().config;
        if found.retention != wanted.retention || found.storage != wanted.storage {
            let message = format!(
                "stream `{}` exists with another retention or storage; remove it or change the prefix",
                wanted.name
            );
            return Err(Failure::new(Code::ConfigInvalid, message));
        }
        let same = found.subjects == wanted.subjects
            && found.discard == wanted.discard
            && found.max_age == wanted.max_age
            && found.max_messages == wanted.max_messages
            && found.max_message_size == wanted.max_message_size;
        if !same {
            // A cluster's own replica count stays.
            let wanted = stream::Config { num_replicas: found.num_replicas, ..wanted };
            let updated = self.context.update_stream(&wanted).await;
            updated.map_err(|error| unavailable(&format!("stream `{}`: {}", wanted.name, error.kind())))?;
        }
        Ok(())
    }

    /// The durable consumer of a stage, created when missing.
    pub async fn consumer(&self, stage: &str) -> Result<StageConsumer, Failure> {
        let config = consumer::pull::Config {
            durable_name: Some(format!("stage-{stage}")),
            deliver_policy: consumer::DeliverPolicy::All,
            ack_policy: consumer::AckPolicy::Explicit,
            ack_wait: self.config.ack_wait,
            max_deliver: -1,
            filter_subject: self.job_subject(stage),
            ..Default::default()
        };
        let made = self.context.create_consumer_on_stream(config, self.jobs_stream()).await;
        made.map(StageConsumer).map_err(|error| unavailable(&format!("consumer of stage `{stage}`: {}", error.kind())))
    }

    /// Publishes all and waits for their acks; true where the right stream has stored the event.
    pub async fn publish(&self, events: Vec<Outgoing>, to_jobs: bool) -> Vec<bool> {
        let expected = if to_jobs { self.jobs_stream() } else { self.events_stream() };
        let mut sent = Vec::with_capacity(events.len());
        for event in events {
            let message = PublishMessage::build().payload(event.body.into()).message_id(event.message_id);
            sent.push(self.context.send_publish(event.subject, message).await);
        }
        // Together: a broker that is away costs one timeout, not one for each event.
        let stored = sent.into_iter().map(|pending| async {
            let ack = match pending {
                Ok(pending) => pending.await.map_err(|error| error.kind().to_string()),
                Err(error) => Err(error.kind().to_string()),
            };
            if let Err(reason) = &ack {
                tracing::debug!(reason, "an event was not stored; it stays in the outbox");
            }
            ack.is_ok_and(|ack| ack.stream == expected)
        });
        futures::future::join_all(stored).await
    }
}

/// Tells the broker that deliveries are in progress, over a connection of the calling thread.
pub(crate) struct Progress {
    config: BrokerConfig,
    client: OnceCell<async_nats::Client>,
}

impl Progress {
    pub fn new(config: BrokerConfig) -> Self {
        Self { config, client: OnceCell::new() }
    }

    /// Extends the redelivery timer of each reply subject by one ack wait. Fire and forget.
    pub async fn tell(&self, replies: &[String]) -> Result<(), Failure> {
        if replies.is_empty() {
            return Ok(());
        }
        let client = self.client.get_or_try_init(|| client(&self.config)).await?;
        for reply in replies {
            let sent = client.publish(reply.clone(), AckKind::Progress.into()).await;
            sent.map_err(|_| unavailable("progress was not sent"))?;
        }
        client.flush().await.map_err(|_| unavailable("progress was not flushed"))
    }
}
