//! A stage's slots: each pulls one event at a time, so that what is fetched is exactly what is free.
//!
//! A consumer that stops answering, was deleted, or stays silent while Postgres has released work, is created again;
//! no process restart is ever needed.

use crate::broker::{Broker, Pulled, StageConsumer};
use crate::engine::{Core, LOOP_LIMIT, within};
use crate::worker::{self, Worker};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Between two rebuilds, and between two questions to Postgres.
const PATIENCE: Duration = Duration::from_secs(1);
/// Released work that did not arrive for this long means a broken consumer.
const ARRIVAL_SECS: f64 = 5.0;

/// The consumer of one stage, shared by its slots.
struct Source {
    core: Arc<Core>,
    stage: String,
    current: Mutex<Current>,
}

struct Current {
    consumer: Option<StageConsumer>,
    generation: u64,
    checked: Instant,
}

/// Serves a stage with `slots` slots until the worker stops.
pub(crate) async fn serve(worker: Arc<Worker>, stage: String, slots: usize) {
    let current = Mutex::new(Current { consumer: None, generation: 0, checked: Instant::now() });
    let source = Arc::new(Source { core: worker.core.clone(), stage, current });
    let mut tasks = JoinSet::new();
    for _ in 0..slots {
        tasks.spawn(slot(worker.clone(), source.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn slot(worker: Arc<Worker>, source: Arc<Source>) {
    loop {
        let pulled = tokio::select! {
            () = worker.stop.cancelled() => return,
            pulled = source.next() => pulled,
        };
        match pulled {
            (Pulled::Event(delivery), _) => worker::handle(&worker, &source.stage, &delivery).await,
            (Pulled::Nothing, generation) => {
                if source.is_silent().await {
                    source.rebuild(generation, "released work does not arrive").await;
                }
            }
            (Pulled::Broken(reason), generation) => {
                source.rebuild(generation, reason).await;
                tokio::select! {
                    () = worker.stop.cancelled() => return,
                    () = tokio::time::sleep(PATIENCE / 4) => {}
                }
            }
        }
    }
}

impl Source {
    async fn next(&self) -> (Pulled, u64) {
        let (consumer, generation) = {
            let mut current = self.current.lock().await;
            if current.consumer.is_none() {
                let broker = self.core.broker().await;
                match self.create(&broker).await {
                    Some(consumer) => current.consumer = Some(consumer),
                    None => tokio::time::sleep(PATIENCE).await,
                }
            }
            (current.consumer.clone(), current.generation)
        };
        match consumer {
            Some(consumer) => (consumer.pull().await, generation),
            None => (Pulled::Broken("no consumer"), generation),
        }
    }

    async fn create(&self, broker: &Broker) -> Option<StageConsumer> {
        let made = match broker.consumer(&self.stage).await {
            Ok(consumer) => Ok(consumer),
            Err(_) => match broker.ensure_streams().await {
                Ok(()) => broker.consumer(&self.stage).await,
                Err(failure) => Err(failure),
            },
        };
        made.inspect_err(|failure| tracing::warn!(stage = self.stage, code = %failure.code, "{}", failure.message)).ok()
    }

    /// Forgets the consumer of `generation`; the next pull creates it. Only the first slot that asks does it.
    async fn rebuild(&self, generation: u64, reason: &'static str) {
        let mut current = self.current.lock().await;
        if current.generation == generation && current.consumer.take().is_some() {
            current.generation += 1;
            metrics::counter!("docmill_consumer_rebuilds_total", "stage" => self.stage.clone()).increment(1);
            tracing::info!(stage = self.stage, reason, "creating the consumer again");
        }
    }

    /// True when Postgres has released work of this stage that nobody received.
    async fn is_silent(&self) -> bool {
        let mut current = self.current.lock().await;
        if current.checked.elapsed() < PATIENCE {
            return false;
        }
        current.checked = Instant::now();
        drop(current);
        let waiting = sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE stage = $1 AND state = 'ready' AND emitted_at < now() - make_interval(secs => $2))",
        )
        .bind(&self.stage)
        .bind(ARRIVAL_SECS)
        .fetch_one(self.core.database.engine());
        within(LOOP_LIMIT, async { Ok(waiting.await?) }).await.unwrap_or(false)
    }
}
