//! Tokens that somebody has tampered with, each in its own way: on a socket, in a hello and over HTTP all of
//! them are refused, and nobody is asked for their sake.

use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value as Json, json};

use super::{
    SECRET, closed_page,
    endpoint::Endpoint,
    fetched, guarded, is_served,
    issuer::{Pair, base64url, by_hand, hs256, now},
    opened, status,
};
use crate::support::Server;

const ISSUER: &str = "https://issuer.example";

fn claims(changes: Json) -> Json {
    let mut claims = json!({ "sub": "ann", "exp": now() + 60, "iss": ISSUER, "aud": "rowcast" });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Json::String(absent) if absent == "-" => {
                drop(claims.as_object_mut().unwrap().remove(name))
            }
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// HMAC with the text of a key, as who hopes that a verifier takes a public key for a secret.
fn confused(secret: &[u8], kid: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(str::to_owned);
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&header, &claims(json!({})), &key).unwrap()
}

async fn is_refused(server: &Server, what: &str, token: &str, error: &str) {
    let told = fetched(server, "/api/query/patient", &[("token", token)]).await;
    assert_eq!(told, (401, error.into()), "{what}");
    assert_eq!(
        status(server, "/socket/all/", &[("token", token)]).await,
        401,
        "{what}"
    );
    let closed = closed_page(server, "/socket/all/", &[("token", token)]).await;
    assert_eq!(closed.code, 4401, "{what}");
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": token });
    // In a frame a long one is not even looked at.
    let error = match token.len() > 4096 {
        true => "payload_too_large",
        false => error,
    };
    assert_eq!(socket.ask(hello).await["error"], error, "{what}");
    assert_eq!(socket.closed().await.code, 4401, "{what}");
}

#[tokio::test]
async fn no_token_that_was_tampered_with_is_let_in_and_nobody_is_asked_for_its_sake() {
    let trap = Endpoint::new("{}").await;
    let (rsa, ec, ed) = (Pair::rsa(), Pair::ec(), Pair::ed());
    let jwks = json!({ "keys": [
        rsa.named("rsa"), ec.named("ec"), ed.named("ed"),
        { "kty": "oct", "kid": "oct", "k": base64url(SECRET.as_bytes()) },
    ]});
    let issuer = Endpoint::new(jwks).await;
    let server = guarded(&format!(
        "jwks_url = \"{}\"\nissuer = \"{ISSUER}\"\naudience = [\"rowcast\"]",
        issuer.url()
    ));
    for (kid, pair) in [("rsa", rsa), ("ec", ec), ("ed", ed)] {
        let token = pair.sign(Some(kid), &claims(json!({})));
        is_served(&mut opened(&server, &[("token", &token)]).await).await;
    }
    let good = ed.sign(Some("ed"), &claims(json!({})));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let with_header = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("ed".into());
        change(&mut header);
        Pair::stranger().sign_with(&header, &claims(json!({})))
    };
    let ed_with = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("ed".into());
        change(&mut header);
        ed.sign_with(&header, &claims(json!({})))
    };
    let none = |name: &str| {
        by_hand(
            &json!({ "alg": name, "typ": "JWT" }),
            &claims(json!({})),
            b"",
        )
    };
    let at_trap = trap.url().to_owned();
    let invalid = "token_invalid";
    let tokens: Vec<(&str, String, &str)> = vec![
        ("alg none", none("none"), invalid),
        ("alg None", none("None"), invalid),
        ("alg empty", none(""), invalid),
        ("alg HS512", none("HS512"), invalid),
        (
            "no alg",
            by_hand(&json!({ "typ": "JWT" }), &claims(json!({})), b""),
            invalid,
        ),
        ("no signature", format!("{head}."), invalid),
        (
            "a bit of the signature",
            format!("{head}.{}", &signature[..8]),
            invalid,
        ),
        (
            "another payload",
            {
                let (header, _) = head.split_once('.').unwrap();
                let payload = base64url(claims(json!({ "sub": "root" })).to_string().as_bytes());
                format!("{header}.{payload}.{signature}")
            },
            invalid,
        ),
        (
            "the public RSA key as a secret",
            confused(rsa.public.as_bytes(), Some("rsa")),
            invalid,
        ),
        (
            "the same without a name",
            confused(rsa.public.as_bytes(), None),
            invalid,
        ),
        (
            "the trimmed PEM as a secret",
            confused(rsa.public.trim().as_bytes(), Some("rsa")),
            invalid,
        ),
        (
            "the JWK as a secret",
            confused(rsa.jwk.to_string().as_bytes(), Some("rsa")),
            invalid,
        ),
        (
            "a secret that was published",
            confused(SECRET.as_bytes(), Some("oct")),
            invalid,
        ),
        (
            "a key of another kind under this name",
            ec.sign(Some("rsa"), &claims(json!({}))),
            invalid,
        ),
        (
            "somebody else's key under this name",
            with_header(&|_| ()),
            invalid,
        ),
        (
            "a key at an address of its own",
            with_header(&|h| h.jku = Some(at_trap.clone())),
            invalid,
        ),
        (
            "a certificate at one",
            with_header(&|h| h.x5u = Some(at_trap.clone())),
            invalid,
        ),
        (
            "something critical that nobody knows",
            ed_with(&|h| h.crit = Some(vec!["x".into()])),
            invalid,
        ),
        (
            "something critical that everybody knows",
            ed_with(&|h| h.crit = Some(vec!["exp".into()])),
            invalid,
        ),
        (
            "nothing that is critical",
            ed_with(&|h| h.crit = Some(Vec::new())),
            invalid,
        ),
        (
            "a payload in another form",
            ed_with(&|h| h.extras.insert("b64", false)),
            invalid,
        ),
        (
            "a key that is a path",
            Pair::stranger().sign(Some("../../etc/passwd"), &claims(json!({}))),
            invalid,
        ),
        (
            "a key that is a URL",
            Pair::stranger().sign(Some(&at_trap), &claims(json!({}))),
            invalid,
        ),
        (
            "a key that is SQL",
            Pair::stranger().sign(Some("' OR 1=1 --"), &claims(json!({}))),
            invalid,
        ),
        (
            "a key that is long",
            Pair::stranger().sign(Some(&"k".repeat(1000)), &claims(json!({}))),
            invalid,
        ),
        (
            "no exp",
            ed.sign(Some("ed"), &claims(json!({ "exp": "-" }))),
            invalid,
        ),
        (
            "exp as a text",
            ed.sign(
                Some("ed"),
                &claims(json!({ "exp": (now() + 60).to_string() })),
            ),
            invalid,
        ),
        (
            "exp null",
            ed.sign(Some("ed"), &claims(json!({ "exp": null }))),
            invalid,
        ),
        (
            "exp for ever",
            ed.sign(Some("ed"), &claims(json!({ "exp": 1e30 }))),
            invalid,
        ),
        (
            "exp past",
            ed.sign(Some("ed"), &claims(json!({ "exp": now() - 31 }))),
            "token_expired",
        ),
        (
            "nbf future",
            ed.sign(Some("ed"), &claims(json!({ "nbf": now() + 90 }))),
            invalid,
        ),
        (
            "iat future",
            ed.sign(Some("ed"), &claims(json!({ "iat": now() + 90 }))),
            invalid,
        ),
        (
            "nbf as a text",
            ed.sign(Some("ed"), &claims(json!({ "nbf": "0" }))),
            invalid,
        ),
        (
            "another audience",
            ed.sign(Some("ed"), &claims(json!({ "aud": "other" }))),
            invalid,
        ),
        (
            "no audience",
            ed.sign(Some("ed"), &claims(json!({ "aud": "-" }))),
            invalid,
        ),
        (
            "another issuer",
            ed.sign(
                Some("ed"),
                &claims(json!({ "iss": "https://evil.example" })),
            ),
            invalid,
        ),
        (
            "issuers",
            ed.sign(Some("ed"), &claims(json!({ "iss": [ISSUER] }))),
            invalid,
        ),
        (
            "no issuer",
            ed.sign(Some("ed"), &claims(json!({ "iss": "-" }))),
            invalid,
        ),
        (
            "more than 4 KiB",
            ed.sign(Some("ed"), &claims(json!({ "note": "x".repeat(5000) }))),
            invalid,
        ),
        ("no token at all", "x".into(), invalid),
        ("dots", "..".into(), invalid),
        ("many dots", ".".repeat(2000), invalid),
        (
            "claims that are a list",
            by_hand(&json!({ "alg": "EdDSA", "kid": "ed" }), &json!([]), b"x"),
            invalid,
        ),
    ];
    for (what, token, error) in &tokens {
        is_refused(&server, what, token, error).await;
    }
    assert_eq!(trap.asked(), [""; 0]);
    // At the start, and once more for all the names that are not known.
    assert!(issuer.asked().len() <= 2, "{:?}", issuer.asked().len());
    let text = reqwest::get(server.url("/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for reason in [
        "malformed",
        "critical",
        "algorithm",
        "signature",
        "key",
        "claims",
        "expired",
        "early",
        "audience",
        "issuer",
        "too_long",
    ] {
        let line = format!("rowcast_auth_refused_total{{kind=\"{reason}\"}}");
        assert!(text.contains(&line), "{reason}: {text}");
    }
    is_served(&mut opened(&server, &[("token", &good)]).await).await;
}

#[tokio::test]
async fn a_token_of_a_megabyte_is_refused_before_it_is_read() {
    let server = super::with_secret("");
    let huge = "e".repeat(1024 * 1024);
    let refused = reqwest::Client::new()
        .get(server.url("/api/query/patient"))
        .header("authorization", format!("Bearer {huge}"))
        .send()
        .await;
    // The head is too long for HTTP; that the rest cannot be sent any more is as good.
    assert!(refused.is_err() || refused.unwrap().status() == 431);
    let mut socket = server.socket("hello=1").await;
    let text = format!(
        "{{\"type\":\"sys:hello\",\"token\":\"{}\"}}",
        &huge[..200_000]
    );
    socket.send_text(&text).await;
    assert_eq!(socket.closed().await.code, 1009);
    let fits = "e".repeat(7000);
    is_refused(&server, "7 KB", &fits, "token_invalid").await;
}

#[tokio::test]
async fn each_kind_of_key_in_the_configuration_verifies_its_own_algorithm_alone() {
    let good = json!({ "sub": "ann", "exp": now() + 60 });
    for own in [Pair::rsa(), Pair::ec(), Pair::ed()] {
        let server = guarded(&format!("key = \"\"\"\n{}\"\"\"", own.public));
        let token = own.sign(None, &good);
        is_served(&mut opened(&server, &[("token", &token)]).await).await;
        let confused = confused(own.public.as_bytes(), None);
        let trimmed = self::confused(own.public.trim().as_bytes(), None);
        for (what, token) in [
            ("HS256", &confused),
            ("trimmed", &trimmed),
            ("secret", &hs256(&good)),
        ] {
            is_refused(&server, what, token, "token_invalid").await;
        }
        for other in [Pair::rsa(), Pair::ec(), Pair::ed(), Pair::stranger()] {
            if !std::ptr::eq(own, other) {
                is_refused(
                    &server,
                    "another",
                    &other.sign(None, &good),
                    "token_invalid",
                )
                .await;
            }
        }
    }
}
