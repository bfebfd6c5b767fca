//! The sessions of a store: a bounded pool of them, made when they are needed.

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use tokio::time::{Instant, timeout_at};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresStoreConfig, StoreError, unavailable};
use crate::postgres::{self, TlsError};

/// How long the server is asked to stop a read that was given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Sessions that are there or can be made.
pub struct Sessions {
    pub pool: Pool,
    tls: MakeRustlsConnect,
}

impl Sessions {
    /// Sessions that only read. Each statement takes its snapshot when it has its locks: one taken
    /// before, as under REPEATABLE READ, would find a table empty that was truncated or rewritten
    /// while its lock was waited for.
    pub fn reading(config: &PostgresStoreConfig) -> Result<Self, TlsError> {
        let millis = config.timeout.as_millis().max(1);
        let settings = [
            "default_transaction_read_only=on".to_owned(),
            format!("statement_timeout={millis}"),
            format!("lock_timeout={millis}"),
            format!("idle_in_transaction_session_timeout={millis}"),
        ];
        let settings = settings.each_ref().map(String::as_str);
        Self::new(config, config.connections.max(1), &settings)
    }

    /// A mark is flushed at once, for only what is flushed is sent through a slot, and waits for no
    /// standby.
    pub fn marking(config: &PostgresStoreConfig) -> Result<Self, TlsError> {
        let timeout = format!("statement_timeout={}", config.timeout.as_millis().max(1));
        Self::new(config, 1, &["synchronous_commit=local", &timeout])
    }

    fn new(
        config: &PostgresStoreConfig,
        connections: usize,
        settings: &[&str],
    ) -> Result<Self, TlsError> {
        let tls = postgres::connector(&config.address)?;
        let driver = postgres::config(&config.address, config.timeout, settings);
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(driver, tls.clone(), ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is named, which is all that is checked");
        Ok(Self { pool, tls })
    }

    /// A session, as soon as there is one.
    pub async fn get(&self, deadline: Instant) -> Result<Object, StoreError> {
        let left = Some(deadline.saturating_duration_since(Instant::now()));
        let timeouts = Timeouts {
            wait: left,
            create: left,
            recycle: left,
        };
        let got = timeout_at(deadline, self.pool.timeout_get(&timeouts)).await;
        match got {
            Ok(Ok(session)) => Ok(session),
            // Sessions are busy, or one is being made and the server does not answer: only in the
            // latter case is there room for another.
            Err(_) | Ok(Err(PoolError::Timeout(TimeoutType::Wait))) if self.is_busy() => {
                Err(StoreError::Busy)
            }
            Err(_) | Ok(Err(PoolError::Timeout(_))) => {
                Err(unavailable("the server does not answer"))
            }
            Ok(Err(PoolError::Backend(err))) => Err(unavailable(postgres::told(&err))),
            Ok(Err(err)) => Err(unavailable(err)),
        }
    }

    /// Whether every session that may be is there and in use.
    fn is_busy(&self) -> bool {
        let status = self.pool.status();
        status.size >= status.max_size
    }

    /// Closes a session whose server does not answer, and asks that its read be stopped.
    pub fn give_up(&self, session: Object) {
        let (token, tls) = (session.cancel_token(), self.tls.clone());
        drop(Object::take(session));
        tokio::spawn(async move {
            // The server stops the read by itself, too, as soon as it can.
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await;
        });
    }
}
