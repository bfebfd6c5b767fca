//! What a process does over NATS beside the stream: it says how durable the bus is and how it is
//! itself, compares topic definitions with the producer's, and passes refreshes on to all gateways.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tracing::{info, warn};

use super::loops::Loops;
use crate::{
    bus::{
        Bus, Durability,
        jetstream::{JetStreamBus, JetStreamConfig, Role},
    },
    config::{Config, Servers},
    fanout::Pages,
    metrics::Metrics,
    pipeline::Process,
    topic::Topics,
};

/// The control subject of refreshes: `{"type":…}`.
const REFRESH: &str = "refresh";

/// Between two looks at the definitions that the producer has declared.
const COMPARE_INTERVAL: Duration = Duration::from_secs(30);

/// The pause before the control subjects are listened to again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Refresh {
    r#type: String,
}

/// The bus on NATS; returns at once, whether a server answers or not.
///
/// # Errors
/// A file that cannot be read, or a URL that is none.
pub(super) async fn connect(
    config: &Config,
    servers: &Servers,
    role: Role,
    topics: &Topics,
    metrics: &Metrics,
) -> anyhow::Result<JetStreamBus> {
    let name = match role {
        Role::Producer => "rowcast producer",
        Role::Gateway => "rowcast gateway",
        Role::Command => "rowcast command",
    };
    let names = topics.iter().map(|topic| topic.name.to_string());
    let fingerprints = topics
        .iter()
        .map(|topic| (topic.name.to_string(), topic.fingerprint()));
    let settings = JetStreamConfig {
        servers: servers.expose().to_owned(),
        name: name.to_owned(),
        prefix: config.bus.prefix.clone(),
        credentials: config.bus.credentials.clone(),
        ca: config.bus.ca.clone(),
        client_certificate: None,
        replicas: config.bus.replicas,
        keep: config.bus.keep,
        max_bytes: config.bus.max_bytes,
        keep_revoked: config.auth.keep_revoked,
        manage: config.bus.manage,
        types: names.collect(),
        fingerprints: fingerprints.collect(),
        monitor: config.bus.monitor.clone(),
        metrics: metrics.clone(),
    };
    Ok(JetStreamBus::connect(settings, role).await?)
}

/// The bus for a command that runs to its end, for any topic, as soon as a server answers.
///
/// # Errors
/// As [`connect`]; also what is in the way after some seconds.
pub async fn bus_of_command(config: &Config, servers: &Servers) -> anyhow::Result<JetStreamBus> {
    let (topics, metrics) = (Topics::default(), Metrics::default());
    let bus = connect(config, servers, Role::Command, &topics, &metrics).await?;
    match bus.answers().await {
        Ok(()) => Ok(bus),
        Err(err) => bail!("{err}"),
    }
}

/// Says how far an acknowledgement can be trusted: loudly where a power failure may take it back.
pub(super) async fn tell_durability(bus: JetStreamBus) {
    // Before there is a connection and a stream, nothing can be said.
    while bus.head().await.is_err() {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    if let Some(version) = bus.outdated() {
        warn!(
            version,
            "the NATS server has known vulnerabilities: 2.12.7 and 2.14 are without them"
        );
    }
    match bus.durability().await {
        Durability::Fsynced => info!("the bus is durable: fsynced"),
        Durability::Replicated => info!("the bus is durable: replicated"),
        Durability::Buffered => warn!(
            "the bus is BUFFERED: what it acknowledges may be lost in a power failure; give the \
             NATS server `sync_interval: always` and name its monitoring URL in bus.monitor, or \
             keep three replicas"
        ),
    }
}

/// Answers other processes that ask how this one is.
pub(super) async fn tell_status(bus: JetStreamBus, process: Arc<Process>, loops: Loops) {
    tokio::select! {
        () = loops.stops.fanout.cancelled() => {}
        () = loops.stops.relay.cancelled(), if process.serving.is_none() => {}
        () = bus.tell_status(|| process.report()) => {}
    }
}

/// Compares the topics of this gateway with those that the producer has declared, now and then,
/// and says which differ: such a topic's rows are judged by the producer's definition.
pub(super) async fn compare(bus: JetStreamBus, topics: Topics, loops: Loops) {
    let mut told = Vec::new();
    let mut looks = tokio::time::interval(COMPARE_INTERVAL);
    loop {
        tokio::select! {
            () = loops.stops.fanout.cancelled() => return,
            _ = looks.tick() => {}
        }
        let Ok(declared) = bus.fingerprints().await else {
            continue;
        };
        let differ = topics.iter().filter(|topic| {
            let theirs = declared.get(&*topic.name);
            theirs != Some(&topic.fingerprint()) && (topic.view.is_some() || theirs.is_some())
        });
        let differ: Vec<String> = differ.map(|topic| topic.name.to_string()).collect();
        if differ != told && !differ.is_empty() {
            warn!(topics = ?differ, "the producer has other definitions of these topics: give both the same configuration");
        }
        told = differ;
    }
}

/// Passes refreshes of page topics on: what is asked of one gateway, all of them do.
pub(super) async fn refreshes(bus: JetStreamBus, pages: Pages, loops: Loops) {
    let asked = pages.announced();
    loop {
        let Ok(mut heard) = bus.control().await else {
            tokio::select! {
                () = loops.stops.fanout.cancelled() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => continue,
                // Nobody else can be told: at least this gateway does it.
                topic = asked.next() => { pages.refresh_here(&topic); continue; }
            }
        };
        loop {
            tokio::select! {
                () = loops.stops.fanout.cancelled() => return,
                topic = asked.next() => {
                    let body = Bytes::from(json!({ "type": &*topic }).to_string());
                    if bus.publish_control(REFRESH, body).await.is_err() {
                        pages.refresh_here(&topic);
                    }
                }
                told = heard.next() => match told {
                    Some((suffix, body)) if suffix == REFRESH => {
                        if let Ok(refresh) = serde_json::from_slice::<Refresh>(&body) {
                            pages.refresh_here(&refresh.r#type);
                        }
                    }
                    Some(_) => {}
                    None => break,
                },
            }
        }
    }
}
