//! The configurations of docs/operations.md, as they stand there but for files and ports.

use std::{
    fs,
    io::ErrorKind,
    process::{Child, Command, Stdio},
};

use rustls::version::TLS13;
use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use super::{Answer, CARE, CARE_TABLES, handshake, heard_on, request, say, tls};
use crate::{
    auth::{
        endpoint::Endpoint,
        issuer::{Pair, now},
    },
    support::{Authority, Options, Server, nats::free_port, wait_for},
};

/// Where the issuer of both configurations publishes his keys, and who he is.
pub(super) const JWKS: &str = "https://login.example.org/realms/care/protocol/openid-connect/certs";
const ISSUER: &str = "https://login.example.org/realms/care";

/// Debian keeps it where only root looks.
const NGINX: [&str; 2] = ["nginx", "/usr/sbin/nginx"];

/// The code blocks of one kind below the heading.
pub(super) fn blocks(kind: &str) -> Vec<String> {
    let text = fs::read_to_string(crate::tidy::root().join("docs/operations.md")).unwrap();
    let section = text.split("\n## Hardening\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{kind}\n");
    let opened = section.split(&fence).skip(1);
    opened
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

pub(super) fn replaced(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old} is not in\n{text}");
        text.replace(old, new)
    })
}

pub(super) fn gateway(config: &str, listen: Option<&str>) -> Server {
    Server::with(Options {
        config: Some(format!("{config}\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        listen: listen.map(str::to_owned),
        ..Options::default()
    })
}

/// A token of the issuer's for a minute, with these claims changed; as lines of a head.
pub(super) fn bearer(pair: &Pair, changes: Json) -> String {
    let mut claims =
        json!({ "sub": "ann", "iss": ISSUER, "aud": "rowcast", "iat": now(), "exp": now() + 60 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    format!(
        "Authorization: Bearer {}\r\n",
        pair.sign(Some("one"), &claims)
    )
}

/// Who is not let in, whatever else he brings: those who bring nothing, and tokens of others, for others,
/// and of another time.
fn strangers(pair: &Pair) -> Vec<(String, &'static str)> {
    let wrong = "token_invalid";
    vec![
        (String::new(), "token_missing"),
        ("Authorization: Bearer x\r\n".into(), wrong),
        (bearer(Pair::stranger(), json!({})), wrong),
        (
            bearer(pair, json!({ "iss": "https://evil.example" })),
            wrong,
        ),
        (bearer(pair, json!({ "aud": "another" })), wrong),
        (bearer(pair, json!({ "exp": now() - 60 })), "token_expired"),
    ]
}

/// A command that ends somebody's tokens, with the head of whoever gives it.
fn revoke(who: &str, sub: &str) -> Vec<u8> {
    let body = json!({ "sub": sub }).to_string();
    let length = body.len();
    let headers = format!(
        "Host: care.example.org\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{who}"
    );
    [request("POST /api/revoke", &headers), body.into_bytes()].concat()
}

/// An nginx of the test's own. Killed when dropped.
pub(super) struct Nginx {
    child: Child,
    pub address: String,
}

impl Nginx {
    /// With this inside of `http`.
    pub fn start(authority: &Authority, http: &str) -> Self {
        let folder = authority.path("");
        let http = replaced(
            http,
            &[
                (
                    "/etc/ssl/care.crt",
                    &authority.path("used.crt").to_string_lossy(),
                ),
                (
                    "/etc/ssl/care.key",
                    &authority.path("used.key").to_string_lossy(),
                ),
            ],
        );
        loop {
            // It takes no port 0: another program may be faster.
            let address = format!("127.0.0.1:{}", free_port());
            let http = replaced(
                &http,
                &[("listen 443 ssl", &format!("listen {address} ssl"))],
            );
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|of| format!("{of}_temp_path {of};\n"))
                .concat();
            let text = format!(
                "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\n\
                 http {{\naccess_log off;\n{temporary}{http}\n}}\n"
            );
            fs::write(folder.join("nginx.conf"), text).unwrap();
            let mut spawned = NGINX.iter().map(|nginx| {
                Command::new(nginx)
                    .arg("-p")
                    .arg(&folder)
                    .args(["-e", "error.log", "-c", "nginx.conf"])
                    .stderr(Stdio::null())
                    .spawn()
            });
            let found = |tried: &std::io::Result<Child>| !matches!(tried, Err(err) if err.kind() == ErrorKind::NotFound);
            let child = spawned.find(found);
            let child = child
                .expect("nginx is missing: apt-get install -y nginx")
                .unwrap();
            let mut nginx = Self { child, address };
            let up = wait_for("nginx", || match nginx.child.try_wait().unwrap() {
                Some(_) => Some(false),
                None => std::net::TcpStream::connect(&nginx.address)
                    .ok()
                    .map(|_| true),
            });
            if up {
                return nginx;
            }
            let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
            assert!(log.contains("in use"), "{log}");
        }
    }

    pub async fn say(&self, connector: &TlsConnector, bytes: &[u8]) -> Answer {
        let mut stream = tls::dial_to(&self.address, connector).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        heard_on(&mut stream).await
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn behind_nginx_who_has_a_token_comes_in_and_everybody_else_is_told_why_not() {
    let authority = Authority::new("ours");
    tls::certify(
        &authority,
        &[authority.path("used.crt"), authority.path("used.key")],
    );
    let pair = Pair::rsa();
    let issuer = Endpoint::new(json!({ "keys": [pair.named("one")] })).await;
    let changes = [
        ("127.0.0.1:9888", "127.0.0.1:0"),
        (
            "trusted_proxies",
            "max_connections_per_address = 2\ntrusted_proxies",
        ),
        (JWKS, issuer.url()),
    ];
    let server = gateway(&replaced(&blocks("toml")[0], &changes), None);
    let [http] = &blocks("nginx")[..] else {
        panic!("one configuration of nginx")
    };
    let http = replaced(http, &[("127.0.0.1:8888", server.address())]);
    let nginx = Nginx::start(&authority, &http);
    let connector = tls::client(&authority, &[&TLS13], &[]);
    // nginx keeps a connection whose socket was refused for what may come next.
    let host = "Host: care.example.org\r\nConnection: close\r\n";
    let ann = bearer(pair, json!({}));
    let of_page = |origin: &str| format!("{host}{ann}Origin: {origin}\r\n");
    for (headers, status, close) in [
        (format!("{host}{ann}"), 101, None),
        (of_page("https://care.example.org"), 101, None),
        (of_page("https://app.example.org"), 101, None),
        (of_page("http://care.example.org"), 101, Some(4403)),
        (of_page("https://evil.example"), 101, Some(4403)),
        (
            of_page("http://care.example.org") + "X-Forwarded-Proto: http\r\n",
            101,
            Some(4403),
        ),
        (
            of_page("https://evil.example").replace("Host: care.example.org", "Host: evil.example"),
            421,
            None,
        ),
    ] {
        let asked = handshake("/socket/all/", &headers);
        let answer = nginx.say(&connector, &asked).await;
        let told = (answer.status, answer.close_code());
        assert_eq!(told, (status, close), "{headers}{}", answer.head);
    }
    for (who, error) in strangers(pair) {
        let page = format!("{host}{who}Origin: https://care.example.org\r\n");
        let answer = nginx
            .say(&connector, &handshake("/socket/all/", &page))
            .await;
        assert_eq!(
            (answer.status, answer.close_code()),
            (101, Some(4401)),
            "{who}"
        );
        let program = format!("{host}{who}");
        for asked in [
            handshake("/socket/all/", &program),
            handshake("/chat/socket/", &program),
            request("GET /api/topics", &program),
        ] {
            let answer = nginx.say(&connector, &asked).await;
            assert_eq!((answer.status, &*answer.error()), (401, error), "{who}");
        }
    }
    for (target, stranger, known) in [
        ("GET /", 200, 200),
        ("GET /console/console.js", 200, 200),
        ("GET /readyz", 200, 200),
        ("GET /metrics", 404, 404),
        ("GET /api/pipeline", 404, 404),
        ("GET /api/topics", 401, 200),
        ("POST /api/topics/board/refresh", 401, 403),
    ] {
        for (who, status) in [("", stranger), (&*ann, known)] {
            let headers = format!("{host}{who}Content-Length: 0\r\n");
            let answer = nginx.say(&connector, &request(target, &headers)).await;
            assert_eq!(answer.status, status, "{target}: {}", answer.head);
        }
    }
    let metrics = request("GET /metrics", "Host: localhost\r\n");
    assert_eq!(say(server.operator(), &metrics).await.status, 200);

    // nginx adds this machine's address, which is a proxy's, to what a client on this machine says.
    let ask = handshake(
        "/socket/all/",
        &format!("{host}{ann}X-Forwarded-For: 192.0.2.1\r\n"),
    );
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut stream = tls::dial_to(&nginx.address, &connector).await.unwrap();
        stream.write_all(&ask).await.unwrap();
        assert_eq!(heard_on(&mut stream).await.status, 101);
        sockets.push(stream);
    }
    let third = nginx.say(&connector, &ask).await;
    let told = (third.status, &*third.error());
    assert_eq!(told, (503, "overloaded"), "{}", third.head);
    let forged =
        format!("{host}{ann}X-Forwarded-For: 192.0.2.1\r\nForwarded: for=198.51.100.1\r\n");
    let third = nginx
        .say(&connector, &handshake("/socket/all/", &forged))
        .await;
    assert_eq!(third.status, 503, "{}", third.head);

    let admin = bearer(pair, json!({ "sub": "root", "role": ["admin"] }));
    for (who, status) in [(&ann, 403), (&admin, 202)] {
        let answer = nginx.say(&connector, &revoke(who, "ann")).await;
        assert_eq!(answer.status, status, "{}", answer.head);
    }
    let asked = request("GET /api/topics", &format!("{host}{ann}"));
    assert_eq!(nginx.say(&connector, &asked).await.error(), "token_revoked");
}

#[tokio::test]
async fn without_a_proxy_the_same_holds() {
    let authority = Authority::new("ours");
    let files = [authority.path("used.crt"), authority.path("used.key")];
    tls::certify(&authority, &files);
    let pair = Pair::ec();
    let key = authority.path("issuer.pem");
    fs::write(&key, &pair.public).unwrap();
    let changes = [
        ("127.0.0.1:9888", "127.0.0.1:0"),
        ("/etc/rowcast/care.crt", &files[0].to_string_lossy()),
        ("/etc/rowcast/care.key", &files[1].to_string_lossy()),
        ("/etc/rowcast/issuer.pem", &key.to_string_lossy()),
    ];
    let config = replaced(&blocks("toml")[1], &changes);
    let server = gateway(&config, Some("0.0.0.0:0"));
    let connector = tls::client(&authority, &[&TLS13], &[]);
    let ask = async |bytes: Vec<u8>| {
        let mut stream = tls::dial_to(server.address(), &connector).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        heard_on(&mut stream).await
    };
    let host = "Host: care.example.org\r\n";
    let ann = bearer(pair, json!({}));
    for (headers, status, close) in [
        (
            format!("{host}{ann}Origin: https://care.example.org\r\n"),
            101,
            None,
        ),
        (
            format!("{host}{ann}Origin: http://care.example.org\r\n"),
            101,
            Some(4403),
        ),
        (format!("Host: localhost\r\n{ann}"), 421, None),
    ] {
        let answer = ask(handshake("/socket/all/", &headers)).await;
        let told = (answer.status, answer.close_code());
        assert_eq!(told, (status, close), "{headers}");
    }
    for (who, error) in strangers(pair) {
        let page = format!("{host}{who}Origin: https://care.example.org\r\n");
        let answer = ask(handshake("/socket/all/", &page)).await;
        assert_eq!(
            (answer.status, answer.close_code()),
            (101, Some(4401)),
            "{who}"
        );
        let answer = ask(request("GET /api/topics", &format!("{host}{who}"))).await;
        assert_eq!((answer.status, &*answer.error()), (401, error), "{who}");
    }
    let asked = request("GET /api/topics", &format!("{host}{ann}"));
    assert_eq!(ask(asked.clone()).await.status, 200);
    let admin = bearer(pair, json!({ "sub": "root", "role": "admin" }));
    for (who, status) in [(&ann, 403), (&admin, 202)] {
        let answer = ask(revoke(who, "ann")).await;
        assert_eq!(answer.status, status, "{}", answer.head);
    }
    assert_eq!(ask(asked).await.error(), "token_revoked");
    let metrics = request("GET /metrics", "Host: localhost\r\n");
    assert_eq!(say(server.operator(), &metrics).await.status, 200);
}
