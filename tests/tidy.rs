//! The building stands as ARCHITECTURE.md says: what its tables allow is what the code may do, so
//! that neither can change without the other. Each rule that is an absence is a search.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Longer files are to be divided.
const MAX_LINES: usize = 450;

// === reading the tree ===

/// A source file, its path relative to the crate.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The code alone: without comments, and without the tests at its end.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]\nmod tests {").next();
        code.unwrap_or_default()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| line.split(" // ").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The module right below the crate: `src/bus/mod.rs` and `src/ring.rs` → `bus`, `ring`.
    fn module(&self) -> &str {
        let below = self.path.trim_start_matches("src/");
        below.split(['/', '.']).next().unwrap_or_default()
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder, except what programs made.
pub fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let made = ["target", "node_modules", "proptest-regressions"].contains(&name.as_str())
                || (name.starts_with('.') && name != ".ci");
            match path.is_dir() {
                _ if made => {}
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    let rust = files(folder).into_iter();
    rust.filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| Source {
            text: fs::read_to_string(&path).unwrap(),
            path: path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned(),
        })
        .collect()
}

/// What is built into the binary: no file of tests alone.
fn product() -> Vec<Source> {
    let mut sources = sources("src");
    sources
        .retain(|source| !source.path.ends_with("/tests.rs") && !source.path.contains("/tests/"));
    sources
}

/// The names in `backticks`.
pub fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the first table below a heading, without the head.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let below = text.split(&format!("\n{heading}\n")).nth(1);
    let below = below.unwrap_or_else(|| panic!("{document} has no heading {heading:?}"));
    let rows = below.lines().skip_while(|line| !line.starts_with('|'));
    rows.take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The modules that a text of code names after `crate::`, also in a group.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let mut depth = 0;
        let mut first = true;
        for (index, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => first = true,
                c if c.is_alphanumeric() && first && depth <= 1 => {
                    let name = rest[index..].split(|c: char| !c.is_alphanumeric() && c != '_');
                    found.extend(name.map(str::to_owned).next());
                    first = false;
                }
                _ => {}
            }
            let grouped = rest.starts_with('{');
            if (grouped && depth == 0) || (!grouped && !first) {
                break;
            }
        }
    }
    found
}

/// Each module's floor, as ARCHITECTURE.md says.
fn floors() -> BTreeMap<String, u8> {
    let rows = table("ARCHITECTURE.md", "## The floors");
    let floors = rows.iter().flat_map(|row| {
        let floor = row[0].parse().unwrap();
        quoted(&row[2])
            .into_iter()
            .map(move |name| (name.to_owned(), floor))
    });
    floors.collect()
}

/// The imports within a floor, as ARCHITECTURE.md lists them.
fn listed() -> BTreeSet<(String, String)> {
    let rows = table("ARCHITECTURE.md", "### Imports within a floor");
    let pairs = rows.iter().flat_map(|row| {
        assert!(!row[2].is_empty(), "an exception needs a reason: {row:?}");
        let from = quoted(&row[0])[0].to_owned();
        let to = quoted(&row[1]).into_iter().map(str::to_owned);
        to.map(move |to| (from.clone(), to)).collect::<Vec<_>>()
    });
    pairs.collect()
}

/// The product's files whose code holds a text, except those for which it is allowed.
fn elsewhere(text: &str, allowed: &[&str]) -> Vec<String> {
    let found = product().into_iter();
    found
        .filter(|source| source.code().contains(text))
        .map(|source| source.path)
        .filter(|path| !allowed.iter().any(|allowed| path.starts_with(allowed)))
        .collect()
}

// === the floors ===

#[test]
fn every_module_has_a_floor() {
    let modules: BTreeSet<String> = product()
        .iter()
        .map(|source| source.module().to_owned())
        .filter(|module| module != "lib")
        .collect();
    let floors: BTreeSet<String> = floors().into_keys().collect();
    assert_eq!(modules, floors);
}

#[test]
fn a_module_imports_from_the_floors_below_it_only() {
    let (floors, listed) = (floors(), listed());
    let mut used = BTreeSet::new();
    for source in product().iter().filter(|source| source.module() != "lib") {
        let from = source.module();
        for to in imports(&source.code()).iter().filter(|to| *to != from) {
            let pair = (from.to_owned(), to.clone());
            let (here, there) = (floors[from], floors[to]);
            let allowed = there < here || listed.contains(&pair);
            assert!(
                allowed,
                "{} imports {to}, which stands on floor {there}",
                source.path
            );
            if there >= here {
                used.insert(pair);
            }
        }
    }
    assert_eq!(
        used, listed,
        "ARCHITECTURE.md lists imports that nobody makes"
    );
}

#[test]
fn no_module_climbs_out_through_super() {
    for source in product()
        .iter()
        .filter(|source| !source.path.contains("/mod.rs"))
    {
        let depth = source.path.matches('/').count();
        let climbs = "super::".repeat(depth);
        assert!(
            !source.code().contains(&climbs),
            "{} leaves its module",
            source.path
        );
    }
}

#[test]
fn the_words_need_no_runtime_and_no_files() {
    let floors = floors();
    for source in product().iter().filter(|source| source.module() != "lib") {
        if floors[source.module()] == 0 {
            for banned in ["tokio", "std::fs", "std::net", "std::io", "std::thread"] {
                assert!(
                    !source.code().contains(banned),
                    "{} uses {banned}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn the_database_driver_stays_in_its_rooms() {
    let rooms = [
        "src/sqlite/",
        "src/source/sqlite/",
        "src/store/",
        "src/bus/embedded",
    ];
    assert_eq!(elsewhere("rusqlite", &rooms), [""; 0]);
}

#[test]
fn postgresql_and_nats_are_spoken_to_in_one_place_each() {
    let rooms = ["src/postgres/", "src/source/postgres", "src/store/postgres"];
    // The log filter names a library to keep it quiet.
    for driver in [
        "tokio_postgres::",
        "deadpool_postgres::",
        "pgwire_replication::",
    ] {
        assert_eq!(elsewhere(driver, &rooms), [""; 0], "{driver}");
    }
    let rooms = ["src/bus/jetstream", "src/nats_service.rs"];
    let code = elsewhere("async_nats::", &rooms);
    assert_eq!(code, [""; 0]);
}

#[test]
fn the_web_framework_stays_at_the_edge() {
    for framework in ["axum", "hyper"] {
        assert_eq!(elsewhere(framework, &["src/http/"]), [""; 0], "{framework}");
    }
    let rooms = ["src/http/upgrade.rs", "src/cli/tail.rs"];
    assert_eq!(elsewhere("tungstenite", &rooms), [""; 0]);
}

#[test]
fn errors_without_a_type_are_for_assembly_only() {
    let top = ["src/app", "src/cli/", "src/config/", "src/telemetry.rs"];
    assert_eq!(elsewhere("anyhow", &top), [""; 0]);
}

#[test]
fn main_only_assembles() {
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(main.lines().count() <= 60);
}

// === absences ===

#[test]
fn every_queue_is_bounded() {
    for unbounded in [
        "unbounded",
        "std::sync::mpsc::channel",
        "mpsc::channel()",
        "sync::broadcast",
    ] {
        assert_eq!(elsewhere(unbounded, &[]), [""; 0], "{unbounded}");
    }
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    assert_eq!(elsewhere(".unwrap()", &[]), [""; 0]);
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let all = product();
    let fixed = all.iter().find(|one| one.path.ends_with("auth/fixed.rs"));
    let code = fixed.unwrap().code();
    assert_eq!(code.matches("one.sha256.ct_eq(&hash)").count(), 1);
    let (_, judged) = code.split_once("for one in &self.0").unwrap();
    let (looked_at, _) = judged.split_once("let now").unwrap();
    for early in ["break", "return", "==", "find("] {
        assert!(!looked_at.contains(early), "{early} in {looked_at}");
    }
}

#[test]
fn the_source_is_confirmed_in_one_place() {
    let calls = product()
        .iter()
        .map(|source| source.code().matches(".confirm(").count())
        .sum::<usize>();
    assert_eq!(calls, 1);
    assert_eq!(elsewhere(".confirm(", &["src/relay/mod.rs"]), [""; 0]);
}

#[test]
fn no_other_file_spells_a_frame() {
    for source in product()
        .iter()
        .filter(|source| source.module() != "protocol")
    {
        let code = source.code();
        let mut spelled = code.split("\"sys:").skip(1);
        let frame = spelled.find(|rest| {
            let word = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
            word.starts_with('"')
        });
        assert!(frame.is_none(), "{} spells a frame's type", source.path);
    }
}

#[test]
fn tests_wait_for_conditions_and_never_sleep() {
    // Written so that this file does not find itself.
    let banned = [concat!("time::", "sleep("), concat!("thread::", "sleep")];
    for source in sources("tests") {
        let support = source.path.starts_with("tests/support/");
        let sleeps = banned.iter().any(|text| source.text.contains(text));
        assert!(
            support || !sleeps,
            "{} sleeps: use support::wait_for",
            source.path
        );
    }
}

// === habits ===

#[test]
fn files_are_short_and_open_with_their_reason() {
    for source in sources("src") {
        let lines = source.text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", source.path);
        let opens = source.text.starts_with("//! ") || source.path.ends_with("/tests.rs");
        assert!(opens, "{} does not say what it is for", source.path);
    }
}

#[test]
fn files_are_nouns_of_ours() {
    for source in sources("src") {
        for vague in ["manager", "helper", "util", "common", "processor", "data"] {
            let name = source.path.rsplit('/').next().unwrap_or_default();
            assert!(!name.starts_with(vague), "{} says nothing", source.path);
        }
    }
}
