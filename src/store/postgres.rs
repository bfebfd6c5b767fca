//! Direct queries on PostgreSQL: a bounded pool of read-only sessions. Each read is one statement
//! and so one snapshot; it is stopped by the server when it takes too long, and given up when the
//! server does not answer.

mod sessions;

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::Object;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{error::SqlState, types::ToSql};

use sessions::Sessions;

use super::{
    Snapshot, Store, StoreError,
    sql::{self, Dialect, Plan},
};
use crate::{
    horizon::{Horizon, Visible},
    postgres::{self, Address, DescribeError, TlsError},
    protocol::Select,
    row::{Rows, Value},
    topic::{Base, Table, Topic, View},
};

/// How much longer than the server's own timeout an answer is waited for, so that it is the server
/// that stops a slow read: its session can be used again.
const SLACK: Duration = Duration::from_millis(100);

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
    /// One session that sets marks, so that reads never keep them waiting.
    marking: Arc<Result<Sessions, TlsError>>,
    timeout: Duration,
    tables: Arc<Mutex<HashMap<Base, Described>>>,
}

/// A table, or the result of a query, as it was described.
#[derive(Clone)]
struct Described {
    table: Arc<Table>,
    /// What tells whether it still is so: the value of [`fingerprint`].
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
            sessions: Arc::new(Sessions::reading(&config)),
            marking: Arc::new(Sessions::marking(&config)),
            timeout: config.timeout,
            tables: Arc::default(),
        }
    }

    /// Runs a read on a session, within the timeout.
    ///
    /// A task of its own, so that a read whose asker has gone still ends in order.
    async fn with_session<T: Send + 'static>(
        &self,
        sessions: &Arc<Result<Sessions, TlsError>>,
        read: impl for<'a> Fn(&'a Self, &'a Object) -> Reading<'a, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (store, sessions) = (self.clone(), sessions.clone());
        let task = tokio::spawn(async move {
            let deadline = Instant::now() + store.timeout;
            let sessions = sessions.as_ref().as_ref();
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

    fn remembered(&self, base: &Base) -> Option<Described> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(base).cloned()
    }

    async fn table(&self, session: &Object, view: &View) -> Result<Described, StoreError> {
        // Read first: a table that is altered between the two is described again, not wrongly.
        let sql = format!("SELECT {}", fingerprint(view));
        let row = session
            .query_one(&sql, &[])
            .await
            .map_err(|err| failed(&err))?;
        let fingerprint: Option<String> = row.try_get(0).map_err(|err| failed(&err))?;
        let found = match &view.base {
            Base::Table(name) => {
                let missing = || DescribeError::Unfit(format!("no table \"{name}\""));
                let found = postgres::describe(session, name).await;
                found.and_then(|found| found.ok_or_else(missing))
            }
            Base::Query { sql, .. } => postgres::describe_query(session, sql).await,
        };
        let table = found.map_err(|err| match err {
            DescribeError::Unfit(reason) => StoreError::Gone(reason),
            DescribeError::Postgres(err) => failed(&err),
        })?;
        let described = Described {
            table: Arc::new(table),
            fingerprint: fingerprint.unwrap_or_default(),
        };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.insert(view.base.clone(), described.clone());
        Ok(described)
    }

    async fn read(
        &self,
        session: &Object,
        topic: &str,
        view: &View,
        select: &Select,
    ) -> Result<Snapshot, StoreError> {
        let mut known = self.remembered(&view.base);
        for _ in 1..ATTEMPTS {
            let (described, new) = match known.take() {
                Some(described) => (described, false),
                None => (self.table(session, view).await?, true),
            };
            match attempt(session, topic, view, select, &described).await {
                // A parameter may name a column that is new.
                Err(StoreError::BadParam(_)) if !new => {}
                Err(StoreError::Gone(_)) => {}
                found => return found,
            }
        }
        let described = self.table(session, view).await?;
        attempt(session, topic, view, select, &described).await
    }
}

impl Store for PostgresStore {
    async fn snapshot(&self, topic: Arc<Topic>, select: Select) -> Result<Snapshot, StoreError> {
        self.with_session(&self.sessions, move |store, session| {
            let (topic, select) = (topic.clone(), select.clone());
            Box::pin(async move {
                let (view, begun) = (view(&topic)?, Instant::now());
                let found = store.read(session, &topic.name, view, &select).await?;
                Ok(Snapshot {
                    took: begun.elapsed(),
                    ..found
                })
            })
        })
        .await
    }

    async fn describe(&self, topic: Arc<Topic>) -> Result<Table, StoreError> {
        self.with_session(&self.sessions, move |store, session| {
            let topic = topic.clone();
            Box::pin(async move {
                let described = store.table(session, view(&topic)?).await?;
                Ok(described.table.as_ref().clone())
            })
        })
        .await
    }

    async fn mark(&self, name: &str) -> Result<u64, StoreError> {
        let name = name.to_owned();
        self.with_session(&self.marking, move |_, session| {
            let name = name.clone();
            Box::pin(async move {
                let sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'rowcast.mark', $1::text), \
                           pg_catalog.pg_current_xact_id()::text";
                let prepared = session.prepare_cached(sql).await;
                let prepared = prepared.map_err(|err| failed(&err))?;
                let row = session.query_one(&prepared, &[&name]).await;
                let row = row.map_err(|err| failed(&err))?;
                let xid: &str = row.try_get(1).map_err(|err| failed(&err))?;
                xid.parse().map_err(|_| unavailable("no transaction id"))
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
    let text = statement(&plan, view);
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
    let found = found.map_err(|err| refused(&err))?;
    answer(topic, &plan, table, &found)
}

/// What the statement's snapshot sees, and whether a commit may be in the stream before it is visible.
const VISIBLE: &str = "pg_catalog.pg_current_snapshot()::text AS visible, \
     pg_catalog.current_setting('synchronous_standby_names') <> '' AS awaits";

/// Columns before those of the rows.
const BEFORE_ROWS: usize = 5;

/// Rows, length of the list, what is seen, and whether the table is as described: one statement sees one state
/// of the database, and is one round trip. The left row is always there and is only one, so that
/// the right ones keep their order.
fn statement(plan: &Plan, view: &View) -> String {
    let same = format!("{} = ${}::text", fingerprint(view), plan.values.len() + 1);
    let total = plan.total.as_deref().unwrap_or("SELECT 0::bigint");
    let rows = plan
        .rows
        .replacen("SELECT ", "SELECT TRUE AS _rowcast_here, ", 1);
    format!(
        "SELECT m.*, r.* FROM (SELECT {same} AS same, ({total}) AS total, {VISIBLE}) m \
         LEFT JOIN ({rows}) r ON TRUE"
    )
}

/// A text that changes whenever the columns of the view's tables do.
fn fingerprint(view: &View) -> String {
    let tables: Vec<String> = view.tables().map(columns).collect();
    format!("pg_catalog.concat_ws(';', {})", tables.join(", "))
}

/// A text that changes whenever the table's columns do.
fn columns(table: &str) -> String {
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
        return Err(StoreError::Gone(format!("{} was altered", table.called())));
    }
    let total = total.map_err(|err| failed(&err))?.unsigned_abs();
    let (mut rows, mut last, mut more) = (Rows::default(), Vec::new(), false);
    for row in found {
        let here: Option<bool> = row.try_get(BEFORE_ROWS - 1).map_err(|err| failed(&err))?;
        more = rows.len() == plan.limit as usize;
        if here.is_none() || more {
            break;
        }
        let values = plan.columns.iter().enumerate().map(|(n, name)| {
            let text: Option<&str> = row.try_get(n + BEFORE_ROWS)?;
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
        horizon: Some(Horizon::Visible(Arc::new(visible(first)?))),
        settled: None,
        page: plan.paged(topic, total, more.then_some(last))?,
        rows,
        took: Duration::ZERO,
    })
}

/// Which events this read saw is told by transaction ids, not by one checkpoint.
fn visible(row: &tokio_postgres::Row) -> Result<Visible, StoreError> {
    let text: &str = row.try_get(2).map_err(|err| failed(&err))?;
    let awaits_standbys = row.try_get(3).map_err(|err| failed(&err))?;
    let visible: Visible = text.parse().map_err(unavailable)?;
    Ok(Visible {
        awaits_standbys,
        ..visible
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

/// What the failure of a statement means that has values of the asker's: what PostgreSQL does not take of them
/// it says in many ways, each type in its own, and in its words stands what was asked for. So it is the
/// asker's unless it can only be the server's.
fn refused(err: &tokio_postgres::Error) -> StoreError {
    let found = failed(err);
    let (StoreError::Unavailable(_), Some(code)) = (&found, err.code()) else {
        return found;
    };
    match &code.code()[..2] {
        // The connection, the server's resources, its operator, its disk.
        "08" | "53" | "57" | "58" => found,
        // A session, a transaction or the server itself is not as it should be.
        "25" | "28" | "40" | "55" | "XX" => unavailable(format!("SQLSTATE {}", code.code())),
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => found,
        _ => StoreError::BadParam("params: values of their columns' types"),
    }
}

fn unavailable(err: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(err.into())
}
