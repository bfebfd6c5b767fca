//! What the product is built from has no known hole: where the database of advisories cannot be asked
//! (`cargo deny check advisories` in tests/run), this table still can.

use std::{collections::BTreeMap, fs};

use crate::tidy::{files, root};

/// A crate, the first version without the fault, and which fault it was. A crate that is not in Cargo.lock
/// yet is held to it as soon as it is.
const FLOORS: &[(&str, &str, &str)] = &[
    (
        "async-nats",
        "0.29.0",
        "RUSTSEC-2023-0027: the server's name was not checked",
    ),
    ("axum-core", "0.3.0", "CVE-2022-3212: no bound on a body"),
    (
        "bytes",
        "1.11.1",
        "RUSTSEC-2026-0007: a length that overflows",
    ),
    (
        "crossbeam-channel",
        "0.5.15",
        "RUSTSEC-2025-0024: freed twice",
    ),
    ("curve25519-dalek", "4.1.3", "RUSTSEC-2024-0344: timing"),
    (
        "ed25519-dalek",
        "2.0.0",
        "RUSTSEC-2022-0093: a key given away",
    ),
    (
        "h2",
        "0.4.16",
        "RUSTSEC-2026-0258, 2024-0332, 2024-0003: floods of frames",
    ),
    (
        "idna",
        "1.0.0",
        "RUSTSEC-2024-0421: two names taken for one",
    ),
    (
        "jsonwebtoken",
        "10.3.0",
        "CVE-2026-25537: exp and nbf of another type",
    ),
    (
        "libsqlite3-sys",
        "0.25.1",
        "RUSTSEC-2022-0090: SQLite, CVE-2022-35737",
    ),
    ("mio", "0.8.11", "RUSTSEC-2024-0019: tokens of named pipes"),
    (
        "postgres-protocol",
        "0.6.12",
        "RUSTSEC-2026-0179, 2026-0180: SCRAM iterations, hstore",
    ),
    ("ring", "0.17.12", "RUSTSEC-2025-0009: a panic on overflow"),
    ("rustls", "0.23.5", "RUSTSEC-2024-0336: an endless loop"),
    (
        "rustls-webpki",
        "0.103.13",
        "RUSTSEC-2026-0104: a panic on a revocation list",
    ),
    ("slab", "0.4.11", "RUSTSEC-2025-0047: out of bounds"),
    ("sqlx", "0.8.1", "RUSTSEC-2024-0363: a length that wraps"),
    ("thread_local", "1.1.4", "RUSTSEC-2022-0006: a race"),
    ("time", "0.3.47", "RUSTSEC-2026-0009: the stack used up"),
    (
        "tokio",
        "1.44.2",
        "RUSTSEC-2025-0023: a broadcast that is cloned unsynchronized",
    ),
    (
        "tokio-postgres",
        "0.7.18",
        "RUSTSEC-2026-0178: what a server may answer",
    ),
    (
        "tracing-subscriber",
        "0.3.20",
        "CVE-2025-58160: escape sequences in logs",
    ),
    (
        "tungstenite",
        "0.20.1",
        "CVE-2023-43669: headers without a bound",
    ),
];

/// Crates that nothing mends, or that the build must not need.
const BANNED: &[&str] = &["ws", "websocket", "openssl-sys", "native-tls"];

/// The locked versions of every crate.
fn locked() -> BTreeMap<String, Vec<[u64; 3]>> {
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let mut found: BTreeMap<String, Vec<[u64; 3]>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let text = |key: &str| package[key].as_str().unwrap().to_owned();
        found
            .entry(text("name"))
            .or_default()
            .push(version(&text("version")));
    }
    found
}

fn version(text: &str) -> [u64; 3] {
    let plain = text.split(['-', '+']).next().unwrap();
    let mut numbers = plain.split('.').map(|part| part.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

#[test]
fn no_crate_is_older_than_the_version_without_a_known_fault() {
    let locked = locked();
    for (name, floor, why) in FLOORS {
        for found in locked.get(*name).into_iter().flatten() {
            let [a, b, c] = found;
            assert!(
                *found >= version(floor),
                "{name} {a}.{b}.{c} is below {floor} ({why})"
            );
        }
    }
    for name in BANNED {
        assert!(!locked.contains_key(*name), "{name} is in Cargo.lock");
    }
    assert!(version("0.9.12") < version("0.10.0-rc.1+x"));
}

#[test]
fn no_code_of_ours_is_unsafe_and_no_number_wraps() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    // Of this package every target: binary, library, tests and benches.
    assert_eq!(
        manifest["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
    let release = &manifest["profile"]["release"];
    assert_eq!(release["overflow-checks"].as_bool(), Some(true));
    let word = ["un", "safe"].concat();
    let forms = [" {", " fn", " impl", " trait", " extern", "("].map(|rest| word.clone() + rest);
    let rust = files(".").into_iter();
    for path in rust.filter(|path| path.extension().is_some_and(|ext| ext == "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let found = forms.iter().find(|form| line.contains(*form));
            assert_eq!(found, None, "{}: {line}", path.display());
        }
    }
}
