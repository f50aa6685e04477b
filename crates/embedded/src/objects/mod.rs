//! The embedded S3 endpoint: durable, strict, small. Any real S3 replaces it by configuration.
//!
//! It speaks the S3 protocol (signatures, presigned URLs, conditions, checksums) through the `s3s` crate and stores
//! objects as files whose names are hashes, so no key can reach outside its bucket. An object is visible only after
//! its bytes were verified and synced. Lifecycle rules expire objects by prefix and age. Not offered: multipart uploads,
//! versions.

mod access;
mod faults;
mod files;
mod get;
mod lifecycle;
mod lingering;
mod meta;
mod put;
mod service;

pub use faults::{Fault, Faults};
pub use files::ObjectFiles;

use access::StrictAccess;
use docmill_model::{Code, Failure};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, SERVER};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use lingering::Lingering;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use service::ObjectService;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long running requests may take after a stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often lifecycle rules are carried out.
const LIFECYCLE_PERIOD: Duration = Duration::from_secs(3600);

/// What to serve.
#[derive(Clone, Debug)]
pub struct ObjectStoreConfig {
    /// Folder of the objects.
    pub root: PathBuf,
    /// What the `server` header says, so that a supervisor recognises its own store.
    pub name: String,
    /// Key id that requests must be signed with.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Buckets that exist from the start.
    pub buckets: Vec<String>,
}

/// Serves until `stop` fires, then lets running requests end for a few seconds.
///
/// # Errors
/// `CONFIG_INVALID` when the folder cannot be used, `CONFLICT` when another process serves it.
pub async fn serve(
    config: ObjectStoreConfig,
    listener: TcpListener,
    faults: Faults,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let name = HeaderValue::from_str(&config.name)
        .map_err(|_| Failure::new(Code::ConfigInvalid, "the name of the object store does not fit a header"))?;
    let files = ObjectFiles::open(config.root)?;
    for bucket in &config.buckets {
        files
            .create_bucket(bucket)
            .map_err(|e| Failure::new(Code::ConfigInvalid, format!("cannot create bucket {bucket}: {e}")))?;
    }
    // Whatever holds the folder: it is free again when all of it has ended.
    let holders = TaskTracker::new();
    holders.spawn(expire(files.clone(), stop.clone()));
    let mut builder = S3ServiceBuilder::new(ObjectService::new(files, faults));
    builder.set_auth(SimpleAuth::from_single(config.access_key, config.secret_key));
    builder.set_access(StrictAccess);
    let service = builder.build();
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    loop {
        let (socket, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let (service, name) = (service.clone(), name.clone());
        let named = service_fn(move |request: Request<Incoming>| {
            let (response, name) = (Service::call(&service, request), name.clone());
            async move {
                let mut response = response.await?;
                response.headers_mut().insert(SERVER, name);
                Ok::<_, s3s::HttpError>(response)
            }
        });
        let connection =
            graceful.watch(server.serve_connection(TokioIo::new(Lingering::new(socket)), named).into_owned());
        holders.spawn(async move {
            let _ = connection.await;
        });
    }
    let ended = async {
        graceful.shutdown().await;
        holders.close();
        holders.wait().await;
    };
    let _ = tokio::time::timeout(GRACE, ended).await;
    Ok(())
}

async fn expire(files: ObjectFiles, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LIFECYCLE_PERIOD);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let files = files.clone();
        let swept =
            tokio::task::spawn_blocking(move || lifecycle::sweep(&files, time::OffsetDateTime::now_utc())).await;
        if let Ok(deleted @ 1..) = swept {
            tracing::info!(deleted, "objects expired by lifecycle rules");
        }
    }
}
