//! The registry of prompts in the database: versions that never change, and a history of rules of which the last holds.
//!
//! A process keeps what it read for a moment; a changed rule is in effect everywhere within [`FRESH_FOR`].

use super::{Prompt, Rule};
use crate::database::Database;
use docmill_model::{Code, Failure, PrincipalId, Sha256Hex, TenantId};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a process relies on what it read.
pub const FRESH_FOR: Duration = Duration::from_secs(2);

/// A version as it is registered.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct VersionRow {
    /// Name of the prompt.
    pub name: String,
    /// Version from 1.
    pub version: i32,
    /// The file.
    pub text: String,
    /// SHA-256 of it.
    pub sha256: String,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}

/// An entry of a prompt's history.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutRow {
    /// Number, rising.
    pub id: i64,
    /// What held from then on.
    pub rule: Rule,
    /// The entry a rollback went back to.
    pub restores: Option<i64>,
    /// Who decided; nobody at the first start.
    pub principal_id: Option<PrincipalId>,
    /// When.
    pub created_at: OffsetDateTime,
}

type HistoryRow = (i64, serde_json::Value, Option<i64>, Option<uuid::Uuid>, OffsetDateTime);

#[derive(Default)]
struct Known {
    prompts: HashMap<(String, i32), Arc<Prompt>>,
    rules: HashMap<String, Rule>,
    read_at: Option<Instant>,
}

/// The prompts of an installation; cheap to clone.
#[derive(Clone)]
pub struct Prompts {
    /// Without one the files are all there is, each at its highest version.
    database: Option<Database>,
    known: Arc<RwLock<Known>>,
}

impl Prompts {
    /// Files alone, each prompt at its highest version.
    #[must_use]
    pub fn of_files(files: Vec<Prompt>) -> Self {
        let mut known = Known::default();
        for prompt in files {
            let rule = known.rules.entry(prompt.name.clone()).or_insert_with(|| Rule::all(prompt.version));
            rule.version = rule.version.max(prompt.version);
            known.prompts.insert((prompt.name.clone(), prompt.version), Arc::new(prompt));
        }
        Self { database: None, known: Arc::new(RwLock::new(known)) }
    }

    /// Registers `files`: new versions are added, and a prompt without a rule starts with its highest version.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the text of a registered version was changed; `DATABASE_UNAVAILABLE`.
    pub async fn register(database: Database, files: Vec<Prompt>) -> Result<Self, Failure> {
        for prompt in &files {
            let sha256 = prompt.sha256().to_string();
            sqlx::query(
                "INSERT INTO prompt_versions (name, version, text, sha256) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(&prompt.name)
            .bind(prompt.version)
            .bind(&prompt.text)
            .bind(&sha256)
            .execute(database.engine())
            .await
            .map_err(unavailable)?;
            // A statement of its own: it also sees what another role added while the insert waited for it.
            let registered: String =
                sqlx::query_scalar("SELECT sha256 FROM prompt_versions WHERE name = $1 AND version = $2")
                    .bind(&prompt.name)
                    .bind(prompt.version)
                    .fetch_one(database.engine())
                    .await
                    .map_err(unavailable)?;
            if registered != sha256 {
                let message = format!(
                    "the text of prompt {} was changed after it was registered; give it the next version number",
                    prompt.id()
                );
                return Err(Failure::new(Code::ConfigInvalid, message));
            }
        }
        sqlx::query(
            "INSERT INTO prompt_rollouts (name, rule)
             SELECT name, jsonb_build_object('version', max(version)) FROM prompt_versions v
             WHERE NOT EXISTS (SELECT 1 FROM prompt_rollouts r WHERE r.name = v.name) GROUP BY name",
        )
        .execute(database.engine())
        .await
        .map_err(unavailable)?;
        let prompts = Self { database: Some(database), known: Arc::default() };
        prompts.refresh().await?;
        Ok(prompts)
    }

    /// The same with one version of prompt `name` for everybody, whatever is rolled out: what an evaluation is made with.
    /// It does not follow later rollouts.
    ///
    /// # Errors
    /// `FIELD_INVALID` for a version that is not registered; `DATABASE_UNAVAILABLE`.
    pub async fn pinned(&self, name: &str, version: i32) -> Result<Self, Failure> {
        let mut known = self.read(|known| Known {
            prompts: known.prompts.clone(),
            rules: known.rules.clone(),
            read_at: known.read_at,
        });
        let key = (name.to_owned(), version);
        if let Some(database) = self.database.as_ref().filter(|_| !known.prompts.contains_key(&key)) {
            known
                .prompts
                .extend(read_text(database, name, version).await?.map(|prompt| (key.clone(), Arc::new(prompt))));
        }
        if !known.prompts.contains_key(&key) {
            return Err(unknown_version(name, version));
        }
        known.rules.insert(name.to_owned(), Rule::all(version));
        Ok(Self { database: None, known: Arc::new(RwLock::new(known)) })
    }

    /// The names of the prompts, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.read(|known| known.rules.keys().cloned().collect());
        names.sort();
        names
    }

    /// Reads rules and new versions until `stop`, so that [`Self::fingerprint`] is never older than [`FRESH_FOR`].
    pub async fn follow(self, stop: CancellationToken) {
        while tokio::time::timeout(FRESH_FOR, stop.cancelled()).await.is_err() {
            if let Err(failure) = self.refresh().await {
                tracing::warn!(code = %failure.code, "the prompts could not be read again");
            }
        }
    }

    /// The version of prompt `name` for a call of `tenant` about `input`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when there is no such prompt.
    pub async fn choose(&self, name: &str, tenant: TenantId, input: &str) -> Result<Arc<Prompt>, Failure> {
        let is_fresh = self.read(|known| known.read_at.is_some_and(|at| at.elapsed() < FRESH_FOR));
        if !is_fresh && self.database.is_some() {
            // What was read before still holds when the database is away.
            if let Err(failure) = self.refresh().await {
                tracing::warn!(code = %failure.code, "the prompts could not be read again");
            }
        }
        let found = self.read(|known| {
            let version = known.rules.get(name)?.version_for(tenant, input);
            known.prompts.get(&(name.to_owned(), version)).cloned()
        });
        found.ok_or_else(|| Failure::new(Code::ConfigInvalid, format!("there is no prompt `{name}`")))
    }

    /// What makes two results of a prompt differ: its rule. Back at an earlier rule it is the earlier one.
    #[must_use]
    pub fn fingerprint(&self, name: &str) -> String {
        let rule = self.read(|known| known.rules.get(name).map(|rule| serde_json::json!(rule).to_string()));
        let rule = rule.unwrap_or_default();
        format!("{name} {}", &Sha256Hex::of(rule.as_bytes()).as_str()[..12])
    }

    fn read<T>(&self, take: impl FnOnce(&Known) -> T) -> T {
        take(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn refresh(&self) -> Result<(), Failure> {
        let Some(database) = &self.database else { return Ok(()) };
        let rules: Vec<(String, serde_json::Value)> =
            sqlx::query_as("SELECT DISTINCT ON (name) name, rule FROM prompt_rollouts ORDER BY name, id DESC")
                .fetch_all(database.engine())
                .await
                .map_err(unavailable)?;
        let rules: HashMap<String, Rule> =
            rules.into_iter().filter_map(|(name, rule)| Some((name, serde_json::from_value(rule).ok()?))).collect();
        let wanted = rules.iter().flat_map(|(name, rule)| rule.versions().map(move |version| (name.clone(), version)));
        let missing: Vec<(String, i32)> =
            self.read(|known| wanted.filter(|key| !known.prompts.contains_key(key)).collect());
        let mut added = Vec::new();
        for (name, version) in missing {
            added.extend(read_text(database, &name, version).await?);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.prompts.extend(added.into_iter().map(|one| ((one.name.clone(), one.version), Arc::new(one))));
        known.rules = rules;
        known.read_at = Some(Instant::now());
        Ok(())
    }
}

/// A registered version.
async fn read_text(database: &Database, name: &str, version: i32) -> Result<Option<Prompt>, Failure> {
    let text: Option<String> = sqlx::query_scalar("SELECT text FROM prompt_versions WHERE name = $1 AND version = $2")
        .bind(name)
        .bind(version)
        .fetch_optional(database.engine())
        .await
        .map_err(unavailable)?;
    text.map(|text| Prompt::parse(&text)).transpose()
}

fn unknown_version(name: &str, version: i32) -> Failure {
    Failure::new(Code::FieldInvalid, format!("`version`: {name} has no version {version}"))
}

pub(super) fn unavailable(error: sqlx::Error) -> Failure {
    crate::database::DbError::from(error).into_failure()
}

/// Every registered version of every prompt, or of one.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`.
pub async fn versions(connection: &mut PgConnection, name: Option<&str>) -> Result<Vec<VersionRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, version, text, sha256, created_at FROM prompt_versions WHERE $1::text IS NULL OR name = $1
         ORDER BY name, version",
    )
    .bind(name)
    .fetch_all(connection)
    .await
}

/// The history of a prompt, newest first, at most 100 entries.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`.
pub async fn history(connection: &mut PgConnection, name: &str) -> Result<Vec<RolloutRow>, sqlx::Error> {
    let rows: Vec<HistoryRow> = sqlx::query_as(
        "SELECT id, rule, restores, principal_id, created_at FROM prompt_rollouts WHERE name = $1 ORDER BY id DESC LIMIT 100",
    )
    .bind(name)
    .fetch_all(connection)
    .await?;
    let read = |(id, rule, restores, principal, created_at): HistoryRow| {
        let rule = serde_json::from_value(rule).ok()?;
        Some(RolloutRow { id, rule, restores, principal_id: principal.map(PrincipalId), created_at })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Makes `rule` hold from now on.
///
/// # Errors
/// `FIELD_INVALID` for a version that is not registered or a share above 100, `NOT_FOUND` for an unknown prompt.
pub async fn roll_out(
    connection: &mut PgConnection,
    name: &str,
    rule: &Rule,
    principal: PrincipalId,
) -> Result<(), crate::database::DbError> {
    let known: Vec<i32> = versions(connection, Some(name)).await?.iter().map(|row| row.version).collect();
    if known.is_empty() {
        return Err(Failure::new(Code::NotFound, "there is no such prompt").into());
    }
    if let Some(unknown) = rule.versions().find(|version| !known.contains(version)) {
        return Err(unknown_version(name, unknown).into());
    }
    if let Some(share) = rule.share.filter(|share| share.percent > 100) {
        let message = "`percent`: 0 to 100 is expected";
        return Err(Failure::limit(Code::FieldInvalid, message, 100, u64::from(share.percent)).into());
    }
    write(connection, name, rule, None, principal).await?;
    Ok(())
}

/// Goes back to the rule that held before the current one, and returns it.
///
/// # Errors
/// `NOT_FOUND` for an unknown prompt, `CONFLICT` when nothing held before.
pub async fn roll_back(
    connection: &mut PgConnection,
    name: &str,
    principal: PrincipalId,
) -> Result<Rule, crate::database::DbError> {
    let rows = history(connection, name).await?;
    let current = rows.first().ok_or_else(|| Failure::new(Code::NotFound, "there is no such prompt"))?;
    // A rollback stands for the entry it went back to, so that a second one goes further back.
    let origin = current.restores.unwrap_or(current.id);
    let before = rows.iter().find(|row| row.id < origin);
    let before = before.ok_or_else(|| Failure::new(Code::Conflict, "no other rule held before this one"))?;
    write(connection, name, &before.rule, Some(before.restores.unwrap_or(before.id)), principal).await?;
    Ok(before.rule.clone())
}

async fn write(
    connection: &mut PgConnection,
    name: &str,
    rule: &Rule,
    restores: Option<i64>,
    principal: PrincipalId,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO prompt_rollouts (name, rule, restores, principal_id) VALUES ($1, $2, $3, $4)")
        .bind(name)
        .bind(serde_json::json!(rule))
        .bind(restores)
        .bind(principal.0)
        .execute(connection)
        .await?;
    Ok(())
}
