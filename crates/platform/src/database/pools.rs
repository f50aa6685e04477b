//! How connections are opened, lent and taken back.

use super::describe;
use docmill_model::{Code, Failure};
use secrecy::{ExposeSecret, SecretString};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use std::time::Duration;

/// Longest wait for a connection that is given back.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// A connection that rested this long is asked whether it still stands before it is used. One that was used since then
/// is not, as each question is a round trip: a server that ended meanwhile takes longer to come back.
const UNASKED: Duration = Duration::from_millis(50);

/// A connection of a pool for one transaction. Dropped without [`Lent::give_back`], it is closed: sqlx 0.9 can leave a
/// connection inside a transaction when `begin` is dropped mid-flight, and the next borrower's writes would vanish.
pub struct Lent {
    connection: PoolConnection<Postgres>,
    has_ended: bool,
}

impl Lent {
    pub(super) async fn of(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, has_ended: false })
    }

    /// Returns it to its pool: its transaction has ended by commit or rollback.
    pub fn give_back(mut self) {
        self.has_ended = true;
    }
}

impl std::ops::Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.has_ended {
            self.connection.close_on_drop();
        }
    }
}

pub(super) fn options(max_connections: u32, acquire_timeout: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(acquire_timeout)
        .max_lifetime(Duration::from_secs(1800))
        .test_before_acquire(false)
        .before_acquire(|connection, connected| {
            Box::pin(async move {
                if connected.idle_for > UNASKED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// Those of a pool whose queries may be broken off: on a connection to a peer that vanished without a word nobody answers,
/// it is given up, or the pool would shrink. Transactions see to it themselves ([`Lent`]).
pub(super) fn asked_on_return(options: PgPoolOptions) -> PgPoolOptions {
    options.after_release(|connection, _| {
        Box::pin(async move { Ok(matches!(tokio::time::timeout(RELEASE_LIMIT, connection.ping()).await, Ok(Ok(())))) })
    })
}

pub(super) async fn connect(pool: PgPoolOptions, url: &SecretString) -> Result<PgPool, Failure> {
    let options: PgConnectOptions = url.expose_secret().parse().map_err(|_| {
        Failure::new(
            Code::ConfigInvalid,
            "the database URL cannot be read; expected postgres://user:password@host/name",
        )
    })?;
    let options = options.application_name("docmill").options([
        ("statement_timeout", "60s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
    ]);
    pool.connect_with(options).await.map_err(|error| {
        tracing::warn!(error = %describe(&error), "cannot connect to Postgres");
        Failure::new(Code::DatabaseUnavailable, "cannot connect to Postgres; check that it runs and the URL is right")
    })
}
