//! Postgres as the running services see it: pools of two roles, one tenant per transaction, and no transaction that a
//! dropped request can leave half open.
//!
//! `app` is bound by row-level security: its work happens inside [`Database::write`] or [`Database::read`], which set
//! the tenant for one transaction. `engine` crosses tenants, but the schema grants it ids and states only.
//! Not here: migrations and set-up (the embedded supervisor's, over the sync driver).

mod pools;

pub use pools::Lent;

use crate::failpoints::Failpoints;
use docmill_model::{Code, Failure, TenantId};
use futures::future::BoxFuture;
use pools::{asked_on_return, connect, options};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use std::panic::Location;
use std::time::Duration;
use tokio::sync::oneshot;

/// Failure of a database operation: a driver error or a typed failure of the work done inside.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The driver or server failed.
    #[error("database operation failed")]
    Sqlx(#[from] sqlx::Error),
    /// The work inside the transaction ended in a typed failure; the transaction is rolled back.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl DbError {
    /// The failure to show: typed ones as they are, lost connections as `DATABASE_UNAVAILABLE`, text with NUL as
    /// `FIELD_INVALID`, the rest `INTERNAL`.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            DbError::Failed(failure) => failure,
            DbError::Sqlx(error) if is_unavailable(&error) => {
                Failure::new(Code::DatabaseUnavailable, "the database does not answer")
            }
            DbError::Sqlx(error) if is_unstorable(&error) => {
                Failure::new(Code::FieldInvalid, "a text holds a NUL character, which cannot be stored")
            }
            DbError::Sqlx(error) => {
                tracing::error!(error = %describe(&error), "database error");
                Failure::new(Code::Internal, "a database operation failed")
            }
        }
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        error.into_failure()
    }
}

/// True for lost connections, exhausted pools, shutdowns and lock or statement timeouts: worth another try.
#[must_use]
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(db) => db.code().is_some_and(|code| {
            // Connection exceptions, operator intervention, insufficient resources, serialization, deadlock, lock timeout.
            matches!(&code[..2], "08" | "57" | "53") || matches!(&*code, "40001" | "40P01" | "55P03" | "25P03")
        }),
        _ => false,
    }
}

/// True for text that Postgres has no place for: NUL characters, plain or escaped in JSON.
fn is_unstorable(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|db| db.code());
    matches!(code.as_deref(), Some("22021" | "22P05"))
}

/// SQLSTATE and constraint only: messages and details of the server may quote row values.
fn describe(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(db) => format!(
            "sqlstate {} table {:?} constraint {:?}",
            db.code().unwrap_or_default(),
            db.table(),
            db.constraint()
        ),
        None => match error {
            sqlx::Error::RowNotFound => "row not found".to_owned(),
            sqlx::Error::ColumnDecode { index, .. } => format!("column {index} has an unexpected type"),
            other => format!("{:?}", std::mem::discriminant(other)),
        },
    }
}

/// Longest transaction. Twice what the server lets one statement run, so that hardly anything but a silent peer meets it.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(120);

/// How to connect.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// URL of the role bound by row-level security.
    pub app_url: SecretString,
    /// URL of the role that moves jobs of all tenants.
    pub engine_url: SecretString,
    /// Most connections of the app role, at least 2: half of them only read. The engine role gets a third as many besides, at
    /// least 4.
    pub max_connections: u32,
    /// Longest wait for a connection before `DATABASE_UNAVAILABLE`.
    pub acquire_timeout: Duration,
}

/// The pools.
#[derive(Clone)]
pub struct Database {
    app: PgPool,
    readers: PgPool,
    engine: PgPool,
    failpoints: Failpoints,
}

impl Database {
    /// Connects the pools.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE` when the server does not answer, `CONFIG_INVALID` for an unreadable URL.
    pub async fn connect(config: &DatabaseConfig) -> Result<Self, Failure> {
        // Whoever asks how things are does not wait behind those that write and wait for each other.
        let half = (config.max_connections / 2).max(1);
        let app = connect(options(half, config.acquire_timeout), &config.app_url).await?;
        let readers = connect(options(half, config.acquire_timeout), &config.app_url).await?;
        let engine = asked_on_return(options((config.max_connections / 3).max(4), config.acquire_timeout));
        let engine = connect(engine, &config.engine_url).await?;
        Ok(Self { app, readers, engine, failpoints: Failpoints::default() })
    }

    /// The same pools with points that may be armed: whatever commits dies before and after its commit if told to.
    #[must_use]
    pub fn with_failpoints(self, failpoints: Failpoints) -> Self {
        Self { failpoints, ..self }
    }

    /// Armed by tests only.
    #[must_use]
    pub fn failpoints(&self) -> &Failpoints {
        &self.failpoints
    }

    /// The pool of the role that crosses tenants. Use for ids and states only; the schema grants no more.
    #[must_use]
    pub fn engine(&self) -> &PgPool {
        &self.engine
    }

    /// A connection of the engine role for one transaction.
    ///
    /// # Errors
    /// The driver's.
    pub async fn lend_engine(&self) -> Result<Lent, sqlx::Error> {
        Lent::of(&self.engine).await
    }

    /// Every tenant of the installation, that of evaluations included, in order of id.
    ///
    /// # Errors
    /// The driver's.
    pub async fn tenants(&self) -> Result<Vec<TenantId>, DbError> {
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar("SELECT id FROM tenants ORDER BY id").fetch_all(&self.engine).await?;
        Ok(ids.into_iter().map(TenantId).collect())
    }

    /// The tenants whose content is examined: all but that of evaluations and those that are being removed, in order of id.
    ///
    /// # Errors
    /// The driver's.
    pub async fn examined_tenants(&self) -> Result<Vec<TenantId>, DbError> {
        let ids: Vec<uuid::Uuid> = sqlx::query_scalar(
            "SELECT id FROM tenants WHERE id <> $1 AND id NOT IN (SELECT tenant FROM tenant_deletions) ORDER BY id",
        )
        .bind(TenantId::of_evaluations().0)
        .fetch_all(&self.engine)
        .await?;
        Ok(ids.into_iter().map(TenantId).collect())
    }

    /// Runs `work` in one transaction as `tenant` and commits it. The transaction runs in a task of its own: when the
    /// caller is dropped, it still ends by commit or rollback.
    ///
    /// # Errors
    /// Whatever `work` returns (rolled back), or the driver's error.
    #[track_caller]
    pub fn write<T, F>(&self, tenant: TenantId, work: F) -> impl Future<Output = Result<T, DbError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
    {
        self.clone().transact(self.app.clone(), tenant, "BEGIN", Some(Location::caller()), work)
    }

    /// `from` is where a writing transaction was asked for: the place of its failpoints.
    async fn transact<T, F>(
        self,
        pool: PgPool,
        tenant: TenantId,
        begin: &'static str,
        from: Option<&'static Location<'static>>,
        work: F,
    ) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
    {
        let task = tokio::spawn(async move {
            let ended = tokio::time::timeout(TRANSACTION_LIMIT, async move {
                let mut lent = Lent::of(&pool).await?;
                // One round trip. The tenant is hexadecimal digits and hyphens.
                let begin = format!("{begin}; SET LOCAL docmill.tenant = '{tenant}'");
                let mut transaction = lent.begin_with(AssertSqlSafe(begin)).await?;
                let value = match work(&mut transaction).await {
                    Ok(value) => value,
                    Err(error) => {
                        if transaction.rollback().await.is_ok() {
                            lent.give_back();
                        }
                        return Err(error);
                    }
                };
                self.meet("transaction.before", from).await;
                transaction.commit().await?;
                lent.give_back();
                self.meet("transaction.after", from).await;
                Ok(value)
            });
            // A peer that vanished without a word never answers; no statement may take this long.
            ended.await.unwrap_or(Err(DbError::Sqlx(sqlx::Error::PoolTimedOut)))
        });
        match task.await {
            Ok(result) => result,
            Err(join) => match join.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(DbError::Sqlx(sqlx::Error::PoolClosed)),
            },
        }
    }

    /// Runs `work` in one read-only, repeatable-read transaction as `tenant`: every statement sees one snapshot. What it
    /// returns does not wait for the transaction's end, on which nothing depends.
    ///
    /// # Errors
    /// Whatever `work` returns, or the driver's error.
    pub async fn read<T, F>(&self, tenant: TenantId, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, DbError>> + Send + 'static,
    {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let (tell, mut told) = oneshot::channel();
        let transaction = self.clone().transact(self.readers.clone(), tenant, begin, None, move |connection| {
            Box::pin(async move {
                // A caller that has gone wants no answer.
                let _ = tell.send(work(connection).await);
                Ok(())
            })
        });
        tokio::pin!(transaction);
        tokio::select! {
            biased;
            Ok(value) = &mut told => value,
            ended = &mut transaction => match told.try_recv() {
                Ok(value) => value,
                Err(_) => Err(ended.err().unwrap_or(DbError::Sqlx(sqlx::Error::PoolClosed))),
            },
        }
    }

    async fn meet(&self, point: &str, from: Option<&'static Location<'static>>) {
        if let Some(from) = from {
            let file = from.file().rsplit("crates/").next().unwrap_or_default();
            self.failpoints.hit(point, &format!("{file}:{}", from.line())).await;
        }
    }

    /// Waits for running transactions and closes the pools.
    pub async fn close(&self) {
        self.app.close().await;
        self.readers.close().await;
        self.engine.close().await;
    }
}

/// Makes the rest of the transaction another tenant's. Only for what acts on the whole installation in one transaction.
///
/// # Errors
/// The driver's.
pub async fn set_tenant(connection: &mut PgConnection, tenant: TenantId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('docmill.tenant', $1, true)")
        .bind(tenant.to_string())
        .execute(connection)
        .await
        .map(|_| ())
}
