//! Whole lists: page after page by `after`, and all at once in parts.

use serde_json::{Value as Json, json};

use super::{care, ids};
use crate::support::{Server, Socket};

/// 60 rows: `rank` with ties and NULLs, `score` with reals, `name` with ties in Chinese.
const RANKED: &str = "
    CREATE TABLE item (id INTEGER PRIMARY KEY, rank INTEGER, score REAL, name TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
    INSERT INTO item SELECT i, CASE i % 4 WHEN 0 THEN NULL ELSE i % 3 END, (i % 7) / 3.0,
        CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '王' ELSE '李' || i % 2 END FROM n;";

/// Walks a list with `page.next` and returns its ids and how many pages there were.
async fn walk(socket: &mut Socket, params: Json) -> (Vec<i64>, usize) {
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut reply = socket
        .ask(json!({ "type": "item", "rid": 0, "params": params }))
        .await;
    loop {
        pages += 1;
        found.extend(ids(&reply));
        assert_eq!(
            reply["page"]["number"].is_null(),
            pages > 1,
            "a continuation has no number"
        );
        assert_eq!(
            reply["page"]["total"],
            reply["page"]["total"].as_u64().unwrap()
        );
        let Some(next) = reply["page"]["next"].as_str() else {
            return (found, pages);
        };
        let params = json!({ "after": next });
        reply = socket
            .ask(json!({ "type": "item", "rid": pages, "params": params }))
            .await;
    }
}

#[tokio::test]
async fn pages_by_after_hold_every_row_once_whatever_the_order() {
    let server = Server::configured(
        "[limits]\nmessages_burst = 1000\n\
         [[topics]]\ntype = \"item\"\ntable = \"item\"\nmax_page_size = 60",
        RANKED,
    );
    let mut socket = server.socket("").await;
    for order in [
        json!("id"),
        json!("id desc"),
        json!("rank"),
        json!("rank desc"),
        json!(["rank desc", "id desc"]),
        json!(["name", "rank desc"]),
        json!(["name desc", "score"]),
        json!("score desc"),
        json!(["rank", "name desc", "id desc"]),
    ] {
        for filter in [json!({}), json!({ "rank": [1, null], "id": { "gt": 5 } })] {
            let whole = json!({ "order": order, "size": 60, "filter": filter });
            let whole = ids(&socket
                .ask(json!({ "type": "item", "rid": "all", "params": whole }))
                .await);
            for size in [1, 7, 60] {
                let params = json!({ "order": order, "filter": filter, "size": size });
                let (found, pages) = walk(&mut socket, params).await;
                assert_eq!(found, whole, "{order} {filter} by {size}");
                assert_eq!(pages, whole.len().div_ceil(size));
            }
        }
    }
}

#[tokio::test]
async fn a_row_that_appears_on_an_earlier_page_shifts_no_later_one() {
    let server = Server::configured(
        "[[topics]]\ntype = \"item\"\ntable = \"item\"\npage_size = 20",
        RANKED,
    );
    let mut socket = server.socket("types=item").await;
    let first = socket.ask(json!({ "type": "item", "rid": 1 })).await;
    crate::support::sqlite3(
        &server.database(),
        "INSERT INTO item (id) VALUES (-1); DELETE FROM item WHERE id = 20",
    );
    let next = json!({ "after": first["page"]["next"] });
    let second = socket
        .ask(json!({ "type": "item", "rid": 2, "params": next }))
        .await;
    assert_eq!(ids(&second), (21..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_token_belongs_to_its_topic_and_carries_its_own_order_and_filter() {
    let server = care();
    let mut socket = server.socket("").await;
    let first = json!({ "order": "age desc", "filter": { "age": { "gt": 1 } } });
    let first = socket
        .ask(json!({ "type": "patient", "rid": 1, "params": first }))
        .await;
    let next = &first["page"]["next"];
    let other = json!({ "type": "stay", "rid": 1, "params": { "after": next } });
    assert_eq!(socket.ask(other).await["error"], "bad_param");
    for (beside, fine) in [
        (json!({}), true),
        (
            json!({ "size": 2, "order": "age desc", "filter": { "age": { "gt": 1 } } }),
            true,
        ),
        (json!({ "size": 3 }), false),
        (json!({ "page": 2 }), false),
        (json!({ "order": "age" }), false),
        (json!({ "filter": { "age": 1 } }), false),
    ] {
        let mut params = beside.clone();
        params["after"] = next.clone();
        let answer = socket
            .ask(json!({ "type": "patient", "rid": 2, "params": params }))
            .await;
        match fine {
            true => assert_eq!(ids(&answer), [2], "{beside}"),
            false => assert_eq!(answer["error"], "bad_param", "{beside}"),
        }
    }
}

#[tokio::test]
async fn all_is_the_whole_view_in_parts_at_one_position() {
    let server = Server::configured(
        "[[topics]]\ntype = \"item\"\ntable = \"item\"\nmax_rows = 3000",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO item SELECT i, printf('%.*c', 100, 'x') FROM n;",
    );
    let mut socket = server.socket("").await;
    socket
        .send(json!({ "type": "item", "rid": "a", "params": { "all": true, "order": "id desc" } }))
        .await;
    let (mut rows, mut part, mut cursor) = (Vec::new(), 0, Json::Null);
    loop {
        let text = socket.next_text().await;
        assert!(text.len() < 64 * 1024, "a part has {} bytes", text.len());
        let frame: Json = serde_json::from_str(&text).unwrap();
        part += 1;
        assert_eq!(
            super::members(&frame),
            ["type", "rid", "op", "data", "cursor", "part", "last"]
        );
        assert_eq!((&frame["rid"], &frame["part"]), (&json!("a"), &json!(part)));
        cursor = if part == 1 {
            frame["cursor"].clone()
        } else {
            cursor
        };
        assert_eq!(frame["cursor"], cursor);
        rows.extend(ids(&frame));
        if frame["last"] == true {
            break;
        }
    }
    assert!(part > 1, "this many rows do not fit one part");
    assert_eq!(rows, (1..=3000).rev().collect::<Vec<_>>());
    let one = json!({ "type": "item", "rid": 1, "params": { "all": true, "filter": { "id": 7 } } });
    let one = socket.ask(one).await;
    assert_eq!(
        (ids(&one), &one["part"], &one["last"]),
        (vec![7], &json!(1), &json!(true))
    );
    let none =
        json!({ "type": "item", "rid": 1, "params": { "all": true, "filter": { "id": 0 } } });
    let none = socket.ask(none).await;
    assert_eq!((ids(&none), &none["last"]), (vec![], &json!(true)));
}

#[tokio::test]
async fn all_is_refused_where_the_view_has_more_rows_than_the_topic_allows() {
    let server = care();
    let mut socket = server.socket("").await;
    let all = json!({ "type": "patient", "rid": 1, "params": { "all": true } });
    assert_eq!(ids(&socket.ask(all.clone()).await).len(), 4);
    crate::support::sqlite3(
        &server.database(),
        "INSERT INTO patient (name) VALUES ('a'), ('b')",
    );
    let refused = socket.ask(all).await;
    assert_eq!(
        (&refused["code"], &refused["error"]),
        (&json!(400), &json!("bad_param"))
    );
    assert!(refused["detail"].as_str().unwrap().contains("max_rows"));
}
