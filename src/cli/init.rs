//! `rowcast init`: looks at a database and writes a configuration for it, one topic a table.
//! What looks private is left commented out: publishing it must be somebody's decision.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Context;

use super::{Common, Exit, Init};
use crate::{
    config::{self, DEFAULT_FILE, DatabaseUrl, Overrides},
    postgres::{self, Address},
    sqlite::{self, Mode},
    topic::Table,
};

/// How long PostgreSQL may take to admit us.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A table with one of these in its name holds what clients should not see.
const PRIVATE_TABLES: [&str; 10] = [
    "session",
    "migration",
    "token",
    "password",
    "secret",
    "oauth",
    "credential",
    "apikey",
    "api_key",
    "permission",
];

/// The tables of Django itself and of its usual companions.
const PRIVATE_PREFIXES: [&str; 6] = [
    "django_",
    "account_",
    "socialaccount_",
    "otp_",
    "silk_",
    "axes_",
];

/// A column with one of these in its name is left out of its topic.
const PRIVATE_COLUMNS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "secret",
    "hash",
    "salt",
    "api_key",
    "apikey",
    "private_key",
    "credential",
    "session_key",
];

/// The same for words that are too short to be looked for within others, such as `footprint`.
const PRIVATE_WORDS: [&str; 4] = ["otp", "pin", "cvv", "ssn"];

const HEAD: &str = "\
## Written by `rowcast init`. Every setting with its default and its reason stands in
## rowcast.example.toml of Rowcast's repository.
## A line that begins with ## explains; one that begins with a single # is a setting switched off.
##
## A topic with push = \"row\" sends each changed row. To push the whole first page after every
## burst of changes instead, as one frame that a page can simply show:
##
##   push = \"page\"
##   page_size = 50
##   order_by = [\"id desc\"]
##   where = \"left_at IS NULL\"       # either kind may be a part of its table
##
## What several tables say together is a topic over a query. It is read again, and its first page
## pushed, whenever one of the tables in `watch` changes:
##
##   [[topics]]
##   type = \"visit_with_patient\"
##   query = \"SELECT v.id, v.visitor, p.name AS patient FROM visit v JOIN patient p ON p.id = v.patient_id\"
##   watch = [\"visit\", \"patient\"]
##   key = [\"id\"]                    # columns of the result that are unique in it

";

/// Writes the configuration as text.
///
/// It loads as it stands, and every topic in it that is not commented out resolves against its
/// table. Tables without primary key and those that look private are commented out with the
/// reason; columns that look private are left out of `columns`.
pub fn render(tables: &[Table], database_url: &str) -> String {
    let mut out = HEAD.to_owned();
    let mut names = HashSet::new();
    let topics: Vec<_> = tables
        .iter()
        .map(|table| topic(table, topic_name(plain_name(table), &mut names)))
        .collect();
    if !topics.iter().any(|topic| topic.live) {
        out.push_str(
            "## No table could be published just like that. To switch one on below, delete this\n\
             ## line; it keeps the demo's topics away.\ntopics = []\n\n",
        );
    }
    let _ = writeln!(out, "[database]\nurl = {}", text(database_url));
    for topic in topics {
        out.push('\n');
        out.push_str(&topic.text);
    }
    out
}

/// Writes the configuration file for the database that flags or environment name, and says what
/// to do next. The database is only read.
///
/// # Errors
/// What a person has to look at; the process then ends with 1. Wrong usage is no error: it is
/// told on standard error, and [`Exit::Usage`] returned.
pub fn run(common: &Common, init: &Init) -> anyhow::Result<Exit> {
    let file = common.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let flags = Overrides {
        database: common.database.clone(),
        bus: common.bus.clone(),
        ..Overrides::default()
    };
    let url = match config::database(&flags) {
        Ok(url) => url,
        Err(err) => return Ok(usage(&err.to_string())),
    };
    let (tables, shown) = match &url {
        DatabaseUrl::Sqlite(path) if !path.is_file() => {
            return Ok(usage(&format!(
                "there is no file {}; name the database: rowcast init --database sqlite:PATH",
                path.display()
            )));
        }
        DatabaseUrl::Sqlite(path) => {
            let cannot_read = || format!("{} cannot be read", path.display());
            (describe(path).with_context(cannot_read)?, url.to_string())
        }
        DatabaseUrl::Postgres(address) => {
            let tables = describe_postgres(address);
            let tables = tables.with_context(|| format!("{address} cannot be read"))?;
            (tables, address.url_without_password())
        }
    };
    let text = render(&tables, &shown);
    match write(file, &text, init.force) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(usage(&format!(
            "{} exists; --force writes over it, --config FILE writes another",
            file.display()
        ))),
        Err(err) => Err(err).with_context(|| format!("{} cannot be written", file.display())),
        Ok(()) => {
            print!("{}", report(file, &text, &tables, common.config.is_some()));
            Ok(Exit::Fine)
        }
    }
}

fn usage(text: &str) -> Exit {
    eprintln!("{text}");
    Exit::Usage
}

fn describe(path: &Path) -> anyhow::Result<Vec<Table>> {
    let conn = sqlite::open(path, Mode::Read)?;
    Ok(sqlite::introspect_all(&conn)?)
}

fn describe_postgres(address: &Address) -> anyhow::Result<Vec<Table>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build()?.block_on(async {
        let connected = postgres::connect(address, CONNECT_TIMEOUT, &[]).await?;
        Ok(postgres::describe_all(&connected.client).await?)
    })
}

fn write(file: &Path, text: &str, force: bool) -> io::Result<()> {
    match force {
        true => fs::write(file, text),
        false => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(file)?
            .write_all(text.as_bytes()),
    }
}

fn report(file: &Path, text: &str, tables: &[Table], named: bool) -> String {
    let live = text.lines().filter(|line| *line == "[[topics]]").count();
    let (file, found) = (file.display(), tables.len());
    let flag = if named {
        format!(" --config {file}")
    } else {
        String::new()
    };
    format!(
        "wrote {file}: {live} of {found} tables became topics; the others are in it, commented out\n\
         next:  look through {file}\n       rowcast check{flag}\n       rowcast{flag}\n"
    )
}

/// One table's part of the file.
struct Part {
    live: bool,
    text: String,
}

fn topic(table: &Table, name: String) -> Part {
    let reason = reason(table);
    let mut part = String::new();
    if let Some(reason) = &reason {
        let _ = writeln!(part, "## {} is left out: {reason}", text(&table.name));
    }
    let hidden = hidden(table);
    if !hidden.is_empty() {
        let _ = writeln!(
            part,
            "## without what looks private: {}",
            list(hidden.iter().copied())
        );
    }
    let off = if reason.is_some() { "#" } else { "" };
    for line in settings(table, &name, !hidden.is_empty()) {
        let _ = writeln!(part, "{off}{line}");
    }
    Part {
        live: reason.is_none(),
        text: part,
    }
}

fn settings(table: &Table, name: &str, explicit: bool) -> Vec<String> {
    let mut lines = vec![
        "[[topics]]".to_owned(),
        format!("type = {}", text(name)),
        format!("table = {}", text(&table.name)),
    ];
    if table.primary_key.is_empty() && !key(table).is_empty() {
        lines.push(format!(
            "key = {}",
            list(key(table).iter().map(String::as_str))
        ));
    }
    if explicit {
        let all = table.columns.iter().map(|column| &*column.name);
        let shown = all.filter(|name| !is_hidden(table, name));
        lines.push(format!("columns = {}", list(shown)));
    }
    lines.push("push = \"row\"".to_owned());
    lines
}

/// The key of the topic: where there is no primary key, the first that would do.
fn key(table: &Table) -> &[String] {
    let sure = |name: &String| table.column(name).is_some_and(|column| column.not_null);
    let unique = table.unique.iter().find(|set| set.iter().all(sure));
    match (table.primary_key.as_slice(), unique) {
        ([], Some(unique)) => unique,
        (primary, _) => primary,
    }
}

/// Why a table is commented out, if it is.
fn reason(table: &Table) -> Option<String> {
    if let Some(word) = private_word(table_name(table)) {
        return Some(format!("\"{word}\" in a name looks private"));
    }
    if table.primary_key.is_empty() {
        return Some(
            "it has no primary key; `key` can name NOT NULL columns under a UNIQUE constraint"
                .into(),
        );
    }
    if let Some(key) = table.primary_key.iter().find(|key| is_private_column(key)) {
        return Some(format!("its key column {} looks private", text(key)));
    }
    // In `columns` a star stands for all of them.
    let star = !hidden(table).is_empty() && table.column("*").is_some();
    star.then(|| "its column \"*\" cannot be named in `columns`".into())
}

/// The table's name without its schema.
fn table_name(table: &Table) -> &str {
    let typed = table.columns.iter().any(|column| column.kind.is_some());
    match table.name.split_once('.') {
        Some((_, name)) if typed => name,
        _ => &table.name,
    }
}

/// What a topic is called after: the schema is a part of it unless it is everybody's.
fn plain_name(table: &Table) -> &str {
    match table.name.starts_with("public.") {
        true => table_name(table),
        false => &table.name,
    }
}

fn private_word(table: &str) -> Option<&'static str> {
    let name = table.to_ascii_lowercase();
    // Authors write books; auth, authtoken, authorization are about access.
    let author = name.starts_with("author") && !name.starts_with("authori");
    if name.starts_with("auth") && !author {
        return Some("auth");
    }
    let prefix = PRIVATE_PREFIXES
        .iter()
        .find(|word| name.starts_with(**word));
    let word = PRIVATE_TABLES.iter().find(|word| name.contains(**word));
    prefix.or(word).copied()
}

fn hidden(table: &Table) -> Vec<&str> {
    let all = table.columns.iter().map(|column| &*column.name);
    all.filter(|name| is_hidden(table, name)).collect()
}

/// A key is always shown, so a list of what is shown is never empty, which would mean all.
fn is_hidden(table: &Table, column: &str) -> bool {
    is_private_column(column) && !key(table).iter().any(|key| key == column)
}

fn is_private_column(column: &str) -> bool {
    let name = column.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    PRIVATE_COLUMNS.iter().any(|word| name.contains(word))
        || words.any(|word| PRIVATE_WORDS.contains(&word))
}

/// The wire `type` for a table: its name, where that is allowed, and no other topic's.
fn topic_name(table: &str, taken: &mut HashSet<String>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mapped: String = table
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .take(58)
        .collect();
    let named = mapped.contains(|c: char| c.is_ascii_alphanumeric());
    let base = if named { mapped } else { "table".to_owned() };
    let mut name = base.clone();
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{base}_{number}");
    }
    name
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<_> = items.map(text).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML string. JSON's escapes are a part of TOML's, but TOML wants DEL escaped, too.
fn text(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
mod tests;
