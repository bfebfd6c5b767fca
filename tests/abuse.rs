//! Hostile input on the real server: tables of concrete inputs and what each is answered, with which
//! code and slug, or with which close. Of all of them together no panic, no status of 500 and more for a
//! client's error, no growth, and others are served meanwhile (`stage.rs`). Whoever finds an input that
//! is answered wrongly adds it to the table of its class.
//!
//! | class | inputs | where |
//! |---|---|---|
//! | A01, A02, A04, A05, A31, A33 | requests before the upgrade | `handshakes.rs` |
//! | A06 to A08, A10, A11 | frames | `frames.rs` |
//! | A09, A24, A25 | floods | `floods.rs` |
//! | A12 to A15, A32 | JSON | `json.rs` |
//! | A16, A26, A30 | parameters of queries, on SQLite and on PostgreSQL | `queries.rs` |
//! | A17, A18 | names, subjects, headers, logs | `names.rs` |
//! | A27, A28, A34 | HTTP | `http.rs` |
//!
//! Of the list that these classes are of (tests/abuse covers what concerns unidentified callers) some
//! have no place here: A03 and A19 to A22 are about identity and permission and are tested with them.
//! A23 (rooms, presence) and A29 (chat) have nothing to act on: there is one group that every socket
//! joins by opening, topics are declared in the configuration, and nobody's text is shown to others but
//! applications' own events. What is left of A23, a flood of subscriptions, is in `floods.rs`.

mod floods;
mod frames;
mod handshakes;
mod http;
mod inputs;
mod json;
mod names;
mod queries;
mod stage;
mod told;
