//! The stream as it must be: created, or held against nats/stream.json, whenever a connection
//! was made.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy},
};

use super::{Failure, JetStreamBus, Role, denied::NO_ANSWER, look::OnlyNew};

/// The stream's definition, for the prefix `rowcast`.
const DEFINITION: &str = include_str!("../../../nats/stream.json");

/// That of dead letters. A letter is stored once for as long as its duplicate window, however many
/// gateways tell of it and start again.
const DEAD_LETTERS: &str = include_str!("../../../nats/dead_letters.json");

/// The oldest server that has all that is needed: atomic batches came with it.
const OLDEST: (i64, i64) = (2, 12);

/// What is known of the server and its stream since a connection was made.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The connection.
    pub generation: u64,
    /// When the stream was created, in Unix nanoseconds: another time, another stream.
    pub created_ns: i128,
    /// The most bytes of one message, headers and body.
    pub max_payload: usize,
}

impl JetStreamBus {
    /// Makes sure, once for a connection, that the server and the stream are as they must be.
    pub(super) async fn ready(&self) -> Result<Ready, Failure> {
        let jetstream = self.connection.jetstream()?;
        let generation = self.connection.generation();
        let mut ready = self.ready.lock().await;
        if let Some(known) = ready.as_ref().filter(|r| r.generation == generation) {
            return Ok(known.clone());
        }
        *ready = None;
        let server = self.connection.client()?.server_info();
        check_version(&server.version)?;
        if !server.jetstream {
            return Err(NO_JETSTREAM.into());
        }
        let wanted = self.wanted()?;
        let found = match jetstream.get_stream(&wanted.name).await {
            Ok(stream) => Some(stream.cached_info().clone()),
            Err(err) => match err.kind() {
                GetStreamErrorKind::JetStream(ref inner)
                    if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    None
                }
                GetStreamErrorKind::JetStream(ref inner)
                    if inner.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
                        || inner.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED =>
                {
                    return Err(NO_JETSTREAM.into());
                }
                GetStreamErrorKind::Request if err.to_string().contains("no responders") => {
                    return Err(NO_JETSTREAM.into());
                }
                _ => return Err(silent(err)),
            },
        };
        let manages = self.role == Role::Producer && self.config.manage;
        let info = match found {
            Some(info) => {
                check(&info.config, &wanted)?;
                match manages && limits(&info.config) != limits(&wanted) {
                    true => {
                        let config = Config {
                            max_age: wanted.max_age,
                            max_bytes: wanted.max_bytes,
                            num_replicas: wanted.num_replicas,
                            ..info.config
                        };
                        jetstream.update_stream(config).await.map_err(silent)?
                    }
                    false => info,
                }
            }
            None if manages => create(&jetstream, wanted).await?,
            None => return Err(OnlyNew::NoStream(wanted.name).into()),
        };
        if manages {
            self.ensure_dead_letters().await?;
            self.ensure_revocations().await?;
        }
        let known = Ready {
            generation,
            created_ns: info.created.unix_timestamp_nanos(),
            max_payload: self.connection.client()?.max_payload(),
        };
        *ready = Some(known.clone());
        Ok(known)
    }

    /// Forgets what was found: the next use looks again.
    pub(super) async fn unready(&self) {
        *self.ready.lock().await = None;
    }

    /// nats/stream.json with this configuration's names and limits.
    fn wanted(&self) -> Result<Config, Failure> {
        let base: Config = serde_json::from_str(DEFINITION)?;
        Ok(Config {
            name: self.names.stream.clone(),
            subjects: vec![self.names.changes.clone(), self.names.events.clone()],
            num_replicas: self.config.replicas,
            max_age: self.config.keep,
            max_bytes: i64::try_from(self.config.max_bytes).unwrap_or(i64::MAX),
            duplicate_window: base.duplicate_window.min(self.config.keep),
            ..base
        })
    }

    /// Creates the stream of dead letters, unless it is there or somebody else does that.
    pub(super) async fn ensure_dead_letters(&self) -> Result<(), Failure> {
        let jetstream = self.connection.jetstream()?;
        let name = &self.names.dead_stream;
        if !self.config.manage {
            let found = jetstream.get_stream(name).await;
            return match found {
                Ok(_) => Ok(()),
                Err(err) => {
                    Err(format!("the stream {name}: {err}; see nats/dead_letters.json").into())
                }
            };
        }
        let base: Config = serde_json::from_str(DEAD_LETTERS)?;
        let config = Config {
            name: name.clone(),
            subjects: vec![self.names.dead.clone()],
            num_replicas: self.config.replicas,
            ..base
        };
        jetstream
            .get_or_create_stream(config)
            .await
            .map_err(silent)?;
        Ok(())
    }
}

pub(super) const NO_JETSTREAM: &str = "JetStream is not enabled on the NATS server: start it with `-js`, or put `jetstream {}` into its configuration";

/// An error of the client's as a text that stays the same.
pub fn silent(err: impl std::fmt::Display) -> Failure {
    let text = err.to_string();
    if text.contains("timed out") {
        return NO_ANSWER.into();
    }
    text.into()
}

async fn create(
    jetstream: &async_nats::jetstream::Context,
    config: Config,
) -> Result<Info, Failure> {
    let name = config.name.clone();
    match jetstream.create_stream(config).await {
        Ok(stream) => {
            tracing::info!(stream = %name, "created the stream");
            Ok(stream.cached_info().clone())
        }
        Err(err) => Err(format!("the stream {name} cannot be created: {err}").into()),
    }
}

pub(super) fn check_version(version: &str) -> Result<(), Failure> {
    let (first, second, _) = numbers(version);
    if (first, second) < OLDEST {
        let (major, minor) = OLDEST;
        return Err(format!("the NATS server is version {version}; {major}.{minor} or later is needed, for batches that are stored whole or not at all").into());
    }
    Ok(())
}

/// A version's three numbers.
pub(super) fn numbers(version: &str) -> (i64, i64, i64) {
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse::<i64>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// What a manager may bring into line without harm.
fn limits(config: &Config) -> (Duration, i64, usize) {
    (config.max_age, config.max_bytes, config.num_replicas)
}

/// Refuses a stream that would not keep our promises.
fn check(found: &Config, wanted: &Config) -> Result<(), Failure> {
    let missing = wanted
        .subjects
        .iter()
        .find(|subject| !found.subjects.contains(subject));
    let wrong = if let Some(subject) = missing {
        Some(format!("does not hold {subject}"))
    } else if !found.allow_atomic_publish {
        Some("does not allow atomic batches (allow_atomic)".to_owned())
    } else if !found.allow_direct {
        Some("does not allow direct reads (allow_direct)".to_owned())
    } else if found.retention != RetentionPolicy::Limits {
        Some("is no stream with retention by limits".to_owned())
    } else if found.discard != DiscardPolicy::Old {
        Some("refuses what is new when it is full (discard must be old)".to_owned())
    } else if found.max_messages_per_subject > 0 {
        Some("drops messages by subject (max_msgs_per_subject)".to_owned())
    } else if found.sealed || found.no_ack {
        Some("takes no messages, or acknowledges none".to_owned())
    } else {
        None
    };
    match wrong {
        Some(wrong) => {
            Err(format!("the stream {} {wrong}; see nats/stream.json", found.name).into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_with_what_to_do() {
        assert!(check_version("2.12.0").is_ok());
        assert!(check_version("2.15.1-beta").is_ok());
        assert!(check_version("3.0.0").is_ok());
        let text = check_version("2.9.10").unwrap_err().to_string();
        assert!(text.contains("2.12 or later is needed"), "{text}");
    }

    #[test]
    fn a_stream_that_would_not_do_is_told() {
        let wanted: Config = serde_json::from_str(DEFINITION).unwrap();
        assert!(check(&wanted, &wanted).is_ok());
        let found = Config {
            allow_atomic_publish: false,
            ..wanted.clone()
        };
        let text = check(&found, &wanted).unwrap_err().to_string();
        assert!(text.contains("allow_atomic"), "{text}");
    }
}
