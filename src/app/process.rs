//! What processes and databases are called where people look at them.

use std::{fs, net::SocketAddr, sync::Arc};

use super::loops::Loops;
use crate::{
    config::{Config, DatabaseUrl},
    pipeline::{Process, Serving, Watching},
};

/// Where Linux says what the machine, or the container, is called.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// A gateway; it reads the database itself where the bus is its own.
pub(super) fn gateway(
    config: &Config,
    loops: &Loops,
    address: SocketAddr,
    reads: bool,
    serving: Serving,
) -> Arc<Process> {
    let what = database(&config.database.url);
    let source = match reads {
        true => Watching::Here(what),
        false => Watching::Elsewhere(what),
    };
    let (name, both) = (of_listener(address), loops.both());
    Arc::new(Process::new(name, both, source, Some(serving)))
}

/// A change producer.
pub(super) fn producer(
    config: &Config,
    loops: &Loops,
    address: Option<SocketAddr>,
) -> Arc<Process> {
    let source = Watching::Here(database(&config.database.url));
    let unnamed = || format!("producer@{}:{}", host(), std::process::id());
    let name = address.map_or_else(unnamed, of_listener);
    Arc::new(Process::new(name, loops.both(), source, None))
}

/// The listener's address. One that stands for all addresses is the same on every machine, so the
/// machine's name takes its place.
fn of_listener(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("{}:{}", host(), address.port()),
        false => address.to_string(),
    }
}

fn host() -> String {
    let named = fs::read_to_string(HOSTNAME).ok();
    let named = named.or_else(|| std::env::var("HOSTNAME").ok());
    let named = named.map(|name| name.trim().to_owned());
    let named = named.filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "localhost".to_owned())
}

/// Kind and name of a database; neither user nor password.
fn database(url: &DatabaseUrl) -> String {
    match url {
        DatabaseUrl::Sqlite(path) => {
            let file = path.file_name().unwrap_or_default();
            format!("sqlite {}", file.to_string_lossy())
        }
        DatabaseUrl::Postgres(address) => {
            let host = match address.host() {
                host if host.contains(':') => format!("[{host}]"),
                host => host.to_owned(),
            };
            format!("postgres {host}:{}/{}", address.port(), address.dbname())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_on_all_addresses_has_the_name_of_its_machine() {
        let of = |text: &str| of_listener(text.parse().unwrap());
        assert_eq!(of("127.0.0.1:8888"), "127.0.0.1:8888");
        assert_eq!(of("[::1]:8888"), "[::1]:8888");
        for all in ["0.0.0.0:8888", "[::]:8888"] {
            assert_eq!(of(all), format!("{}:8888", host()));
        }
    }

    #[test]
    fn a_database_is_named_without_secrets() {
        let url = |text: &str| DatabaseUrl::try_from(text.to_owned()).unwrap();
        assert_eq!(database(&url("sqlite:some/care.db")), "sqlite care.db");
        let postgres = url("postgres://me:secret@db.example:5433/care?sslmode=disable");
        assert_eq!(database(&postgres), "postgres db.example:5433/care");
    }
}
