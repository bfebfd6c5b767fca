//! One integration binary. Behaviours are sentences, acted out through real sockets against the
//! real binary, with foreign writers in processes of their own.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod support;

mod bus_contract;
mod capture;
mod commands;
mod continuity;
mod documents;
mod exactness;
mod http;
mod kills;
mod migrations;
mod predicate;
mod properties;
mod shutdown;
mod source_contract;
mod store_contract;
mod tidy;
mod wire;
