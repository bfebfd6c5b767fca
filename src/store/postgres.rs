//! Direct queries on PostgreSQL: a bounded pool of read-only sessions. Each read is one statement
//! and so one snapshot; it is stopped by the server when it takes too long, and given up when the
//! server does not answer.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{error::SqlState, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Snapshot, Store, StoreError,
    sql::{self, Dialect, Plan},
};
use crate::{
    postgres::{self, Address, DescribeError, TlsError},
    protocol::Select,
    row::{Rows, Value},
    topic::{Table, Topic, View},
};

/// How much longer than the server's own timeout an answer is waited for, so that it is the server
/// that stops a slow read: its session can be used again.
const SLACK: Duration = Duration::from_millis(100);

/// How long the server is asked to stop a read that was given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Statements that a session keeps prepared. Clients choose filters and orders, so there is no
/// end of them; when there are more, all are forgotten.
const MAX_STATEMENTS: usize = 100;

/// How often a read is tried with a new description, where the table was altered meanwhile.
const ATTEMPTS: usize = 3;

/// Which database to read, and how.
#[derive(Debug, Clone)]
pub struct PostgresStoreConfig {
    /// The database, and a role that may read the topics' tables. It needs no more.
    pub address: Address,
    /// Reads that run at once, each on a connection of its own.
    pub connections: usize,
    /// The longest that a query may take, waiting and connecting included.
    pub timeout: Duration,
}

/// A [`Store`] on a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresStore {
    sessions: Arc<Result<Sessions, TlsError>>,
    timeout: Duration,
    tables: Arc<Mutex<HashMap<String, Described>>>,
}

/// Sessions that are there or can be made.
struct Sessions {
    pool: Pool,
    tls: MakeRustlsConnect,
}

/// A table as it was described, and what tells whether it still is so.
#[derive(Clone)]
struct Described {
    table: Arc<Table>,
    fingerprint: String,
}

/// A read under way on a session.
type Reading<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl PostgresStore {
    /// A store that connects when it is asked, and again whenever a connection was lost.
    ///
    /// Certificates that cannot be used are told by every read.
    pub fn new(config: PostgresStoreConfig) -> Self {
        Self {
            sessions: Arc::new(Sessions::new(&config)),
            timeout: config.timeout,
            tables: Arc::default(),
        }
    }

    /// Runs a read on a session, within the timeout.
    ///
    /// A task of its own, so that a read whose asker has gone still ends in order.
    async fn with_session<T: Send + 'static>(
        &self,
        read: impl for<'a> Fn(&'a Self, &'a Object) -> Reading<'a, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let task = tokio::spawn(async move {
            let deadline = Instant::now() + store.timeout;
            let sessions = store.sessions.as_ref().as_ref();
            let sessions = sessions.map_err(|err| unavailable(err.to_string()))?;
            loop {
                let session = sessions.get(deadline).await?;
                let found = timeout_at(deadline + SLACK, read(&store, &session)).await;
                let Ok(found) = found else {
                    sessions.give_up(session);
                    return Err(StoreError::Timeout);
                };
                // The server may have gone and come back while the sessions were idle: what is
                // asked next is asked on a new one.
                let idle = Object::metrics(&session).recycle_count > 0;
                match found {
                    Err(StoreError::Unavailable(_)) if idle => sessions.pool.retain(|_, _| false),
                    found => return found,
                };
                drop(Object::take(session));
            }
        });
        task.await.unwrap_or_else(|err| Err(unavailable(err)))
    }

    fn remembered(&self, name: &str) -> Option<Described> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(name).cloned()
    }

    async fn table(&self, session: &Object, name: &str) -> Result<Described, StoreError> {
        // Read first: a table that is altered between the two is described again, not wrongly.
        let sql = format!("SELECT {}", fingerprint(name));
        let row = session
            .query_one(&sql, &[])
            .await
            .map_err(|err| failed(&err))?;
        let fingerprint: Option<String> = row.try_get(0).map_err(|err| failed(&err))?;
        let missing = || StoreError::Gone(format!("no table \"{name}\""));
        let table = match postgres::describe(session, name).await {
            Ok(found) => found.ok_or_else(missing)?,
            Err(DescribeError::Unfit(reason)) => return Err(StoreError::Gone(reason)),
            Err(DescribeError::Postgres(err)) => return Err(failed(&err)),
        };
        let described = Described {
            table: Arc::new(table),
            fingerprint: fingerprint.unwrap_or_default(),
        };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(name.to_owned(), described.clone());
        Ok(described)
    }

    async fn read(
        &self,
        session: &Object,
        topic: &str,
        view: &View,
        select: &Select,
    ) -> Result<Snapshot, StoreError> {
        let mut known = self.remembered(&view.table);
        for _ in 1..ATTEMPTS {
            let (described, new) = match known.take() {
                Some(described) => (described, false),
                None => (self.table(session, &view.table).await?, true),
            };
            match attempt(session, topic, view, select, &described).await {
                // A parameter may name a column that is new.
                Err(StoreError::BadParam(_)) if !new => {}
                Err(StoreError::Gone(_)) => {}
                found => return found,
            }
        }
        let described = self.table(session, &view.table).await?;
        attempt(session, topic, view, select, &described).await
    }
}

impl Sessions {
    fn new(config: &PostgresStoreConfig) -> Result<Self, TlsError> {
        let millis = config.timeout.as_millis().max(1);
        let settings = [
            "default_transaction_read_only=on".to_owned(),
            format!("statement_timeout={millis}"),
            format!("lock_timeout={millis}"),
            format!("idle_in_transaction_session_timeout={millis}"),
        ];
        let settings = settings.each_ref().map(String::as_str);
        let tls = postgres::connector(&config.address)?;
        let driver = postgres::config(&config.address, config.timeout, &settings);
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(driver, tls.clone(), ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(config.connections.max(1))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime is named, which is all that is checked");
        Ok(Self { pool, tls })
    }

    /// A session, as soon as there is one.
    async fn get(&self, deadline: Instant) -> Result<Object, StoreError> {
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
                Err(StoreError::Timeout)
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
    fn give_up(&self, session: Object) {
        let (token, tls) = (session.cancel_token(), self.tls.clone());
        drop(Object::take(session));
        tokio::spawn(async move {
            // The server stops the read by itself, too, as soon as it can.
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await;
        });
    }
}

impl Store for PostgresStore {
    async fn snapshot(&self, topic: Arc<Topic>, select: Select) -> Result<Snapshot, StoreError> {
        self.with_session(move |store, session| {
            let (topic, select) = (topic.clone(), select.clone());
            Box::pin(async move {
                let view = view(&topic)?;
                store.read(session, &topic.name, view, &select).await
            })
        })
        .await
    }

    async fn describe(&self, topic: Arc<Topic>) -> Result<Table, StoreError> {
        self.with_session(move |store, session| {
            let topic = topic.clone();
            Box::pin(async move {
                let described = store.table(session, &view(&topic)?.table).await?;
                Ok(described.table.as_ref().clone())
            })
        })
        .await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn view(topic: &Topic) -> Result<&View, StoreError> {
    let none = StoreError::BadParam("type: this topic carries events only");
    topic.view.as_ref().ok_or(none)
}

/// Runs one read of a table that is thought to be as described; [`StoreError::Gone`] where it is
/// not.
async fn attempt(
    session: &Object,
    topic: &str,
    view: &View,
    select: &Select,
    described: &Described,
) -> Result<Snapshot, StoreError> {
    let table = &described.table;
    let plan = sql::plan(Dialect::Postgres, topic, view, table, select)?;
    let text = statement(&plan, &table.name);
    if session.statement_cache.size() >= MAX_STATEMENTS {
        session.statement_cache.clear();
    }
    let prepared = session.prepare_cached(&text).await;
    let prepared = prepared.map_err(|err| failed(&err))?;
    let values = plan.values.iter().map(|value| match value {
        Value::Text(text) => text.as_str(),
        // This dialect binds nothing else.
        _ => "",
    });
    let values: Vec<&str> = values.chain([described.fingerprint.as_str()]).collect();
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as _).collect();
    let found = session.query(&prepared, &values).await;
    let found = found.map_err(|err| failed(&err))?;
    answer(topic, &plan, table, &found)
}

/// Rows, length of the list, and whether the table is as described: one statement sees one state
/// of the database, and is one round trip. The left row is always there and is only one, so that
/// the right ones keep their order.
fn statement(plan: &Plan, table: &str) -> String {
    let same = format!("{} = ${}::text", fingerprint(table), plan.values.len() + 1);
    let total = plan.total.as_deref().unwrap_or("SELECT 0::bigint");
    let rows = plan
        .rows
        .replacen("SELECT ", "SELECT TRUE AS _rowcast_here, ", 1);
    format!(
        "SELECT m.same, m.total, r.* FROM (SELECT {same} AS same, ({total}) AS total) m \
         LEFT JOIN ({rows}) r ON TRUE"
    )
}

/// A text that changes whenever the table's columns do.
fn fingerprint(table: &str) -> String {
    let name = postgres::quote_table(table).replace('\'', "''");
    format!(
        "(SELECT coalesce(pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attnum, \
         a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attcollation), ';' \
         ORDER BY a.attnum)), '') FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = '{name}'::pg_catalog.regclass AND a.attnum > 0 \
         AND NOT a.attisdropped)"
    )
}

fn answer(
    topic: &str,
    plan: &Plan,
    table: &Table,
    found: &[tokio_postgres::Row],
) -> Result<Snapshot, StoreError> {
    let first = found.first().ok_or_else(|| unavailable("no answer"))?;
    let (same, total) = (first.try_get(0), first.try_get::<_, i64>(1));
    if !same.map_err(|err| failed(&err))? {
        return Err(StoreError::Gone(format!("\"{}\" was altered", table.name)));
    }
    let total = total.map_err(|err| failed(&err))?.unsigned_abs();
    let (mut rows, mut last, mut more) = (Rows::default(), Vec::new(), false);
    for row in found {
        let here: Option<bool> = row.try_get(2).map_err(|err| failed(&err))?;
        more = rows.len() == plan.limit as usize;
        if here.is_none() || more {
            break;
        }
        let values = plan.columns.iter().enumerate().map(|(n, name)| {
            let text: Option<&str> = row.try_get(n + 3)?;
            let kind = table.column(name).and_then(|column| column.kind.as_ref());
            Ok(match (text, kind) {
                (None, _) => Value::Null,
                (Some(text), Some(kind)) => postgres::value(kind, text),
                (Some(text), None) => Value::Text(text.to_owned()),
            })
        });
        let values = values.collect::<Result<Vec<_>, tokio_postgres::Error>>();
        let values = values.map_err(|err| failed(&err))?;
        rows.push(plan.columns.iter().map(String::as_str).zip(&values));
        last = plan.place(&values);
    }
    Ok(Snapshot {
        // Which events this read saw is told by transaction ids, not by one checkpoint.
        horizon: None,
        page: plan.paged(topic, total, more.then_some(last))?,
        rows,
    })
}

/// What a statement's failure means. Values were held against their columns as far as that can be
/// done here; what PostgreSQL finds wrong with them then is the asker's, too.
fn failed(err: &tokio_postgres::Error) -> StoreError {
    let Some(code) = err.code() else {
        return unavailable(postgres::told(err));
    };
    match *code {
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => StoreError::Timeout,
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::INVALID_SCHEMA_NAME => {
            StoreError::Gone(postgres::told(err))
        }
        SqlState::UNDEFINED_FUNCTION
        | SqlState::DATATYPE_MISMATCH
        | SqlState::CANNOT_COERCE
        | SqlState::FEATURE_NOT_SUPPORTED => {
            StoreError::BadParam("params: columns that can be compared so")
        }
        ref code if code.code().starts_with("22") => {
            StoreError::BadParam("params: values of their columns' types")
        }
        _ => unavailable(postgres::told(err)),
    }
}

fn unavailable(err: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(err.into())
}
