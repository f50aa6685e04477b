//! The front door: parse and draw documents in sandboxed children, a bounded number at a time.

use crate::detect;
use crate::frames::{Expansion, Render, Request, Task};
use crate::observed::{Observed, millis};
use crate::options::{ParseOptions, PdfEngine};
use crate::recogniser::{Recogniser, TesseractConfig};
use crate::sandbox::ParseSetup;
use crate::sandbox::parent::{self, Ended, Finished};
use crate::sandbox::report::SandboxReport;
use crate::sandbox::tool::Launcher;
use crate::sandbox::warm::Nursery;
use bytes::Bytes;
use docmill_model::document::{ParsedDocument, Rect};
use docmill_model::{Code, Failure, Sha256Hex};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Pages that may end the parser and be left out before the document is given up.
const BAD_PAGES: usize = 3;
/// Wall clock for finding out whether the file's expansion was the cause, which comes on top of the parse's own.
const EXPANSION_SECS: u64 = 8;
/// What the readers of this build make of bytes, as a number in every cache key: to be raised with each change by which a file
/// comes out differently, so that a replay reads it again. The readings of the samples are kept as a snapshot to notice it.
pub const READING: u32 = 2;

/// Endings that may have the file's expansion as their cause.
const BY_SIZE: [Code; 5] =
    [Code::ParserMemory, Code::ParserCpu, Code::ParserTimeout, Code::ParserCrashed, Code::EmptyText];

/// How parsers are started.
#[derive(Clone, Debug)]
pub struct ParserConfig {
    /// Our binary, which is executed again as the child.
    pub child: PathBuf,
    /// Arguments that make it call [`crate::child_main`]; the setup follows them as the last one.
    pub child_args: Vec<String>,
    /// `libpdfium.so`; without it PDF is read by pdf-extract.
    pub pdfium: Option<PathBuf>,
    /// Tesseract; without it scans end `OCR_UNAVAILABLE`.
    pub tesseract: Option<TesseractConfig>,
    /// Children that work at the same time; as many wait in advance.
    pub slots: usize,
    /// Refuse to parse on kernels without Landlock.
    pub landlock_required: bool,
    /// Options of requests that bring none; their limits are those of the waiting children.
    pub options: ParseOptions,
}

/// One document to parse.
#[derive(Clone, Debug, Default)]
pub struct ParseRequest {
    /// The file.
    pub bytes: Bytes,
    /// Media type as declared.
    pub declared: Option<String>,
    /// File name as declared.
    pub name: Option<String>,
    /// Options; `declared` and `name` above win over those inside.
    pub options: ParseOptions,
}

/// A parsed document and what it cost.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The document.
    pub document: ParsedDocument,
    /// Wall clock, waiting for a slot not counted.
    pub millis: u64,
    /// Largest resident size of the child (OCR processes are measured apart).
    pub peak_rss_bytes: u64,
    /// What else was observed.
    pub observed: Observed,
}

/// A failed parse and what it cost.
#[derive(Clone, Debug)]
pub struct FailedParse {
    /// Why.
    pub failure: Failure,
    /// Wall clock.
    pub millis: u64,
    /// Largest resident size seen.
    pub peak_rss_bytes: u64,
    /// What else was observed.
    pub observed: Observed,
}

/// Parses documents.
#[derive(Clone)]
pub struct Parser {
    config: Arc<ParserConfig>,
    nursery: Nursery,
    recogniser: Option<Arc<Recogniser>>,
    slots: Arc<Semaphore>,
    fingerprint: Arc<OnceLock<String>>,
}

impl Parser {
    /// A parser; children are started on the first call or by [`Parser::warm_up`].
    #[must_use]
    pub fn new(config: ParserConfig) -> Self {
        let launcher = Launcher { child: config.child.clone(), arguments: config.child_args.clone() };
        let slots = config.slots.max(1);
        let tesseract = config.tesseract.clone();
        let recogniser = tesseract
            .and_then(|t| Recogniser::find(t, launcher.clone(), slots, config.landlock_required))
            .map(Arc::new);
        let setup = setup(&config, &config.options);
        Self {
            nursery: Nursery::new(launcher, setup, slots),
            recogniser,
            slots: Arc::new(Semaphore::new(slots)),
            fingerprint: Arc::default(),
            config: Arc::new(config),
        }
    }

    /// Starts the waiting children.
    pub async fn warm_up(&self) {
        self.nursery.refill().await;
    }

    /// Parses one document.
    ///
    /// # Errors
    /// Every code of a bad input; `SANDBOX_UNAVAILABLE` when no child can be locked.
    pub async fn parse(&self, request: ParseRequest) -> Result<Parsed, Failure> {
        self.parse_measured(request).await.map_err(|failed| failed.failure)
    }

    /// Parses one document; a failure says what it cost.
    ///
    /// # Errors
    /// As [`Parser::parse`].
    pub async fn parse_measured(&self, request: ParseRequest) -> Result<Parsed, FailedParse> {
        let mut options = request.options;
        options.declared_type = request.declared.or(options.declared_type);
        options.name = request.name.or(options.name);
        let mut observed = Observed { declared: detect::declared(&options), ..Observed::default() };
        let Ok(_slot) = self.slots.acquire().await else {
            let failure = Failure::new(Code::Internal, "the parser is shut down");
            return Err(FailedParse { failure, millis: 0, peak_rss_bytes: 0, observed });
        };
        let started = Instant::now();
        let finished = match self.parse_or_fall_back(&request.bytes, &options, &mut observed).await {
            Ok(finished) => finished,
            Err(Ended { failure, peak_rss_bytes, .. }) => {
                return Err(FailedParse { failure, millis: millis(started.elapsed()), peak_rss_bytes, observed });
            }
        };
        let peak_rss_bytes = finished.peak_rss_bytes;
        let decoding = Instant::now();
        let document = document_of(&finished.output);
        observed.steps.decode_millis = millis(decoding.elapsed());
        let millis = millis(started.elapsed());
        match document {
            Ok(document) => Ok(Parsed { document, millis, peak_rss_bytes, observed }),
            Err(failure) => Err(FailedParse { failure, millis, peak_rss_bytes, observed }),
        }
    }

    /// A page that ends the parser is left out in the next try. Where pdfium fails on the whole PDF, pdf-extract has a
    /// try in a child of its own, in the time that is left; the first failure stands if it fails too.
    async fn parse_or_fall_back(
        &self,
        bytes: &Bytes,
        options: &ParseOptions,
        observed: &mut Observed,
    ) -> Result<Finished, Ended> {
        let pdf = bytes[..bytes.len().min(1_024)].windows(5).any(|w| w == b"%PDF-");
        if !pdf || options.pdf_engine == PdfEngine::PdfExtract {
            return self.watched(bytes, options, &[], observed).await;
        }
        let first = self.parse_around_bad_pages(bytes, options, observed).await;
        let Err(ended) = first else { return first };
        let hopeless = !matches!(ended.failure.code, Code::PdfMalformed | Code::ParserCrashed | Code::PartMissing);
        let left = options.limits.wall_secs.saturating_sub(ended.sight.own.as_secs());
        if hopeless || left == 0 || options.pdf_engine != PdfEngine::Auto || self.config.pdfium.is_none() {
            return Err(ended);
        }
        let mut second = ParseOptions { pdf_engine: PdfEngine::PdfExtract, ..options.clone() };
        second.limits.wall_secs = left;
        let second = self.watched(bytes, &second, &[], observed).await;
        second.map_err(|other| Ended { peak_rss_bytes: ended.peak_rss_bytes.max(other.peak_rss_bytes), ..ended })
    }

    /// Reads a PDF; a page that ends the child is left out in the next try, which has the time that is left.
    async fn parse_around_bad_pages(
        &self,
        bytes: &Bytes,
        options: &ParseOptions,
        observed: &mut Observed,
    ) -> Result<Finished, Ended> {
        let limits = &options.limits;
        let mut options = options.clone();
        let mut bad: Vec<(u32, Failure)> = Vec::new();
        let (mut own, mut recognising) = (Duration::ZERO, Duration::ZERO);
        loop {
            let tried = self.watched(bytes, &options, &bad, observed).await;
            let Err(mut ended) = tried else { return tried };
            own += ended.sight.own;
            recognising += ended.sight.recognising;
            ended.sight.own = own;
            if bad.is_empty()
                && BY_SIZE.contains(&ended.failure.code)
                && let Some(cause) = self.expansion(bytes, &options).await
            {
                return Err(Ended { failure: cause, ..ended });
            }
            options.limits = limits.after(own, recognising);
            let again = bad.len() < BAD_PAGES && options.limits.wall_secs > 0;
            let Some(page) = ended.page.filter(|_| again) else { return Err(ended) };
            bad.push((page, ended.failure));
        }
    }

    /// The expansion limit, when that is why a PDF ran out of memory or time.
    async fn expansion(&self, bytes: &Bytes, options: &ParseOptions) -> Option<Failure> {
        let limit = options.limits.expanded_bytes;
        let mut options = options.clone();
        options.limits.wall_secs = options.limits.wall_secs.min(EXPANSION_SECS);
        let finished = self.run(Task::Expansion, bytes, &options, &[]).await.ok()?;
        let measured: Expansion = serde_json::from_slice(&finished.output).ok()?;
        let message = "the streams of the PDF unpack to more bytes than the limit";
        measured.over.then(|| Failure::limit(Code::ExpansionLimit, message, limit, measured.expanded_bytes))
    }

    /// Draws page `page` (from 1) of a PDF or image as PNG, `scale` pixels per page unit, with rectangles marked.
    ///
    /// # Errors
    /// `NOT_FOUND`, `TYPE_UNSUPPORTED`, `PIXEL_LIMIT` and those of parsing.
    pub async fn render_page(
        &self,
        bytes: Bytes,
        page: u32,
        scale: f32,
        highlights: Vec<Rect>,
    ) -> Result<Vec<u8>, Failure> {
        let _slot = self.slots.acquire().await.map_err(|_| Failure::new(Code::Internal, "the parser is shut down"))?;
        let scale = if scale.is_finite() { scale.clamp(0.05, 10.0) } else { 1.0 };
        let task = Task::Render(Render { page, scale, highlights });
        let drawn = self.run(task, &bytes, &self.config.options, &[]).await;
        drawn.map(|finished| finished.output).map_err(|ended| ended.failure)
    }

    /// Locks a child, lets it try to escape, and reports.
    ///
    /// # Errors
    /// `SANDBOX_UNAVAILABLE`.
    pub async fn sandbox_report(&self) -> Result<SandboxReport, Failure> {
        let running = self.nursery.take(self.nursery.setup()).await?;
        let lockdown = running.lockdown.clone();
        let request = self.request(Task::Probe, 0, &self.config.options);
        let finished = parent::run(running, &request, &[], None).await.map_err(|ended| ended.failure)?;
        let probe = serde_json::from_slice(&finished.output)
            .map_err(|_| Failure::new(Code::SandboxUnavailable, "the probe gave no answer"))?;
        Ok(SandboxReport { lockdown, probe, ocr_packs: self.packs() })
    }

    /// Lets a child misbehave in the named way, to test what becomes of it.
    ///
    /// # Errors
    /// What it was ended for.
    pub async fn misbehave(&self, how: &str, options: &ParseOptions) -> Result<(), Failure> {
        let ended = self.run(Task::Misbehave(how.to_owned()), &Bytes::new(), options, &[]).await;
        ended.map(|_| ()).map_err(|ended| ended.failure)
    }

    /// Names everything that shapes a result: the layout of documents, [`READING`], pdfium and tesseract with its data.
    /// Part of every cache key. Hashes files on the first call.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let files = || {
            let mut parts = vec![format!("schema{}", ParsedDocument::SCHEMA), format!("reading{READING}")];
            let mut paths: Vec<PathBuf> = self.config.pdfium.iter().cloned().collect();
            if let Some(tesseract) = self.config.tesseract.as_ref().filter(|_| self.recogniser.is_some()) {
                paths.push(tesseract.binary.clone());
                paths.extend(self.packs().iter().map(|pack| tesseract.tessdata.join(format!("{pack}.traineddata"))));
            }
            for path in paths {
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let hash = std::fs::read(&path).map(|bytes| Sha256Hex::of(&bytes).as_str()[..16].to_owned());
                parts.push(format!("{name}={}", hash.unwrap_or_else(|_| "missing".to_owned())));
            }
            parts.join(";")
        };
        self.fingerprint.get_or_init(files).clone()
    }

    fn packs(&self) -> Vec<String> {
        self.recogniser.as_ref().map(|r| r.packs().to_vec()).unwrap_or_default()
    }

    fn request(&self, task: Task, size_bytes: u64, options: &ParseOptions) -> Request {
        let (options, ocr_packs) = (options.clone(), self.packs());
        Request { task, options, ocr_packs, bad_pages: Vec::new(), size_bytes }
    }

    /// One try to parse, of which is noted what was seen.
    async fn watched(
        &self,
        bytes: &Bytes,
        options: &ParseOptions,
        bad_pages: &[(u32, Failure)],
        observed: &mut Observed,
    ) -> Result<Finished, Ended> {
        let started = Instant::now();
        let tried = self.run(Task::Parse, bytes, options, bad_pages).await;
        let sight = tried.as_ref().map_or_else(|ended| &ended.sight, |finished| &finished.sight);
        observed.add(started.elapsed().saturating_sub(sight.own + sight.recognising), sight);
        tried
    }

    async fn run(
        &self,
        task: Task,
        bytes: &Bytes,
        options: &ParseOptions,
        bad_pages: &[(u32, Failure)],
    ) -> Result<Finished, Ended> {
        let request = Request { bad_pages: bad_pages.to_vec(), ..self.request(task, bytes.len() as u64, options) };
        let running = self.nursery.take(&setup(&self.config, options)).await.map_err(Ended::at_start)?;
        parent::run(running, &request, bytes, self.recogniser.clone()).await
    }
}

fn setup(config: &ParserConfig, options: &ParseOptions) -> ParseSetup {
    ParseSetup {
        pdfium: config.pdfium.clone(),
        memory_bytes: options.limits.memory_bytes,
        cpu_secs: options.limits.cpu_secs,
        landlock_required: config.landlock_required,
    }
}

/// The document that a child delivered. The child read what nobody trusts, so its places are not believed either.
///
/// # Errors
/// `PARSER_CRASHED` when it is none, or points past its own text.
pub(crate) fn document_of(output: &[u8]) -> Result<ParsedDocument, Failure> {
    let unreadable = |_| Failure::new(Code::ParserCrashed, "the parser's result cannot be read");
    let document: ParsedDocument = serde_json::from_slice(output).map_err(unreadable)?;
    if !document.is_within_its_text() {
        return Err(Failure::new(Code::ParserCrashed, "the parser's result points past its own text"));
    }
    Ok(document)
}
