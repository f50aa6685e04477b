//! What the embedded stack gives its roles and its user: endpoints, an address, and a key that may do everything.

use crate::assembly::Assembly;
use crate::config::Config;
use docmill_api::keys::{self, KeyRequest};
use docmill_embedded::files::replace;
use docmill_embedded::ports::Port;
use docmill_embedded::{Home, stack::Available};
use docmill_model::scope::Scope;
use docmill_model::{Code, Failure, TenantId};
use secrecy::{ExposeSecret, SecretString};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

/// The tenant of the embedded stack.
const TENANT: &str = "default";
/// What people type when they have not looked at `docmill status`.
const USUAL_PORT: u16 = 8080;
/// Free ports that may be lost to other processes before that is a failure.
const PORT_TRIES: u32 = 5;

/// The file with the key of the embedded stack.
pub fn key_path(home: &Home) -> PathBuf {
    home.secrets().join("api.key")
}

/// The remembered port of the embedded API.
pub fn port(home: &Home) -> Port {
    Port::kept_in(home.run().join("api.port"))
}

/// The file with the name that the roles now running in the home go by.
fn instance_path(home: &Home) -> PathBuf {
    home.run().join("instance")
}

/// Gives the roles that start in the home a name nobody else has.
///
/// # Errors
/// The file cannot be written.
pub fn fresh_instance(home: &Home) -> Result<String, Failure> {
    let name = uuid::Uuid::new_v4().to_string();
    replace(&instance_path(home), name.as_bytes(), 0o600)?;
    Ok(name)
}

/// The name of the roles that run in the home, once they have one.
pub fn instance(home: &Home) -> Option<String> {
    std::fs::read_to_string(instance_path(home)).ok()
}

/// Fills what is not configured.
pub fn adopt(config: &mut Config, home: &Home, available: Available, pepper: String) {
    let database = &mut config.database;
    if database.url.is_none() {
        database.url = Some(available.database.app.into());
        database.engine_url = Some(available.database.engine.into());
        database.owner_url = Some(available.database.owner.into());
    }
    if let Some(url) = available.nats_url
        && config.nats.url.is_none()
    {
        config.nats.url = Some(url.into());
    }
    if let Some(store) = available.store
        && config.s3.endpoint.is_none()
    {
        config.s3.endpoint = Some(store.endpoint);
        config.s3.region = store.region;
        config.s3.bucket = store.bucket;
        config.s3.access_key = Some(store.access_key);
        config.s3.secret_key = Some(store.secret_key.into());
        config.s3.path_style = true;
    }
    let parts = available.parts;
    config.embedding.model_dir.get_or_insert(parts.model_dir);
    config.embedding.onnxruntime.get_or_insert(parts.onnxruntime);
    config.parsing.pdfium.get_or_insert(parts.pdfium);
    if let Some(found) = parts.tesseract {
        config.parsing.tesseract.get_or_insert(found.binary);
        config.parsing.tessdata.get_or_insert(found.tessdata);
    }
    config.data_dir.get_or_insert(home.data().join("roles"));
    config.pepper.get_or_insert(SecretString::from(pepper));
    // Everything is on this machine: a webhook receiver will be, too.
    config.api.allow_private_webhooks = true;
}

/// The socket of the settings; of an embedded stack without any, the usual port when it is free, the last one otherwise,
/// else any.
///
/// # Errors
/// `CONFIG_INVALID` when nobody may listen there, or no port is free.
pub async fn listen(config: &Config, home: Option<&Home>) -> Result<TcpListener, Failure> {
    let choosing = home.filter(|_| std::env::var_os("DOCMILL_LISTEN").is_none());
    let mut tries = 0;
    loop {
        let address = match choosing {
            Some(home) => SocketAddr::from(([127, 0, 0, 1], port(home).choose_near(USUAL_PORT)?)),
            None => config.listen,
        };
        match TcpListener::bind(address).await {
            // Another process took it since it was found free.
            Err(taken) if choosing.is_some() && taken.kind() == ErrorKind::AddrInUse && tries < PORT_TRIES => {
                tries += 1
            }
            Err(error) => {
                let message = format!("cannot listen on {address}: {error}; set DOCMILL_LISTEN");
                return Err(Failure::new(Code::ConfigInvalid, message));
            }
            Ok(listener) => return Ok(listener),
        }
    }
}

/// Makes sure that the key in the home's file is one that works; returns its tenant, the only one of a laptop.
///
/// # Errors
/// Database failures, or the file cannot be written.
pub async fn provide_key(assembly: &Assembly, config: &Config, home: &Home) -> Result<TenantId, Failure> {
    let pepper = Config::need(&config.pepper, "DOCMILL_PEPPER")?;
    let tenant = keys::ensure_tenant(&assembly.database, TENANT).await?;
    let path = key_path(home);
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if !known(assembly, pepper, kept.trim()).await? {
        let key = create(assembly, pepper, tenant).await?;
        replace(&path, key.expose_secret().as_bytes(), 0o600)?;
    }
    Ok(tenant)
}

async fn known(assembly: &Assembly, pepper: &SecretString, key: &str) -> Result<bool, Failure> {
    let found: Result<Option<i32>, _> =
        sqlx::query_scalar("SELECT 1 FROM api_keys WHERE hash = $1 AND revoked_at IS NULL")
            .bind(keys::hash(pepper, key).as_slice())
            .fetch_optional(assembly.database.engine())
            .await;
    found.map(|row| row.is_some()).map_err(|_| Failure::new(Code::DatabaseUnavailable, "the database does not answer"))
}

async fn create(assembly: &Assembly, pepper: &SecretString, tenant_id: TenantId) -> Result<SecretString, Failure> {
    let request = KeyRequest {
        tenant_id,
        name: "embedded stack".to_owned(),
        scopes: Scope::ALL.to_vec(),
        labels: Vec::new(),
        expires_at: None,
    };
    Ok(keys::create(&assembly.database, pepper, request).await?.secret)
}
