//! `rowcast bench` counts what happens: all of it where a gateway delivers everything, and what is
//! missing, repeated or out of order where a server drops, repeats and swaps.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
};

use serde_json::Value as Json;
use tungstenite::handshake::derive_accept_key;

use crate::support::{Server, command::run};

/// Runs it, and returns its report and whether it found everything whole.
fn bench(arguments: &[&str]) -> (Json, bool) {
    let arguments = [&["bench"], arguments, &["--json"]].concat();
    let ran = run(Path::new("."), &arguments, &[]);
    let report = serde_json::from_str(&ran.stdout);
    let report = report.unwrap_or_else(|_| panic!("{arguments:?}: {}", ran.stderr));
    (report, ran.code == 0)
}

fn gateway() -> Server {
    Server::configured(
        "[limits]\nmessages_per_second = 100000\nmessages_burst = 100000\n\
         [[topics]]\ntype = \"bench\"\n[[topics]]\ntype = \"item\"\ntable = \"item\"\n",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO item VALUES (1, 'a');",
    )
}

#[test]
fn every_delivery_of_a_gateway_is_counted_in_a_closed_and_in_an_open_loop() {
    let server = gateway();
    let sockets = format!("ws://{}/socket/all/", server.address());
    let publish = format!("http://{}/api/events", server.address());
    let common = [
        &*sockets,
        "-n",
        "20",
        "--seconds",
        "1",
        "--publish",
        &publish,
    ];
    let pid = server.pid().to_string();
    for pace in [["--window", "4"], ["--rate", "50"]] {
        let flags = [&common[..], &pace, &["--server-pid", &pid]].concat();
        // What does not come for two seconds counts as lost: a machine that stands still once is tried again.
        let (mut report, mut whole) = bench(&flags);
        for _ in 0..2 {
            if !whole {
                (report, whole) = bench(&flags);
            }
        }
        let events = &report["events"];
        let published = events["published"].as_u64().unwrap();
        assert!(whole && published > 0, "{report}");
        assert_eq!(events["deliveries"]["count"], published * 20, "{report}");
        assert_eq!(
            (&events["lost"], &events["duplicates"]),
            (&Json::from(0), &Json::from(0))
        );
        assert!(report["latency_ms"]["p50"].as_f64().unwrap() > 0.0);
        assert!(report["rss"]["before"].as_u64().unwrap() > 1_000_000);
    }
}

#[test]
fn queries_are_answered_one_after_the_other_on_each_socket() {
    let server = gateway();
    let sockets = format!("ws://{}/socket/all/", server.address());
    let query = r#"{"type":"item","id":1,"rid":"{mark}"}"#;
    let flags = [
        &*sockets,
        "-n",
        "0",
        "--queries",
        "3",
        "--query",
        query,
        "--seconds",
        "5",
    ];
    let (report, _) = bench(&flags);
    assert!(report["queries"]["count"].as_u64().unwrap() > 3, "{report}");
    assert!(report["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
}

/// A server for one socket that is sent what `deliver` makes of the events' numbers.
fn scripted(deliver: fn(usize) -> Vec<usize>) -> (String, String) {
    let sockets = TcpListener::bind("127.0.0.1:0").unwrap();
    let publishers = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = (
        format!("ws://{}/", sockets.local_addr().unwrap()),
        format!("tcp://{}", publishers.local_addr().unwrap()),
    );
    thread::spawn(move || {
        let mut socket = sockets.accept().unwrap().0;
        shake(&mut socket);
        let mut publisher = publishers.accept().unwrap().0;
        let mut events = Vec::new();
        let mut length = [0; 4];
        while publisher.read_exact(&mut length).is_ok() {
            let mut event = vec![0; u32::from_be_bytes(length) as usize];
            publisher.read_exact(&mut event).unwrap();
            events.push(event);
            for number in deliver(events.len() - 1) {
                let event = &events[number];
                socket
                    .write_all(&[0x81, u8::try_from(event.len()).unwrap()])
                    .unwrap();
                socket.write_all(event).unwrap();
            }
        }
    });
    addresses
}

fn shake(socket: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap();
    let accept = derive_accept_key(key.lines().next().unwrap().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).unwrap();
}

/// Published, lost, twice, out of order.
fn told(deliver: fn(usize) -> Vec<usize>) -> ([u64; 4], bool) {
    let (sockets, publish) = scripted(deliver);
    let flags = [
        "-n",
        "1",
        "--publish",
        &publish,
        "--rate",
        "200",
        "--events",
        "40",
        "--size",
        "100",
    ];
    let (report, whole) = bench(&[&[&*sockets], &flags[..]].concat());
    let of = |name: &str| report["events"][name].as_u64().unwrap();
    (
        ["published", "lost", "duplicates", "reordered"].map(of),
        whole,
    )
}

#[test]
fn what_a_server_drops_repeats_and_swaps_is_noticed() {
    assert_eq!(told(|number| vec![number]), ([40, 0, 0, 0], true));
    let drops = |number| {
        if number % 10 == 3 {
            vec![]
        } else {
            vec![number]
        }
    };
    assert_eq!(told(drops), ([40, 4, 0, 0], false));
    let repeats = |number| {
        if number == 7 {
            vec![7, 6]
        } else {
            vec![number]
        }
    };
    assert_eq!(told(repeats), ([40, 0, 1, 0], false));
    let swaps = |number| match number % 10 {
        3 => vec![],
        4 => vec![number, number - 1],
        _ => vec![number],
    };
    assert_eq!(told(swaps), ([40, 0, 0, 4], true));
}

#[test]
fn what_cannot_be_done_is_said() {
    let nobody = bench_fails(&["ws://127.0.0.1:1/", "-n", "1"]);
    assert!(nobody.contains("takes no connection"), "{nobody}");
    let many = bench_fails(&["-n", "100000000"]);
    assert!(many.contains("ulimit -n 10000"), "{many}");
    let nowhere = bench_fails(&["--rate", "5"]);
    assert!(nowhere.contains("--publish"), "{nowhere}");
    let server = gateway();
    let elsewhere = bench_fails(&[&format!("ws://{}/nowhere", server.address()), "-n", "1"]);
    assert!(elsewhere.contains("404"), "{elsewhere}");
}

fn bench_fails(arguments: &[&str]) -> String {
    let ran = run(Path::new("."), &[&["bench"], arguments].concat(), &[]);
    assert_eq!(ran.code, 1, "{arguments:?}");
    ran.stderr
}
