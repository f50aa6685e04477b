//! `docmill inspect`: what Docmill sees in a local file, without a stack: lines, one JSON value, or a page of HTML with
//! everything drawn over the pages.

use crate::assembly::{self, blocking};
use crate::cli::Cli;
use crate::client::files::content_type;
use crate::config::Config;
use crate::exit::Ending;
use crate::output::{self, plain};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use clap::Args;
use docmill_documents::{FailedParse, Inspection, ParseRequest, Parsed, Parser, failure_html, inspection_html};
use docmill_model::document::{Format, ParsedDocument};
use docmill_model::{Code, Failure};
use std::path::{Path, PathBuf};

/// Arguments of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// The file.
    pub file: PathBuf,
    /// Print the whole text.
    #[arg(long)]
    pub text: bool,
    /// Write a page of HTML here: the pages with blocks, words and tables drawn over them.
    #[arg(long, value_name = "OUT")]
    pub html: Option<PathBuf>,
}

/// Pages whose pictures the HTML holds; later ones show their blocks only.
const PICTURES: usize = 200;
/// Widest picture in pixels.
const WIDTH: f32 = 1_400.0;
/// Characters of the text that are shown unless all are asked for.
const SHOWN_CHARS: usize = 600;

/// Reads the file and shows it; a file that cannot be read is found, not failed.
///
/// # Errors
/// `NOT_FOUND` for a path that cannot be read or written.
pub async fn run(cli: &Cli, config: &Config, args: &InspectArgs) -> Result<(), Ending> {
    let path = args.file.clone();
    let read = move || std::fs::read(&path).map_err(|e| unreachable_path("read", &path, &e));
    let bytes = Bytes::from(blocking(read).await?);
    let declared = content_type(&args.file);
    let parser = assembly::parser(config)?;
    let request = ParseRequest {
        bytes: bytes.clone(),
        declared: (declared != "application/octet-stream").then(|| declared.to_owned()),
        name: args.file.file_name().map(|name| name.to_string_lossy().into_owned()),
        ..ParseRequest::default()
    };
    let parsed = parser.parse_measured(request).await;
    if let Some(out) = &args.html {
        let title = args.file.file_name().unwrap_or_default().to_string_lossy();
        let html = match &parsed {
            Ok(parsed) => {
                let pictures = pictures(&parser, &bytes, &parsed.document).await;
                inspection_html(parsed, &title, &pictures)
            }
            Err(failed) => failure_html(failed, &title),
        };
        let path = out.clone();
        blocking(move || std::fs::write(&path, html).map_err(|e| unreachable_path("write", &path, &e))).await?;
    }
    show(cli, args, &parsed);
    let of_pdf = parsed.as_ref().is_ok_and(|parsed| parsed.document.format == Format::Pdf);
    if of_pdf && config.parsing.pdfium.is_none() {
        eprintln!(
            "pdfium is not set up, so pdf-extract read this, without places of words or hidden text: run `docmill setup`"
        );
    }
    if parsed.is_ok() { Ok(()) } else { Err(Ending::Found) }
}

fn unreachable_path(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::NotFound, format!("cannot {verb} {}: {error}", path.display()))
}

/// The pages as PNG in base64; a page that cannot be drawn is left out.
async fn pictures(parser: &Parser, bytes: &Bytes, document: &ParsedDocument) -> Vec<(u32, String)> {
    let mut pictures = Vec::new();
    if !matches!(document.format, Format::Pdf | Format::Image) {
        return pictures;
    }
    for page in document.pages.iter().take(PICTURES) {
        let scale = (WIDTH / page.width.max(1.0)).min(2.0);
        if let Ok(png) = parser.render_page(bytes.clone(), page.number, scale, Vec::new()).await {
            pictures.push((page.number, BASE64_STANDARD.encode(png)));
        }
    }
    pictures
}

fn show(cli: &Cli, args: &InspectArgs, parsed: &Result<Parsed, FailedParse>) {
    let report = Inspection::of(parsed);
    if cli.json {
        output::json(&serde_json::to_value(&report).unwrap_or_default());
        return;
    }
    let name = args.file.display();
    if let Some(message) = &report.message {
        output::line(format!("{name}: {} ({message})", report.outcome));
        if let (Some(limit), Some(measured)) = (report.limit, report.measured) {
            output::line(format!("limit {limit}, measured {measured}"));
        }
        output::line(plain(&report.detection()));
        output::line(report.timings());
        return;
    }
    let (detection, timings, roles) = (plain(&report.detection()), report.timings(), report.blocks_by_role());
    let (format, engine) = (report.format.unwrap_or_default(), report.engine.unwrap_or_default());
    let language = report.language.unwrap_or_else(|| "unknown".to_owned());
    output::line(format!("{name}: {}, {format} read by {engine}, language {language}", report.outcome));
    output::line(format!(
        "{} characters, {} pages, {} blocks, {} words, {} tables, {} links, {} hidden spans",
        report.text.chars().count(),
        report.pages,
        report.blocks,
        report.words,
        report.tables,
        report.links,
        report.hidden
    ));
    output::line(format!("blocks: {roles}"));
    output::line(detection);
    output::line(timings);
    for (index, outcome) in report.page_outcomes.iter().enumerate().filter(|(_, o)| *o != "text") {
        output::line(format!("page {}: {outcome}", index + 1));
    }
    for (path, code) in &report.failed_parts {
        output::line(format!("{}: {code}", plain(path)));
    }
    let limit = if args.text { usize::MAX } else { SHOWN_CHARS };
    output::line(format!("\n{}", plain(&report.text.chars().take(limit).collect::<String>())));
}
