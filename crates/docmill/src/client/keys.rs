//! `keys …`: over the API with an admin key; without one, where the database is configured, the first key is made there.

use super::api::{Api, encode};
use super::connect;
use crate::assembly;
use crate::cli::{Cli, KeysCommand};
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::output::{self, field};
use docmill_api::keys::{self, KeyRequest};
use docmill_model::scope::Scope;
use docmill_model::{Code, Failure};
use secrecy::ExposeSecret;
use serde_json::json;

/// Runs a keys command.
pub async fn run(cli: &Cli, command: &KeysCommand) -> Result<(), Ending> {
    match command {
        KeysCommand::Create { name, scopes, labels, tenant } => {
            let config = load::load(cli.config.as_deref())?;
            let has_key = std::env::var("DOCMILL_API_KEY").is_ok_and(|key| !key.is_empty());
            let made = if config.database.url.is_some() && !has_key {
                in_database(&config, name, scopes, labels, tenant).await?
            } else {
                let body = json!({"name": name, "scopes": scopes, "labels": labels});
                connect(cli)?.post("/v1/keys", &body).await?
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
