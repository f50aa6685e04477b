//! What an operator does with spaces, each inside the caller's transaction.

use super::{MAX_SPACES, gaps, others, tenants};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError, set_tenant};
use docmill_platform::embedder::{Embedder, Space};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Ids of spaces without an approximate index: from here on, those that the owner gave no index of another length.
const FIRST_FREE_ID: i32 = 100;
/// More than there can be spaces and indexes.
const FREE_IDS: i32 = 10_000;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Names that are paths of the API.
const TAKEN: [&str; 1] = ["plan"];
/// Longest that a commit may take which makes a document visible, and more.
const COMMIT_PATIENCE_SECS: f64 = 600.0;

/// A space with what is known about its building.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct SpaceRow {
    /// The space.
    #[sqlx(flatten)]
    pub space: Space,
    /// False when it is scanned exactly.
    pub is_indexed: bool,
    /// Texts that belong into it, as last counted; none before the first count.
    pub texts: Option<i64>,
    /// Of them without a vector.
    pub missing: Option<i64>,
    /// Vectors the builder made.
    pub embedded: i64,
    /// What the builder last failed with.
    pub code: Option<String>,
    /// True while a builder works on it or has just looked.
    pub is_driven: bool,
    /// Since when it is there.
    pub created_at: OffsetDateTime,
    /// Since when nothing was missing.
    pub ready_at: Option<OffsetDateTime>,
    /// Since when it answers; of the active one.
    pub switched_at: Option<OffsetDateTime>,
}

/// The receipt of a drop.
#[derive(Clone, Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct SpaceDrop {
    /// The receipt.
    pub id: Uuid,
    /// Name of the space.
    pub name: String,
    /// Length of its vectors.
    pub dimensions: i32,
    /// Its model.
    pub fingerprint: Option<String>,
    /// Vectors removed so far; they left the index with it.
    pub vectors: i64,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When nothing was left.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// What a switch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// Name of the space that answered.
    pub from: String,
    /// Name of the one that answers now; the same when it did already.
    pub to: String,
}

/// All spaces, the active one first.
///
/// # Errors
/// The driver's.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<SpaceRow>, DbError> {
    let rows = sqlx::query_as(
        "SELECT s.id, s.name, s.dimensions, s.fingerprint, s.state, s.is_paused, a.space_id IS NOT NULL AS is_active,
                EXISTS (SELECT 1 FROM space_indexes i WHERE i.space_id = s.id) AS is_indexed,
                CASE WHEN s.counted_at IS NOT NULL THEN s.texts END AS texts,
                CASE WHEN s.counted_at IS NOT NULL THEN s.missing END AS missing, s.embedded, s.code,
                coalesce(s.lease_until > now(), false) AS is_driven, s.created_at, s.ready_at, a.switched_at
         FROM embedding_spaces s LEFT JOIN active_spaces a ON a.space_id = s.id
         ORDER BY is_active DESC, s.created_at, s.id",
    );
    Ok(rows.fetch_all(connection).await?)
}

/// The latest receipts of drops, newest first.
///
/// # Errors
/// The driver's.
pub async fn drops(connection: &mut PgConnection, limit: i64) -> Result<Vec<SpaceDrop>, DbError> {
    let rows = sqlx::query_as(
        "SELECT id, name, dimensions, fingerprint, vectors, created_at, finished_at FROM space_drops
         ORDER BY created_at DESC, id DESC LIMIT $1",
    );
    Ok(rows.bind(limit).fetch_all(connection).await?)
}

/// Enters the space `name` for `model`, to be built; one that is there already is built on. One that `is_paused` is left to
/// what a schedule embeds into it.
///
/// # Errors
/// `FIELD_INVALID` for an unusable name or length, `CONFLICT` when the name is another model's, the model has another space,
/// or there are [`MAX_SPACES`].
pub async fn create_in(
    connection: &mut PgConnection,
    name: &str,
    model: &dyn Embedder,
    is_paused: bool,
) -> Result<Space, DbError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) || TAKEN.contains(&name) {
        let message = "the name of an embedding space has 1 to 64 of the characters a-z, 0-9, `-`, `_` and `.`, and is not `plan`";
        return Err(Failure::new(Code::FieldInvalid, message).into());
    }
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('embedding spaces', 0))")
        .execute(&mut *connection)
        .await?;
    let (spaces, fingerprint) = (Space::all(connection).await?, model.fingerprint());
    let conflict = |message: String| Err(DbError::Failed(Failure::new(Code::Conflict, message)));
    match spaces.iter().find(|space| space.name == name) {
        Some(space) if space.is_standing() && space.fingerprint.as_ref() == Some(&fingerprint) => {
            let is_paused = is_paused && !space.is_active;
            set_paused(connection, space.id, is_paused).await?;
            return Ok(Space { is_paused, ..space.clone() });
        }
        Some(space) if space.is_standing() => {
            return conflict(format!("the embedding space `{name}` is of another model; give this one another name"));
        }
        Some(_) => return conflict(format!("the embedding space `{name}` is being dropped; wait until it is gone")),
        None => {}
    }
    if let Some(space) = spaces.iter().find(|space| space.fingerprint.as_ref() == Some(&fingerprint)) {
        return conflict(format!("the model has a space already: `{}`", space.name));
    }
    if spaces.len() >= MAX_SPACES {
        let message = "there are as many embedding spaces as there may be; drop one";
        return Err(Failure::limit(Code::Conflict, message, MAX_SPACES as u64, spaces.len() as u64).into());
    }
    let dimensions = model.dimensions() as i32;
    sqlx::query(
        "INSERT INTO embedding_spaces (id, name, dimensions, fingerprint, is_paused, state)
         SELECT coalesce(
             (SELECT min(i.space_id) FROM space_indexes i
              WHERE i.dimensions = $2 AND NOT EXISTS (SELECT 1 FROM embedding_spaces s WHERE s.id = i.space_id)),
             (SELECT min(free.id) FROM generate_series($4, $4 + $5) AS free (id)
              WHERE NOT EXISTS (SELECT 1 FROM space_indexes i WHERE i.space_id = free.id)
                AND NOT EXISTS (SELECT 1 FROM embedding_spaces s WHERE s.id = free.id))), $1, $2, $3, $6, 'building'",
    )
    .bind(name)
    .bind(dimensions)
    .bind(fingerprint)
    .bind(FIRST_FREE_ID)
    .bind(FREE_IDS)
    .bind(is_paused)
    .execute(&mut *connection)
    .await?;
    found(connection, name).await
}

/// Stops embedding into a space, or lets it go on; true when that changed something. What is there stays.
///
/// # Errors
/// `SPACE_UNKNOWN`; `SPACE_ACTIVE` for pausing the one that answers.
pub async fn pause_in(connection: &mut PgConnection, name: &str, is_paused: bool) -> Result<bool, DbError> {
    let space = locked(connection, name).await?;
    if space.is_active && is_paused {
        return Err(Failure::new(Code::SpaceActive, "new documents are embedded into the space that answers").into());
    }
    set_paused(connection, space.id, is_paused).await?;
    Ok(space.is_paused != is_paused)
}

/// A space that lacked no visible text, and since when what changed has to be looked at again.
#[derive(Clone, Debug)]
pub struct Checked {
    space: Space,
    since: OffsetDateTime,
}

/// The long look before a switch to `name`, before anything waits for it.
///
/// # Errors
/// `SPACE_UNKNOWN`; `SPACE_INCOMPLETE` with the number of texts that lack a vector.
pub async fn check_switch(database: &Database, name: &str) -> Result<Checked, Failure> {
    let since: OffsetDateTime = sqlx::query_scalar("SELECT now() - make_interval(secs => $1)")
        .bind(COMMIT_PATIENCE_SECS)
        .fetch_one(database.engine())
        .await
        .map_err(DbError::from)?;
    let spaces = super::all(database).await?;
    let space = spaces.iter().find(|space| space.name == name && space.is_standing()).ok_or_else(unknown)?;
    let (mut missing, others) = (0, others(&spaces, space.id));
    for tenant in tenants(database).await? {
        missing += gaps::visible(database, tenant, space.id, &others).await?;
    }
    check_missing(missing)?;
    Ok(Checked { space: space.clone(), since })
}

/// Makes a space that was checked the one that answers, by one row update. Until the commit no generation becomes visible,
/// and every visible text has a vector in the space: what changed since the check is looked at again. The transaction is
/// `home`'s before and after.
///
/// # Errors
/// `SPACE_UNKNOWN`; `SPACE_INCOMPLETE` with the number of texts that lack a vector.
pub async fn switch_in(
    connection: &mut PgConnection,
    database: &Database,
    home: TenantId,
    checked: &Checked,
) -> Result<Switched, DbError> {
    let space = locked(connection, &checked.space.name).await?;
    if !space.is_same(&checked.space) {
        return Err(unknown().into());
    }
    // From here on index commits wait, whose generation could become visible without vectors in this space.
    let active: i32 =
        sqlx::query_scalar("SELECT space_id FROM active_spaces FOR UPDATE").fetch_one(&mut *connection).await?;
    let spaces = Space::all(connection).await?;
    let from = spaces.iter().find(|other| other.id == active).map_or_else(String::new, |other| other.name.clone());
    if active == space.id {
        return Ok(Switched { from, to: space.name });
    }
    let (others, mut missing) = (others(&spaces, space.id), 0);
    for tenant in tenants(database).await? {
        set_tenant(connection, tenant).await?;
        missing += gaps::visible_since(connection, space.id, &others, checked.since).await?;
    }
    set_tenant(connection, home).await?;
    check_missing(missing)?;
    sqlx::query("UPDATE embedding_spaces SET is_paused = false WHERE id = $1")
        .bind(space.id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE active_spaces SET space_id = $1, switched_at = now()")
        .bind(space.id)
        .execute(connection)
        .await?;
    Ok(Switched { from, to: space.name })
}

/// Begins to drop a space: no request and no new run uses it from then on; the builder removes its vectors.
///
/// # Errors
/// `SPACE_UNKNOWN`, `SPACE_ACTIVE`.
pub async fn drop_in(connection: &mut PgConnection, name: &str) -> Result<SpaceDrop, DbError> {
    let space = locked(connection, name).await?;
    if space.is_active {
        return Err(Failure::new(Code::SpaceActive, "the embedding space that answers is not dropped").into());
    }
    sqlx::query("UPDATE embedding_spaces SET state = 'dropping', missing = 0, lease_until = NULL WHERE id = $1")
        .bind(space.id)
        .execute(&mut *connection)
        .await?;
    let receipt = sqlx::query_as(
        "INSERT INTO space_drops (id, space_id, name, dimensions, fingerprint) VALUES ($1, $2, $3, $4, $5)
         RETURNING id, name, dimensions, fingerprint, vectors, created_at, finished_at",
    );
    let receipt = receipt.bind(Uuid::now_v7()).bind(space.id).bind(space.name).bind(space.dimensions);
    Ok(receipt.bind(space.fingerprint).fetch_one(connection).await?)
}

fn unknown() -> Failure {
    Failure::new(Code::SpaceUnknown, "there is no embedding space of this name")
}

fn check_missing(missing: i64) -> Result<(), Failure> {
    if missing == 0 {
        return Ok(());
    }
    let message = "visible texts have no vector in this embedding space yet";
    Err(Failure::limit(Code::SpaceIncomplete, message, 0, missing.unsigned_abs()))
}

/// The standing space of this name, its row locked against other steering. What is active is read after the lock.
async fn locked(connection: &mut PgConnection, name: &str) -> Result<Space, DbError> {
    sqlx::query("SELECT 1 FROM embedding_spaces WHERE name = $1 FOR NO KEY UPDATE")
        .bind(name)
        .execute(&mut *connection)
        .await?;
    found(connection, name).await
}

async fn found(connection: &mut PgConnection, name: &str) -> Result<Space, DbError> {
    let space = Space::named(connection, name).await?.filter(Space::is_standing);
    space.ok_or_else(|| unknown().into())
}

async fn set_paused(connection: &mut PgConnection, id: i32, is_paused: bool) -> Result<(), DbError> {
    sqlx::query("UPDATE embedding_spaces SET is_paused = $2 WHERE id = $1")
        .bind(id)
        .bind(is_paused)
        .execute(connection)
        .await?;
    Ok(())
}
