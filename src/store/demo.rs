//! The demo's own writes: the care home's tables on the first run, and the rows that the
//! tutorial's two trigger views insert. Everything else that Rowcast does with a database reads.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value as Json};
use tokio::sync::Mutex;

use super::StoreError;
use crate::{
    row::Value,
    sqlite::{self, FileId, Mode, quote},
};

const TABLES: &str = include_str!("../../migrations/sqlite_demo.sql");

/// Which of the demo's tables a trigger view inserts into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoTable {
    /// 个人信息
    Patient,
    /// 来访登记
    Visit,
}

/// Inserts rows into the demo's tables, one at a time.
#[derive(Debug, Clone)]
pub struct DemoWriter {
    path: PathBuf,
    open: Arc<Mutex<Open>>,
}

/// A connection, and the file that it writes.
#[derive(Debug)]
struct Open {
    conn: Connection,
    file: FileId,
}

/// Creates the database with the demo, unless the file exists; returns whether it did.
///
/// # Errors
/// What SQLite or the file system says; a half-made file is not left behind.
pub fn create(path: &Path) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    if path.exists() {
        return Ok(false);
    }
    // Made under another name, so that nobody ever finds a demo without its rows.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!("-new-{}", std::process::id()));
    let draft = Path::new(&draft);
    let made = (|| {
        let conn = sqlite::open(draft, Mode::Create)?;
        // Now, while nobody else can have it open: later the source would have to wait for others.
        sqlite::journal(&conn)?;
        conn.execute_batch(&format!("BEGIN; {TABLES} COMMIT;"))?;
        conn.close().map_err(|(_, err)| err)?;
        Ok(std::fs::rename(draft, path)?)
    })();
    if made.is_err() {
        // Nothing to do about a file that cannot be deleted either.
        let _ = std::fs::remove_file(draft);
    }
    made.map(|()| true)
}

impl DemoWriter {
    /// Opens the database for the trigger views.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with what SQLite says.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            open: Arc::new(Mutex::new(Open::new(path)?)),
            path: path.to_owned(),
        })
    }

    /// Inserts a row and commits; members of `body` are columns, the rest is made up.
    ///
    /// # Errors
    /// [`StoreError::BadParam`] where a member is no column of the table, or no scalar, or breaks
    /// a constraint of it.
    ///
    /// # Cancel safety
    /// Not cancel safe: after a drop the row may be there or not.
    pub async fn insert(
        &self,
        table: DemoTable,
        body: Map<String, Json>,
    ) -> Result<(), StoreError> {
        let mut open = self.open.clone().lock_owned().await;
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || {
            // A row in a file that was replaced would be lost.
            if sqlite::file_id(&path).map_err(unavailable)? != open.file {
                *open = Open::new(&path)?;
            }
            insert(&open.conn, table, &body)
        });
        task.await
            .map_err(|err| StoreError::Unavailable(err.into()))?
    }
}

impl Open {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let file = sqlite::file_id(path).map_err(unavailable)?;
        let conn = sqlite::open(path, Mode::Write).map_err(unavailable)?;
        // "200" is an acknowledgement: the row is on the disk.
        conn.pragma_update(None, "synchronous", "full")
            .map_err(unavailable)?;
        Ok(Self { conn, file })
    }
}

fn insert(conn: &Connection, table: DemoTable, body: &Map<String, Json>) -> Result<(), StoreError> {
    let (name, made_up) = match table {
        DemoTable::Patient => ("patient", made_up_patient(conn)),
        DemoTable::Visit => ("visit", made_up_visit()),
    };
    let shape = sqlite::introspect(conn, name).map_err(unavailable)?;
    let shape = shape.ok_or(StoreError::BadParam(
        "the demo's table is not in this database",
    ))?;
    let mut row = made_up;
    row.retain(|(column, _)| !body.contains_key(*column) && shape.column(column).is_some());
    for (column, value) in body {
        let column = shape
            .column(column)
            .ok_or(StoreError::BadParam("body: the table's columns"))?;
        row.push((&column.name, scalar(value)?));
    }
    let columns: Vec<String> = row.iter().map(|(column, _)| quote(column)).collect();
    let places: Vec<String> = (1..=row.len()).map(|n| format!("?{n}")).collect();
    let sql = format!(
        "INSERT INTO {name} ({}) VALUES ({})",
        columns.join(", "),
        places.join(", ")
    );
    match conn.execute(&sql, params_from_iter(row.iter().map(|(_, value)| value))) {
        Ok(_) => Ok(()),
        Err(err) if err.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(StoreError::BadParam(
                "body: breaks a constraint of the table",
            ))
        }
        Err(err) => Err(unavailable(err)),
    }
}

fn made_up_patient(conn: &Connection) -> Vec<(&'static str, Value)> {
    const NAMES: [&str; 8] = [
        "韩玉兰",
        "邓国华",
        "冯素琴",
        "曹志远",
        "彭惠芬",
        "董建平",
        "袁桂英",
        "蒋文龙",
    ];
    let next: i64 = conn
        .query_row("SELECT coalesce(max(id), 0) + 1 FROM patient", [], |row| {
            row.get(0)
        })
        .unwrap_or(1);
    let pick = usize::try_from(next).unwrap_or(0) % NAMES.len();
    vec![
        ("name", Value::Text(NAMES[pick].into())),
        (
            "gender",
            Value::Text(if pick.is_multiple_of(2) { "女" } else { "男" }.into()),
        ),
        ("age", Value::Integer(72 + (next * 7) % 23)),
        ("ward", Value::Text(((next % 4) + 2).to_string())),
        ("care_level", Value::Text("三级".into())),
        ("admitted_on", Value::Text(local("%Y-%m-%d"))),
    ]
}

fn made_up_visit() -> Vec<(&'static str, Value)> {
    vec![
        ("patient_id", Value::Integer(1)),
        ("visitor", Value::Text("来访者".into())),
        ("relation", Value::Text("亲属".into())),
        ("arrived_at", Value::Text(local("%Y-%m-%d %H:%M:%S"))),
    ]
}

fn local(format: &str) -> String {
    jiff::Zoned::now().strftime(format).to_string()
}

fn scalar(value: &Json) -> Result<Value, StoreError> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Integer(i64::from(*flag)),
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::Array(_) | Json::Object(_) => return Err(StoreError::BadParam("body: scalars")),
    })
}

fn unavailable(err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(err.into())
}
