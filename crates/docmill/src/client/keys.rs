//! `keys …`: over the API with an admin key; without one, where the database is configured, the first key is made there,
//! and one of a tenant that is named.

use super::api::{Api, encode};
use super::connect;
use crate::assembly;
use crate::cli::{Cli, KeysCommand};
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::output::{self, field};
use crate::roles::access;
use crate::stack;
use docmill_api::keys::{self, KeyRequest};
use docmill_embedded::stack::DATABASE;
use docmill_embedded::{Stack, files};
use docmill_model::scope::Scope;
use docmill_model::{Code, Failure};
use secrecy::ExposeSecret;
use serde_json::json;

/// Runs a keys command.
pub async fn run(cli: &Cli, command: &KeysCommand) -> Result<(), Ending> {
    match command {
        KeysCommand::Create { name, scopes, labels, tenant } => {
            let made = match with_database(cli, tenant.as_deref()).await? {
                Some(config) => {
                    in_database(&config, name, scopes, labels, tenant.as_deref().unwrap_or("default")).await?
                }
                None => {
                    let body = json!({"name": name, "scopes": scopes, "labels": labels});
                    connect(cli)?.post("/v1/keys", &body).await?
                }
            };
            if cli.json {
                output::json(&made)
            } else {
                output::line(field(&made, "/key"))
            }
            Ok(())
        }
        KeysCommand::List => list(cli, &connect(cli)?).await,
        KeysCommand::Revoke { id } => {
            let answer = connect(cli)?.delete(&format!("/v1/keys/{}", encode(id))).await?;
            if cli.json {
                output::json(&answer)
            } else {
                output::line("revoked")
            }
            Ok(())
        }
    }
}

/// The settings of the database that the key is made in; `None` when the API makes it, which it does for the tenant of the
/// key that asks. A tenant that is named needs the database: the configured one, else that of the embedded stack.
async fn with_database(cli: &Cli, tenant: Option<&str>) -> Result<Option<Config>, Failure> {
    let mut config = load::load(cli.config.as_deref())?;
    let has_key = std::env::var("DOCMILL_API_KEY").is_ok_and(|key| !key.is_empty());
    let refused = |why: &str| Err(Failure::new(Code::FieldInvalid, format!("`--tenant`: {why}")));
    if tenant.is_some() && has_key {
        return refused(
            "a key makes keys of its own tenant; leave it out, or unset DOCMILL_API_KEY beside the database",
        );
    }
    if has_key || (tenant.is_none() && config.database.url.is_none()) {
        return Ok(None);
    }
    if config.database.url.is_some() {
        return Ok(Some(config));
    }
    if cli.url.is_some() {
        return refused("only the database makes a key of another tenant, not an API; leave out --url (DOCMILL_URL)");
    }
    let Some(home) = stack::existing_home(cli)? else {
        return refused("there is no database here; run `docmill up`, or set DOCMILL_DATABASE_URL and those beside it");
    };
    let kept = home.clone();
    let (available, pepper) = assembly::blocking(move || {
        let available = Stack::of(&kept)?.available(DATABASE)?;
        Ok((available, files::secret(&kept.secrets().join("pepper"))?))
    })
    .await?;
    access::adopt(&mut config, &home, available, pepper);
    Ok(Some(config))
}

async fn in_database(
    config: &Config,
    name: &str,
    scopes: &[String],
    labels: &[String],
    tenant: &str,
) -> Result<serde_json::Value, Failure> {
    let parse = |text: &String| {
        let message = || format!("there is no scope `{text}`; known are upload, query, operate, content:read, admin");
        Scope::parse(text).ok_or_else(|| Failure::new(Code::FieldInvalid, message()))
    };
    let scopes = scopes.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let database = assembly::database(config).await?;
    let pepper = Config::need(&config.pepper, "DOCMILL_PEPPER")?;
    let tenant_id = keys::ensure_tenant(&database, tenant).await?;
    let request = KeyRequest { tenant_id, name: name.to_owned(), scopes, labels: labels.to_vec(), expires_at: None };
    let made = keys::create(&database, pepper, request).await?;
    Ok(json!({"id": made.id, "tenant_id": tenant_id, "key": made.secret.expose_secret()}))
}

async fn list(cli: &Cli, api: &Api) -> Result<(), Ending> {
    let keys = api.get("/v1/keys", &[]).await?;
    if cli.json {
        output::json(&keys);
        return Ok(());
    }
    let rows = keys["keys"].as_array().into_iter().flatten().map(|key| {
        let pointers = ["/id", "/prefix", "/name", "/scopes", "/labels", "/last_used_at", "/revoked_at"];
        pointers.iter().map(|pointer| output::plain(&field(key, pointer))).collect()
    });
    output::table(&["id", "prefix", "name", "scopes", "labels", "last used", "revoked"], rows);
    Ok(())
}
