//! A change producer: one of several, of which one reads the database and publishes, while the
//! others stand by.

use std::{net::SocketAddr, time::Duration};

use anyhow::bail;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{bind, gateway::resolved, loops::Loops, nats, process, terms};
use crate::{
    bus::jetstream::Role,
    config::{BusUrl, Config},
    http::{self, Door},
    metrics::Part,
};

/// A change producer whose loop runs as soon as database and bus are there.
#[derive(Debug)]
pub struct Producer {
    address: Option<SocketAddr>,
    going: JoinHandle<anyhow::Result<()>>,
    loops: Loops,
    grace: Duration,
}

impl Producer {
    /// Starts a producer, and opens its port if it was told to have one. A database or bus that
    /// is away is waited for.
    ///
    /// # Errors
    /// What no waiting will mend, such as an embedded bus, which no producer can reach.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let BusUrl::Nats(servers) = config.bus.url.clone() else {
            bail!(
                "a producer publishes to NATS, and the bus is embedded: `rowcast serve` reads the \
                 database itself then; for NATS set bus.url or --bus nats://host:4222"
            );
        };
        let loops = Loops::default();
        loops.health.expect(Part::Source);
        loops.health.expect(Part::Bus);
        let mut address = None;
        if let Some(listen) = &config.produce.listen {
            let listener = bind(listen, "--listen").await?;
            address = Some(listener.local_addr()?);
            let (health, metrics) = (loops.health.clone(), loops.metrics.clone());
            let door = Door::of_producer(health, metrics, config.server.language);
            let terms = terms(&config.server, listen);
            let stop = loops.stops.accept.clone();
            tokio::spawn(http::serve(listener, door, terms, stop));
        }
        let process = process::producer(config, &loops, address);
        let (task_config, task_loops) = (config.clone(), loops.clone());
        let going = tokio::spawn(async move {
            let topics = resolved(&task_config, &task_loops).await?;
            let (role, metrics) = (Role::Producer, &task_loops.metrics);
            let bus = nats::connect(&task_config, &servers, role, &topics, metrics).await?;
            tokio::spawn(nats::tell_durability(bus.clone()));
            let told = nats::tell_status(bus.clone(), process, task_loops.clone());
            task_loops.spawn("status", told);
            let (relay, _) = task_loops.relay(&task_config, &bus, &topics);
            Ok(relay.await?)
        });
        Ok(Self {
            address,
            going,
            loops,
            grace: config.server.shutdown_grace,
        })
    }

    /// The address that is bound, if one was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Runs until `shutdown` resolves, then publishes and confirms what was read, within the grace
    /// period. What is not published by then stays in the database's slot.
    ///
    /// # Errors
    /// What kept it from starting for good.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown => {}
            () = self.loops.failed.cancelled() => bail!("the producer has failed; the log says where"),
            ended = &mut self.going => return ended?,
        }
        info!(grace_ms = self.grace.as_millis(), "stopping");
        self.loops.stops.relay.cancel();
        match tokio::time::timeout(self.grace, &mut self.going).await {
            Ok(ended) => ended??,
            Err(_) => {
                self.going.abort();
                warn!("the grace period is over: what is not published stays in the slot");
            }
        }
        info!("stopped");
        Ok(())
    }
}
