//! Hostile input on the real server: tables of concrete inputs and what each is answered, with which
//! code and slug, or with which close. Of all of them together no panic, no status of 500 and more for a
//! client's error, no growth, and others are served meanwhile (`stage.rs`). Whoever finds an input that
//! is answered wrongly adds it to the table of its class.
//!
//! | class | inputs | where |
//! |---|---|---|
//! | A01 | thousands at the door who say hardly anything | `crowd.rs` |
//! | A02, A04, A05, A31, A33 | requests before the upgrade | `handshakes.rs`; what a head costs: `costs.rs` |
//! | A06 to A08, A10, A11 | frames | `frames.rs` |
//! | A09, A24, A25 | floods | `floods.rs` |
//! | A12 to A15, A32 | JSON | `json.rs` |
//! | A16, A26, A30 | parameters of queries, on SQLite and on PostgreSQL | `queries.rs` |
//! | A17, A18 | names, subjects, headers, logs | `names.rs` |
//! | A27, A28, A34 | HTTP | `http.rs` |
//!
//! The others of A01 to A34 are about identity and permission, and are held with them, where [`ELSEWHERE`] says.
//! A23 (rooms, presence) and A29 (chat) have nothing to act on: there is one group that every socket
//! joins by opening, topics are declared in the configuration, and nobody's text is shown to others but
//! applications' own events. What is left of A23, a flood of subscriptions, is in `floods.rs`.

mod costs;
mod crowd;
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

use std::fs;

use crate::tidy::root;

/// Classes, files and the tests there.
pub const ELSEWHERE: &[(&str, &str, &[&str])] = &[
    // No word of who it is.
    (
        "A03",
        "auth/presented.rs",
        &[
            "a_socket_that_never_says_who_it_is_is_closed",
            "a_hello_without_a_good_token_ends_the_socket_and_says_why",
            "whoever_does_not_say_who_he_is_has_ten_seconds",
        ],
    ),
    (
        "A03",
        "wire/closes.rs",
        &["a_socket_that_never_says_hello_is_closed_with_4401"],
    ),
    // Tokens that are none.
    (
        "A19",
        "auth/matrix.rs",
        &[
            "no_token_that_was_tampered_with_is_let_in_and_nobody_is_asked_for_its_sake",
            "a_token_of_a_megabyte_is_refused_before_it_is_read",
            "each_kind_of_key_in_the_configuration_verifies_its_own_algorithm_alone",
        ],
    ),
    (
        "A19",
        "auth/keys.rs",
        &["who_names_another_issuer_is_not_tried_on_this_ones_keys_and_has_nobody_asked"],
    ),
    // Over, revoked or less than before while a socket is open.
    (
        "A20",
        "auth/lives.rs",
        &[
            "a_socket_that_only_listens_is_closed_when_its_token_is_over",
            "a_replay_stops_where_the_token_is_over",
            "a_replay_stops_where_the_token_is_revoked",
            "a_query_that_runs_when_the_token_is_over_is_not_answered",
            "a_query_that_runs_when_the_token_is_revoked_is_not_answered",
            "a_new_token_of_the_same_subject_takes_the_place_of_the_old_one",
        ],
    ),
    (
        "A20",
        "policy/claims.rs",
        &[
            "new_claims_are_told_by_a_reset_before_any_later_event",
            "what_was_asked_for_before_is_answered_by_what_is_ones_own_now",
        ],
    ),
    (
        "A20",
        "policy/lowered.rs",
        &[
            "a_replay_goes_on_within_the_rights_that_are_left",
            "what_is_pushed_stays_within_the_rights_of_the_moment",
            "a_query_that_runs_is_answered_within_the_rights_that_are_left",
        ],
    ),
    // What was granted once; there are no tickets.
    ("A21", "auth/revoked.rs", &["a_cursor_gives_nobody_a_right"]),
    // What is somebody else's.
    (
        "A22",
        "policy/events.rs",
        &["nothing_of_another_house_is_heard_live_or_in_replay"],
    ),
    (
        "A22",
        "policy/answers.rs",
        &[
            "what_is_anothers_and_what_is_not_there_are_answered_alike",
            "a_handshake_for_what_is_not_ones_own_is_refused_like_one_for_what_is_not_there",
        ],
    ),
    (
        "A22",
        "policy/worlds.rs",
        &["what_neighbours_have_and_do_changes_nothing_of_what_one_is_told_but_cursors"],
    ),
];

/// What has nothing to act on.
pub const NOWHERE: [&str; 1] = ["A29"];

#[test]
fn every_class_is_held_somewhere() {
    let suite = |file: &str| fs::read_to_string(root().join("tests").join(file)).unwrap();
    let files = [
        "crowd",
        "floods",
        "frames",
        "handshakes",
        "http",
        "json",
        "names",
        "queries",
    ];
    let here: String = files
        .map(|file| suite(&format!("abuse/{file}.rs")))
        .concat();
    for number in 1..=34 {
        let class = format!("A{number:02}");
        let elsewhere: Vec<_> = ELSEWHERE
            .iter()
            .filter(|(name, ..)| *name == class)
            .collect();
        let inputs = here.contains(&format!("\"{class}\""));
        let places = [inputs, !elsewhere.is_empty(), NOWHERE.contains(&&*class)];
        let count = places.into_iter().filter(|held| *held).count();
        assert_eq!(count, 1, "{class} is held in {count} of three ways");
        for (_, file, tests) in elsewhere {
            let text = suite(file);
            for test in *tests {
                let held = text.contains(&format!("async fn {test}() {{"));
                assert!(held, "{class}: {file} has no test {test}");
            }
        }
    }
}
