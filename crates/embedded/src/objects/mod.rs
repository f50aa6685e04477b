//! The embedded S3 endpoint: durable, strict, small. Any real S3 replaces it by configuration.
//!
//! It speaks the S3 protocol (signatures, presigned URLs, conditions, checksums) through the `s3s` crate and stores
//! objects as files whose names are hashes, so no key can reach outside its bucket. An object is visible only after
//! its bytes were verified and synced. Not offered: multipart uploads, versions, lifecycle rules.

mod access;
mod files;
mod service;

pub use files::ObjectFiles;

use access::StrictAccess;
use docmill_model::{Code, Failure};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use service::ObjectService;
use std::path::PathBuf;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What to serve.
#[derive(Clone, Debug)]
pub struct ObjectStoreConfig {
    /// Folder of the objects.
    pub root: PathBuf,
    /// Key id that requests must be signed with.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Buckets that exist from the start.
    pub buckets: Vec<String>,
}

/// Serves until `stop` fires, then lets running requests end.
///
/// # Errors
/// `CONFIG_INVALID` when the folder cannot be used.
pub async fn serve(config: ObjectStoreConfig, listener: TcpListener, stop: CancellationToken) -> Result<(), Failure> {
    let files = ObjectFiles::open(config.root)?;
    for bucket in &config.buckets {
        files.create_bucket(bucket).map_err(|e| Failure::new(Code::ConfigInvalid, format!("cannot create bucket {bucket}: {e}")))?;
    }
    let mut builder = S3ServiceBuilder::new(ObjectService::new(files));
    builder.set_auth(SimpleAuth::from_single(config.access_key, config.secret_key));
    builder.set_access(StrictAccess);
    let service = builder.build();
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        let (socket, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let connection = graceful.watch(server.serve_connection(TokioIo::new(socket), service.clone()).into_owned());
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
    graceful.shutdown().await;
    Ok(())
}
