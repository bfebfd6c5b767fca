//! Direct queries on a SQLite file: a few connections, each read in one transaction, stopped
//! when it takes too long.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, params_from_iter};
use tokio::sync::Semaphore;

use super::{
    Snapshot, Store, StoreError,
    sql::{self, Dialect, Plan},
};
use crate::{
    horizon::Horizon,
    position::Checkpoint,
    protocol::Select,
    row::{Rows, Value},
    sqlite::{self, FileId, Mode, QueryError},
    topic::{Base, Table, Topic, View},
};

/// Virtual machine steps between two looks at the clock: about 20 µs.
const STEPS_PER_CHECK: i32 = 1000;

/// Which file to read, and how.
#[derive(Debug, Clone)]
pub struct SqliteStoreConfig {
    /// The database file.
    pub path: PathBuf,
    /// Reads that run at once.
    pub connections: usize,
    /// The longest that a query may take, waiting included.
    pub timeout: Duration,
}

/// A [`Store`] on a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    config: Arc<SqliteStoreConfig>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Reader>>>,
}

/// A connection, and the tables and queries as it has described them.
#[derive(Debug)]
struct Reader {
    conn: Connection,
    file: FileId,
    schema_version: i64,
    tables: HashMap<Base, Arc<Table>>,
}

impl SqliteStore {
    /// A store that opens its connections when they are needed.
    pub fn new(config: SqliteStoreConfig) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(config.connections.max(1))),
            config: Arc::new(config),
            idle: Arc::default(),
        }
    }

    /// Runs a read on an idle connection, within the timeout.
    async fn with_reader<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.config.timeout;
        let permit = self.permits.clone().acquire_owned();
        let permit = tokio::time::timeout_at(deadline.into(), permit).await;
        let permit = permit.map_err(|_| StoreError::Busy)?.map_err(unavailable)?;
        let store = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut reader = store.take()?;
            let late = move || Instant::now() >= deadline;
            reader
                .conn
                .progress_handler(STEPS_PER_CHECK, Some(late))
                .map_err(failed)?;
            let result = read(&mut reader);
            // A connection that failed is opened anew next time: the file may be another one.
            if !matches!(result, Err(StoreError::Unavailable(_))) {
                store
                    .idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(reader);
            }
            result
        });
        task.await.unwrap_or_else(|err| Err(unavailable(err)))
    }

    /// An idle connection, or a new one. Those to a file that was replaced are let go: they
    /// would read a database that nobody writes any more.
    fn take(&self) -> Result<Reader, StoreError> {
        let file = sqlite::file_id(&self.config.path).map_err(unavailable)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|reader| reader.file == file);
        let reader = idle.pop();
        drop(idle);
        match reader {
            Some(reader) => Ok(reader),
            None => {
                let conn = sqlite::open(&self.config.path, Mode::Read).map_err(failed)?;
                conn.busy_timeout(self.config.timeout).map_err(failed)?;
                conn.pragma_update(None, "query_only", true)
                    .map_err(failed)?;
                Ok(Reader {
                    conn,
                    file,
                    schema_version: -1,
                    tables: HashMap::new(),
                })
            }
        }
    }
}

impl Store for SqliteStore {
    async fn snapshot(&self, topic: Arc<Topic>, select: Select) -> Result<Snapshot, StoreError> {
        self.with_reader(move |reader| {
            let Some(view) = &topic.view else {
                return Err(StoreError::BadParam("type: this topic carries events only"));
            };
            reader.transaction(|reader| reader.snapshot(&topic.name, view, &select))
        })
        .await
    }

    async fn describe(&self, topic: Arc<Topic>) -> Result<Table, StoreError> {
        self.with_reader(move |reader| match &topic.view {
            None => Err(StoreError::BadParam("type: this topic carries events only")),
            Some(view) => reader.transaction(|reader| Ok(reader.table(view)?.as_ref().clone())),
        })
        .await
    }

    async fn mark(&self, _name: &str) -> Result<u64, StoreError> {
        // A changelog id is a place in the stream by itself.
        Err(StoreError::Unavailable("SQLite needs no marks".into()))
    }
}

impl Reader {
    /// Runs `read` inside one read transaction.
    fn transaction<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.conn.execute_batch("BEGIN").map_err(failed)?;
        let result = read(self);
        // The handler may stop even this, and a read needs no more than to be over.
        if self.conn.execute_batch("COMMIT").is_err() {
            self.conn
                .progress_handler(0, None::<fn() -> bool>)
                .map_err(failed)?;
            self.conn.execute_batch("ROLLBACK").map_err(failed)?;
        }
        result
    }

    fn table(&mut self, view: &View) -> Result<Arc<Table>, StoreError> {
        let version = self
            .conn
            .query_row("PRAGMA schema_version", [], |row| row.get(0));
        let version = version.map_err(failed)?;
        if version != self.schema_version {
            self.tables.clear();
            self.schema_version = version;
        }
        if let Some(table) = self.tables.get(&view.base) {
            return Ok(table.clone());
        }
        let table = Arc::new(described(&self.conn, &view.base)?);
        self.tables.insert(view.base.clone(), table.clone());
        Ok(table)
    }

    fn snapshot(
        &mut self,
        topic: &str,
        view: &View,
        select: &Select,
    ) -> Result<Snapshot, StoreError> {
        let begun = Instant::now();
        let horizon = self.horizon().map_err(failed)?;
        let table = self.table(view)?;
        let plan = sql::plan(Dialect::Sqlite, topic, view, &table, select)?;
        let (rows, last) = self.rows(&plan)?;
        let page = plan.paged(topic, self.total(&plan)?, last)?;
        Ok(Snapshot {
            horizon: horizon.map(Horizon::Checkpoint),
            settled: None,
            rows,
            page,
            took: begun.elapsed(),
        })
    }

    fn horizon(&self) -> rusqlite::Result<Option<Checkpoint>> {
        let Some(high) = sqlite::present(&self.conn)? else {
            return Ok(None);
        };
        let source = sqlite::source_id(&self.conn)?;
        Ok(source.map(|source| Checkpoint {
            source: source.into(),
            high,
            // One entry of the changelog can be several changes: the read saw all of them.
            low: u32::MAX,
        }))
    }

    /// The rows, and where the next page begins if there is one.
    fn rows(&self, plan: &Plan) -> Result<(Rows, Option<Vec<Value>>), StoreError> {
        let mut statement = self.conn.prepare_cached(&plan.rows).map_err(failed)?;
        let mut found = statement
            .query(params_from_iter(&plan.values))
            .map_err(failed)?;
        let (mut rows, mut last) = (Rows::default(), Vec::new());
        while let Some(row) = found.next().map_err(failed)? {
            if rows.len() == plan.limit as usize {
                return Ok((rows, Some(last)));
            }
            let values = (0..plan.columns.len()).map(|n| row.get_ref(n).map(sqlite::value));
            let values = values
                .collect::<rusqlite::Result<Vec<_>>>()
                .map_err(failed)?;
            rows.push(plan.columns.iter().map(String::as_str).zip(&values));
            last = plan.place(&values);
        }
        Ok((rows, None))
    }

    /// The length of the whole list, where it is asked for.
    fn total(&self, plan: &Plan) -> Result<u64, StoreError> {
        let Some(sql) = &plan.total else {
            return Ok(0);
        };
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let shared = &plan.values[..plan.shared];
        let total = statement.query_row(params_from_iter(shared), |row| row.get::<_, i64>(0));
        Ok(total.map_err(failed)?.unsigned_abs())
    }
}

fn described(conn: &Connection, base: &Base) -> Result<Table, StoreError> {
    match base {
        Base::Table(name) => {
            let table = sqlite::introspect(conn, name).map_err(failed)?;
            table.ok_or_else(|| StoreError::Gone(format!("no table \"{name}\"")))
        }
        Base::Query { sql, .. } => sqlite::describe_query(conn, sql).map_err(|err| match err {
            QueryError::Sqlite(err) => failed(err),
            QueryError::Unfit(reason) => StoreError::Gone(format!("the query: {reason}")),
        }),
    }
}

fn failed(err: rusqlite::Error) -> StoreError {
    match err.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy) => StoreError::Timeout,
        _ => unavailable(err),
    }
}

fn unavailable(err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(err.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_writes_nothing_whatever_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let owner = sqlite::open(&path, Mode::Create).unwrap();
        let made = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY);
             INSERT INTO t VALUES (1)";
        owner.execute_batch(made).unwrap();
        let store = SqliteStore::new(SqliteStoreConfig {
            path,
            connections: 1,
            timeout: Duration::from_secs(5),
        });
        let reader = store.take().unwrap();
        for sql in [
            "INSERT INTO t VALUES (2)",
            "UPDATE t SET id = 2",
            "DELETE FROM t",
            "DROP TABLE t",
            "ALTER TABLE t ADD COLUMN c",
            "CREATE TABLE u (id)",
            "CREATE TEMP TABLE u (id)",
            "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END",
            "PRAGMA user_version = 5",
            "ATTACH ':memory:' AS m; CREATE TABLE m.u (id)",
        ] {
            let refused = reader.conn.execute_batch(sql).expect_err(sql);
            assert_eq!(
                refused.sqlite_error_code(),
                Some(ErrorCode::ReadOnly),
                "{sql}"
            );
        }
        let count: i64 = owner
            .query_row("SELECT max(id) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 1);
    }
}
