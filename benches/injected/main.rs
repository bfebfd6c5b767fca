//! The socket layer alone: a whole gateway (HTTP, sessions, ring, fanout), on a bus that is nothing
//! but this process's memory.
//!
//! `injected LISTEN PUBLISH`: events come over PUBLISH, four bytes of length before each, and go to
//! the sockets as events of the topic `bench`. Nothing is stored.
//!
//! `injected policy [SOCKETS…]`: what an event costs that concerns one of many sockets
//! (docs/performance.md).

#![allow(clippy::unwrap_used)] // a measurement that cannot go on has failed

mod gateway;
mod memory;
mod policy;

use std::{env, sync::Arc};

use rowcast::{
    event::{Body, Event, raw},
    topic::TopicSpec,
};
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::TcpListener,
};

use memory::Memory;

/// The one topic.
const TOPIC: &str = "bench";

fn main() {
    let arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (listen, publish) = match &*arguments {
        [policy, sockets @ ..] if policy == "policy" => {
            let sockets: Vec<usize> = sockets.iter().map(|one| one.parse().unwrap()).collect();
            return runtime.block_on(policy::run(&sockets));
        }
        [clients, address, count] if clients == "clients" => {
            let clients = policy::clients(address.parse().unwrap(), count.parse().unwrap());
            return runtime.block_on(clients);
        }
        [listen, publish] => (listen, publish),
        // `cargo test --all-targets` runs this too, without any.
        _ => return,
    };
    runtime.block_on(async {
        let bus = Memory::new();
        let spec: TopicSpec = serde_json::from_value(serde_json::json!({ "type": TOPIC })).unwrap();
        gateway::serve(listen, &spec, bus.clone()).await;
        let publishers = TcpListener::bind(publish).await.unwrap();
        loop {
            let (stream, _) = publishers.accept().await.unwrap();
            tokio::spawn(take(
                BufReader::with_capacity(256 * 1024, stream),
                bus.clone(),
            ));
        }
    });
}

/// Takes events until the publisher goes: all that have arrived become one chunk of the bus.
async fn take(mut stream: BufReader<tokio::net::TcpStream>, bus: Memory) {
    let topic: Arc<str> = TOPIC.into();
    let mut events = Vec::new();
    while let Ok(length) = stream.read_u32().await {
        let mut body = vec![0; length as usize];
        if stream.read_exact(&mut body).await.is_err() {
            break;
        }
        events.push(Event {
            id: "i".into(),
            source: "/bench".into(),
            topic: topic.clone(),
            subject: None,
            at_ms: rowcast::clock::now_ms(),
            tx: None,
            xid: None,
            body: Body::Application(raw(&String::from_utf8(body).unwrap())),
        });
        let next = stream.buffer();
        let whole = next
            .first_chunk()
            .is_some_and(|length| next.len() >= 4 + u32::from_be_bytes(*length) as usize);
        if !whole {
            bus.append(std::mem::take(&mut events));
        }
    }
}
