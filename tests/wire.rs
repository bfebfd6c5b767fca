//! The two WebSockets as docs/protocol.md tells them, acted out on the real binary.

mod closes;
mod compressed;
mod conformance;
mod doors;
mod events;
mod filters;
mod frames;
mod latest;
mod limits;
mod lists;
mod queries;
mod tutorial;

use serde_json::Value as Json;

use crate::support::Server;

/// A care home of the tests' own: a row topic with a view, a page topic, one with a composite
/// key, and one for applications.
pub const CARE: &str = r#"
[[topics]]
type = "patient"
table = "patient"
where = "left_at IS NULL"
order_by = ["id"]
page_size = 2
max_page_size = 4
max_rows = 5

[[topics]]
type = "board"
table = "patient"
push = "page"
page_size = 2
order_by = ["name desc"]
columns = ["id", "name"]

[[topics]]
type = "stay"
table = "stay"

[[topics]]
type = "notice"
"#;

/// Its tables.
pub const CARE_TABLES: &str = "
    CREATE TABLE patient (id INTEGER PRIMARY KEY, name TEXT NOT NULL, ward TEXT, age INTEGER,
        left_at TEXT);
    INSERT INTO patient VALUES (1, '王秀英', '3', 86, NULL), (2, '李建国', '3', 82, NULL),
        (3, '张桂兰', '5', 91, NULL), (4, '赵德厚', NULL, NULL, NULL), (5, '孙淑芳', '5', 79, '2026-01-02');
    CREATE TABLE stay (bed TEXT, day INTEGER, note TEXT, PRIMARY KEY (day, bed)) WITHOUT ROWID;
    INSERT INTO stay VALUES ('3-1', 7, '早'), ('3-1', 8, '晚');";

/// A gateway on the care home.
pub fn care() -> Server {
    Server::configured(CARE, CARE_TABLES)
}

/// The names of an object's members, in their order.
pub fn members(frame: &Json) -> Vec<&str> {
    frame
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// The `id` of every row of a reply.
pub fn ids(reply: &Json) -> Vec<i64> {
    let rows = reply["data"]
        .as_array()
        .unwrap_or_else(|| panic!("no rows: {reply}"));
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}
