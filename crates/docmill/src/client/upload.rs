//! Uploading as any client does: declare, PUT to the signed URL, complete, and on request wait.

use super::api::Api;
use super::files::{self, LocalFile};
use super::watch::{self, Changes};
use crate::cli::{Cli, UploadArgs};
use crate::exit::Ending;
use crate::output;
use docmill_model::{Code, Failure};
use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

/// Tries of one PUT, each with a fresh URL.
const PUT_TRIES: u32 = 6;
/// Between two looks at documents that are waited for.
const POLL: Duration = Duration::from_millis(400);

/// How files are declared.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    pub collection: Option<String>,
    pub pipeline: Option<String>,
    pub labels: Vec<String>,
    pub metadata: Map<String, Value>,
    pub external_id: bool,
}

/// What became of one file.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Uploaded {
    /// File name.
    pub name: String,
    /// Document id.
    pub id: String,
    /// State of the document after `complete`.
    pub state: String,
    /// True when the bytes were there already.
    pub deduplicated: bool,
}

/// `KEY=VALUE` pairs; numbers and true/false are kept as such.
///
/// # Errors
/// `FIELD_INVALID` for a pair without key or `=`.
pub fn pairs(given: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut pairs = Map::new();
    for pair in given {
        let (key, value) = pair
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Failure::new(Code::FieldInvalid, format!("--metadata {pair}: KEY=VALUE is expected")))?;
        let scalar = serde_json::from_str(value).ok().filter(|v: &Value| v.is_number() || v.is_boolean());
        pairs.insert(key.to_owned(), scalar.unwrap_or_else(|| Value::String(value.to_owned())));
    }
    Ok(pairs)
}

impl Declaration {
    /// From the command line.
    ///
    /// # Errors
    /// `FIELD_INVALID` for metadata that is not `KEY=VALUE`.
    pub fn of(args: &UploadArgs) -> Result<Self, Failure> {
        let metadata = pairs(&args.metadata)?;
        Ok(Self {
            collection: args.collection.clone(),
            pipeline: args.pipeline.clone(),
            labels: args.labels.clone(),
            metadata,
            external_id: args.external_id,
        })
    }

    fn body(&self, file: &LocalFile) -> Value {
        let mut body = json!({
            "name": file.name, "content_type": file.content_type, "size": file.size_bytes, "sha256": file.sha256,
            "metadata": self.metadata, "labels": self.labels,
        });
        let external = self.external_id.then(|| file.path.to_string_lossy().into_owned());
        for (key, value) in [("collection", &self.collection), ("pipeline", &self.pipeline), ("external_id", &external)]
        {
            if let Some(value) = value {
                body[key] = json!(value);
            }
        }
        body
    }

    /// Uploads one file; `progress` is set to the bytes sent.
    pub async fn upload(&self, api: &Api, path: &Path, progress: &ProgressBar) -> Result<Uploaded, Ending> {
        let owned = path.to_owned();
        let file = crate::assembly::blocking(move || files::read(&owned)).await?;
        progress.set_length(file.size_bytes);
        for attempt in 1.. {
            let declared = api.post("/v1/documents", &self.body(&file)).await?;
            let id = output::field(&declared, "/id");
            if declared["deduplicated"] == true {
                progress.set_position(file.size_bytes);
                let state = output::field(&declared, "/state");
                return Ok(Uploaded { name: file.name, id, state, deduplicated: true });
            }
            match put(api, &file, &declared["upload"], progress).await {
                // 412: an earlier try arrived although its answer did not.
                Ok(status) if status.is_success() || status == StatusCode::PRECONDITION_FAILED => {
                    let view = api.post(&format!("/v1/documents/{id}/complete"), &json!({})).await?;
                    let state = output::field(&view, "/state");
                    return Ok(Uploaded { name: file.name, id, state, deduplicated: false });
                }
                Ok(status) if attempt >= PUT_TRIES || !is_passing(status) => {
                    let message = format!("the store refused {}: {status}", file.name);
                    return Err(Ending::Refused(Failure::new(Code::StoreUnavailable, message)));
                }
                Err(failure) if attempt >= PUT_TRIES => return Err(failure.into()),
                _ => tokio::time::sleep(Duration::from_millis(300) * attempt).await,
            }
        }
        unreachable!("the loop ends by returning")
    }
}

/// What another try may set right; 409 is another PUT of the same bytes at the same time.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::CONFLICT
}

async fn put(api: &Api, file: &LocalFile, upload: &Value, progress: &ProgressBar) -> Result<StatusCode, Failure> {
    let opened = tokio::fs::File::open(&file.path).await;
    let opened =
        opened.map_err(|e| Failure::new(Code::NotFound, format!("cannot read {}: {e}", file.path.display())))?;
    progress.set_position(0);
    let bar = progress.clone();
    let counted = tokio_util::io::ReaderStream::with_capacity(opened, 128 << 10)
        .inspect(move |chunk| bar.inc(chunk.as_ref().map_or(0, |bytes| bytes.len() as u64)));
    let mut request = api.bare().put(output::field(upload, "/url")).timeout(Duration::from_secs(3600));
    for (name, value) in upload["headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap_or_default());
    }
    let sent = request.header("content-length", file.size_bytes).body(reqwest::Body::wrap_stream(counted)).send().await;
    sent.map(|answer| answer.status()).map_err(|_| {
        Failure::new(Code::StoreUnavailable, "the object store does not answer; is its address reachable from here?")
    })
}

/// `docmill upload`.
pub async fn run(cli: &Cli, args: &UploadArgs, api: &Api) -> Result<(), Ending> {
    let declaration = Declaration::of(args)?;
    // Before the files are looked up, so that none comes in between.
    let changes = if args.watch { Some(Changes::begin(&args.paths)?) } else { None };
    let paths = files::find(&args.paths)?;
    let bars = if cli.json {
        MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden())
    } else {
        MultiProgress::new()
    };
    let mut failed = 0;
    let mut uploaded = Vec::new();
    let work = paths.into_iter().map(|path| {
        let (declaration, bars) = (&declaration, &bars);
        async move {
            let bar = bars.add(byte_bar(&path));
            let done = declaration.upload(api, &path, &bar).await;
            bar.finish_and_clear();
            (path, done)
        }
    });
    let mut running = futures::stream::iter(work).buffer_unordered(usize::from(args.parallel));
    while let Some((path, done)) = running.next().await {
        match done {
            Ok(done) => {
                tell(cli, &bars, &done);
                uploaded.push(done);
            }
            Err(ending) => {
                failed += 1;
                bars.suspend(|| {
                    eprintln!("{}:", path.display());
                    ending.report();
                });
            }
        }
    }
    drop(running);
    if args.wait {
        failed += wait(cli, api, &uploaded).await?;
    }
    if let Some(changes) = changes {
        return watch::run(cli, api, &declaration, changes).await;
    }
    if failed == 0 { Ok(()) } else { Err(Ending::Found) }
}

fn byte_bar(path: &Path) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {bytes:>9}/{total_bytes:<9} {msg}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Shows an uploaded file.
pub fn tell(cli: &Cli, bars: &MultiProgress, done: &Uploaded) {
    if cli.json {
        output::json(&json!(done));
    } else {
        let note = if done.deduplicated { format!("already here, {}", done.state) } else { done.state.clone() };
        bars.suspend(|| output::line(format!("{}  {}  {note}", done.id, output::plain(&done.name))));
    }
}

/// True for states that nothing will change by itself.
pub fn is_settled(state: &str) -> bool {
    !matches!(state, "uploading" | "processing")
}

/// Waits until every document has settled; returns how many did not end done or partial.
async fn wait(cli: &Cli, api: &Api, uploaded: &[Uploaded]) -> Result<usize, Ending> {
    let mut failed = 0;
    for document in uploaded {
        let view = loop {
            let view = api.get(&format!("/v1/documents/{}", document.id), &[]).await?;
            if is_settled(&output::field(&view, "/state")) {
                break view;
            }
            tokio::time::sleep(POLL).await;
        };
        let state = output::field(&view, "/state");
        failed += usize::from(state != "done" && state != "partial");
        if cli.json {
            output::json(&view);
        } else {
            output::line(format!(
                "{}  {}  {state} {}",
                document.id,
                output::plain(&document.name),
                output::field(&view, "/code")
            ));
        }
    }
    Ok(failed)
}
