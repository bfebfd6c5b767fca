//! The production stack: PostgreSQL, NATS, producers and gateways, each a process of its own that
//! can be killed.

use super::{Nats, NatsOptions, Options, Producer, Server, postgres};

/// A whole stack. What it starts ends with it.
pub struct Stack {
    /// Ours alone, so that it can be killed.
    pub cluster: postgres::Cluster,
    /// The database with the tables.
    pub database: postgres::Database,
    /// The bus.
    pub nats: Nats,
    /// The first to start is active.
    pub producers: Vec<Producer>,
    /// All on the same topics.
    pub gateways: Vec<Server>,
    config: String,
    env: Vec<(String, String)>,
}

impl Stack {
    /// A stack of one producer and `gateways` gateways with these `[[topics]]`, on tables that
    /// `sql` makes.
    pub fn new(topics: &str, sql: &str, gateways: usize) -> Self {
        Self::with(topics, sql, gateways, "")
    }

    /// The same with more lines for `[database]`.
    pub fn with(topics: &str, sql: &str, gateways: usize, more: &str) -> Self {
        Self::start(topics, sql, gateways, more, Vec::new())
    }

    /// The same with environment variables for producers and gateways.
    pub fn plagued(topics: &str, sql: &str, gateways: usize, env: Vec<(String, String)>) -> Self {
        Self::start(topics, sql, gateways, "", env)
    }

    fn start(
        topics: &str,
        sql: &str,
        gateways: usize,
        more: &str,
        env: Vec<(String, String)>,
    ) -> Self {
        let cluster = postgres::Cluster::own(&[]);
        let database = cluster.database();
        database.sql(sql);
        let nats = Nats::with(NatsOptions::default());
        let config = format!(
            "[database]\nurl = \"{}\"\nheartbeat_interval_ms = 500\n{more}\n\
             [bus]\nurl = \"{}\"\n{topics}",
            database.url(),
            nats.url()
        );
        let mut stack = Self {
            cluster,
            database,
            nats,
            producers: Vec::new(),
            gateways: Vec::new(),
            config,
            env,
        };
        stack.produce();
        for _ in 0..gateways {
            stack.serve();
        }
        stack
    }

    /// Starts one more producer.
    pub fn produce(&mut self) {
        self.producers
            .push(Producer::start_in(&self.config, self.env.clone()));
    }

    /// Starts one more gateway.
    pub fn serve(&mut self) {
        self.gateways.push(Server::with(Options {
            config: Some(self.config.clone()),
            env: self.env.clone(),
            ..Options::default()
        }));
    }

    /// The addresses of the gateways.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.gateways.iter().map(Server::address);
        addresses.map(str::to_owned).collect()
    }
}
