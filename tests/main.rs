//! One integration binary. Behaviours are sentences, acted out through real sockets against the
//! real binary, with foreign writers in processes of their own.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod support;

mod capture;
mod continuity;
mod exactness;
mod kills;
mod migrations;
mod predicate;
