//! Whoever writes, the lane or the session: every frame goes out once, whole and in order.

mod guarded;

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, yield_now},
    time::timeout,
};

use super::*;
use crate::{
    position::{Epoch, Position},
    protocol::Encoded,
    session::{
        Socket, deflate::framed, inbound::Limits, interests::Interests, link::Link, seen::Seen,
    },
};

const LIMITS: Limits = Limits {
    message_bytes: 1024,
    fragments: 8,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One lane that runs, and a socket with a seat in it.
struct Scene {
    ring: Ring,
    metrics: Metrics,
    lane: Arc<Lane>,
    stop: CancellationToken,
    link: Link,
    seat: Seated,
    client: TcpStream,
}

impl Scene {
    async fn new() -> Self {
        Self::with(None).await
    }

    /// With a client with whom this was agreed.
    async fn with(agreed: Option<Agreed>) -> Self {
        let ring = Ring::new(start(), usize::MAX);
        let (lanes, metrics) = (Lanes::new(&ring, &Topics::default(), 1), Metrics::default());
        let stop = CancellationToken::new();
        for lane in lanes.loops(&ring, &metrics, &stop) {
            tokio::spawn(lane);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        // So small that a socket often takes a part of a frame only.
        let socket = socket2::SockRef::from(&stream);
        socket.set_send_buffer_size(4096).unwrap();
        let socket = Socket::tcp(stream, Bytes::new()).compressed(agreed);
        let link = Link::new(socket, LIMITS);
        let seat = lanes.seat(link.tcp().cloned(), agreed);
        Self {
            ring,
            metrics,
            lane: lanes.0.lanes[0].clone(),
            stop,
            link,
            seat,
            client: client.unwrap(),
        }
    }
}

fn start() -> Position {
    Position::start_of(Epoch::parse("test").unwrap())
}

fn stand(seq: u64) -> Stand {
    Stand {
        seq,
        cursor: start(),
        interests: Interests::new(None),
        seen: Seen::default(),
        unsent: Bytes::new(),
        broken: false,
    }
}

/// The numbered text of a frame; some are longer than what a socket takes at once, compressed or not.
fn text(number: u64) -> String {
    let length = if number.is_multiple_of(50) {
        20_000
    } else {
        // Some are too short to be compressed.
        100 + 30 * (number as usize % 9)
    };
    let mut state = number;
    let letters = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'0' + (state >> 33) as u8 % 64)
    });
    format!("{number} ") + &letters.take(length).collect::<String>()
}

fn append(ring: &Ring, number: u64) {
    ring.append_page("t".into(), None, |_| text(number));
}

/// Reads what the client is sent, and compares it with the first `count` frames; counts them.
fn expect(
    mut client: TcpStream,
    agreed: Option<Agreed>,
    count: u64,
    read: &Arc<AtomicU64>,
) -> JoinHandle<()> {
    let read = read.clone();
    tokio::spawn(async move {
        for number in 0..count {
            let expected = Encoded::of(&text(number));
            let expected = framed(&expected, agreed);
            let mut got = vec![0; expected.len()];
            client.read_exact(&mut got).await.unwrap();
            assert!(got == expected[..], "frame {number}");
            read.store(number + 1, Ordering::SeqCst);
        }
    })
}

/// What a session does when it has its place back: sends the rest, and all that is in the ring.
async fn go_on(link: &mut Link, stand: &mut Stand, ring: &Ring) -> u64 {
    let from = stand.seq;
    let rest = std::mem::take(&mut stand.unsent);
    if !rest.is_empty() {
        link.push(rest);
    }
    loop {
        let frames = ring.read(stand.seq, u64::MAX, 4096).unwrap();
        for frame in &frames {
            let text = frame.text.as_ref().unwrap();
            link.push(framed(text, link.agreed()).clone());
        }
        link.flush().await.unwrap();
        if frames.is_empty() {
            return stand.seq - from;
        }
        stand.seq += frames.len() as u64;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_goes_out_once_whoever_writes_it() {
    once_whoever_writes(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_every_compressed_one() {
    once_whoever_writes(Agreed::among(["permessage-deflate"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_for_a_client_that_reads_only_short_ones_compressed() {
    let offer = "permessage-deflate; server_max_window_bits=9";
    once_whoever_writes(Agreed::among([offer])).await;
}

async fn once_whoever_writes(agreed: Option<Agreed>) {
    const COUNT: u64 = 2_000;
    let mut scene = Scene::with(agreed).await;
    let read = Arc::default();
    let reader = expect(scene.client, agreed, COUNT, &read);
    let ring = scene.ring.clone();
    tokio::spawn(async move {
        for number in 0..COUNT {
            append(&ring, number);
            // Not so far ahead that the session finds everything in the ring, and the lane nothing.
            while number - read.load(Ordering::SeqCst).min(number) > number % 9 {
                yield_now().await;
            }
        }
    });
    let (mut place, mut own, mut round) = (stand(0), 0, 0_usize);
    while place.seq < COUNT {
        round += 1;
        own += go_on(&mut scene.link, &mut place, &scene.ring).await;
        if let Some(back) = scene.seat.stand(place) {
            place = back;
            continue;
        }
        // Now the lane gives the place back, and now it is taken in the middle of something.
        for _ in 0..round % 5 {
            tokio::select! {
                biased;
                () = scene.seat.returned() => break,
                () = yield_now() => {}
            }
        }
        place = scene.seat.take().unwrap();
    }
    go_on(&mut scene.link, &mut place, &scene.ring).await;
    timeout(PATIENCE, reader).await.unwrap().unwrap();
    let lane = scene.metrics.pushes_sent.get();
    assert!(
        own > 0 && lane > 0,
        "{own} of the session, {lane} of the lane"
    );
}

#[tokio::test]
async fn a_lane_that_ends_gives_every_place_back_and_wakes_who_waits_for_the_ring() {
    let scene = Scene::new().await;
    append(&scene.ring, 0);
    let mut grown = scene.ring.watch();
    assert!(scene.seat.stand(stand(1)).is_none());
    scene.stop.cancel();
    timeout(PATIENCE, scene.seat.returned()).await.unwrap();
    assert_eq!(scene.seat.take().unwrap().seq, 1);
    timeout(PATIENCE, grown.changed()).await.unwrap().unwrap();
    // Who comes later keeps his place: nobody would ever give it back.
    assert!(scene.seat.stand(stand(1)).is_some());
}

#[test]
fn who_takes_the_same_topics_shares_a_piece_of_nothing_else() {
    let ring = Ring::new(start(), usize::MAX);
    for number in 0..6 {
        let topic = ["a", "b", "c"][number % 3];
        ring.append_page(topic.into(), None, |_| format!("{number} of {topic}"));
    }
    let mut pass = Pass::read(&ring, 0).unwrap();
    let only = |names: &[&str]| {
        let names = names.iter().map(|name| Arc::from(*name));
        Interests::new(Some(names.collect()))
    };
    let text = |number: u64, topic: &str| Encoded::of(&format!("{number} of {topic}"));
    for (interests, expected) in [
        (only(&["b"]), vec![text(1, "b"), text(4, "b")]),
        (
            only(&["c", "a"]),
            vec![text(0, "a"), text(2, "c"), text(3, "a"), text(5, "c")],
        ),
        (only(&["none"]), vec![]),
    ] {
        let number = pass.piece_for(&interests, None).unwrap();
        let piece = pass.piece(number);
        let frames: Vec<u8> = expected
            .iter()
            .flat_map(|text| text.frame().to_vec())
            .collect();
        assert_eq!(piece.bytes, frames);
        assert_eq!(piece.starts.len(), 7);
        assert_eq!(
            pass.piece_for(&interests, None),
            Some(number),
            "it is shared"
        );
    }
    let every = pass.piece_for(&Interests::new(None), None);
    assert_eq!(every, pass.piece_for(&only(&["a", "b", "c", "d"]), None));
}

#[tokio::test]
async fn a_socket_with_some_topics_gets_these_and_stands_behind_the_others() {
    const COUNT: u64 = 300;
    let mut scene = Scene::new().await;
    let interests = Interests::new(Some(["t".into()].into()));
    let place = Stand {
        interests,
        ..stand(0)
    };
    assert!(scene.seat.stand(place).is_none());
    let read = Arc::default();
    let reader = expect(scene.client, None, COUNT, &read);
    for number in 0..COUNT {
        append(&scene.ring, number);
        scene
            .ring
            .append_page("other".into(), None, |_| "not for it".to_owned());
        while read.load(Ordering::SeqCst) + 5 < number {
            tokio::select! {
                () = scene.seat.returned() => {
                    // What it could not take at once is the session's.
                    let mut place = scene.seat.take().unwrap();
                    let rest = std::mem::take(&mut place.unsent);
                    if !rest.is_empty() {
                        scene.link.push(rest);
                        scene.link.flush().await.unwrap();
                    }
                    while let Some(back) = scene.seat.stand(place) {
                        place = go_on_with(&mut scene.link, back, &scene.ring, "t").await;
                    }
                }
                () = yield_now() => {}
            }
        }
    }
    let mut place = loop {
        match scene.seat.take() {
            Some(place) if place.seq == 2 * COUNT && place.unsent.is_empty() => break place,
            Some(mut place) => {
                let rest = std::mem::take(&mut place.unsent);
                if !rest.is_empty() {
                    scene.link.push(rest);
                }
                break go_on_with(&mut scene.link, place, &scene.ring, "t").await;
            }
            None => yield_now().await,
        }
    };
    assert_eq!(std::mem::take(&mut place.seq), 2 * COUNT);
    timeout(PATIENCE, reader).await.unwrap().unwrap();
}

/// The same for a socket that takes one topic.
async fn go_on_with(link: &mut Link, mut stand: Stand, ring: &Ring, topic: &str) -> Stand {
    for frame in ring.read(stand.seq, u64::MAX, usize::MAX).unwrap() {
        if *frame.topic == *topic {
            link.push(frame.text.as_ref().unwrap().frame().clone());
        }
        stand.seq += 1;
    }
    link.flush().await.unwrap();
    stand
}

#[tokio::test]
async fn who_comes_after_the_lane_has_gone_by_does_not_stand_in_it() {
    let scene = Scene::new().await;
    append(&scene.ring, 0);
    let gone_by = async {
        while scene.lane.passed.load(Ordering::SeqCst) < 1 {
            yield_now().await;
        }
    };
    timeout(PATIENCE, gone_by).await.unwrap();
    let back = scene.seat.stand(stand(0));
    assert_eq!(back.map(|stand| stand.seq), Some(0));
    assert!(scene.seat.take().is_none(), "it was given back");
    assert!(scene.seat.stand(stand(1)).is_none());
}

#[tokio::test]
async fn a_socket_that_takes_a_part_gets_its_place_back_with_the_rest() {
    const COUNT: u64 = 500;
    let mut scene = Scene::new().await;
    assert!(scene.seat.stand(stand(0)).is_none());
    for number in 0..COUNT {
        append(&scene.ring, number);
    }
    // Nobody reads.
    timeout(PATIENCE, scene.seat.returned()).await.unwrap();
    let mut place = scene.seat.take().unwrap();
    assert!(place.seq < COUNT && !place.broken, "{place:?}");
    let reader = expect(scene.client, None, COUNT, &Arc::default());
    let sent = go_on(&mut scene.link, &mut place, &scene.ring);
    assert!(timeout(PATIENCE, sent).await.unwrap() > 0);
    timeout(PATIENCE, reader).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_stands_in_the_lane_when_the_ring_begins_again_gets_the_place_back() {
    let scene = Scene::new().await;
    append(&scene.ring, 0);
    scene.ring.restart(start());
    assert!(scene.seat.stand(stand(1)).is_none());
    timeout(PATIENCE, scene.seat.returned()).await.unwrap();
    assert_eq!(scene.seat.take().map(|stand| stand.seq), Some(1));
}
