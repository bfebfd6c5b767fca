//! A06 to A08, A10, A11: frames that no client may send, and right ones of which bits were turned over. What
//! is to come of them is told by a reader of its own, [`judge`], which knows RFC 6455 and our limits and
//! nothing of the product. tests/wire/conformance.rs has the cases of Autobahn|Testsuite by name.

use super::{
    inputs::Dice,
    stage::Stage,
    told::{Told, closed},
};
use crate::support::{
    Raw,
    frames::{
        BINARY, CLOSE, CONTINUATION, FIN, Form, PING, PONG, RSV1, TEXT, close_payload, frame,
        header, masked,
    },
};

/// Every text that is sent there is answered with one text.
const ECHO: &str = "/chat/socket/";

/// The most bytes of a message; one that announces more is refused before it has come.
const MAX_MESSAGE: usize = 64 * 1024;

#[tokio::test]
async fn frames_that_break_a_rule_are_closed_with_its_code_and_others_are_read() {
    let mut stage = Stage::care().await;
    for (class, sent) in headers().into_iter().chain(texts()).chain(mutations()) {
        hold(&mut stage, class, &sent).await;
    }
    sizes(&mut stage).await;
    fragments(&mut stage).await;
    compressed(&mut stage).await;
    stage.end().await;
}

async fn hold(stage: &mut Stage, class: &'static str, sent: &[u8]) {
    let expected = judge(sent);
    let told = stage.stream(ECHO, sent).await;
    stage.note_all(class, &format!("{sent:02x?}"), &told, &expected);
}

// === what is to come of it ===

/// What a server says to these bytes of a client that then says nothing more.
fn judge(mut rest: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    let mut message: Option<(u8, Vec<u8>)> = None;
    loop {
        match judged(&mut rest, &mut message) {
            Ok(None) => return told,
            Ok(Some(said)) => told.extend(said),
            Err(last) => {
                told.push(last);
                return told;
            }
        }
    }
}

/// One frame: what is said to it, `None` where it does not come to its end, or how it ends everything.
fn judged(
    rest: &mut &[u8],
    message: &mut Option<(u8, Vec<u8>)>,
) -> Result<Option<Option<Told>>, Told> {
    let Some(first) = rest.first() else {
        return Ok(None);
    };
    let (last, reserved, opcode) = (first & FIN != 0, first & 0x70, first & 0x0f);
    let control = opcode >= CLOSE;
    // The bit of compression means something in the frames of other connections: there the header is read.
    let compressed = reserved == RSV1 && matches!(opcode, TEXT | BINARY);
    if reserved != 0 && !compressed || matches!(opcode, 3..=7 | 0xb..=0xf) || control && !last {
        return Err(closed(1002));
    }
    let Some(second) = rest.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(closed(1002));
    }
    let (more, least): (usize, u64) = match second & 0x7f {
        126 => (2, 126),
        127 => (8, 65_536),
        _ => (0, 0),
    };
    let Some(bytes) = rest.get(2..2 + more) else {
        return Ok(None);
    };
    let length = match more {
        0 => u64::from(second & 0x7f),
        _ => bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    if length < least || length >> 63 != 0 || control && length > 125 {
        return Err(closed(1002));
    }
    let Some(key) = rest.get(2 + more..6 + more) else {
        return Ok(None);
    };
    if compressed {
        return Err(closed(1002));
    }
    if !control {
        // A message is begun by its first frame, and by no other.
        if (opcode == CONTINUATION) != message.is_some() {
            return Err(closed(1002));
        }
        let (_, so_far) = message.get_or_insert((opcode, Vec::new()));
        if length > (MAX_MESSAGE - so_far.len()) as u64 {
            return Err(closed(1009));
        }
    }
    let length = length as usize;
    let there = &rest[6 + more..];
    let complete = there.len() >= length;
    let payload = &there[..length.min(there.len())];
    let payload: Vec<u8> = payload
        .iter()
        .zip(key.iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect();
    *rest = &there[payload.len()..];
    if control {
        return match complete {
            true => ended(opcode, payload).map(Some),
            false => Ok(None),
        };
    }
    let (kind, so_far) = message.as_mut().expect("it was just begun");
    so_far.extend(payload);
    let whole = complete && last;
    if *kind == TEXT
        && let Err(err) = std::str::from_utf8(so_far)
        && (whole || err.error_len().is_some())
    {
        return Err(closed(1007));
    }
    if !whole {
        return Ok(if complete { Some(None) } else { None });
    }
    let (kind, bytes) = message.take().expect("it is whole");
    match kind {
        BINARY => Err(closed(1003)),
        _ if bytes == b"close" => Err(closed(1000)),
        _ => Ok(Some(Some(Told::Text))),
    }
}

/// A control frame that has come.
fn ended(opcode: u8, payload: Vec<u8>) -> Result<Option<Told>, Told> {
    match (opcode, &payload[..]) {
        (PING, _) => Ok(Some(Told::Pong(payload))),
        (PONG, _) => Ok(None),
        (_, []) => Err(Told::Closed(None)),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            Err(match code {
                1000..=1003 | 1007..=1014 | 3000..=4999 => match std::str::from_utf8(reason) {
                    Ok(_) => closed(code),
                    Err(_) => closed(1007),
                },
                _ => closed(1002),
            })
        }
        _ => Err(closed(1002)),
    }
}

// === inputs ===

type Input = (&'static str, Vec<u8>);

/// Every first byte, with lengths right and wrong, masked and not.
fn headers() -> Vec<Input> {
    let mut inputs = Vec::new();
    for first in 0..=u8::MAX {
        let unmasked = vec![first, 2, b'h', b'i'];
        let forms = [
            frame(first, b""),
            frame(first, b"Hello"),
            [header(first, 5, Form::Middle), masked(b"Hello")].concat(),
            header(first, 1 << 62, Form::Long),
            unmasked,
        ];
        inputs.extend(forms.map(|sent| ("A06", sent)));
    }
    for first in [TEXT, BINARY, CLOSE, PING, PONG].map(|opcode| FIN | opcode) {
        for length in [
            125,
            126,
            127,
            65_535,
            65_536,
            1 << 20,
            1 << 40,
            u64::MAX >> 1,
            1 << 63,
            u64::MAX,
        ] {
            for form in [Form::Short, Form::Middle, Form::Long] {
                inputs.push(("A06", header(first, length, form)));
            }
        }
        for payload in [126, 127, 1000] {
            inputs.push(("A06", frame(first, &vec![b'x'; payload])));
        }
    }
    for code in (0..5100)
        .step_by(37)
        .chain(997..1017)
        .chain([2999, 3000, 4999, 5000, 65_535])
    {
        inputs.push(("A06", frame(FIN | CLOSE, &close_payload(code, b"why"))));
    }
    for length in [0, 1, 125, 126, 1000, 65_536] {
        inputs.push(("A11", frame(FIN | BINARY, &vec![0; length])));
        let two = [
            frame(BINARY, &vec![0; length]),
            frame(FIN | CONTINUATION, b"\0"),
        ];
        inputs.push(("A11", two.concat()));
    }
    inputs
}

/// Texts at the edges of UTF-8, whole, cut at every place into fragments, and followed by more.
fn texts() -> Vec<Input> {
    let sequences: [&[u8]; 34] = [
        "κόσμε".as_bytes(),
        "\u{80}\u{7ff}\u{800}\u{ffff}".as_bytes(),
        "\u{10000}\u{10ffff}".as_bytes(),
        "\u{d7ff}\u{e000}\u{fffd}\u{feff}".as_bytes(),
        "👩‍👩‍👧‍👦".as_bytes(),
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xc2",
        b"\xc2\x41",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xe0\xa0",
        b"\xe7\x8e\x41",
        b"\xed\xa0\x80",
        b"\xed\xaf\xbf",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xef\xbf\xbf",
        b"\xf0\x80\x80\xaf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf0\x90\x80",
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
    ];
    let mut inputs = Vec::new();
    for sequence in sequences {
        let text = [b"ok ", sequence].concat();
        inputs.push(frame(FIN | TEXT, &text));
        inputs.push(frame(FIN | TEXT, &[&text, &b" end"[..]].concat()));
        inputs.push(frame(FIN | CLOSE, &close_payload(1000, sequence)));
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            inputs.push([frame(TEXT, a), frame(FIN | CONTINUATION, b)].concat());
        }
    }
    inputs.into_iter().map(|sent| ("A10", sent)).collect()
}

/// Conversations as they should be, of which some bits were turned over.
fn mutations() -> Vec<Input> {
    let long = "x".repeat(300);
    let right: [Vec<u8>; 7] = [
        frame(FIN | TEXT, b"{\"type\":\"patient\",\"rid\":1}"),
        [
            frame(TEXT, "王秀".as_bytes()),
            frame(FIN | PING, b"?"),
            frame(FIN | CONTINUATION, "英".as_bytes()),
        ]
        .concat(),
        [
            frame(FIN | TEXT, b"one"),
            frame(FIN | TEXT, b"two"),
            frame(FIN | CLOSE, &close_payload(1000, b"bye")),
        ]
        .concat(),
        [
            frame(FIN | PING, b"ping"),
            frame(FIN | PONG, b""),
            frame(FIN | TEXT, b"three"),
        ]
        .concat(),
        frame(FIN | TEXT, long.as_bytes()),
        [
            frame(TEXT, b""),
            frame(CONTINUATION, b"a"),
            frame(CONTINUATION, b""),
            frame(FIN | CONTINUATION, b"b"),
        ]
        .concat(),
        frame(FIN | CLOSE, &close_payload(4000, "é".as_bytes())),
    ];
    let mut dice = Dice(6455);
    let mut inputs = Vec::new();
    for right in &right {
        inputs.push(right.clone());
        // Each bit of what decides, and some of the rest.
        for bit in 0..8 * right.len().min(16) {
            inputs.push(turned(right, &[bit]));
        }
        for _ in 0..60 {
            let bits = 8 * right.len();
            let some = [(); 3].map(|()| dice.below(bits));
            inputs.push(turned(right, &some[..1 + dice.below(3)]));
        }
        for _ in 0..10 {
            inputs.push(right[..dice.below(right.len())].to_vec());
        }
    }
    for _ in 0..150 {
        let noise = (0..2 + dice.below(40)).map(|_| dice.below(256) as u8);
        inputs.push(noise.collect());
    }
    inputs.into_iter().map(|sent| ("A06", sent)).collect()
}

fn turned(bytes: &[u8], bits: &[usize]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for bit in bits {
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    bytes
}

// === limits ===

/// A07: sizes and sums.
async fn sizes(stage: &mut Stage) {
    let text = |length: usize| frame(FIN | TEXT, &vec![b'x'; length]);
    for length in [65_535, 65_536, 65_537, 100_000, 262_144, 262_145] {
        hold(stage, "A07", &text(length)).await;
    }
    for (pieces, length) in [(2, 32_768), (2, 32_769), (40, 1700), (64, 1024), (60, 5000)] {
        let mut sent = vec![frame(TEXT, &vec![b'x'; length])];
        sent.extend((2..pieces).map(|_| frame(CONTINUATION, &vec![b'x'; length])));
        sent.push(frame(FIN | CONTINUATION, &vec![b'x'; length]));
        hold(stage, "A07", &sent.concat()).await;
    }
    // What is announced costs nothing.
    let before = stage.rss_kib();
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut raw = Raw::open(&stage.server, ECHO).await;
        raw.bytes(&header(FIN | TEXT, MAX_MESSAGE as u64, Form::Long))
            .await;
        raw.bytes(&masked(b"x")).await;
        waiting.push(raw);
    }
    stage.count("A07", waiting.len());
    let after = stage.rss_kib();
    assert!(after < before + 200 * 64, "{before} KiB, then {after} KiB");
}

/// A07: more fragments than anybody needs are a nuisance, whatever is in them.
async fn fragments(stage: &mut Stage) {
    for (pieces, payload) in [(10_000, &b"x"[..]), (10_000, b""), (2_000, b"xxxxxxx")] {
        let mut sent = frame(TEXT, payload);
        for _ in 1..pieces {
            sent.extend(frame(CONTINUATION, payload));
        }
        let told = stage.stream(ECHO, &sent).await;
        stage.note(
            "A07",
            &format!("{pieces} fragments"),
            &told,
            &[closed(1008)],
        );
    }
}

/// A08: an offer of compression is not taken where it is off, whatever it is, and compressed frames then
/// break the protocol.
async fn compressed(stage: &mut Stage) {
    let parameters = [
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits=7",
        "server_max_window_bits=8",
        "server_max_window_bits=15",
        "server_max_window_bits=16",
        "client_max_window_bits",
        "client_max_window_bits=9",
        "server_max_window_bits=\"10\"",
        "unknown=1",
        "",
    ];
    let mut offers = vec![
        "permessage-deflate".to_owned(),
        "x-webkit-deflate-frame".into(),
    ];
    for a in parameters {
        offers.push(format!("permessage-deflate; {a}"));
        for b in parameters {
            offers.push(format!("permessage-deflate; {a}; {b}, permessage-deflate"));
        }
    }
    for offer in offers {
        let lines = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let (mut raw, head) = Raw::ask(&stage.server, ECHO, &lines).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{offer}: {head}");
        assert!(
            !head.to_ascii_lowercase().contains("extensions"),
            "{offer}: {head}"
        );
        raw.bytes(&frame(FIN | RSV1 | TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00"))
            .await;
        let code = raw.closed().await.code;
        stage.note("A08", &offer, &[closed(code)], &[closed(1002)]);
    }
}

/// A08: where it is on, what is inflated is bounded as what is sent plainly.
#[tokio::test]
async fn a_compressed_message_is_bounded_by_what_becomes_of_it() {
    let mut stage = Stage::tuned("compression = true").await;
    let bomb = |length: usize| {
        let mut text = vec![b'x'; length];
        text[0] = b'y';
        let mut deflater = rowcast::session::deflate::Deflater::default();
        deflater.message(&text).unwrap().to_vec()
    };
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec();
    let mut inputs = vec![
        (hello.clone(), Told::Text),
        (bomb(65_536), Told::Text),
        (bomb(65_537), closed(1009)),
        (bomb(1 << 20), closed(1009)),
        (bomb(16 << 20), closed(1009)),
        (b"\x07".to_vec(), closed(1002)),
        (b"\xff\xff\xff".to_vec(), closed(1002)),
        (b"\xf2\x00\x11\x00\x00".to_vec(), closed(1002)),
    ];
    for cut in 1..hello.len() {
        inputs.push((hello[..cut].to_vec(), closed(1002)));
    }
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for (payload, expected) in inputs {
        let (mut raw, head) = Raw::ask(&stage.server, ECHO, offer).await;
        assert!(head.contains("permessage-deflate"), "{head}");
        raw.bytes(&frame(FIN | RSV1 | TEXT, &payload)).await;
        raw.finish().await;
        let told = match raw.next().await {
            Some((0x8, payload)) => {
                Told::Closed(payload.first_chunk().map(|c| u16::from_be_bytes(*c)))
            }
            Some((0x1, _)) => Told::Text,
            other => panic!("{other:?}"),
        };
        stage.note("A08", &format!("{payload:02x?}"), &[told], &[expected]);
    }
    stage.end().await;
}
