//! One integration binary. Behaviours are sentences, acted out through real sockets against the
//! real binary, with foreign writers in processes of their own.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod support;

mod abuse;
mod accounts;
mod advisories;
mod auth;
mod autobahn;
mod bench;
mod bus_contract;
mod capture;
mod checker;
mod commands;
mod connections;
mod continuity;
mod crowds;
mod deflate;
mod descriptions;
mod django_move;
mod documents;
mod edge;
mod exactness;
mod examples;
mod fairness;
mod filters;
mod http;
mod inbound;
mod jetstream;
mod joined;
mod kills;
mod limits;
mod migrations;
mod pipeline;
mod policy;
mod postgres_exact;
mod postgres_queries;
mod postgres_source;
mod predicate;
mod predicate_postgres;
mod production;
mod production_commands;
mod properties;
mod resume;
mod roles;
mod rolling;
mod secrets;
mod shutdown;
mod source_contract;
mod store_contract;
mod tidy;
mod wire;
