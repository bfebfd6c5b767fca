//! Rowcast carries committed database changes to every browser that should see them, on one
//! WebSocket, without a gap, and answers that browser's direct queries on the same socket.
//!
//! ARCHITECTURE.md draws the building: which floor each module stands on, and who may import whom.

// floor 4: assembly
pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;

// floor 3: the edge
pub mod http;
pub mod nats_service;
pub mod session;

// floor 2: the loops
pub mod fanout;
pub mod pipeline;
pub mod query;
pub mod relay;

// floor 1: the rooms
pub mod auth;
pub mod bus;
pub mod callers;
pub mod groups;
pub mod postgres;
pub mod ring;
pub mod source;
pub mod sqlite;
pub mod store;

// floor 0: the words
pub mod clock;
pub mod event;
pub mod horizon;
pub mod identity;
pub mod metrics;
pub mod policy;
pub mod position;
pub mod predicate;
pub mod protocol;
pub mod row;
pub mod sabotage;
pub mod status;
pub mod topic;
