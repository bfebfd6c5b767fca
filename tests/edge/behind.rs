//! A loopback listener to which a proxy brings others: they are strangers, as on any other address.

use super::{CARE, CARE_TABLES, handshake, request, say};
use crate::support::{Folder, Server};

/// What says that a proxy brings others.
const SETTINGS: [&str; 3] = [
    "allowed_hosts = [\"care.example.org\"]",
    "allowed_hosts = [\"*\"]",
    "trusted_proxies = [\"127.0.0.1\"]",
];

fn behind(settings: &str) -> Server {
    let config = format!("[auth]\nanonymous = true\n[server]\n{settings}\n{CARE}");
    Server::configured(&config, CARE_TABLES)
}

#[test]
fn it_does_not_start_before_somebody_has_said_who_may_come_in() {
    let folder = Folder::new();
    for settings in SETTINGS {
        folder.write("rowcast.toml", &format!("[server]\n{settings}\n"));
        let ran = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(ran.code, 64, "{ran:?}");
        let key = settings.split(' ').next().unwrap();
        for part in [&*format!("server.{key}"), "proxy", "auth.anonymous = true"] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn it_shows_nothing_to_operators_until_it_is_told_where() {
    for settings in SETTINGS {
        let server = behind(settings);
        for path in ["/metrics", "/api/pipeline", "/api/dead_letters"] {
            let asked = request(&format!("GET {path}"), "Host: localhost\r\n");
            let answer = say(server.address(), &asked).await;
            assert_eq!(answer.status, 404, "{settings} {path}");
        }
        server.logged("server.operator_listen");
    }
}

#[tokio::test]
async fn pages_of_the_strangers_own_machines_are_foreign() {
    for settings in SETTINGS {
        let server = behind(settings);
        // What is a server of the developer's on his machine is anything at all on a stranger's.
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1:8000",
            "http://[::1]",
        ] {
            let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n");
            let socket = say(server.address(), &handshake("/socket/all/", &headers)).await;
            assert_eq!(socket.close_code(), Some(4403), "{settings} {origin}");
            let answer = say(server.address(), &request("GET /api/topics", &headers)).await;
            assert_eq!(
                answer.header("access-control-allow-origin"),
                None,
                "{settings} {origin}"
            );
            let written = format!("{headers}Content-Length: 0\r\n");
            let asked = request("POST /api/topics/board/refresh", &written);
            assert_eq!(say(server.address(), &asked).await.status, 403);
        }
        // Its own host it is still.
        let headers = "Host: localhost:88\r\nOrigin: http://localhost:88\r\n";
        let socket = say(server.address(), &handshake("/socket/all/", headers)).await;
        assert_eq!(
            (socket.status, socket.close_code()),
            (101, None),
            "{settings}"
        );
    }
}
