//! The reader of what clients send, without a socket: rule by rule, and against another
//! implementation. More cases: `PROPTEST_CASES=20000 cargo test inbound`.

use std::io::{self, Read, Write};

use proptest::{collection::vec, prelude::*, sample::Index};
use rowcast::session::inbound::{Decoder, Limits, Message, Violation};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, Form, KEY, PING, PONG, TEXT, close_payload, frame, header,
    masked, shortest,
};

const LIMITS: Limits = Limits {
    message_bytes: 1000,
    fragments: 20,
};

/// What a decoder made of some bytes.
#[derive(Debug, PartialEq)]
struct Outcome {
    messages: Vec<Message>,
    violation: Option<Violation>,
}

/// Puts the chunks in one after the other. What the decoder holds must stay below what it was given.
fn decode<'a>(limits: Limits, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(limits);
    let (mut messages, mut given) = (Vec::new(), 0);
    for mut chunk in chunks {
        given += chunk.len();
        loop {
            match decoder.decode(&mut chunk) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => {
                    assert!(chunk.is_empty());
                    assert_eq!(decoder.held_bytes(), 0);
                    let violation = Some(violation);
                    return Outcome {
                        messages,
                        violation,
                    };
                }
            }
        }
        assert!(chunk.is_empty());
        let most = (2 * given).min(limits.message_bytes) + 256;
        assert!(decoder.held_bytes() <= most, "{}", decoder.held_bytes());
    }
    Outcome {
        messages,
        violation: None,
    }
}

/// All in one piece, which is to have the same outcome as byte after byte.
fn outcome(bytes: &[u8]) -> Outcome {
    let whole = decode(LIMITS, [bytes]);
    assert_eq!(decode(LIMITS, bytes.chunks(1)), whole);
    whole
}

fn violation(frames: &[Vec<u8>]) -> Option<Violation> {
    outcome(&frames.concat()).violation
}

fn messages(frames: &[Vec<u8>]) -> Vec<Message> {
    let outcome = outcome(&frames.concat());
    assert_eq!(outcome.violation, None);
    outcome.messages
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned())
}

// === messages ===

#[test]
fn a_message_arrives_at_every_length_at_which_the_header_changes() {
    let limits = Limits {
        message_bytes: 70_000,
        ..LIMITS
    };
    for length in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let sent = frame(FIN | BINARY, &payload);
        let expected = Outcome {
            messages: vec![Message::Binary(payload)],
            violation: None,
        };
        for step in [1, 2, 3, 1000, sent.len()] {
            assert_eq!(decode(limits, sent.chunks(step)), expected);
        }
    }
}

#[test]
fn control_frames_come_out_between_the_fragments_of_a_message() {
    let sent = [
        frame(TEXT, b"a"),
        frame(FIN | PING, b"?"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"!"),
        frame(FIN | CONTINUATION, "ß".as_bytes()),
        frame(FIN | TEXT, b""),
        frame(FIN | PING, &[7; 125]),
    ];
    let ping = |payload: &[u8]| Message::Ping(payload.to_vec());
    let expected = [
        ping(b"?"),
        Message::Pong,
        text("aß"),
        text(""),
        ping(&[7; 125]),
    ];
    assert_eq!(messages(&sent), expected);
}

#[test]
fn a_character_may_be_cut_between_fragments() {
    let whole = "κόσμε😀";
    for cut in 0..=whole.len() {
        let (first, second) = whole.as_bytes().split_at(cut);
        let sent = [frame(TEXT, first), frame(FIN | CONTINUATION, second)];
        assert_eq!(messages(&sent), [text(whole)]);
    }
}

#[test]
fn nothing_comes_after_a_close() {
    for (payload, code) in [
        (vec![], None),
        (close_payload(1000, b""), Some(1000)),
        (close_payload(4999, "é".as_bytes()), Some(4999)),
        (close_payload(1001, &[b'x'; 123]), Some(1001)),
    ] {
        let sent = [
            frame(FIN | CLOSE, &payload),
            frame(FIN | PING, b""),
            vec![0xff; 20],
        ];
        assert_eq!(messages(&sent), [Message::Close(code)]);
    }
}

// === violations ===

#[test]
fn what_breaks_the_rules_of_framing_is_refused() {
    let broken = [
        // reserved bits, and opcodes
        frame(FIN | 0x40 | TEXT, b"x"),
        frame(FIN | 0x20 | TEXT, b"x"),
        frame(FIN | 0x10 | PING, b"x"),
        frame(FIN | 0x3, b""),
        frame(FIN | 0x7, b""),
        frame(FIN | 0xb, b""),
        frame(FIN | 0xf, b""),
        // no mask
        vec![FIN | TEXT, 1, b'x'],
        vec![FIN | TEXT, 0],
        // control frames in fragments, or large
        frame(PING, b""),
        frame(CLOSE, b""),
        frame(FIN | PING, &[0; 126]),
        header(FIN | CLOSE, 70_000, Form::Long),
        // fragments without a beginning, or with two
        frame(CONTINUATION, b"x"),
        frame(FIN | CONTINUATION, b"x"),
        [frame(TEXT, b"x"), frame(FIN | TEXT, b"x")].concat(),
        [frame(BINARY, b""), frame(BINARY, b"")].concat(),
        [frame(FIN | TEXT, b"x"), frame(FIN | CONTINUATION, b"x")].concat(),
        // lengths
        header(FIN | TEXT, 125, Form::Middle),
        header(FIN | TEXT, 0, Form::Long),
        header(FIN | TEXT, 0xffff, Form::Long),
        header(FIN | TEXT, 1 << 63, Form::Long),
        header(FIN | PING, 5, Form::Middle),
        // closes
        frame(FIN | CLOSE, b"x"),
    ];
    for sent in broken {
        assert_eq!(
            violation(std::slice::from_ref(&sent)),
            Some(Violation::Protocol),
            "{sent:?}"
        );
    }
}

#[test]
fn a_close_code_must_be_one_that_may_be_sent() {
    let sendable = |code: u16| match outcome(&frame(FIN | CLOSE, &close_payload(code, b""))) {
        Outcome {
            violation: None,
            messages,
        } => {
            assert_eq!(messages, [Message::Close(Some(code))]);
            true
        }
        broken => {
            assert_eq!(broken.violation, Some(Violation::Protocol));
            false
        }
    };
    let all: Vec<u16> = (0..=u16::MAX).filter(|code| sendable(*code)).collect();
    let expected = (1000..=1003).chain(1007..=1014).chain(3000..=4999);
    assert_eq!(all, expected.collect::<Vec<u16>>());
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let bad: [&[u8]; 8] = [
        b"\xff",
        b"ok\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x80",
        b"\xf8\x88\x80\x80\x80",
        b"a\xc3",
    ];
    for bytes in bad {
        let broken = Some(Violation::NotUtf8);
        assert_eq!(violation(&[frame(FIN | TEXT, bytes)]), broken);
        let in_pieces = [frame(TEXT, bytes), frame(FIN | CONTINUATION, b"")];
        assert_eq!(violation(&in_pieces), broken);
        let reason = close_payload(1000, bytes);
        assert_eq!(violation(&[frame(FIN | CLOSE, &reason)]), broken);
        assert_eq!(violation(&[frame(FIN | BINARY, bytes)]), None);
    }
}

#[test]
fn text_is_refused_at_the_first_byte_that_cannot_become_a_character() {
    // U+110000 would begin like this; the second byte proves it.
    let payload = b"\xce\xba\xe1\xbd\xb9\xf4\x90";
    let sent = [header(FIN | TEXT, 500, Form::Middle), masked(payload)].concat();
    assert_eq!(
        violation(std::slice::from_ref(&sent)),
        Some(Violation::NotUtf8)
    );
    assert_eq!(violation(&[sent[..sent.len() - 1].to_vec()]), None);
    let fragment = [frame(TEXT, &payload[..6])];
    assert_eq!(violation(&fragment), None);
    assert_eq!(violation(&[frame(TEXT, payload)]), Some(Violation::NotUtf8));
}

// === limits ===

#[test]
fn too_much_is_refused_when_it_is_announced() {
    let too_big = Some(Violation::TooBig);
    assert_eq!(violation(&[header(FIN | TEXT, 1000, Form::Middle)]), None);
    assert_eq!(
        violation(&[header(FIN | TEXT, 1001, Form::Middle)]),
        too_big
    );
    assert_eq!(
        violation(&[header(BINARY, (1 << 63) - 1, Form::Long)]),
        too_big
    );
    let first = frame(BINARY, &[1; 600]);
    let rest = header(FIN | CONTINUATION, 400, Form::Middle);
    assert_eq!(violation(&[first.clone(), rest]), None);
    let rest = header(FIN | CONTINUATION, 401, Form::Middle);
    assert_eq!(violation(&[first, frame(FIN | PING, b""), rest]), too_big);
}

#[test]
fn a_message_of_endless_empty_fragments_is_refused() {
    let mut sent = vec![frame(TEXT, b"")];
    sent.extend((1..LIMITS.fragments).map(|_| frame(CONTINUATION, b"")));
    assert_eq!(violation(&sent), None);
    sent.push(frame(FIN | CONTINUATION, b""));
    assert_eq!(violation(&sent), Some(Violation::TooManyFragments));
}

#[test]
fn memory_is_taken_for_what_arrived_and_given_back() {
    let limits = Limits {
        message_bytes: 1 << 30,
        ..LIMITS
    };
    let mut decoder = Decoder::new(limits);
    assert_eq!(decoder.held_bytes(), 0);
    let mut announced = &header(FIN | TEXT, 1 << 30, Form::Long)[..];
    assert_eq!(decoder.decode(&mut announced), Ok(None));
    assert_eq!(decoder.held_bytes(), 0);
    assert_eq!(decoder.decode(&mut &masked(b"abcd")[..]), Ok(None));
    assert!(decoder.held_bytes() <= 8, "{}", decoder.held_bytes());

    let mut decoder = Decoder::new(limits);
    for _ in 0..2 {
        for byte in [frame(FIN | TEXT, &[b'x'; 300]), frame(FIN | PING, b"ping")].concat() {
            let _ = decoder.decode(&mut &[byte][..]);
        }
        assert_eq!(decoder.held_bytes(), 0);
    }
}

// === against another implementation ===

/// Reads what it was given and then would block; swallows what is written.
struct Given<'a>(&'a [u8]);

impl Read for Given<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.0.read(to)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            some => Ok(some),
        }
    }
}

impl Write for Given<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of it, and whether it refuses the rest.
fn oracle(bytes: &[u8], limits: Limits) -> (Vec<Message>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let (mut given, mut messages) = (Given(bytes), Vec::new());
    loop {
        messages.push(match context.read(&mut given) {
            Ok(tungstenite::Message::Text(text)) => Message::Text(text.as_str().to_owned()),
            Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(bytes)) => Message::Ping(bytes.to_vec()),
            Ok(tungstenite::Message::Pong(_)) => Message::Pong,
            // It says so of codes that may not be sent, and closes.
            Ok(tungstenite::Message::Close(Some(frame)))
                if frame.reason.as_str() == "Protocol violation" =>
            {
                return (messages, true);
            }
            Ok(tungstenite::Message::Close(frame)) => {
                messages.push(Message::Close(frame.map(|frame| frame.code.into())));
                return (messages, false);
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("it is not read"),
            Err(tungstenite::Error::Io(_)) => return (messages, false),
            Err(_) => return (messages, true),
        });
    }
}

/// Whether some length is not in its shortest form, which tungstenite lets pass.
fn has_long_form(mut bytes: &[u8]) -> bool {
    loop {
        let (length, form, rest) = match *bytes {
            [_, second, ref rest @ ..] if second & 0x7f < 126 => {
                (u64::from(second & 0x7f), Form::Short, rest)
            }
            [_, 254, a, b, ref rest @ ..] => {
                (u64::from(u16::from_be_bytes([a, b])), Form::Middle, rest)
            }
            [_, 255, a, b, c, d, e, f, g, h, ref rest @ ..] => (
                u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                Form::Long,
                rest,
            ),
            _ => return false,
        };
        if form != shortest(length) {
            return true;
        }
        let skipped = usize::try_from(length).unwrap().saturating_add(4);
        match rest.get(skipped..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "\\PC{0,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..10),
        1 => (120..320_usize).prop_map(|length| vec![b'x'; length]),
    ]
}

/// A message in some fragments with control frames between them.
fn sequences() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![3 => Just(TEXT), 1 => Just(BINARY)];
    let control = prop_oneof![
        8 => Just(Vec::new()),
        1 => vec(any::<u8>(), 0..126).prop_map(|payload| frame(FIN | PING, &payload)),
        1 => Just(frame(FIN | PONG, b"pong")),
    ];
    let cuts = vec((any::<Index>(), control), 0..4);
    (opcode, payloads(), cuts).prop_map(|(opcode, payload, cuts)| {
        let (mut sent, mut rest, mut first) = (Vec::new(), &payload[..], opcode);
        for (cut, control) in cuts {
            let (fragment, after) = rest.split_at(cut.index(rest.len() + 1));
            sent.extend(frame(first, fragment));
            sent.extend(control);
            (rest, first) = (after, CONTINUATION);
        }
        sent.extend(frame(FIN | first, rest));
        sent
    })
}

fn closes() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![990..1020_u16, 2990..5010_u16].prop_filter(
        "tungstenite does not know what IANA calls a bad gateway",
        |code| *code != 1014,
    );
    prop_oneof![
        6 => Just(Vec::new()),
        1 => Just(frame(FIN | CLOSE, b"")),
        1 => (code, payloads()).prop_map(|(code, mut reason)| {
            reason.truncate(123);
            frame(FIN | CLOSE, &close_payload(code, &reason))
        }),
    ]
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    (vec(sequences(), 0..5), closes(), sequences())
        .prop_map(|(some, close, last)| [some.concat(), close, last].concat())
}

/// Cuts into pieces of these sizes, over and over.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    pieces
}

proptest! {
    #[test]
    fn frames_are_read_as_tungstenite_reads_them(
        bytes in streams(),
        sizes in vec(1..40_usize, 1..6),
    ) {
        let outcome = decode(LIMITS, pieces(&bytes, &sizes));
        let (messages, refused) = oracle(&bytes, LIMITS);
        prop_assert_eq!(&outcome.messages, &messages);
        prop_assert_eq!(outcome.violation.is_some(), refused);
        prop_assert_eq!(decode(LIMITS, [&bytes[..]]), outcome);
    }

    #[test]
    fn broken_frames_are_refused_where_tungstenite_refuses_them(
        bytes in streams(),
        flips in vec((any::<Index>(), 0..8_u8), 1..4),
        sizes in vec(1..40_usize, 1..6),
    ) {
        let mut bytes = bytes;
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        prop_assume!(!has_long_form(&bytes));
        let outcome = decode(LIMITS, pieces(&bytes, &sizes));
        let (messages, refused) = oracle(&bytes, LIMITS);
        prop_assume!(outcome.messages.last() != Some(&Message::Close(Some(1014))));
        prop_assert_eq!(&outcome.messages, &messages);
        // Ours does not wait for the end of a frame that is wrong already.
        prop_assert!(outcome.violation.is_some() || !refused);
        prop_assert_eq!(decode(LIMITS, [&bytes[..]]), outcome);
    }

    #[test]
    fn any_bytes_are_read_alike_in_any_pieces(
        bytes in vec(any::<u8>(), 0..300),
        first in prop_oneof![Just(FIN | TEXT), Just(TEXT), Just(FIN | BINARY), any::<u8>()],
        sizes in vec(1..20_usize, 1..6),
    ) {
        let bytes = [&[first, 0x80 | 127 & bytes.len() as u8][..], &KEY, &bytes].concat();
        let whole = decode(LIMITS, [&bytes[..]]);
        prop_assert_eq!(decode(LIMITS, pieces(&bytes, &sizes)), whole);
    }
}
