//! How texts reach the workers: in batches of nearly equal length, small requests first.

use docmill_model::Failure;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Most texts of one batch.
const BATCH_TEXTS: usize = 8;
/// Most tokens of one batch, padding included.
const BATCH_TOKENS: usize = 1024;
/// A text joins a batch when it has at least this share of the longest one's tokens.
const BATCH_FILL: f64 = 0.85;
/// Texts with their places in the request, longest first, in batches that pad little.
pub(super) fn plan(texts: Vec<String>, tokens: impl Fn(&str) -> usize) -> Vec<(Vec<usize>, Vec<String>)> {
    let mut sorted: Vec<(usize, usize, String)> =
        texts.into_iter().enumerate().map(|(place, text)| (tokens(&text), place, text)).collect();
    sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut batches: Vec<(Vec<usize>, Vec<String>)> = Vec::new();
    let mut longest = 0;
    for (length, place, text) in sorted {
        match batches.last_mut() {
            Some((places, texts))
                if places.len() < BATCH_TEXTS
                    && (places.len() + 1) * longest <= BATCH_TOKENS
                    && length as f64 >= BATCH_FILL * longest as f64 =>
            {
                places.push(place);
                texts.push(text);
            }
            _ => {
                longest = length;
                batches.push((vec![place], vec![text]));
            }
        }
    }
    batches
}

/// Places in the request, and their vectors.
pub(super) type Reply = (Vec<usize>, Result<Vec<Vec<f32>>, Failure>);

/// Texts that go through the model together.
pub(super) struct Batch {
    pub(super) places: Vec<usize>,
    pub(super) texts: Vec<String>,
    pub(super) reply: mpsc::UnboundedSender<Reply>,
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Batch>,
    bulk: VecDeque<Batch>,
    closed: bool,
}

/// Batches on their way to a worker. Bounded by the callers: each has one request open.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the workers end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    pub(super) fn push(&self, batches: impl Iterator<Item = Batch>, urgent: bool) {
        let mut waiting = self.lock();
        if urgent {
            waiting.urgent.extend(batches)
        } else {
            waiting.bulk.extend(batches)
        }
        drop(waiting);
        self.ready.notify_all();
    }

    /// The next batch somebody still waits for; `None` when the queue is closed.
    pub(super) fn next(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            match waiting.urgent.pop_front().or_else(|| waiting.bulk.pop_front()) {
                Some(batch) if batch.reply.is_closed() => {}
                Some(batch) => return Some(batch),
                None => waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(queue: &Queue, texts: &[&str], urgent: bool) -> mpsc::UnboundedReceiver<Reply> {
        let (reply, replies) = mpsc::unbounded_channel();
        let batch = |(place, text): (usize, &&str)| Batch {
            places: vec![place],
            texts: vec![(*text).to_owned()],
            reply: reply.clone(),
        };
        queue.push(texts.iter().enumerate().map(batch), urgent);
        replies
    }

    #[test]
    fn a_question_goes_first_and_what_nobody_waits_for_is_left_out() {
        let queue = Queue::default();
        let dropped = request(&queue, &["nobody", "waits"], false);
        let _document = request(&queue, &["a", "document"], false);
        let _question = request(&queue, &["a question"], true);
        drop(dropped);
        let order: Vec<String> = (0..3).map(|_| queue.next().unwrap().texts.remove(0)).collect();
        assert_eq!(order, ["a question", "a", "document"]);
        queue.close();
        assert!(queue.next().is_none());
    }

    #[test]
    fn batches_are_small_nearly_equal_and_hold_every_text_once() {
        let lengths = [256, 10, 12, 250, 11, 256, 200, 3, 254, 256, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        let texts: Vec<String> = lengths.iter().map(usize::to_string).collect();
        let batches = plan(texts, |text| text.parse().unwrap_or(0));
        let mut seen: Vec<usize> = batches.iter().flat_map(|(places, _)| places.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for (places, texts) in &batches {
            let tokens: Vec<usize> = places.iter().map(|&place| lengths[place]).collect();
            assert_eq!(*texts, tokens.iter().map(usize::to_string).collect::<Vec<_>>());
            assert!(tokens.len() <= 8 && tokens.len() * tokens[0] <= 1024, "{tokens:?}");
            assert!(tokens.iter().all(|&n| n as f64 >= 0.85 * tokens[0] as f64), "{tokens:?}");
        }
        assert_eq!(lengths[batches[0].0[0]], 256, "the longest first, so that the workers end together");
    }
}
