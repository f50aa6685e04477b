//! The wire between the service and its parsing child: length-prefixed frames over two pipes.
//!
//! To the child: one [`Request`] with the file's bytes, then [`OcrReply`] frames. From the child: [`Kind`] frames, of
//! which `Done` or `Failure` is the last. Both ends check lengths before they allocate.

use crate::options::ParseOptions;
use docmill_model::Failure;
use docmill_model::document::Rect;
use std::io::{self, Read, Write};

/// Bytes of the header of a frame or message.
pub(crate) const HEADER: usize = 5;
/// Largest JSON header of a request or reply (a page's recognised words are one reply).
pub(crate) const MESSAGE_LIMIT: usize = 64 << 20;
/// Bytes per chunk of a result.
pub(crate) const CHUNK: usize = 256 << 10;

/// What a frame from the child holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// JSON [`Ready`]: the sandbox is closed, the child waits for its request.
    Ready = b'R' as isize,
    /// What the bytes are: JSON [`crate::Detected`].
    Detected = b'T' as isize,
    /// An image to be recognised: JSON [`OcrRequest`] after its length, then one byte per pixel.
    Ocr = b'O' as isize,
    /// Work on a page begins: its number as four bytes, 0 for none any more.
    Page = b'P' as isize,
    /// A piece of the result.
    Chunk = b'C' as isize,
    /// The result is complete: JSON [`Done`].
    Done = b'D' as isize,
    /// The parse failed: JSON [`Failed`].
    Failed = b'F' as isize,
}

impl Kind {
    /// The kind behind a byte.
    pub fn of(byte: u8) -> Option<Kind> {
        let all = [Kind::Ready, Kind::Detected, Kind::Ocr, Kind::Page, Kind::Chunk, Kind::Done, Kind::Failed];
        all.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// What the child is to do.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Parse; the result is a `ParsedDocument` as JSON.
    Parse,
    /// Draw one page; the result is a PNG.
    Render(Render),
    /// Measure what the streams of a PDF unpack to; the result is JSON [`Expansion`].
    Expansion,
    /// Try to escape; the result is a JSON object of attempt and outcome.
    Probe,
    /// Misbehave in the named way (`spin`, `close`, `flood`, …), to test the parent.
    Misbehave(String),
}

/// A page image with highlights.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Render {
    /// Page from 1.
    pub page: u32,
    /// Pixels per page unit.
    pub scale: f32,
    /// Rectangles to mark, in page units.
    pub highlights: Vec<Rect>,
}

/// The message that starts a child's work; the file's bytes follow.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Request {
    /// What to do.
    pub task: Task,
    /// How.
    pub options: ParseOptions,
    /// Language packs that OCR may use; empty when OCR is not available.
    pub ocr_packs: Vec<String>,
    /// Pages that ended an earlier try, and how: they are left out.
    pub bad_pages: Vec<(u32, Failure)>,
    /// Bytes that follow.
    pub size_bytes: u64,
}

/// How the sandbox was closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lockdown {
    /// `full`, `partial` or `none`.
    pub landlock: String,
    /// True when the system call filter is installed.
    pub seccomp: bool,
    /// True when pdfium is loaded.
    pub pdfium: bool,
    /// Address space limit that was set, in bytes.
    pub address_space_bytes: u64,
}

/// What is asked of the recogniser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reading {
    /// The words of a page.
    Page,
    /// Words that stand anywhere, not in lines.
    Sparse,
    /// Which way up the page is.
    Orientation,
}

/// An image to recognise.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct OcrRequest {
    /// To match the reply.
    pub id: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Dots per inch, for the recogniser.
    pub dpi: u32,
    /// What is asked.
    pub reading: Reading,
    /// Languages, joined by `+`.
    pub languages: String,
}

/// What the recogniser wrote.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct OcrReply {
    /// Of the request.
    pub id: u32,
    /// Its output, or why there is none.
    pub result: Result<String, Failure>,
}

/// What a child measured of itself.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Done {
    /// Largest resident size.
    pub peak_rss_bytes: u64,
}

/// Why a child gave up.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Failed {
    /// The typed reason.
    pub failure: Failure,
    /// Largest resident size.
    pub peak_rss_bytes: u64,
}

/// What the streams of a PDF unpack to.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Expansion {
    /// Bytes after all filters that were undone, counted up to a little past the limit.
    pub expanded_bytes: u64,
    /// True when the limit was passed.
    pub over: bool,
}

/// Writes one frame.
pub(crate) fn write(out: &mut impl Write, kind: Kind, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).map_err(|_| io::Error::other("frame too long"))?;
    out.write_all(&[kind as u8])?;
    out.write_all(&length.to_le_bytes())?;
    for part in parts {
        out.write_all(part)?;
    }
    out.flush()
}

/// Reads one message (length, then JSON).
pub(crate) fn read_message<T: serde::de::DeserializeOwned>(input: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_LIMIT {
        return Err(io::Error::other("message too long"));
    }
    let mut json = vec![0; length];
    input.read_exact(&mut json)?;
    serde_json::from_slice(&json).map_err(io::Error::other)
}

/// The bytes of one message.
pub(crate) fn message<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value).map_err(io::Error::other)?;
    let length = u32::try_from(json.len()).map_err(|_| io::Error::other("message too long"))?;
    Ok([&length.to_le_bytes()[..], &json].concat())
}
