//! How fast connections may come, from elsewhere than this machine: from an address of its own that is not the
//! loopback's, which counts as any other.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use tokio::net::TcpStream;

use super::{rest, send};
use crate::{
    support::{Options, Server, wait_for, wait_until},
    wire::{CARE, CARE_TABLES},
};

const ASKED: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What this machine is given where it is in no network (RFC 5737: nobody has it).
const GIVEN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// An address of this machine that is not the loopback's: the one by which it would go elsewhere, to which nothing is
/// sent to find it, or the one that it was given for this.
#[track_caller]
fn own_address() -> IpAddr {
    let leaves_by = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
        let own = socket.local_addr().ok()?.ip();
        (!own.is_loopback() && !own.is_unspecified()).then_some(own)
    };
    let given = || {
        let bound = UdpSocket::bind((GIVEN, 0)).ok()?;
        bound.local_addr().ok().map(|own| own.ip())
    };
    let own = leaves_by().or_else(given);
    own.unwrap_or_else(|| {
        panic!(
            "this machine is in no network, so nobody can come from elsewhere: ip addr add {GIVEN}/32 dev lo"
        )
    })
}

fn open(settings: &str) -> Server {
    let config = format!(
        "[server]\noperator_listen = \"127.0.0.1:0\"\n{settings}\n[auth]\nanonymous = true\n{CARE}"
    );
    Server::with(Options {
        config: Some(config),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    })
}

/// The server's port, at that address.
fn at(server: &Server, address: IpAddr) -> (IpAddr, u16) {
    let (_, port) = server.address().rsplit_once(':').unwrap();
    (address, port.parse().unwrap())
}

async fn said(at: (IpAddr, u16)) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    send(&mut stream, ASKED).await;
    rest(&mut stream).await
}

/// How many that come one after the other are served before one is not, and what that is told.
async fn served_before_one_is_not(at: (IpAddr, u16)) -> (usize, String) {
    for served in 0..100 {
        let told = said(at).await;
        if !told.contains(" 200 ") {
            return (served, told);
        }
    }
    panic!("a hundred were served");
}

async fn refused(server: &Server, kind: &str) -> u64 {
    let metric = format!("connections_refused_total{{kind=\"{kind}\"}}");
    server.counted(&metric).await
}

#[tokio::test]
async fn who_comes_and_goes_too_fast_is_told_when_to_come_back_and_this_machine_is_not() {
    let own = own_address();
    let server = open("accepts_per_second = 1\nmax_connections = 5");
    let (served, told) = served_before_one_is_not(at(&server, own)).await;
    assert!(served >= 5, "{served}");
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("retry-after: 5\r\n"), "{told}");
    assert!(told.contains("\"error\":\"overloaded\"") && !told.contains("accepts_per_second"));
    assert!(refused(&server, "rate").await >= 1);
    let is_told = || {
        server
            .log()
            .contains("server.accepts_per_second")
            .then_some(())
    };
    wait_for("the log", is_told);
    for _ in 0..20 {
        let loopback = at(&server, Ipv4Addr::LOCALHOST.into());
        assert!(said(loopback).await.contains(" 200 "));
    }
    wait_until("a place in the rate", async || {
        said(at(&server, own)).await.contains(" 200 ").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_address_has_a_hundred_connections_unless_it_is_said_otherwise() {
    let own = own_address();
    let server = open("");
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(TcpStream::connect(at(&server, own)).await.unwrap());
    }
    let told = said(at(&server, own)).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert_eq!(refused(&server, "address").await, 1);
    let setting = "server.max_connections_per_address";
    wait_for("the log", || server.log().contains(setting).then_some(()));
    held.pop();
    wait_until("the place that is left", async || {
        said(at(&server, own)).await.contains(" 200 ").then_some(())
    })
    .await;
}
