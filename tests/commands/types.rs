//! `types`: the rows of topics as TypeScript and as JSON Schema. That the TypeScript compiles is
//! for tests/browser/types.test.mjs to show.

use serde_json::{Value as Json, json};

use super::failed;
use crate::{
    support::{Folder, Server, command, postgres},
    wire::{CARE, CARE_TABLES},
};

/// Names that are keywords, no identifiers, or each other's.
const ODD: &str = r#"
[[topics]]
type = "select"
table = "select"

[[topics]]
type = "Select"
table = "select"
columns = ["id", "order by"]

[[topics]]
type = "topics"
table = "select"
columns = ["id"]

[[topics]]
type = "2-visits--a_day"
query = "SELECT id, count(*) AS n FROM \"select\" GROUP BY id"
watch = ["select"]
key = ["id"]

[[topics]]
type = "_"
"#;

const ODD_TABLES: &str = r#"CREATE TABLE "select" (id INTEGER PRIMARY KEY, "order by" TEXT NOT NULL,
    class DATE, new BOOLEAN NOT NULL, 姓名 BLOB, "a""b" "or */ d", untyped, anything ANY, "1st" REAL)"#;

fn typescript(folder: &Folder) -> String {
    let ran = folder.run(&["types"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
    ran.stdout
}

/// What an interface or the map of topics holds, without comments.
#[track_caller]
fn members(module: &str, name: &str) -> Vec<String> {
    let head = format!("\nexport interface {name} {{\n");
    let body = module
        .split(&head)
        .nth(1)
        .and_then(|rest| rest.split("}\n").next());
    let body = body.unwrap_or_else(|| panic!("no interface {name} in {module}"));
    let lines = body
        .lines()
        .map(|line| line.trim().trim_end_matches(';').to_owned());
    lines.filter(|line| !line.starts_with("/**")).collect()
}

#[tokio::test]
async fn the_demo_is_typed_from_its_tables() {
    let server = Server::start();
    let ran = command::run(server.folder(), &["types"], &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let module = ran.stdout;
    assert_eq!(
        members(&module, "Topics"),
        [
            "all_patient_page_data: AllPatientPageData",
            "all_active_visit_data: AllActiveVisitData",
            "patient: Patient",
            "visit: Visit"
        ]
    );
    let patient = members(&module, "Patient");
    assert!(patient.contains(&"id: number".to_owned()), "{patient:?}");
    assert!(patient.contains(&"name: string".to_owned()), "{patient:?}");
    // A page of the same columns is a page of the same rows.
    for alias in [
        "AllPatientPageData = Patient;",
        "AllActiveVisitData = Visit;",
    ] {
        assert!(
            module.contains(&format!("\nexport type {alias}\n")),
            "{module}"
        );
    }
}

#[test]
fn every_name_becomes_one_that_typescript_takes() {
    let module = typescript(&Folder::with(ODD, ODD_TABLES));
    assert_eq!(
        members(&module, "Topics"),
        [
            "select: Select",
            "Select: Select2",
            "topics: Topics2",
            "\"2-visits--a_day\": Topic2VisitsADay",
            "_: unknown"
        ]
    );
    assert_eq!(
        members(&module, "Select"),
        [
            "id: number",
            "\"order by\": string",
            "class: string | null",
            "new: number",
            "\"姓名\": string | null",
            "\"a\\\"b\": number | string | null",
            "untyped: number | string | null",
            "anything: number | string | null",
            "\"1st\": number | null",
        ]
    );
    assert_eq!(
        members(&module, "Select2"),
        ["id: number", "\"order by\": string"]
    );
    assert_eq!(members(&module, "Topics2"), ["id: number"]);
    assert_eq!(
        members(&module, "Topic2VisitsADay"),
        ["id: number", "n: number | string | null"]
    );
    assert!(module.contains("/** `or *\\/ d` */"), "{module}");
}

#[test]
fn the_json_schema_has_a_definition_for_each_topic() {
    let ran = Folder::with(CARE, CARE_TABLES).run(&["types", "--lang", "schema"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let schema: Json = serde_json::from_str(&ran.stdout).unwrap();
    let names: Vec<&String> = schema["$defs"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["patient", "board", "stay", "notice"]);
    let board = json!({
        "title": "board", "type": "object", "required": ["id", "name"],
        "properties": { "id": { "type": ["integer", "string"] }, "name": { "type": ["string"] } },
    });
    assert_eq!(schema["$defs"]["board"], board);
    assert_eq!(schema["$defs"]["notice"], json!({ "title": "notice" }));
}

#[test]
fn postgresql_tells_more_than_sqlite_and_so_do_the_types() {
    let database = postgres::database();
    database.sql(
        "CREATE TYPE mood AS ENUM ('good', 'so \"so\"', '坏');
         CREATE DOMAIN small AS integer;
         CREATE TABLE \"user\" (id bigint PRIMARY KEY, floor integer NOT NULL, bed smallint, \"no\" small,
             mood mood, moods mood[], floors integer[] NOT NULL, far bigint[], price numeric(10,2),
             ratio double precision, at timestamptz NOT NULL, note jsonb, notes json[] NOT NULL,
             present boolean NOT NULL, tags text[], photo bytea, ref uuid)",
    );
    let config = "[[topics]]\ntype = \"user\"\ntable = \"user\"\n";
    let folder = Folder::new();
    folder.write(
        "rowcast.toml",
        &format!("[database]\nurl = \"{}\"\n{config}", database.url()),
    );
    let module = typescript(&folder);
    assert_eq!(
        members(&module, "User"),
        [
            "id: Int64",
            "floor: number",
            "bed: number | null",
            "no: Int64 | null",
            "mood: \"good\" | \"so \\\"so\\\"\" | \"坏\" | null",
            "moods: (\"good\" | \"so \\\"so\\\"\" | \"坏\")[] | null",
            "floors: number[]",
            "far: Int64[] | null",
            "price: string | null",
            "ratio: number | null",
            "at: string",
            "note: unknown",
            "notes: unknown[]",
            "present: boolean",
            "tags: string[] | null",
            "photo: string | null",
            "ref: string | null",
        ]
    );
    assert!(
        module.contains("export type Int64 = number | string;"),
        "{module}"
    );
    assert!(
        module.contains("/** `numeric(10,2)` */\n  price"),
        "{module}"
    );

    let ran = folder.run(&["types", "--lang", "schema"]);
    let schema: Json = serde_json::from_str(&ran.stdout).unwrap();
    let columns = &schema["$defs"]["user"]["properties"];
    for (name, expected) in [
        ("id", json!({ "type": ["integer", "string"] })),
        ("floor", json!({ "type": ["integer"] })),
        (
            "mood",
            json!({ "type": ["string", "null"], "enum": ["good", "so \"so\"", "坏", null] }),
        ),
        (
            "floors",
            json!({ "type": ["array"], "items": { "type": ["integer", "array", "null"] } }),
        ),
        ("ratio", json!({ "type": ["number", "string", "null"] })),
    ] {
        assert_eq!(columns[name], expected, "{name}");
    }
}

#[test]
fn what_cannot_be_typed_is_said_and_nothing_is_printed() {
    let folder = Folder::with(CARE, CARE_TABLES);
    failed(
        &folder.run(&["types", "--lang", "rust"]),
        64,
        &["--lang", "ts, schema"],
    );
    let missing = Folder::new();
    missing.write("rowcast.toml", CARE);
    let ran = missing.run(&["types"]);
    failed(&ran, 1, &["rowcast.db"]);
    assert_eq!(ran.stdout, "");
}
