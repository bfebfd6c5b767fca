//! What is built into the binary: the browser's client, and the console.

use reqwest::Method;
use serde_json::json;

use super::request;
use crate::{support::command, tidy::root, wire::care};

const ELSEWHERE: (&str, &str) = ("origin", "https://shop.example");

#[tokio::test]
async fn a_page_of_any_origin_may_import_the_client() {
    let server = care();
    for (file, kind) in [
        ("rowcast.js", "text/javascript; charset=utf-8"),
        ("rowcast.d.ts", "text/plain; charset=utf-8"),
    ] {
        let path = format!("/{file}");
        let (status, headers, text) =
            request(&server, Method::GET, &path, &[ELSEWHERE], None).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (200, &kind.parse().unwrap())
        );
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["cache-control"], "no-cache");
        assert!(
            !headers.contains_key("access-control-allow-credentials"),
            "{headers:?}"
        );
        let file = std::fs::read_to_string(root().join("client").join(file)).unwrap();
        assert!(text == file, "{path} is not the file of the tree");
    }
    let (_, headers, _) = request(&server, Method::GET, "/rowcast.js", &[], None).await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["x-typescript-types"], "./rowcast.d.ts");
    let (_, headers, _) = request(&server, Method::GET, "/api/topics", &[ELSEWHERE], None).await;
    assert!(
        !headers.contains_key("access-control-allow-origin"),
        "{headers:?}"
    );
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let server = care();
    let mut tags = Vec::new();
    for path in [
        "/",
        "/console/console.js",
        "/console/icon.svg",
        "/rowcast.js",
        "/rowcast.d.ts",
    ] {
        let (status, headers, text) = request(&server, Method::GET, path, &[], None).await;
        assert!(status == 200 && !text.is_empty(), "{path}: {status}");
        let tag = headers["etag"].to_str().unwrap().to_owned();
        let ask = async |known: &str| {
            let known = [("if-none-match", known), ELSEWHERE];
            let (status, headers, text) = request(&server, Method::GET, path, &known, None).await;
            assert_eq!(headers["etag"], *tag, "{path}");
            (status, text.is_empty())
        };
        assert_eq!(ask(&tag).await, (304, true), "{path}");
        assert_eq!(
            ask(&format!("\"other\", W/{tag}")).await,
            (304, true),
            "{path}"
        );
        assert_eq!(ask("\"other\"").await, (200, false), "{path}");
        tags.push(tag);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 5, "each file has a tag of its own");
}

#[tokio::test]
async fn the_types_over_http_are_what_the_command_prints() {
    let server = care();
    for (query, args) in [
        ("", &["types"][..]),
        ("?lang=ts", &["types", "--lang", "ts"]),
        ("?lang=schema", &["types", "--lang", "schema"]),
    ] {
        let path = format!("/api/types{query}");
        let (status, headers, text) = request(&server, Method::GET, &path, &[], None).await;
        assert_eq!(
            (status, &headers["cache-control"]),
            (200, &"no-store".parse().unwrap())
        );
        let ran = command::run(server.folder(), args, &[]);
        assert_eq!((ran.code, ran.stdout), (0, text), "{path}");
    }
    let (status, body) = server.get("/api/types?lang=rust").await;
    assert_eq!(
        (status, &body["error"], &body["detail"]),
        (400, &json!("bad_param"), &json!("lang: ts or schema"))
    );
}
