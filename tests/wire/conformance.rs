//! RFC 6455 from a client's side, frame by frame, on the real server: what is answered, and with which
//! code what breaks a rule is closed. The groups are those of Autobahn|Testsuite (tests/autobahn),
//! which wants a Python 2.7; this wants nothing.

use super::care;
use crate::support::{
    Raw, Server,
    frames::{
        BINARY, CLOSE, CONTINUATION, FIN, Form, PING, PONG, TEXT, close_payload, frame, header,
        masked,
    },
};

/// Every text that is sent there is answered with one text.
const ECHO: &str = "/chat/socket/";

/// The ping behind a sequence that must leave the socket open.
const LAST: &[u8] = b"the last";

/// What the server says, one thing for each frame.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Text,
    Pong(Vec<u8>),
    /// The connection is over, after a close frame with this code.
    Closed(Option<u16>),
    /// The connection is over without one.
    Cut,
}

use Said::{Closed, Pong, Text};

/// What is sent, and what the server says to it.
struct Case {
    what: String,
    sent: Vec<u8>,
    said: Vec<Said>,
}

fn case(what: impl Into<String>, sent: &[Vec<u8>], said: &[Said]) -> Case {
    Case {
        what: what.into(),
        sent: sent.concat(),
        said: said.to_vec(),
    }
}

fn closed(what: impl Into<String>, sent: &[Vec<u8>], code: u16) -> Case {
    case(what, sent, &[Closed(Some(code))])
}

/// Opens a socket, sends what a case says in pieces of so many bytes, and listens until the server has
/// closed it or has answered a ping behind it all.
async fn said(server: &Server, case: &Case, piece: usize) -> Vec<Said> {
    let mut raw = Raw::open(server, ECHO).await;
    for piece in case.sent.chunks(piece) {
        raw.bytes(piece).await;
    }
    let stays_open = !matches!(case.said.last(), Some(Closed(_)));
    if stays_open {
        raw.bytes(&frame(FIN | PING, LAST)).await;
    }
    let mut said = Vec::new();
    loop {
        said.push(match raw.next().await {
            Some((0x1, _)) => Text,
            Some((0xa, payload)) if payload == LAST => return said,
            Some((0xa, payload)) => Pong(payload),
            Some((0x8, payload)) => {
                said.push(Closed(
                    payload.first_chunk().map(|c| u16::from_be_bytes(*c)),
                ));
                // Behind its close the server says nothing and ends the connection.
                match raw.next().await {
                    None => return said,
                    Some(more) => panic!("{}: {more:?} behind a close", case.what),
                }
            }
            Some(other) => panic!("{}: {other:?}", case.what),
            None => Said::Cut,
        });
        if said.last() == Some(&Said::Cut) {
            return said;
        }
    }
}

async fn hold(cases: Vec<Case>) {
    let server = care();
    for case in &cases {
        let pieces = [case.sent.len().max(1), 1 + case.sent.len() / 7];
        for piece in pieces {
            let said = said(&server, case, piece).await;
            assert_eq!(said, case.said, "{}, in pieces of {piece} bytes", case.what);
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(FIN | PING, payload)
}

fn pong(payload: &[u8]) -> Said {
    Pong(payload.to_vec())
}

#[tokio::test]
async fn texts_of_every_length_are_read_and_bytes_are_closed_with_1003() {
    let lengths = [0, 1, 125, 126, 127, 128, 65_535, 65_536];
    let mut cases: Vec<Case> = lengths
        .map(|length| {
            case(
                format!("{length} bytes"),
                &[text(&"*".repeat(length))],
                &[Text],
            )
        })
        .into();
    cases.push(closed(
        "one byte too many",
        &[text(&"*".repeat(65_537))],
        1009,
    ));
    for length in [0, 1, 126, 65_536] {
        let sent = [frame(FIN | BINARY, &vec![0xfe; length])];
        cases.push(closed(format!("{length} bytes of no text"), &sent, 1003));
    }
    let short_in_middle = [header(FIN | TEXT, 5, Form::Middle), masked(b"Hello")];
    cases.push(closed("a short length in 16 bits", &short_in_middle, 1002));
    let short_in_long = [header(FIN | TEXT, 5, Form::Long), masked(b"Hello")];
    cases.push(closed("a short length in 64 bits", &short_in_long, 1002));
    let uppermost = [header(FIN | TEXT, 1 << 63, Form::Long)];
    cases.push(closed(
        "a length whose uppermost bit is set",
        &uppermost,
        1002,
    ));
    let huge = [header(FIN | TEXT, 1 << 40, Form::Long)];
    cases.push(closed("a terabyte, announced", &huge, 1009));
    hold(cases).await;
}

#[tokio::test]
async fn pings_are_answered_with_what_was_in_them_and_pongs_with_nothing() {
    let full = [0xfe; 125];
    let ten: Vec<Vec<u8>> = (0..10).map(|n| ping(&[n])).collect();
    let ten_pongs: Vec<Said> = (0..10).map(|n| pong(&[n])).collect();
    hold(vec![
        case("an empty ping", &[ping(b"")], &[pong(b"")]),
        case("a ping of text", &[ping(b"Hello")], &[pong(b"Hello")]),
        case(
            "a ping of bytes",
            &[ping(b"\x00\xff\xfe")],
            &[pong(b"\x00\xff\xfe")],
        ),
        case("a full ping", &[ping(&full)], &[pong(&full)]),
        closed("a ping of 126 bytes", &[ping(&[0; 126])], 1002),
        case(
            "a pong that nobody asked for",
            &[frame(FIN | PONG, b"")],
            &[],
        ),
        case("one with a payload", &[frame(FIN | PONG, b"unasked")], &[]),
        case(
            "it and a ping",
            &[frame(FIN | PONG, b"unasked"), ping(b"?")],
            &[pong(b"?")],
        ),
        case("ten pings", &ten, &ten_pongs),
    ])
    .await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_are_closed_with_1002() {
    let mut cases = Vec::new();
    for bits in 1..8_u8 {
        let first = FIN | bits << 4;
        let bad = frame(first | TEXT, b"Hello");
        cases.push(closed(
            format!("reserved bits {bits}"),
            std::slice::from_ref(&bad),
            1002,
        ));
        let after = case(
            format!("reserved bits {bits} after a text"),
            &[text("Hello"), bad, ping(b"")],
            &[Text, Closed(Some(1002))],
        );
        cases.push(after);
        for opcode in [PING, CLOSE, BINARY] {
            let sent = [frame(first | opcode, b"")];
            cases.push(closed(
                format!("reserved bits {bits} with opcode {opcode}"),
                &sent,
                1002,
            ));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        for payload in [&b""[..], b"reserved"] {
            let sent = [text("Hello"), frame(FIN | opcode, payload), ping(b"")];
            let said = [Text, Closed(Some(1002))];
            cases.push(case(format!("opcode {opcode}"), &sent, &said));
        }
    }
    for sent in [
        vec![FIN | TEXT, 2, b'h', b'i'],
        vec![FIN | PING, 0],
        vec![FIN | CLOSE, 0],
    ] {
        cases.push(closed("no mask", &[sent], 1002));
    }
    hold(cases).await;
}

#[tokio::test]
async fn fragments_make_one_message_and_control_frames_may_stand_between_them() {
    let first = frame(TEXT, b"frag");
    let middle = frame(CONTINUATION, b"me");
    let last = frame(FIN | CONTINUATION, b"nt");
    let stray = frame(CONTINUATION, b"x");
    let stray_last = frame(FIN | CONTINUATION, b"x");
    let one = |frame: &Vec<u8>| [frame.clone()];
    let many: Vec<Vec<u8>> = std::iter::once(frame(TEXT, &[b'*'; 1300]))
        .chain((0..48).map(|_| frame(CONTINUATION, &[b'*'; 1300])))
        .chain([frame(FIN | CONTINUATION, b"")])
        .collect();
    let mut too_many = many.clone();
    too_many.insert(5, frame(CONTINUATION, &[b'*'; 2000]));
    hold(vec![
        closed(
            "a ping in fragments",
            &[frame(PING, b"a"), stray_last.clone()],
            1002,
        ),
        closed(
            "a pong in fragments",
            &[frame(PONG, b"a"), stray_last.clone()],
            1002,
        ),
        closed(
            "a close in fragments",
            &[frame(CLOSE, b""), stray_last.clone()],
            1002,
        ),
        case("two fragments", &[first.clone(), last.clone()], &[Text]),
        case(
            "three",
            &[first.clone(), middle.clone(), last.clone()],
            &[Text],
        ),
        case(
            "a ping between",
            &[first.clone(), ping(b"?"), last.clone()],
            &[pong(b"?"), Text],
        ),
        case(
            "a pong between",
            &[first.clone(), frame(FIN | PONG, b""), last.clone()],
            &[Text],
        ),
        case(
            "pings between all of them, and another message",
            &[
                first.clone(),
                ping(b"1"),
                middle.clone(),
                ping(b"2"),
                last.clone(),
                text("next"),
            ],
            &[pong(b"1"), pong(b"2"), Text, Text],
        ),
        case(
            "empty fragments",
            &[frame(TEXT, b""), frame(CONTINUATION, b""), last.clone()],
            &[Text],
        ),
        case(
            "nothing in fragments",
            &[frame(TEXT, b""), frame(FIN | CONTINUATION, b"")],
            &[Text],
        ),
        case("64 kB in fragments of 1,300 bytes", &many, &[Text]),
        closed("too much in fragments", &too_many, 1009),
        closed("a fragment of nothing", &one(&stray), 1002),
        closed("the last fragment of nothing", &one(&stray_last), 1002),
        closed(
            "bytes between",
            &[first.clone(), frame(FIN | BINARY, b"x")],
            1002,
        ),
        closed("a text between", &[first.clone(), text("x")], 1002),
        closed("two beginnings", &[first.clone(), first.clone()], 1002),
        case(
            "a fragment behind the last",
            &[first, last, stray_last],
            &[Text, Closed(Some(1002))],
        ),
        closed(
            "fragments of no text",
            &[frame(BINARY, b"x"), frame(FIN | CONTINUATION, b"y")],
            1003,
        ),
    ])
    .await;
}

#[tokio::test]
async fn text_is_utf_8_and_refused_where_it_ceases_to_be() {
    let valid = [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{feff}",
        "王秀英😀",
    ];
    let mut cases = Vec::new();
    for valid in valid {
        cases.push(case(valid, &[text(valid)], &[Text]));
        let bytes = valid.chars().next_back().map_or(0, char::len_utf8);
        let (first, last) = valid.as_bytes().split_at(valid.len() - bytes / 2);
        let sent = [frame(TEXT, first), frame(FIN | CONTINUATION, last)];
        cases.push(case(format!("{valid} in fragments"), &sent, &[Text]));
    }
    let invalid: [&[u8]; 14] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\x80",
        b"\xbf\x80",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xfe",
        b"\xe7\x8e",
    ];
    for invalid in invalid {
        let what = format!("{invalid:x?}");
        cases.push(closed(&what, &[frame(FIN | TEXT, invalid)], 1007));
        let sent = [frame(TEXT, invalid), frame(FIN | CONTINUATION, b"")];
        cases.push(closed(format!("{what} in a fragment"), &sent, 1007));
    }
    // What comes to its end here is neither the message nor the frame.
    let early = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90";
    cases.push(closed(
        "a fragment, and no end",
        &[frame(TEXT, early)],
        1007,
    ));
    let half = [header(FIN | TEXT, 40, Form::Short), masked(early)];
    cases.push(closed("half a frame", &half, 1007));
    hold(cases).await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_nothing_behind_it_is_read() {
    let close = |code, reason: &[u8]| frame(FIN | CLOSE, &close_payload(code, reason));
    let mut cases = vec![
        case(
            "an empty close",
            &[frame(FIN | CLOSE, b"")],
            &[Closed(None)],
        ),
        closed("a close of one byte", &[frame(FIN | CLOSE, b"x")], 1002),
        closed(
            "a close with a reason",
            &[close(1000, "Schönen Tag".as_bytes())],
            1000,
        ),
        closed("one with the longest", &[close(1000, &[b'*'; 123])], 1000),
        closed("one that is too long", &[close(1000, &[b'*'; 124])], 1002),
        closed(
            "one whose reason is no text",
            &[close(1000, b"\xce\xba\xed\xa0\x80")],
            1007,
        ),
        closed("two closes", &[close(1000, b""), close(1001, b"")], 1000),
        closed("a ping behind it", &[close(1000, b""), ping(b"?")], 1000),
        closed("a text behind it", &[close(1000, b""), text("x")], 1000),
        closed(
            "a fragment before it and one behind",
            &[
                frame(TEXT, b"frag"),
                close(1000, b""),
                frame(FIN | CONTINUATION, b"ment"),
            ],
            1000,
        ),
        case(
            "a text before it",
            &[text("x"), close(1000, b"")],
            &[Text, Closed(Some(1000))],
        ),
    ];
    let valid = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    cases.extend(valid.map(|code| closed(format!("code {code}"), &[close(code, b"")], code)));
    let invalid = [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ];
    cases.extend(invalid.map(|code| closed(format!("code {code}"), &[close(code, b"")], 1002)));
    hold(cases).await;
}
