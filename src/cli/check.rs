//! `rowcast check`: every precondition, and the remedy for each that is not met.

mod postgres;
mod sqlite;

use std::error::Error;

use crate::{
    app,
    bus::{Bus, Durability, embedded, jetstream::JetStreamBus},
    config::{BusUrl, Config, ConfigError, DatabaseUrl, Servers},
    topic::{Topic, Topics},
};

use super::{Exit, NATS_REMEDY};

/// The three things that a line of the report can say.
enum Finding {
    Fine(String),
    /// Works, but somebody should know.
    Warning(String),
    /// `serve` would not work. The second text is the remedy.
    Failure(String, String),
    /// The same, by the fault of the configuration's topics.
    Misconfigured(ConfigError),
    /// The same, by the fault of its `[auth]`.
    NoAuth(ConfigError),
}

/// Prints one line for each precondition; exit code 1 where one fails, and 64 where what fails is
/// the configuration.
pub async fn run(config: &Config) -> anyhow::Result<Exit> {
    let mut exit = Exit::Fine;
    let tls = app::tls(config)?;
    if let (Some(_), Some(cert)) = (tls, &config.server.tls_cert) {
        println!("ok      server: TLS with {}", cert.display());
    }
    for finding in findings(config).await {
        match finding {
            Finding::Fine(text) => println!("ok      {text}"),
            Finding::Warning(text) => println!("warning {text}"),
            Finding::Failure(text, remedy) => {
                exit = Exit::Failure;
                println!("FAILED  {text}\n        {remedy}");
            }
            Finding::NoAuth(text) => {
                exit = Exit::Usage;
                println!("FAILED  auth: {text}\n        mend the configuration");
            }
            Finding::Misconfigured(text) => {
                exit = Exit::Usage;
                println!(
                    "FAILED  topics: {text}\n        mend the configuration; `rowcast init` writes one that fits"
                );
            }
        }
    }
    Ok(exit)
}

async fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::Fine(match &config.file {
        Some(file) => format!("configuration: {}", file.display()),
        None => "configuration: built-in defaults".to_owned(),
    })];
    if let Some(path) = config.database.url.path()
        && !path.exists()
    {
        findings.push(sqlite::no_database(config, path));
        return findings;
    }
    match app::topics(config).await {
        Ok(topics) => {
            let count = topics.iter().count();
            findings.push(Finding::Fine(format!("topics: {count} fit the database")));
            findings.extend(unguarded(&topics));
            findings.extend(match &config.database.url {
                DatabaseUrl::Sqlite(path) => sqlite::findings(path, &topics),
                DatabaseUrl::Postgres(address) => {
                    postgres::findings(config, address, &topics).await
                }
            });
        }
        Err(err) => findings.push(match err.downcast::<ConfigError>() {
            Ok(err) => Finding::Misconfigured(err),
            Err(err) => match &config.database.url {
                DatabaseUrl::Sqlite(_) => sqlite::unusable(&err),
                DatabaseUrl::Postgres(_) => postgres::unreachable(&err),
            },
        }),
    }
    findings.extend(bus(config).await);
    findings.extend(auth(config));
    findings
}

/// Who may connect. The issuer and the endpoint are not asked: that they answer now says nothing of when
/// they are needed.
fn auth(config: &Config) -> Vec<Finding> {
    let (auth, listen) = (&config.auth, &config.server.listen);
    let mut findings = match config.auth_settings() {
        Err(err) => vec![Finding::NoAuth(err)],
        Ok(settings) if auth.judges() => {
            let algorithms = settings.algorithms.iter().map(|one| one.as_str());
            let mut ways: Vec<String> = algorithms.map(str::to_owned).collect();
            if !auth.tokens.is_empty() {
                ways.push(format!("{} tokens of the configuration", auth.tokens.len()));
            }
            ways.extend(
                auth.forward_url
                    .iter()
                    .map(|url| format!("what {url} says")),
            );
            vec![Finding::Fine(format!("auth: {}", ways.join(", ")))]
        }
        Ok(_) => Vec::new(),
    };
    if auth.anonymous && !listen.is_loopback() {
        findings.push(Finding::Warning(format!(
            "auth: everybody who reaches {listen} may read every topic (auth.anonymous = true)"
        )));
    }
    for url in [&auth.jwks_url, &auth.forward_url].into_iter().flatten() {
        if url.is_exposed() {
            findings.push(Finding::Warning(format!(
                "auth: {url} is asked over http: whoever sits in between decides who somebody is"
            )));
        }
    }
    findings
}

/// Topics that show to everybody what another one does not.
fn unguarded(topics: &Topics) -> Vec<Finding> {
    let tables = |topic: &Topic| {
        let tables = topic.view.iter().flat_map(|view| view.tables());
        tables.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut findings = Vec::new();
    for guarded in topics.iter().filter(|topic| topic.is_guarded()) {
        let of = tables(guarded);
        let others = topics.iter().filter(|topic| !topic.is_guarded());
        for open in others.filter(|topic| tables(topic).iter().any(|table| of.contains(table))) {
            findings.push(Finding::Warning(format!(
                "topics: \"{}\" shows everybody the table \"{}\", of which \"{}\" shows each only what \
                 is his",
                open.name,
                of.join(", "),
                guarded.name
            )));
        }
    }
    findings
}

async fn bus(config: &Config) -> Vec<Finding> {
    match &config.bus.url {
        BusUrl::Embedded => {
            let bus = config.bus_path();
            vec![match (bus.exists(), embedded::is_taken(&bus)) {
                (_, true) => Finding::Warning(format!(
                    "bus: a rowcast serves this database now ({})",
                    bus.display()
                )),
                (true, false) => Finding::Fine(format!("bus: {} (fsynced)", bus.display())),
                (false, false) => {
                    Finding::Fine(format!("bus: {} will be created (fsynced)", bus.display()))
                }
            }]
        }
        BusUrl::Nats(servers) => nats(config, servers).await,
    }
}

async fn nats(config: &Config, servers: &Servers) -> Vec<Finding> {
    let bus = match app::bus_of_command(config, servers).await {
        Ok(bus) => bus,
        Err(err) => return vec![no_bus(&err)],
    };
    let head = bus.head().await;
    let begun = head.is_ok();
    let mut findings = vec![match head {
        Ok(head) => Finding::Fine(format!("bus: {servers}, at {}", head.position)),
        // The server answers: nothing has been declared yet, which is a producer's business.
        Err(err) if JetStreamBus::is_only_new(&err) => {
            let said = err.source().map(ToString::to_string).unwrap_or_default();
            Finding::Fine(format!("bus: {servers} answers; {said}"))
        }
        Err(err) if JetStreamBus::is_denied(&err) => {
            let said = err.source().map(ToString::to_string).unwrap_or_default();
            return vec![Finding::Failure(
                format!("bus: {said}"),
                "run it as the user of a producer or a gateway, and give that user the permission"
                    .to_owned(),
            )];
        }
        Err(err) => return vec![no_bus(&err)],
    }];
    findings.extend(bus.outdated().map(|version| {
        Finding::Warning(format!(
            "bus: the NATS server is version {version}, which has known vulnerabilities; 2.12.7 \
             and 2.14 are without them"
        ))
    }));
    findings.push(match bus.durability().await {
        Durability::Fsynced => Finding::Fine("bus: what it acknowledges is fsynced".to_owned()),
        Durability::Replicated => {
            Finding::Fine("bus: what it acknowledges is replicated".to_owned())
        }
        Durability::Buffered => Finding::Warning(
            "bus: BUFFERED, what it acknowledges may be lost in a power failure; set \
             `sync_interval: always` on the NATS server and name its monitoring URL in \
             bus.monitor, or keep three replicas"
                .to_owned(),
        ),
    });
    if !begun {
        return findings;
    }
    let denied = "give a gateway's user that permission, and its account the import, as nats/server.conf does";
    if let Err(err) = bus.may_read_dead_letters().await {
        findings.push(Finding::Warning(format!(
            "bus: no gateway can show dead letters as this user: {err}; {denied}"
        )));
    }
    if config.auth.judges() {
        let (finding, kept) = revocations(config, &bus).await;
        findings.push(finding);
        if kept && let Err(err) = bus.may_read_revocations().await {
            findings.push(Finding::Warning(format!(
                "bus: a gateway with this user stops at a revocation whose headers cannot be read, and one that \
                 starts knows of none after it: {err}; {denied}"
            )));
        }
    }
    findings
}

/// Whether a gateway that starts knows what was revoked before; and whether there is a stream from which it may.
async fn revocations(config: &Config, bus: &JetStreamBus) -> (Finding, bool) {
    let wanted = config.auth.keep_revoked;
    let found = bus.keeps_revocations().await;
    let kept = found.is_ok();
    let finding = match found {
        Ok(Some(kept)) if kept < wanted => Finding::Warning(format!(
            "bus: revocations are kept for {} ms, and auth.keep_revoked_ms is {}; give the producer \
             the same configuration",
            kept.as_millis(),
            wanted.as_millis()
        )),
        Ok(_) => Finding::Fine("bus: revocations are kept".to_owned()),
        Err(err) => Finding::Warning(format!(
            "bus: revocations are not kept, and a gateway that starts does not know of those before: \
             {err}; `rowcast produce` of this version makes the stream, and nats/server.conf has who must \
             be let read it"
        )),
    };
    (finding, kept)
}

fn no_bus(err: &impl std::fmt::Display) -> Finding {
    Finding::Failure(format!("bus: {err:#}"), NATS_REMEDY.to_owned())
}
