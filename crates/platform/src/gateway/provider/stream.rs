//! Answers that come in pieces, as server-sent events: put together, and never taken for whole when they are not.

use super::super::answer::{End, Fault, Reply, Usage, judge, malformed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::UnboundedSender;

/// Longest event, bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Receives the text of an answer while it is written. What was delivered cannot be taken back: from then on no other try
/// is made.
#[derive(Clone, Debug)]
pub struct Deltas {
    sender: UnboundedSender<String>,
    started: Arc<AtomicBool>,
}

impl Deltas {
    /// Delivering to `sender`.
    #[must_use]
    pub fn new(sender: UnboundedSender<String>) -> Self {
        Self { sender, started: Arc::default() }
    }

    /// True once text was delivered.
    pub(in crate::gateway) fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Delivers text that is not written by a provider now, such as a remembered answer.
    pub(in crate::gateway) fn deliver(&self, text: &str) {
        self.started.store(true, Ordering::Relaxed);
        // A reader that went away is no reason to stop: the answer is paid for and may be remembered.
        let _ = self.sender.send(text.to_owned());
    }
}

/// What an event says.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// More text.
    Text(String),
    /// Tokens of the whole.
    Usage(Usage),
    /// Output tokens so far.
    Output(u64),
    /// How the model stopped.
    End(End),
    /// Nothing more comes.
    Closed,
}

/// An answer under way.
pub(super) struct Assembly<'d> {
    deltas: &'d Deltas,
    pending: Vec<u8>,
    text: String,
    usage: Option<Usage>,
    end: Option<End>,
    is_closed: bool,
}

impl<'d> Assembly<'d> {
    pub(super) fn new(deltas: &'d Deltas) -> Self {
        Self { deltas, pending: Vec::new(), text: String::new(), usage: None, end: None, is_closed: false }
    }

    /// Takes the next bytes; `read` understands the data of one event. True when nothing more is expected.
    pub(super) fn take(&mut self, bytes: &[u8], read: fn(&str) -> Result<Vec<Piece>, Fault>) -> Result<bool, Fault> {
        self.pending.extend_from_slice(bytes);
        while let Some(at) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=at).collect();
            let line = std::str::from_utf8(&line).map_err(|_| malformed().used(self.usage))?.trim_end();
            // One `data` line an event, as both dialects write; other fields repeat what the data says.
            let Some(data) = line.strip_prefix("data:") else { continue };
            for piece in read(data.trim()).map_err(|fault| fault.used(self.usage))? {
                self.add(piece);
            }
        }
        if self.pending.len() > MAX_EVENT_BYTES {
            return Err(malformed().used(self.usage));
        }
        Ok(self.is_closed)
    }

    fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => {
                self.deltas.deliver(&text);
                self.text.push_str(&text);
            }
            Piece::Usage(usage) => self.usage = Some(usage),
            Piece::Output(output) => self.usage.get_or_insert_default().output = output,
            Piece::End(end) => self.end = Some(end),
            Piece::Closed => self.is_closed = true,
        }
    }

    /// Bytes of text so far.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The whole answer, when it is whole: a stream that ends without saying how the model stopped was cut.
    pub(super) fn finish(self, estimated_input: u64) -> Result<Reply, Fault> {
        judge(self.text, self.end.unwrap_or(End::Cut), self.usage, estimated_input)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{anthropic, openai};
    use super::*;

    fn play(read: fn(&str) -> Result<Vec<Piece>, Fault>, stream: &str, step: usize) -> (Result<Reply, Fault>, String) {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let deltas = Deltas::new(sender);
        let mut assembly = Assembly::new(&deltas);
        let taken = stream.as_bytes().chunks(step).try_for_each(|bytes| assembly.take(bytes, read).map(|_| ()));
        let reply = taken.and_then(|()| assembly.finish(10));
        let mut heard = String::new();
        while let Ok(text) = receiver.try_recv() {
            heard.push_str(&text);
        }
        (reply, heard)
    }

    const OPENAI: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Größe \"}}]}\n\n: a comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"zählt\"},\"finish_reason\":null}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );
    const ANTHROPIC: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Größe \"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"zählt\"}}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
    );

    #[test]
    fn both_dialects_come_together_whatever_the_packets() {
        for (read, stream) in [(openai::event as fn(&str) -> _, OPENAI), (anthropic::event, ANTHROPIC)] {
            for step in [1, 2, 3, 17, 4_000] {
                let (reply, heard) = play(read, stream, step);
                let reply = reply.ok().unwrap();
                assert_eq!((reply.text.as_str(), heard.as_str()), ("Größe zählt", "Größe zählt"));
                assert_eq!(reply.usage, Usage { input: 7, output: 2, cached: 0 });
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_before_its_end_is_never_whole() {
        for (read, stream, end) in [
            (openai::event as fn(&str) -> _, OPENAI, "finish_reason\":\"stop\"}]}\n"),
            (anthropic::event, ANTHROPIC, "end_turn\"},\"usage\":{\"output_tokens\":2}}\n"),
        ] {
            let whole = stream.find(end).unwrap() + end.len();
            for at in 0..whole {
                if stream.is_char_boundary(at) {
                    let (reply, _) = play(read, &stream[..at], 64);
                    assert_eq!(reply.err().unwrap().outcome, "cut", "cut at {at}");
                }
            }
        }
    }

    #[test]
    fn errors_and_garbage_inside_a_stream_are_told_apart() {
        let half = "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n";
        for (rest, outcome) in [
            ("data: {\"error\":{\"message\":\"no\"}}\n\n", "error"),
            ("data: {\"choices\":[{\"del\n\n", "malformed"),
            ("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n", "length"),
        ] {
            let (reply, heard) = play(openai::event, &format!("{half}{rest}"), 64);
            assert_eq!((reply.err().unwrap().outcome, heard.as_str()), (outcome, "half"));
        }
        let error = "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        assert_eq!(play(anthropic::event, error, 64).0.err().unwrap().outcome, "error");
    }
}
