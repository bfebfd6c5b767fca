//! No token and no key is written down anywhere, and `rowcast token` makes one for development.

use serde_json::{Value as Json, json};

use super::{
    CARE, CARE_TABLES, SECRET, ann,
    endpoint::Endpoint,
    fetched, handshake, is_served,
    issuer::{Pair, now},
    opened, with_secret,
};
use crate::support::{Folder, Options, Server, Socket};

/// Like a token, and found wherever it is written down.
const CANARY: &str = "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOjF9.canary-canary-canary";

#[tokio::test]
async fn no_token_and_no_secret_is_in_any_log_error_or_metric() {
    let endpoint = Endpoint::new("nothing").await;
    let auth = format!(
        "key = \"{SECRET}\"\ncookie = \"sid\"\ntoken_in_url = true\nanonymous = true\n\
         forward_url = \"{}?secret=hush-hush\"",
        endpoint.url()
    );
    let server = Server::with(Options {
        config: Some(format!("[log]\nlevel = \"trace\"\n[auth]\n{auth}\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        ..Options::default()
    });
    let own = format!("http://{}", server.address());
    let good = ann(json!({ "sub": "ann", "jti": "t-1" }));
    let opaque = "opaque-canary-canary";
    let mut answers = String::new();
    for token in [CANARY, &good, opaque] {
        let bearer = format!("Bearer {token}");
        let protocol = format!("rowcast, bearer.{token}");
        let cookie = format!("sid={token}");
        for (path, headers) in [
            ("", &[("token", token)][..]),
            ("", &[("authorization", &*bearer)]),
            ("", &[("cookie", &*cookie), ("origin", &*own)]),
            (
                "",
                &[("sec-websocket-protocol", &*protocol), ("origin", &*own)],
            ),
        ] {
            let path = format!("/socket/all/{path}");
            let lines = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"));
            let lines: String = lines.collect();
            answers += &crate::support::Raw::ask(&server, &path, &lines).await.1;
            let path = format!("/api/query/nothing?token={token}");
            answers += &fetched(&server, &path, headers).await.1.to_string();
        }
        let path = format!("/socket/all/?hello=1&token={token}");
        let page = handshake(&server, &path, &[("origin", &own)]);
        let mut page = Socket::request(page).await;
        page.send(json!({ "type": "sys:hello", "rid": 1 })).await;
        answers += &match page.next_or_close().await {
            Ok(text) => text,
            Err(closed) => closed.reason,
        };
        let mut socket = server.socket("hello=1").await;
        let hello = json!({ "type": "sys:hello", "rid": 1, "token": token });
        answers += &socket.ask(hello).await.to_string();
        let mut socket = opened(&server, &[("token", &good)]).await;
        let auth = json!({ "type": "sys:auth", "rid": 1, "token": token });
        answers += &socket.ask(auth).await.to_string();
        socket
            .send_text(&format!("{{\"type\":\"sys:auth\",\"token\":[\"{token}\"]"))
            .await;
        answers += &socket.next_text().await;
        is_served(&mut socket).await;
    }
    answers += &reqwest::get(server.url("/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let pipeline = reqwest::get(server.url("/api/pipeline")).await.unwrap();
    answers += &pipeline.text().await.unwrap();
    let log = server.log();
    for secret in [
        CANARY,
        &good,
        opaque,
        SECRET,
        "canary-canary-canary",
        "hush-hush",
    ] {
        assert!(!answers.contains(secret), "{secret} in an answer");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} in the log");
    }
}

#[test]
fn a_secret_in_the_configuration_is_in_no_error() {
    let folder = Folder::new();
    folder.sql("rowcast.db", CARE_TABLES);
    let hush = "hush-hush-hush-hush-hush-hush-hush-hush";
    let pem = Pair::ed().public.replace('A', "!");
    for (auth, told) in [
        (
            "key = \"hush-hush\"".to_owned(),
            "auth.key: a secret has at least 32 bytes",
        ),
        (
            format!("key = \"{hush}\"\nkey_file = \"hush\""),
            "auth.key_file: key is set as well",
        ),
        (
            format!("key = \"{hush}\"\nalgorithms = [\"RS256\"]"),
            "auth.algorithms: there is no key for RS256",
        ),
        (
            format!("key = \"{hush}\"\nalgorithms = [\"none\"]"),
            "auth.algorithms[0]: \"none\" is not allowed",
        ),
        (
            format!("key = [\"{hush}\"]"),
            "auth.key: a text in quotes is needed",
        ),
        (format!("kee = \"{hush}\""), "did you mean \"key\"?"),
        (
            format!("key = \"\"\"\n{pem}\"\"\""),
            "auth.key: a PUBLIC KEY in PEM is needed",
        ),
        (
            "key = \"-----BEGIN PRIVATE KEY-----\nhush\"".replace('\n', "\\n"),
            "this is a private key",
        ),
        (
            format!("key = '{}'", Pair::rsa().jwk),
            "auth.key: a PUBLIC KEY in PEM is needed",
        ),
        (
            "key_file = \"nothing-there\"".into(),
            "auth.key_file: nothing-there: cannot be read",
        ),
        (
            "jwks_url = \"https://a.example/\"".into(),
            "auth.jwks_url: needs an issuer",
        ),
        (
            "jwks_url = \"ftp://me:hush@a.example/\"\nissuer = \"a\"".into(),
            "auth.jwks_url: a URL is needed",
        ),
        (
            "issuer = \"a\"".into(),
            "auth.issuer: says how tokens are judged, and there is no key",
        ),
        ("audience = [\"a\"]".into(), "auth.audience: "),
        ("algorithms = [\"HS256\"]".into(), "auth.algorithms: "),
        ("cookie = \"sid\"".into(), "auth.cookie: is for tokens"),
        (
            "token_in_url = true".into(),
            "auth.token_in_url: is for tokens",
        ),
        (
            "operator = { role = \"admin\" }".into(),
            "auth.operator: is for tokens",
        ),
        (
            "tokens = [{ sha256 = \"hush\", claims = {} }]".into(),
            "auth.tokens[0].sha256: the 64 hexadecimal digits",
        ),
        ("tokens = [{ sha256 = \"hush\" }]".into(), "auth.tokens[0]"),
        (
            format!(
                "tokens = [{{ sha256 = \"{}\", claims = {{ sub = true }} }}]",
                "ab".repeat(32)
            ),
            "auth.tokens[0].claims: an exp is",
        ),
        (
            format!(
                "tokens = [{{ sha256 = \"{}\", claims = {{ exp = \"hush-hush\" }} }}]",
                "ab".repeat(32)
            ),
            "auth.tokens[0].claims: an exp is",
        ),
        (
            "leeway_ms = 600001".into(),
            "auth.leeway_ms: 600001 is not allowed",
        ),
        (
            "forward_url = \"hush\"".into(),
            "auth.forward_url: a URL is needed",
        ),
        (
            "cookie = \"a b\"\ntokens = []".into(),
            "auth.cookie: this is no name of a cookie",
        ),
    ] {
        folder.write("rowcast.toml", &format!("[auth]\n{auth}\n{CARE}"));
        let ran = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(ran.code, 64, "{auth}: {ran:?}");
        assert!(ran.stderr.contains(told), "{auth}: {}", ran.stderr);
        assert!(
            !ran.stderr.contains("hush-hush") && !ran.stderr.contains("me:hush"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_public_key_is_no_secret_in_whatever_form_it_comes() {
    let folder = Folder::new();
    folder.sql("rowcast.db", CARE_TABLES);
    let starts = |key: &str| {
        folder.write("key", key);
        let config = format!("[auth]\nkey_file = \"key\"\n{CARE}");
        folder.write("rowcast.toml", &config);
        folder.run(&["token", "--sub", "ann"])
    };
    for pair in [Pair::rsa(), Pair::ec(), Pair::ed()] {
        let pem = &pair.public;
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let (in_lines, in_one) = (lines.join("\n"), lines.concat());
        for (key, told) in [
            (format!("# of the issuer\n{pem}"), "something else beside"),
            (
                format!("Public-Key: (2048 bit)\nModulus:\n    00:b4\n{pem}"),
                "something else beside",
            ),
            (in_lines.clone(), "a PUBLIC KEY in PEM is needed"),
            (in_one.clone(), "a PUBLIC KEY in PEM is needed"),
            (format!("key: {in_one}"), "a PUBLIC KEY in PEM is needed"),
            (
                in_one.replace('+', "-").replace('/', "_"),
                "a PUBLIC KEY in PEM is needed",
            ),
            (format!("\u{feff}{in_one}"), "a PUBLIC KEY in PEM is needed"),
            (
                json!({ "keys": [pair.jwk] }).to_string(),
                "a PUBLIC KEY in PEM is needed",
            ),
        ] {
            let ran = starts(&key);
            assert_ne!(ran.code, 0, "{key}");
            assert!(ran.stderr.contains(told), "{key}: {}", ran.stderr);
        }
        // That of an editor says nothing, and the key is read as one.
        let ran = starts(&format!("\u{feff}{pem}"));
        assert!(ran.stderr.contains("only your issuer can sign"), "{ran:?}");
    }
    for key in [
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBL9 me@host",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIA me@host",
        "AAAAC3NzaC1lZDI1NTE5AAAAIBzJ3bLkkUZ9r3zL9Yq8e8pQy4m0lN2f9w7b8y3k2Q1x",
        "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAC3NzaC1lZDI1NTE5AAAAIBzJ3bLkkUZ9\n---- END SSH2 PUBLIC KEY ----",
    ] {
        let ran = starts(key);
        assert_ne!(ran.code, 0, "{key}");
        assert!(ran.stderr.contains("PUBLIC KEY"), "{}", ran.stderr);
    }
    let ran = starts(SECRET);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[tokio::test]
async fn a_listener_that_others_reach_starts_with_something_to_tell_them_apart_by() {
    let server = Server::with(Options {
        config: Some(format!("[auth]\nkey = \"{SECRET}\"\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    });
    let port = server.address().rsplit(':').next().unwrap();
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/api/topics"))
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn the_command_token_makes_one_that_the_gateway_takes() {
    let server = with_secret(
        "issuer = \"https://here.example\"\naudience = [\"care\", \"else\"]\noperator = { role = \"admin\" }",
    );
    let run = |args: &[&str]| crate::support::command::run(server.folder(), args, &[]);
    let made = run(&[
        "token",
        "--sub",
        "ann",
        "--claim",
        "ward=3",
        "--claim",
        "role=admin",
        "--minutes",
        "5",
    ]);
    assert_eq!(made.code, 0, "{made:?}");
    let token = made.stdout.trim();
    assert_eq!(made.stdout, format!("{token}\n"));
    is_served(&mut opened(&server, &[("token", token)]).await).await;
    let claims = claims(token);
    assert_eq!(claims["sub"], "ann");
    assert_eq!(
        (&claims["ward"], &claims["role"]),
        (&json!(3), &json!("admin"))
    );
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("https://here.example"), &json!("care"))
    );
    let left = claims["exp"].as_u64().unwrap() - now();
    assert!((240..=300).contains(&left), "{left}");
    let request = reqwest::Client::new()
        .post(server.url("/api/revoke"))
        .header("token", token);
    let answer = request
        .json(&json!({ "jti": claims["jti"] }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    let told = fetched(&server, "/api/topics", &[("token", token)]).await;
    assert_eq!(told, (401, "token_revoked".into()));
}

#[test]
fn the_command_token_says_when_the_configuration_cannot_sign() {
    let folder = Folder::with(CARE, CARE_TABLES);
    let ran = folder.run(&["token", "--sub", "ann"]);
    assert_eq!((ran.code, &*ran.stdout), (1, ""));
    assert!(ran.stderr.contains("set auth.key"), "{}", ran.stderr);
    folder.write("public.pem", &Pair::ec().public);
    folder.write(
        "rowcast.toml",
        &format!("[auth]\nkey_file = \"public.pem\"\n{CARE}"),
    );
    let ran = folder.run(&["token", "--sub", "ann"]);
    assert_eq!((ran.code, &*ran.stdout), (1, ""));
    assert!(
        ran.stderr
            .contains("ES256: it verifies, and only your issuer can sign"),
        "{}",
        ran.stderr
    );
    assert_eq!(folder.run(&["token"]).code, 64);
    assert_eq!(
        folder.run(&["token", "--sub", "a", "--claim", "b"]).code,
        64
    );
    assert_eq!(
        folder.run(&["token", "--sub", "a", "--minutes", "0"]).code,
        64
    );
}

/// What a token says, not judged.
fn claims(token: &str) -> Json {
    jsonwebtoken::dangerous::insecure_decode::<Json>(token)
        .unwrap()
        .claims
}
