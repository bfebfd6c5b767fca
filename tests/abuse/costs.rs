//! A02: what a head costs that is a megabyte, has ten thousand headers, or comes in segments of one byte:
//! processor time of the gateway's process, over so many of each that a clock which goes by 10 ms can tell.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    stage::{answer, request},
    told::{Told, status},
};
use crate::{
    connections::handshake,
    support::Server,
    wire::{CARE, CARE_TABLES},
};

/// What one may cost.
const MOST: Duration = Duration::from_millis(5);

/// `server.max_head_bytes`, as it is where nobody sets it.
const LONGEST: usize = 8 * 1024;

/// How much harder a debug build may work at what it looks at piece by piece. It works about three times as hard.
const DEBUG: u32 = match cfg!(debug_assertions) {
    true => 3,
    false => 1,
};

/// What a head may cost that goes on for a megabyte in segments of one byte. It is refused behind
/// `server.max_head_bytes`, and its client hears of it only if what he still sends is taken for a while: a quarter of
/// a million packets, at which the kernel works and not the gateway.
const MILLION: Duration = Duration::from_millis(100);

/// So often it may be measured, and the least counts: what the kernel does for others meanwhile, such as their
/// packets, is counted for whoever runs just then.
const TRIES: usize = 3;

/// How the bytes of a head come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    AtOnce,
    /// A segment for each.
    InCrumbs,
}

impl Comes {
    /// Sends a head, and waits for the answer.
    async fn send(self, server: &Server, head: &[u8]) -> Told {
        if self == Self::AtOnce {
            return request(server.address(), head).await.0;
        }
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in head {
            // A server that has seen enough may close before it has read all.
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        answer(&mut stream).await.0
    }
}

#[tokio::test]
async fn no_head_costs_more_than_a_few_milliseconds_of_the_processor() {
    // Whoever stands still with his machine is not refused for it.
    let config = format!("[server]\nhead_timeout_ms = 60000\n{CARE}");
    let server = Server::configured(&config, CARE_TABLES);
    let big = "x".repeat(1 << 20);
    let (value, name, cookie) = (
        format!("X: {big}\r\n"),
        format!("{big}: x\r\n"),
        format!("Cookie: {big}\r\n"),
    );
    let many: String = (0..10_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    // Within the limits, but only just.
    let longest = format!("X: {}\r\n", "x".repeat(7_900));
    let fullest: String = (0..58)
        .map(|n| format!("X-{n}: {}\r\n", "x".repeat(120)))
        .collect();
    for path in ["/socket/all/", "/healthz"] {
        for (what, headers, comes, most) in [
            ("a value of a megabyte", &*value, Comes::AtOnce, MOST),
            ("a name of a megabyte", &*name, Comes::AtOnce, MOST),
            ("a cookie of a megabyte", &*cookie, Comes::AtOnce, MOST),
            ("ten thousand headers", &*many, Comes::AtOnce, MOST),
            ("a usual head", "", Comes::InCrumbs, MOST),
            (
                "the longest header",
                &*longest,
                Comes::InCrumbs,
                MOST * DEBUG,
            ),
            ("the most headers", &*fullest, Comes::InCrumbs, MOST * DEBUG),
            ("a value of a megabyte", &*value, Comes::InCrumbs, MILLION),
        ] {
            let head = handshake(path, headers);
            let is_over = head.len() > LONGEST;
            let count = match (comes, is_over) {
                (Comes::AtOnce, _) => 50,
                (Comes::InCrumbs, false) => 20,
                (Comes::InCrumbs, true) => 3,
            };
            let expected = match (is_over, path) {
                (true, _) => status(431, ""),
                (false, "/healthz") => status(200, ""),
                (false, _) => status(101, ""),
            };
            let mut each = most;
            for _ in 0..TRIES {
                let before = server.cpu();
                for _ in 0..count {
                    let told = comes.send(&server, head.as_bytes()).await;
                    assert_eq!(told, expected, "{what}");
                }
                each = each.min((server.cpu() - before) / count);
                if each < most {
                    break;
                }
            }
            let what = format!("{path}, {what}, {comes:?}");
            println!("{what}: {each:?}");
            assert!(each < most, "{what}: {most:?} of the processor and more");
        }
    }
}
