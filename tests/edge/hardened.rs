//! The configurations of docs/operations.md, as they stand there but for files and ports.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use rustls::version::TLS13;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use super::{Answer, CARE, CARE_TABLES, handshake, heard_on, request, say, tls};
use crate::support::{Authority, Options, Server, wait_for};

/// The code blocks of one kind below the heading.
fn blocks(kind: &str) -> Vec<String> {
    let text = fs::read_to_string(crate::tidy::root().join("docs/operations.md")).unwrap();
    let section = text.split("\n## Hardening\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{kind}\n");
    let opened = section.split(&fence).skip(1);
    opened
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

fn replaced(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old} is not in\n{text}");
        text.replace(old, new)
    })
}

fn gateway(config: &str) -> Server {
    Server::with(Options {
        config: Some(format!("{config}\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        ..Options::default()
    })
}

/// An nginx of the test's own. Killed when dropped.
struct Nginx {
    child: Child,
    address: String,
}

impl Nginx {
    /// With this inside of `http`; none where nginx is not installed.
    fn start(authority: &Authority, http: &str) -> Option<Self> {
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
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap().to_string();
            drop(free);
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
            let child = Command::new("nginx")
                .arg("-p")
                .arg(&folder)
                .args(["-e", "error.log", "-c", "nginx.conf"])
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = child else {
                println!("nginx is not installed: its configuration is not tried");
                return None;
            };
            let mut nginx = Self { child, address };
            let up = wait_for("nginx", || match nginx.child.try_wait().unwrap() {
                Some(_) => Some(false),
                None => std::net::TcpStream::connect(&nginx.address)
                    .ok()
                    .map(|_| true),
            });
            if up {
                return Some(nginx);
            }
            let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
            assert!(log.contains("in use"), "{log}");
        }
    }

    async fn say(&self, connector: &TlsConnector, bytes: &[u8]) -> Answer {
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
async fn behind_nginx_browsers_come_in_and_everybody_else_is_told_why_not() {
    let authority = Authority::new("ours");
    tls::certify(
        &authority,
        &[authority.path("used.crt"), authority.path("used.key")],
    );
    let config = &blocks("toml")[0];
    let server = gateway(&replaced(
        config,
        &[
            ("127.0.0.1:9888", "127.0.0.1:0"),
            ("per_address = 100", "per_address = 2"),
        ],
    ));
    let [http] = &blocks("nginx")[..] else {
        panic!("one configuration of nginx")
    };
    let http = replaced(http, &[("127.0.0.1:8888", server.address())]);
    let Some(nginx) = Nginx::start(&authority, &http) else {
        return;
    };
    let connector = tls::client(&authority, &[&TLS13], &[]);
    // nginx keeps a connection whose socket was refused for what may come next.
    let host = "Host: care.example.org\r\nConnection: close\r\n";
    for (headers, status, close) in [
        (host.to_owned(), 101, None),
        (
            format!("{host}Origin: https://care.example.org\r\n"),
            101,
            None,
        ),
        (
            format!("{host}Origin: http://care.example.org\r\n"),
            101,
            Some(4403),
        ),
        (
            format!("{host}Origin: https://evil.example\r\n"),
            101,
            Some(4403),
        ),
        (
            format!("{host}Origin: http://care.example.org\r\nX-Forwarded-Proto: http\r\n"),
            101,
            Some(4403),
        ),
        (
            "Host: evil.example\r\nConnection: close\r\nOrigin: https://evil.example\r\n"
                .to_owned(),
            421,
            None,
        ),
    ] {
        let answer = nginx
            .say(&connector, &handshake("/socket/all/", &headers))
            .await;
        assert_eq!(
            (answer.status, answer.close_code()),
            (status, close),
            "{headers}{}",
            answer.head
        );
    }
    for (target, status) in [
        ("GET /", 200),
        ("GET /api/topics", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 404),
        ("GET /api/pipeline", 404),
        ("POST /api/topics/board/refresh", 202),
    ] {
        let answer = nginx
            .say(
                &connector,
                &request(target, &format!("{host}Content-Length: 0\r\n")),
            )
            .await;
        assert_eq!(answer.status, status, "{target}: {}", answer.head);
    }
    let operators = say(
        server.operator(),
        &request("GET /metrics", "Host: localhost\r\n"),
    )
    .await;
    assert_eq!(operators.status, 200);

    // nginx adds this machine's address, which is a proxy's, to what a client on this machine says.
    let ask = handshake(
        "/socket/all/",
        &format!("{host}X-Forwarded-For: 192.0.2.1\r\n"),
    );
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut stream = tls::dial_to(&nginx.address, &connector).await.unwrap();
        stream.write_all(&ask).await.unwrap();
        assert_eq!(heard_on(&mut stream).await.status, 101);
        sockets.push(stream);
    }
    let third = nginx.say(&connector, &ask).await;
    assert_eq!(
        (third.status, &*third.error()),
        (503, "overloaded"),
        "{}",
        third.head
    );
    let forged = format!("{host}X-Forwarded-For: 192.0.2.1\r\nForwarded: for=198.51.100.1\r\n");
    let third = nginx
        .say(&connector, &handshake("/socket/all/", &forged))
        .await;
    assert_eq!(third.status, 503, "{}", third.head);
}

#[tokio::test]
async fn without_a_proxy_the_same_holds() {
    let authority = Authority::new("ours");
    let files = [authority.path("used.crt"), authority.path("used.key")];
    tls::certify(&authority, &files);
    let config = replaced(
        &blocks("toml")[1],
        &[
            ("127.0.0.1:9888", "127.0.0.1:0"),
            ("/etc/rowcast/care.crt", &files[0].to_string_lossy()),
            ("/etc/rowcast/care.key", &files[1].to_string_lossy()),
        ],
    );
    let server = Server::with(Options {
        config: Some(format!("{config}\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    });
    let connector = tls::client(&authority, &[&TLS13], &[]);
    for (headers, status, close) in [
        (
            "Host: care.example.org\r\nOrigin: https://care.example.org\r\n",
            101,
            None,
        ),
        (
            "Host: care.example.org\r\nOrigin: http://care.example.org\r\n",
            101,
            Some(4403),
        ),
        ("Host: localhost\r\n", 421, None),
    ] {
        let mut stream = tls::dial_to(server.address(), &connector).await.unwrap();
        stream
            .write_all(&handshake("/socket/all/", headers))
            .await
            .unwrap();
        let answer = heard_on(&mut stream).await;
        assert_eq!(
            (answer.status, answer.close_code()),
            (status, close),
            "{headers}"
        );
    }
    let operators = say(
        server.operator(),
        &request("GET /metrics", "Host: localhost\r\n"),
    )
    .await;
    assert_eq!(operators.status, 200);
}
