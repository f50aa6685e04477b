//! Answers as server-sent events: what happens is told while it happens, and a failure is an event of its own.

use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use docmill_model::{Code, Failure};
use docmill_retrieval::answers::AnswerEvent;
use futures::stream::{self, Stream, StreamExt};
use serde::Serialize;
use std::convert::Infallible;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

pub(crate) use axum::response::sse::Event;

/// What happens to an answer.
pub(crate) enum Happening<T> {
    /// One step.
    Event(AnswerEvent),
    /// It is done.
    Done(T),
    /// There is no answer.
    Failed(Failure),
}

/// Runs `work` in a task of its own and gives what happens; the last is `Done` or `Failed`.
pub(crate) fn follow<T, F>(work: impl FnOnce(UnboundedSender<AnswerEvent>) -> F) -> impl Stream<Item = Happening<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let (sender, receiver) = unbounded_channel();
    let task = tokio::spawn(work(sender));
    stream::unfold((receiver, Some(task)), |(mut receiver, mut task)| async move {
        if let Some(event) = receiver.recv().await {
            return Some((Happening::Event(event), (receiver, task)));
        }
        let ended = task.take()?.await;
        let last = match ended {
            Ok(Ok(done)) => Happening::Done(done),
            Ok(Err(failure)) => Happening::Failed(failure),
            Err(_) => Happening::Failed(Failure::new(Code::Internal, "unexpected failure")),
        };
        Some((last, (receiver, None)))
    })
}

/// The response: `tell` turns each happening into events.
pub(crate) fn respond<T: Send + 'static>(
    happenings: impl Stream<Item = Happening<T>> + Send + 'static,
    mut tell: impl FnMut(Happening<T>) -> Vec<Event> + Send + 'static,
) -> Response {
    let events =
        happenings.flat_map(move |happening| stream::iter(tell(happening).into_iter().map(Ok::<_, Infallible>)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// An event with JSON data.
pub(crate) fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

/// A line that clients skip.
pub(crate) fn comment(text: &str) -> Event {
    Event::default().comment(text)
}
