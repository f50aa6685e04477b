//! The child's side: loads its libraries, locks itself, says so, and works off one request.

use super::lockdown::{Walls, lock};
use super::{ParseSetup, Setup, misbehave, probe, status, tool};
use crate::frames::{self, Done, Failed, Kind, OcrReply, OcrRequest, Request, Task};
use crate::observed::Detected;
use crate::ocr::Recognise;
use crate::{parse, pdf, render};
use docmill_model::{Code, Failure};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Stdin, StdinLock, Stdout, StdoutLock, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// What `docmill parse-child SETUP` runs; the setup is the last argument. Never call it in a process with threads or
/// with anything to lose: it locks the process for good.
#[must_use]
pub fn child_main() -> ExitCode {
    let setup = std::env::args().next_back().and_then(|argument| serde_json::from_str(&argument).ok());
    match setup {
        Some(Setup::Parse(setup)) => serve(&setup),
        Some(Setup::Tool(setup)) => tool::become_tool(&setup),
        None => {
            eprintln!("this command is started by docmill itself, not by hand");
            ExitCode::from(64)
        }
    }
}

fn serve(setup: &ParseSetup) -> ExitCode {
    // Panic messages may quote the document.
    std::panic::set_hook(Box::new(|_| {}));
    let status = File::open("/proc/self/status").ok();
    let engine = setup.pdfium.as_deref().and_then(|library| pdf::Engine::load(library).ok());
    let (stdin, stdout): (Stdin, Stdout) = (std::io::stdin(), std::io::stdout());
    let mut pipes = Pipes {
        input: stdin.lock(),
        output: stdout.lock(),
        packs: Vec::new(),
        bad_pages: Vec::new(),
        replies: HashMap::new(),
    };
    let size = status.as_ref().map_or(0, |file| status::read(file).size_bytes);
    let walls = Walls {
        address_space_bytes: size + setup.memory_bytes,
        cpu_secs: setup.cpu_secs,
        readable: &[],
        executable: &[],
        landlock_required: setup.landlock_required,
    };
    let locked = match std::env::vars_os().next() {
        None => lock(&walls),
        Some(_) => Err(Failure::new(Code::SandboxUnavailable, "the environment of the parser is not empty")),
    };
    let outcome = locked.and_then(|mut lockdown| {
        lockdown.pdfium = engine.is_some();
        pipes.json(Kind::Ready, &lockdown)?;
        work(&mut pipes, engine.as_ref())
    });
    let peak_rss_bytes = status.as_ref().map_or(0, |file| status::read(file).peak_rss_bytes);
    let sent = match outcome {
        Ok(()) => pipes.json(Kind::Done, &Done { peak_rss_bytes }),
        Err(failure) => pipes.json(Kind::Failed, &Failed { failure, peak_rss_bytes }),
    };
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(pipes: &mut Pipes, engine: Option<&pdf::Engine>) -> Result<(), Failure> {
    let broken = |_| Failure::new(Code::Internal, "the request cannot be read");
    let request: Request = frames::read_message(&mut pipes.input).map_err(broken)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(request.size_bytes as usize).map_err(|_| {
        Failure::limit(
            Code::ParserMemory,
            "the file alone needs more memory than a parse may",
            request.options.limits.memory_bytes,
            request.size_bytes,
        )
    })?;
    (&mut pipes.input).take(request.size_bytes).read_to_end(&mut bytes).map_err(broken)?;
    pipes.packs.clone_from(&request.ocr_packs);
    pipes.bad_pages.clone_from(&request.bad_pages);
    let limits = &request.options.limits;
    let run = AssertUnwindSafe(|| match &request.task {
        Task::Parse => {
            let document = parse::in_process(engine, &bytes, &request.options, pipes)?;
            pipes.result(&document)
        }
        Task::Render(page) => {
            let png = render::png(engine, &bytes, page, limits)?;
            pipes.chunk(&png)
        }
        Task::Expansion => pipes.result(&pdf::measure(&bytes, limits.expanded_bytes)),
        Task::Probe => pipes.result(&probe::attempts()),
        Task::Misbehave(how) => misbehave::misbehave(how, &mut |kind, bytes| pipes.frame(kind, bytes)),
    });
    catch_unwind(run).unwrap_or_else(|_| Err(Failure::new(Code::ParserCrashed, "the parser panicked")))
}

/// The two descriptors.
struct Pipes {
    input: StdinLock<'static>,
    output: StdoutLock<'static>,
    packs: Vec<String>,
    bad_pages: Vec<(u32, Failure)>,
    replies: HashMap<u32, Result<String, Failure>>,
}

fn closed(_: std::io::Error) -> Failure {
    Failure::new(Code::Internal, "the parent closed the pipe")
}

impl Pipes {
    fn json(&mut self, kind: Kind, value: &impl serde::Serialize) -> Result<(), Failure> {
        let json = serde_json::to_vec(value).map_err(|_| Failure::new(Code::Internal, "a frame cannot be written"))?;
        self.frame(kind, &json)
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        frames::write(&mut self.output, kind, &[payload]).map_err(closed)
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        bytes.chunks(frames::CHUNK).try_for_each(|piece| self.frame(Kind::Chunk, piece))
    }

    /// Writes a value as JSON in chunks, without holding all of it.
    fn result(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut writer = std::io::BufWriter::with_capacity(frames::CHUNK, ChunkWriter(&mut self.output));
        serde_json::to_writer(&mut writer, value)
            .map_err(|_| Failure::new(Code::Internal, "the result cannot be written"))?;
        writer.flush().map_err(closed)
    }
}

struct ChunkWriter<'a>(&'a mut StdoutLock<'static>);

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        frames::write(self.0, Kind::Chunk, &[bytes])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Recognise for Pipes {
    fn packs(&self) -> &[String] {
        &self.packs
    }

    fn submit(&mut self, request: &OcrRequest, pixels: &[u8]) -> Result<(), Failure> {
        let header = frames::message(request).map_err(closed)?;
        frames::write(&mut self.output, Kind::Ocr, &[&header, pixels]).map_err(closed)
    }

    fn wait(&mut self, id: u32) -> Result<String, Failure> {
        loop {
            if let Some(result) = self.replies.remove(&id) {
                return result;
            }
            let reply: OcrReply = frames::read_message(&mut self.input).map_err(closed)?;
            self.replies.insert(reply.id, reply.result);
        }
    }

    fn begin(&mut self, page: u32) -> Option<Failure> {
        if let Some((_, failure)) = self.bad_pages.iter().find(|(bad, _)| *bad == page) {
            return Some(failure.clone());
        }
        // A parent that is gone is noticed with the result.
        let _ = frames::write(&mut self.output, Kind::Page, &[&page.to_le_bytes()]);
        None
    }

    fn detected(&mut self, detected: &Detected) {
        let _ = self.json(Kind::Detected, detected);
    }
}
