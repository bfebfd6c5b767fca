//! What happens in the care home, to rows of both houses, and what a nurse of ward 1 of `oak` hears of it.

use serde_json::Value as Json;

use crate::support::{Socket, in_time};

/// One after the other, each in a transaction of its own.
pub const STEPS: &[&str] = &[
    // The other house, alone.
    "INSERT INTO patient VALUES (777000103, 'CANARY-elm', '1', 'CANARY', 'CANARY', 'CANARY')",
    "UPDATE patient SET name = 'CANARY-4', diagnosis = 'CANARY-5' WHERE id = 777000101",
    "UPDATE patient SET id = 777000104, bed = 'CANARY-6' WHERE id = 777000103",
    "UPDATE patient SET ward = 'CANARY-ward' WHERE id = 777000101",
    "UPDATE visit SET visitor = 'CANARY-7' WHERE id = 777000201",
    "UPDATE visit SET left_at = now() WHERE id = 777000201",
    "DELETE FROM patient WHERE id = 777000104",
    "DELETE FROM visit WHERE id = 777000201",
    // Both in one transaction.
    "INSERT INTO patient VALUES (777000105, 'CANARY-elm', '1', 'CANARY', NULL, NULL); \
     UPDATE patient SET bed = 'b2' WHERE id = 2; \
     DELETE FROM patient WHERE id = 777000105",
    // What only doctors see.
    "UPDATE patient SET diagnosis = 'measles' WHERE id = 1",
    // Out of the other house, and into it again, once under a new key.
    "UPDATE patient SET tenant = 'oak', name = 'Eve', bed = 'e', diagnosis = 'flu' WHERE id = 500",
    "UPDATE patient SET tenant = 'CANARY-elm', name = 'CANARY', bed = 'CANARY', diagnosis = 'CANARY' WHERE id = 500",
    "UPDATE patient SET id = 600, tenant = 'oak', name = 'Eve', bed = 'e', diagnosis = 'flu' WHERE id = 777000102",
    "UPDATE patient SET ward = '1' WHERE id = 600",
    "UPDATE patient SET id = 777000106, tenant = 'CANARY-elm', name = 'CANARY', bed = 'CANARY' WHERE id = 600",
    // From ward to ward.
    "UPDATE patient SET ward = '2' WHERE id = 2",
    "UPDATE patient SET ward = '1', name = 'Bobby' WHERE id = 2",
    "UPDATE patient SET id = 20 WHERE id = 2",
    // No rows of anybody's.
    "SELECT pg_logical_emit_message(true, 'rowcast:patient', '\"CANARY-8\"')",
    // A row that no event holds.
    "INSERT INTO patient SELECT 777000107, 'CANARY-elm', '1', string_agg('CANARY' || md5(n::text), ''), NULL, NULL \
     FROM generate_series(1, 40000) n",
    "DELETE FROM patient WHERE id = 777000107",
    "DELETE FROM patient WHERE id = 1",
    "TRUNCATE visit",
];

/// Ends every round; of the ward that all who see patients see.
pub const END: &str = "INSERT INTO patient VALUES (999, 'oak', '1', 'The End', NULL, NULL)";

/// All texts up to the end.
pub async fn to_the_end(socket: &mut Socket) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let text = in_time("the end", socket.next_text()).await;
        texts.push(text.clone());
        if text.contains("The End") {
            return texts;
        }
    }
}

/// `op` and key of the events among them, in short: `patient delete 1`.
pub fn brief(texts: &[String]) -> Vec<String> {
    let frames = texts
        .iter()
        .map(|text| serde_json::from_str::<Json>(text).unwrap());
    let events = frames.filter(|frame| !frame["type"].as_str().unwrap().starts_with("sys:"));
    events
        .map(|frame| {
            let word = |member: &str| frame[member].as_str().unwrap().to_owned();
            let old = frame["old_key"]["id"]
                .as_i64()
                .map(|id| format!("{id} -> "));
            let key = frame["key"]["id"].as_i64().map(|id| id.to_string());
            let key = format!("{}{}", old.unwrap_or_default(), key.unwrap_or_default());
            format!("{} {} {key}", word("type"), word("op"))
                .trim_end()
                .to_owned()
        })
        .collect()
}

/// What a nurse of ward 1 hears of all that.
pub const NURSE: &[&str] = &[
    "patient update 2",
    "patient update 1",
    "patient insert 500",
    "patient delete 500",
    "patient insert 600",
    "patient delete 600",
    "patient delete 2",
    "patient insert 2",
    "patient update 2 -> 20",
    "patient reload",
    "patient reload",
    "patient delete 1",
    "visit truncate",
    "patient insert 999",
];
