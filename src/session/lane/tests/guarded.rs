//! Of a guarded topic each socket gets what is in its ward, and nobody looks at the others.

use serde_json::json;

use super::*;
use crate::{
    event::{Body, ChangeData, Delivery, Event, Op, raw},
    identity::Identity,
    policy::seen_by,
    ring::Frame,
    session::scopes::Scope,
    topic::{Affinity, Collation, Column, Kind, Table, Topic},
};

const COUNT: u64 = 3_000;

fn table() -> Arc<Table> {
    let column = |(name, kind): (&str, Kind)| Column {
        name: name.into(),
        declared: "text".into(),
        affinity: Affinity::Blob,
        kind: Some(kind),
        collation: Collation::Binary,
        not_null: false,
    };
    let columns = [("id", Kind::Integer), ("ward", Kind::Text)];
    Arc::new(Table {
        name: "t".into(),
        columns: columns.map(column).into(),
        primary_key: vec!["id".into()],
        unique: Vec::new(),
        displaces: false,
    })
}

fn topic() -> Topic {
    let spec = json!({"type": "t", "table": "t", "policy": "ward = token.ward"});
    Topic::resolve(&serde_json::from_value(spec).unwrap(), Some(&table())).unwrap()
}

fn interests(ward: &str) -> Interests {
    let claims = json!({ "ward": ward }).as_object().unwrap().clone();
    let seen = seen_by(&topic(), &Identity::new(claims, None)).unwrap();
    let scope = Scope::of(&Arc::new(seen), Some(table()));
    let mut interests = Interests::new(None);
    interests.confine(Box::new([("t".into(), Some(Arc::new(scope)))]));
    interests
}

fn ward(number: u64) -> &'static str {
    ["a", "b", "b", "c"][(number * 7 % 11 % 4) as usize]
}

fn frame(number: u64) -> Frame {
    let row = json!({"id": number, "ward": ward(number), "text": text(number)});
    let data = ChangeData {
        key: Some(raw(&json!({ "id": number }))),
        row: Some(raw(&row)),
        ..ChangeData::whole(Op::Insert)
    };
    let event = Event {
        id: String::new(),
        source: String::new(),
        topic: "t".into(),
        subject: None,
        at_ms: 0,
        tx: None,
        xid: Some(number + 1),
        body: Body::Change {
            checkpoint: "s:1.0".parse().unwrap(),
            data,
        },
    };
    let position = Position::new(Epoch::parse("test").unwrap(), number + 1);
    let event = Some(event);
    Frame::of(&Delivery { position, event })
}

/// What the lane does for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Written,
    /// As TLS and Server-Sent Events.
    Told,
}

/// A socket with a seat, and what its client reads of its ward.
async fn socket(lanes: &Lanes, of: &'static str, how: How) -> (Link, Seated, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, _) = accepted.unwrap();
    let small = socket2::SockRef::from(&stream);
    small.set_send_buffer_size(4096).unwrap();
    let link = Link::new(Socket::tcp(stream, Bytes::new()), LIMITS);
    let stream = link.tcp().filter(|_| how == How::Written).cloned();
    let seat = lanes.seat(stream, None);
    let mut client = client.unwrap();
    let reader = tokio::spawn(async move {
        for number in (0..COUNT).filter(|number| ward(*number) == of) {
            let expected = frame(number).text.unwrap();
            let mut got = vec![0; expected.frame().len()];
            client.read_exact(&mut got).await.unwrap();
            assert!(got == expected.frame()[..], "frame {number}");
        }
    });
    (link, seat, reader)
}

async fn go_on(link: &mut Link, stand: &mut Stand, ring: &Ring) -> u64 {
    let rest = std::mem::take(&mut stand.unsent);
    if !rest.is_empty() {
        link.push(rest);
    }
    let mut sent = 0;
    loop {
        let frames = ring.read(stand.seq, u64::MAX, 4096).unwrap();
        for frame in &frames {
            if let Some((_, text)) = stand.interests.form(frame) {
                link.push(text.frame().clone());
                sent += 1;
            }
        }
        link.flush().await.unwrap();
        if frames.is_empty() {
            return sent;
        }
        stand.seq += frames.len() as u64;
    }
}

/// Stands in the lane, and takes the place back, until all is written; how much of it itself.
async fn take_turns(ring: Ring, link: &mut Link, seat: &Seated, of: &'static str) -> u64 {
    let mut place = Stand {
        interests: interests(of),
        ..stand(0)
    };
    let (mut own, mut round) = (0, 0_usize);
    while place.seq < COUNT {
        round += 1;
        own += go_on(link, &mut place, &ring).await;
        if let Some(back) = seat.stand(place) {
            place = back;
            continue;
        }
        for _ in 0..round % 7 {
            tokio::select! {
                biased;
                () = seat.returned() => break,
                () = yield_now() => {}
            }
        }
        place = seat.take().unwrap();
    }
    own + go_on(link, &mut place, &ring).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_goes_once_to_whom_it_concerns_whoever_writes_it() {
    let topics = Topics::new(vec![topic()]).unwrap();
    let ring = Ring::new(start(), usize::MAX);
    let (lanes, metrics) = (Lanes::new(&ring, &topics, 1), Metrics::default());
    for lane in lanes.loops(&ring, &metrics, &CancellationToken::new()) {
        tokio::spawn(lane);
    }
    let mut tasks = Vec::new();
    let wards = ["a", "b", "c", "nobody's"];
    let both = [How::Written, How::Told];
    for (of, how) in wards.iter().flat_map(|of| both.map(|how| (*of, how))) {
        let (mut link, seat, reader) = socket(&lanes, of, how).await;
        let ring = ring.clone();
        tasks.push(tokio::spawn(async move {
            let own = take_turns(ring, &mut link, &seat, of).await;
            reader.await.unwrap();
            own
        }));
    }
    let writing = ring.clone();
    tokio::spawn(async move {
        for number in 0..COUNT {
            writing.append(vec![frame(number)], None);
            for _ in 0..number % 5 {
                yield_now().await;
            }
        }
    });
    let mut own = 0;
    for task in tasks {
        own += timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    let lane = metrics.pushes_sent.get();
    assert!(
        own > 0 && lane > 0,
        "{own} of the sessions, {lane} of the lane"
    );
}

#[tokio::test]
async fn who_is_not_concerned_is_not_looked_at_and_moves_along() {
    let topics = Topics::new(vec![topic()]).unwrap();
    let ring = Ring::new(start(), usize::MAX);
    let (lanes, metrics) = (Lanes::new(&ring, &topics, 1), Metrics::default());
    for lane in lanes.loops(&ring, &metrics, &CancellationToken::new()) {
        tokio::spawn(lane);
    }
    let (_link, seat, _) = socket(&lanes, "nobody's", How::Written).await;
    let standing = || Stand {
        interests: interests("nobody's"),
        ..stand(0)
    };
    assert!(seat.stand(standing()).is_none());
    ring.append((0..9).map(frame).collect(), None);
    let lane = lanes.0.lanes[0].clone();
    let selects = lane.selects.as_ref().unwrap();
    let settled = async {
        while selects.settled().seq < 9 {
            yield_now().await;
        }
    };
    timeout(PATIENCE, settled).await.unwrap();
    let stands_at = match &*seat.seat.lock() {
        Place::Here(stand) => Some(stand.seq),
        _ => None,
    };
    assert_eq!(stands_at, Some(0), "nobody has looked");
    let place = seat.take().unwrap();
    assert_eq!((place.seq, place.cursor.offset), (9, 9));
    // The ring begins again: everybody is told.
    let there = Stand {
        seq: 9,
        ..standing()
    };
    assert!(seat.stand(there).is_none());
    ring.restart(start());
    timeout(PATIENCE, seat.returned()).await.unwrap();
    assert_eq!(seat.take().map(|stand| stand.seq), Some(9));
}

#[tokio::test]
async fn who_cannot_be_written_to_has_its_place_back_for_what_concerns_it_and_for_nothing_else() {
    let topics = Topics::new(vec![topic()]).unwrap();
    let ring = Ring::new(start(), usize::MAX);
    let (lanes, metrics) = (Lanes::new(&ring, &topics, 1), Metrics::default());
    assert!(lanes.look_up() && !Lanes::new(&ring, &Topics::default(), 1).look_up());
    for lane in lanes.loops(&ring, &metrics, &CancellationToken::new()) {
        tokio::spawn(lane);
    }
    let standing = |seq, of| Stand {
        interests: interests(of),
        ..stand(seq)
    };
    let seats = ["a", "c"].map(|of| {
        let seat = lanes.seat(None, None);
        assert!(seat.stand(standing(0, of)).is_none());
        seat
    });
    let [one, other] = &seats;
    let is_here = |seat: &Seated| matches!(*seat.seat.lock(), Place::Here(_));
    // Of the ward of one of them.
    assert_eq!((ward(0), ward(1)), ("a", "c"));
    ring.append(vec![frame(0)], None);
    timeout(PATIENCE, one.returned()).await.unwrap();
    assert_eq!(one.take().map(|stand| stand.seq), Some(0));
    let selects = lanes.0.lanes[0].selects.as_ref().unwrap();
    let settled = async |seq| {
        while selects.settled().seq < seq {
            yield_now().await;
        }
    };
    timeout(PATIENCE, settled(1)).await.unwrap();
    assert!(is_here(other), "nothing was for it");
    // A page concerns everybody who takes its topic, and these do not.
    let only_t = |of| {
        let mut interests = interests(of);
        interests.choose(vec![("t".into(), None)]);
        interests
    };
    for (seat, of) in seats.iter().zip(["a", "c"]) {
        let _ = seat.take();
        let there = Stand {
            interests: only_t(of),
            ..stand(1)
        };
        assert!(seat.stand(there).is_none());
    }
    ring.append_page("other".into(), None, |_| text(1));
    timeout(PATIENCE, settled(2)).await.unwrap();
    assert!(is_here(one) && is_here(other));
    ring.append(vec![frame(1)], None);
    timeout(PATIENCE, other.returned()).await.unwrap();
    assert_eq!(other.take().map(|stand| stand.seq), Some(2));
    timeout(PATIENCE, settled(3)).await.unwrap();
    let place = one.take().unwrap();
    assert_eq!((place.seq, place.cursor.offset), (3, 2));
    assert_eq!(metrics.pushes_sent.get(), 0, "the lane writes nothing");
}

#[tokio::test]
async fn a_row_that_cannot_be_judged_yet_is_left_to_the_session_and_all_behind_it() {
    let topics = Topics::new(vec![topic()]).unwrap();
    let ring = Ring::new(start(), usize::MAX);
    let (lanes, metrics) = (Lanes::new(&ring, &topics, 1), Metrics::default());
    for lane in lanes.loops(&ring, &metrics, &CancellationToken::new()) {
        tokio::spawn(lane);
    }
    // The table is not described.
    let scope = Arc::new(Scope::of(&Arc::new(topic()), None));
    let unjudged = |only: Option<&str>| {
        let only = only.map(|topic| [topic.into()].into());
        let mut interests = Interests::new(only);
        interests.confine(Box::new([("t".into(), Some(scope.clone()))]));
        interests
    };
    assert!(unjudged(None).form(&frame(0)).is_none(), "nothing leaks");
    for how in [How::Written, How::Told] {
        let at = ring.head().seq;
        let (_link, taker, _) = socket(&lanes, "nobody's", how).await;
        let (_other, open, _) = socket(&lanes, "nobody's", how).await;
        for (seat, only) in [(&taker, None), (&open, Some("other"))] {
            let there = Stand {
                interests: unjudged(only),
                ..stand(at)
            };
            assert!(seat.stand(there).is_none());
        }
        ring.append((0..3).map(frame).collect(), None);
        timeout(PATIENCE, taker.returned()).await.unwrap();
        assert_eq!(taker.take().map(|stand| stand.seq), Some(at));
        let selects = lanes.0.lanes[0].selects.as_ref().unwrap();
        let settled = async {
            while selects.settled().seq < at + 3 {
                yield_now().await;
            }
        };
        timeout(PATIENCE, settled).await.unwrap();
        assert_eq!(open.take().map(|stand| stand.seq), Some(at + 3));
    }
    assert_eq!(metrics.pushes_sent.get(), 0);
}
