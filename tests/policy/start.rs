//! What cannot be judged is refused at the start, and by `check`, with the remedy.

use crate::{
    production_commands::{Site, rowcast, says},
    support::Folder,
};

const POLICY: &str = "[[topics]]\ntype = \"t\"\ntable = \"t\"\n";

#[test]
fn a_policy_is_refused_where_old_rows_are_not_told() {
    let site = Site::new("CREATE TABLE t (id int PRIMARY KEY, ward text)");
    let config = site.config(&format!("{POLICY}policy = \"ward = token.ward\"\n"));
    let remedy = "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL";
    for command in [
        &["check"][..],
        &["serve", "--listen", "127.0.0.1:0"],
        &["produce"],
    ] {
        says(
            &rowcast(&config, command),
            64,
            &["topics[0].policy", remedy],
        );
    }
    site.database.sql("ALTER TABLE t REPLICA IDENTITY FULL");
    says(
        &rowcast(&config, &["check"]),
        0,
        &["topics: 1 fit the database"],
    );
    // Of a partitioned table its partitions hold the rows.
    site.database.sql(
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, ward text) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t1 REPLICA IDENTITY FULL",
    );
    says(
        &rowcast(&config, &["check"]),
        64,
        &[remedy, "each partition"],
    );
    site.database.sql("ALTER TABLE t2 REPLICA IDENTITY FULL");
    says(
        &rowcast(&config, &["check"]),
        0,
        &["topics: 1 fit the database"],
    );
}

#[test]
fn what_is_wrong_with_a_policy_is_told_with_its_place() {
    let site = Site::new(
        "CREATE TABLE t (id int PRIMARY KEY, ward text, name text);
         ALTER TABLE t REPLICA IDENTITY FULL",
    );
    for (more, parts) in [
        (
            "policy = \"wrad = token.ward\"",
            &["topics[0].policy", "did you mean \"ward\""][..],
        ),
        (
            "policy = \"ward = 'a'\"",
            &["topics[0].policy", "names a claim"],
        ),
        ("policy = \" \"", &["topics[0].policy", "is empty"]),
        (
            "policy = \"ward = token.ward\"\npush = \"page\"",
            &["topics[0].policy", "push = \"row\""],
        ),
        (
            "policy = \"ward = token.ward\"\ncolumns = [\"id\", \"name\"]",
            &["topics[0].policy", "\"ward\" must be among `columns`"],
        ),
        ("role = \"token.role\"", &["topics[0].role"]),
        (
            "role = \"role\"\n[topics.columns_by_role]\na = [\"*\"]",
            &["topics[0].role", "token.role"],
        ),
        (
            "[topics.columns_by_role]\na = [\"nmae\"]",
            &["topics[0].columns_by_role", "did you mean \"name\""],
        ),
        (
            "columns = [\"id\"]\n[topics.columns_by_role]\na = [\"name\"]",
            &["topics[0].columns_by_role", "must be among `columns`"],
        ),
        (
            "push = \"page\"\n[topics.columns_by_role]\na = [\"*\"]",
            &["topics[0].columns_by_role", "push = \"row\""],
        ),
    ] {
        let config = site.config(&format!("{POLICY}{more}\n"));
        says(&rowcast(&config, &["check"]), 64, parts);
    }
    let query = "[[topics]]\ntype = \"t\"\nquery = \"SELECT * FROM t\"\nwatch = [\"t\"]\n\
                 key = [\"id\"]\npolicy = \"ward = token.ward\"\n";
    says(
        &rowcast(&site.config(query), &["check"]),
        64,
        &["topics[0].policy", "name a `table`"],
    );
    let events = "[[topics]]\ntype = \"t\"\npolicy = \"ward = token.ward\"\n";
    says(
        &rowcast(&site.config(events), &["check"]),
        64,
        &["topics[0].policy", "needs a table"],
    );
}

#[test]
fn a_policy_is_refused_on_sqlite() {
    let folder = Folder::with(
        &format!("{POLICY}policy = \"ward = token.ward\"\n"),
        "CREATE TABLE t (id INTEGER PRIMARY KEY, ward TEXT)",
    );
    for command in [&["check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        says(
            &folder.run(command),
            64,
            &["topics[0].policy", "PostgreSQL"],
        );
    }
}

#[test]
fn a_topic_that_shows_everybody_what_another_guards_is_warned_of() {
    let site = Site::new(
        "CREATE TABLE t (id int PRIMARY KEY, ward text); ALTER TABLE t REPLICA IDENTITY FULL",
    );
    let topics = format!(
        "{POLICY}policy = \"ward = token.ward\"\n[[topics]]\ntype = \"open\"\ntable = \"t\"\n"
    );
    let warning = "\"open\" shows everybody the table \"public.t\", of which \"t\" shows each only what is his";
    says(&rowcast(&site.config(&topics), &["check"]), 0, &[warning]);
}
