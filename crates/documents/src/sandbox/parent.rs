//! The parent's side of one parse: hands over the request, collects frames, runs OCR for the child, and turns every
//! way in which a child can end into a typed failure. Whatever happens, the whole process group is gone afterwards.

use super::status;
use super::watch::{TICK, Watch, autopsy};
use crate::frames::{self, Done, Failed, Kind, Lockdown, OcrReply, OcrRequest, Request};
use crate::limits::Limits;
use crate::observed::Sight;
use crate::recogniser::Recogniser;
use docmill_model::{Code, Failure};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Bytes of the child's complaints that are kept, to recognise an allocation failure.
const COMPLAINT: u64 = 4_096;
/// How long a child that has stopped talking may take to end by itself, so that its ending tells why.
const ENDING: Duration = Duration::from_secs(1);
/// Images that are recognised for one child at the same time; a sound one hands over fewer.
const RECOGNITIONS: usize = 4;
/// Images that a sound child hands over for one page at most: as it lies, for its orientation, turned, for single words.
const RECOGNITIONS_PER_PAGE: u64 = 4;

/// A locked child, waiting for its request.
pub(crate) struct Running {
    child: Child,
    pid: u32,
    stdin: Option<ChildStdin>,
    /// Its frames.
    pub stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    /// How it is locked.
    pub lockdown: Lockdown,
}

/// What a child delivered.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The result's bytes.
    pub output: Vec<u8>,
    /// Largest resident size of the child.
    pub peak_rss_bytes: u64,
    /// What else was seen of it.
    pub sight: Sight,
}

impl Running {
    /// Takes over a started child.
    ///
    /// # Errors
    /// `SANDBOX_UNAVAILABLE` when it has no pipes.
    pub fn of(mut child: Child) -> Result<Self, Failure> {
        let (pid, stdin, stdout, stderr) = (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(pid), Some(stdin), Some(stdout)) = (pid, stdin, stdout) else {
            return Err(Failure::new(Code::SandboxUnavailable, "the parser's process has no pipes"));
        };
        Ok(Self { child, pid, stdin: Some(stdin), stdout, stderr, lockdown: Lockdown::default() })
    }

    /// False when the child has ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child leads its group until it is waited for; afterwards its id may belong to somebody else.
        kill_group(self.child.id());
    }
}

/// Ends a process group; nothing happens when it is gone.
pub(super) fn kill_group(leader: Option<u32>) {
    if let Some(pid) = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// One frame, or `None` at the end of the pipe.
///
/// # Errors
/// `OUTPUT_LIMIT` for a frame above `limit`, `PARSER_CRASHED` for a broken one.
pub(crate) async fn read_frame(
    input: &mut (impl AsyncRead + Unpin),
    limit: u64,
) -> Result<Option<(Kind, Vec<u8>)>, Failure> {
    let broken = || Failure::new(Code::ParserCrashed, "the parser wrote a broken frame");
    let mut header = [0; frames::HEADER];
    if input.read_exact(&mut header[..1]).await.is_err() {
        return Ok(None);
    }
    input.read_exact(&mut header[1..]).await.map_err(|_| broken())?;
    let kind = Kind::of(header[0]).ok_or_else(broken)?;
    let length = u64::from(u32::from_le_bytes([header[1], header[2], header[3], header[4]]));
    if length > limit {
        return Err(Failure::limit(Code::OutputLimit, "the parser wrote more than it may", limit, length));
    }
    let mut payload = vec![0; length as usize];
    input.read_exact(&mut payload).await.map_err(|_| broken())?;
    Ok(Some((kind, payload)))
}

/// Why a child delivered nothing.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The typed reason.
    pub failure: Failure,
    /// Largest resident size seen.
    pub peak_rss_bytes: u64,
    /// The page that is to blame: it crashed the child, or took its memory or too much time.
    pub page: Option<u32>,
    /// What else was seen of it.
    pub sight: Sight,
}

impl Ended {
    /// No child could be started.
    pub fn at_start(failure: Failure) -> Self {
        Self { failure, peak_rss_bytes: 0, page: None, sight: Sight::default() }
    }
}

/// Lets a child work off `request` over `bytes`.
///
/// # Errors
/// What the child reports, and `PARSER_CRASHED`, `PARSER_TIMEOUT`, `PARSER_CPU`, `PARSER_MEMORY`, `OUTPUT_LIMIT`.
pub(crate) async fn run(
    mut running: Running,
    request: &Request,
    bytes: &[u8],
    recogniser: Option<Arc<Recogniser>>,
) -> Result<Finished, Ended> {
    let limits = &request.options.limits;
    let mut watch = Watch::begun(status::of(running.pid));
    let (stdin, pid) = (running.stdin.take(), running.pid);
    let outcome = converse(stdin, &mut running.stdout, pid, request, bytes, recogniser, &mut watch).await;
    let ended = matches!(outcome, Ok(Conversation::Broken));
    let status = if ended { tokio::time::timeout(ENDING, running.child.wait()).await.ok() } else { None };
    if status.is_none() {
        // Done, too slow, or silent without ending: what its processor time or signal would tell is not its own doing.
        kill_group(running.child.id());
        let _ = running.child.wait().await;
    }
    let complaint = if ended { complaint(&mut running).await } else { String::new() };
    let status = status.and_then(Result::ok);
    let (failure, peak_rss_bytes) = match outcome {
        Ok(Conversation::Done(finished)) => return Ok(Finished { sight: watch.sight(), ..finished }),
        Ok(Conversation::Failed(failed)) => (failed.failure, failed.peak_rss_bytes),
        Ok(Conversation::Broken) => {
            let failure = autopsy(status, &complaint, &watch, &running.lockdown, limits);
            (failure, watch.memory.peak_rss_bytes)
        }
        Err(failure) => (failure, watch.memory.peak_rss_bytes),
    };
    let to_blame = matches!(failure.code, Code::ParserCrashed | Code::ParserMemory | Code::ParserTimeout);
    let page = watch.page.map(|(page, _)| page).filter(|_| to_blame);
    Err(Ended { failure, peak_rss_bytes, page, sight: watch.sight() })
}

/// What is delivered by a child that wrote these bytes and nothing else; images are not recognised.
///
/// # Errors
/// As [`run`]; `PARSER_CRASHED` when they end without a final frame.
pub(crate) async fn hear(written: &[u8], request: &Request) -> Result<Vec<u8>, Failure> {
    let pid = std::process::id();
    let mut watch = Watch::begun(status::of(pid));
    match converse(None, &mut &*written, pid, request, &[], None, &mut watch).await? {
        Conversation::Done(finished) => Ok(finished.output),
        Conversation::Failed(failed) => Err(failed.failure),
        Conversation::Broken => Err(Failure::new(Code::ParserCrashed, "the parser ended without a result")),
    }
}

enum Conversation {
    Done(Finished),
    Failed(Failed),
    /// The pipe ended before a final frame.
    Broken,
}

async fn converse(
    stdin: Option<ChildStdin>,
    stdout: &mut (impl AsyncRead + Unpin),
    pid: u32,
    request: &Request,
    bytes: &[u8],
    recogniser: Option<Arc<Recogniser>>,
    watch: &mut Watch,
) -> Result<Conversation, Failure> {
    let limits = request.options.limits.clone();
    let header = frames::message(request).map_err(|_| Failure::new(Code::Internal, "the request cannot be written"))?;
    let (replies, queue) = mpsc::unbounded_channel::<Vec<u8>>();
    let write = feed(stdin, header, bytes, queue);
    let (mut recognitions, mut recognised): (JoinSet<OcrReply>, u64) = (JoinSet::new(), 0);
    let mut ticks = tokio::time::interval(TICK);
    let mut output: Vec<u8> = Vec::new();
    let frame_limit = limits.output_bytes.max(limits.pixels.saturating_mul(2)) + (1 << 20);
    let reading = async {
        let mut frame = Box::pin(read_frame(stdout, frame_limit));
        loop {
            tokio::select! {
                read = &mut frame => {
                    let Some((kind, payload)) = read? else { return Ok(Conversation::Broken) };
                    if kind == Kind::Ocr {
                        recognised += 1;
                        check_recognitions(recognitions.len() + 1, recognised, &limits)?;
                        recognise(&mut recognitions, payload, recogniser.clone(), &limits, watch)?;
                    } else if kind == Kind::Page {
                        watch.begin(&payload);
                    } else if kind == Kind::Detected {
                        watch.detected = serde_json::from_slice(&payload).ok();
                    } else if let Some(end) = take(kind, &payload, &mut output, limits.output_bytes)? {
                        return Ok(end);
                    }
                    drop(frame);
                    frame = Box::pin(read_frame(stdout, frame_limit));
                }
                Some(reply) = recognitions.join_next(), if !recognitions.is_empty() => {
                    let reply = reply.map_err(|_| Failure::new(Code::OcrFailed, "recognition was interrupted"))?;
                    if let Ok(message) = frames::message(&reply) {
                        let _ = replies.send(message);
                    }
                }
                _ = ticks.tick() => watch.look(pid, !recognitions.is_empty(), &limits)?,
            }
        }
    };
    let mut write = std::pin::pin!(write);
    let mut reading = std::pin::pin!(reading);
    let mut written = false;
    loop {
        tokio::select! {
            () = &mut write, if !written => written = true,
            outcome = &mut reading => return outcome,
        }
    }
}

/// Writes the request, the file and then every reply, until there are no more.
///
/// A child that stops reading has ended or will be ended: errors of the pipe say nothing new.
async fn feed(stdin: Option<ChildStdin>, header: Vec<u8>, bytes: &[u8], mut replies: mpsc::UnboundedReceiver<Vec<u8>>) {
    let Some(mut stdin) = stdin else { return };
    if stdin.write_all(&header).await.is_err() || stdin.write_all(bytes).await.is_err() {
        return;
    }
    while let Some(reply) = replies.recv().await {
        if stdin.write_all(&reply).await.is_err() {
            return;
        }
    }
}

/// Takes one frame; the conversation's end, if it was the last one.
fn take(kind: Kind, payload: &[u8], output: &mut Vec<u8>, limit: u64) -> Result<Option<Conversation>, Failure> {
    match kind {
        Kind::Chunk => {
            let total = (output.len() + payload.len()) as u64;
            if total > limit {
                return Err(Failure::limit(Code::OutputLimit, "the result is larger than it may be", limit, total));
            }
            output.extend_from_slice(payload);
            Ok(None)
        }
        Kind::Done => {
            let done: Done = serde_json::from_slice(payload).unwrap_or_default();
            let output = std::mem::take(output);
            Ok(Some(Conversation::Done(Finished {
                output,
                peak_rss_bytes: done.peak_rss_bytes,
                sight: Sight::default(),
            })))
        }
        Kind::Failed => Ok(Some(serde_json::from_slice(payload).map_or(Conversation::Broken, Conversation::Failed))),
        Kind::Ocr | Kind::Page | Kind::Detected | Kind::Ready => Ok(None),
    }
}

/// Refuses images that no sound child hands over: too many at once, or in all.
fn check_recognitions(at_once: usize, in_all: u64, limits: &Limits) -> Result<(), Failure> {
    let most = limits.ocr_pages.saturating_mul(RECOGNITIONS_PER_PAGE);
    let message = "the parser asked for more recognitions than it may";
    if at_once > RECOGNITIONS {
        return Err(Failure::limit(Code::ParserCrashed, message, RECOGNITIONS as u64, at_once as u64));
    }
    if in_all > most {
        return Err(Failure::limit(Code::ParserCrashed, message, most, in_all));
    }
    Ok(())
}

/// Starts one recognition.
fn recognise(
    tasks: &mut JoinSet<OcrReply>,
    payload: Vec<u8>,
    recogniser: Option<Arc<Recogniser>>,
    limits: &Limits,
    watch: &Watch,
) -> Result<(), Failure> {
    let broken = || Failure::new(Code::ParserCrashed, "the parser wrote a broken frame");
    let length = payload.get(..4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).ok_or_else(broken)?;
    let header = payload.get(4..length.saturating_add(4)).ok_or_else(broken)?;
    let request: OcrRequest = serde_json::from_slice(header).map_err(|_| broken())?;
    let exhausted = watch.recognising.as_secs() >= limits.ocr_total_secs;
    let limits = limits.clone();
    tasks.spawn(async move {
        let id = request.id;
        let result = match recogniser {
            Some(_) if exhausted => {
                let (limit, message) = (limits.ocr_total_secs, "recognition of the document took too long");
                Err(Failure::limit(Code::ParserTimeout, message, limit, limit))
            }
            Some(recogniser) => recogniser.recognise(&request, &payload[length + 4..], &limits).await,
            None => Err(Failure::new(Code::OcrUnavailable, "tesseract is not installed")),
        };
        OcrReply { id, result }
    });
    Ok(())
}

async fn complaint(running: &mut Running) -> String {
    let Some(stderr) = running.stderr.take() else { return String::new() };
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stderr.take(COMPLAINT).read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::check_recognitions;
    use crate::limits::Limits;

    #[test]
    fn recognitions_are_bounded_at_once_and_in_all() {
        let limits = Limits { ocr_pages: 2, ..Limits::default() };
        assert!(check_recognitions(4, 8, &limits).is_ok());
        let found = |at_once, in_all| check_recognitions(at_once, in_all, &limits).map_err(|f| (f.limit, f.measured));
        assert_eq!(found(5, 5), Err((Some(4), Some(5))));
        assert_eq!(found(1, 9), Err((Some(8), Some(9))));
    }
}
