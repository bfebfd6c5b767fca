//! permessage-deflate without a socket: what is agreed on, what is compressed, and what may come of a
//! client's compressed bytes. zlib, through Python, is the other side.

use proptest::{collection::vec, prelude::*};
use rowcast::session::{
    deflate::{Agreed, Deflater, MIN_BYTES, inflate},
    inbound::{Decoder, Limits, Message, Violation},
};

use crate::support::frames::{BINARY, CONTINUATION, FIN, PING, RSV1, TEXT, frame};

const LIMIT: usize = 64 * 1024;

/// What a client would send of a text of any length.
fn deflated(text: &[u8]) -> Vec<u8> {
    match Deflater::default().message(text) {
        Some(payload) => payload.to_vec(),
        // In blocks as they are, each with its length, and an empty one whose length is left out.
        None => {
            let blocks = text.chunks(1000).map(|chunk| {
                let length = chunk.len() as u16;
                let head = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
                [&[0][..], &head, chunk].concat()
            });
            [blocks.collect::<Vec<_>>().concat(), vec![0]].concat()
        }
    }
}

/// Inflates what a client sends, of at most `limit` bytes.
fn inflated(payload: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
    inflate(payload.to_vec(), limit)
}

fn answer(offer: &str) -> Option<String> {
    Agreed::among([offer]).map(Agreed::answer)
}

// === the handshake ===

#[test]
fn an_offer_is_answered_without_context_takeover() {
    let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=10; client_no_context_takeover",
        "Permessage-Deflate;server_no_context_takeover",
        "x-webkit-deflate-frame, foo; bar=1, permessage-deflate",
    ] {
        assert_eq!(answer(offer).as_deref(), Some(plain), "{offer}");
    }
    let windowed = format!("{plain}; server_max_window_bits=9");
    for offer in [
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits = \"9\"",
    ] {
        assert_eq!(answer(offer), Some(windowed.clone()), "{offer}");
    }
}

#[test]
fn an_offer_against_the_rules_is_passed_over() {
    for offer in [
        "",
        "permessage-bzip2",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; client_max_window_bits=0",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; unknown",
        "permessage-deflate;",
    ] {
        assert_eq!(answer(offer), None, "{offer}");
        let second = Agreed::among([offer, "permessage-deflate; server_max_window_bits=8"]);
        assert!(second.is_some_and(|agreed| agreed.covers(256) && !agreed.covers(257)));
    }
    assert!(
        Agreed::among(["permessage-deflate"])
            .unwrap()
            .covers(usize::MAX)
    );
}

// === outwards ===

#[test]
fn zlib_reads_what_is_compressed_each_message_on_its_own() {
    let mut deflater = Deflater::default();
    let event = r#"{"type":"patient","op":"update","row":{"id":17,"name":"王秀英"}}"#.repeat(20);
    let first = deflater.message(event.as_bytes()).unwrap();
    assert!(first.len() < event.len() / 4, "{}", first.len());
    assert_eq!(deflater.message(event.as_bytes()), Some(first.clone()));
    let hex: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
    let script = format!(
        "import zlib; o = zlib.decompressobj(-15); \
         print(o.decompress(bytes.fromhex('{hex}0000ffff')).decode(), o.eof, o.unused_data)"
    );
    let ran = std::process::Command::new("python3")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        format!("{event} False b''\n")
    );
}

#[test]
fn what_gains_nothing_is_not_compressed() {
    let mut deflater = Deflater::default();
    assert_eq!(deflater.message(&[b'x'; MIN_BYTES - 1]), None);
    assert!(deflater.message(&[b'x'; MIN_BYTES]).is_some());
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(5000)
    .collect();
    assert_eq!(deflater.message(&noise), None);
    assert!(deflater.message(&[b'x'; 5000]).is_some());
}

// === inwards ===

/// RFC 7692 §7.2.3: the same message in all the forms that a client may give it.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let examples: [&[u8]; 5] = [
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",
        b"\x00\x05\x00\xfa\xffHello\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00",
    ];
    for example in examples {
        assert_eq!(
            inflated(example, LIMIT).as_deref(),
            Ok(&b"Hello"[..]),
            "{example:x?}"
        );
    }
    assert_eq!(inflated(b"\x00", LIMIT), Ok(vec![]));
    // The message after it, which refers to it.
    assert_eq!(
        inflated(b"\xf2\x00\x11\x00\x00", LIMIT),
        Err(Violation::Protocol)
    );
}

#[test]
fn what_is_cut_off_or_goes_on_is_refused() {
    let text: Vec<String> = (0..99).map(|n| format!("row {n}")).collect();
    let whole = deflated(text.concat().as_bytes());
    assert!(inflated(&whole, LIMIT).is_ok());
    for end in 0..whole.len() {
        assert_eq!(
            inflated(&whole[..end], LIMIT),
            Err(Violation::Protocol),
            "{end}"
        );
    }
    for bytes in [
        &b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00\x00"[..],
        b"\x07",
        b"\xff\xff\xff",
    ] {
        assert_eq!(
            inflated(bytes, LIMIT),
            Err(Violation::Protocol),
            "{bytes:x?}"
        );
    }
}

#[test]
fn a_bomb_costs_the_limit_and_no_more() {
    let bomb = deflated(&vec![b'x'; 64 << 20]);
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    assert_eq!(inflated(&bomb, LIMIT), Err(Violation::TooBig));
    for (length, limit) in [(0, 0), (1, 1), (1000, 1000), (LIMIT, LIMIT)] {
        let text = vec![b'x'; length];
        assert_eq!(inflated(&deflated(&text), limit).as_ref(), Ok(&text));
        if limit > 0 {
            assert_eq!(
                inflated(&deflated(&text), limit - 1),
                Err(Violation::TooBig)
            );
        }
    }
}

fn read(sent: &[Vec<u8>]) -> Result<Vec<Message>, Violation> {
    let limits = Limits {
        message_bytes: 1000,
        fragments: 20,
    };
    let mut decoder = Decoder::new(limits).with_deflate();
    let (bytes, mut messages) = (sent.concat(), Vec::new());
    for mut byte in bytes.chunks(1) {
        messages.extend(decoder.decode(&mut byte)?);
    }
    assert_eq!(decoder.held_bytes(), 0);
    Ok(messages)
}

#[test]
fn compressed_and_plain_messages_come_as_the_client_likes() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let sent = [
        frame(FIN | RSV1 | TEXT, hello),
        frame(FIN | TEXT, b"plain"),
        frame(RSV1 | TEXT, &hello[..3]),
        frame(FIN | PING, b""),
        frame(FIN | CONTINUATION, &hello[3..]),
        frame(FIN | RSV1 | BINARY, hello),
    ];
    let hello = Message::Text("Hello".to_owned());
    let expected = vec![
        hello.clone(),
        Message::Text("plain".to_owned()),
        Message::Ping(vec![]),
        hello,
        Message::Binary(b"Hello".to_vec()),
    ];
    assert_eq!(read(&sent), Ok(expected));
}

#[test]
fn compressed_messages_keep_the_same_rules() {
    let refused = [
        (
            vec![frame(FIN | RSV1 | TEXT, &deflated(&[b'x'; 1001]))],
            Violation::TooBig,
        ),
        (
            vec![frame(FIN | RSV1 | TEXT, &deflated(b"\xff"))],
            Violation::NotUtf8,
        ),
        (vec![frame(FIN | RSV1 | TEXT, b"\x07")], Violation::Protocol),
        (vec![frame(FIN | RSV1 | PING, b"")], Violation::Protocol),
        (
            vec![
                frame(RSV1 | TEXT, b""),
                frame(FIN | RSV1 | CONTINUATION, b"\0"),
            ],
            Violation::Protocol,
        ),
        (vec![frame(FIN | 0x20 | TEXT, b"")], Violation::Protocol),
    ];
    for (sent, violation) in refused {
        assert_eq!(read(&sent), Err(violation), "{sent:x?}");
    }
}

proptest! {
    #[test]
    fn what_is_compressed_is_read_back(
        pieces in vec("[a-f]{0,9}|\\PC{0,9}", 0..200),
        repeated in 1..20_usize,
    ) {
        let text = pieces.concat().repeat(repeated);
        let whole = Ok(text.clone().into_bytes());
        prop_assert_eq!(&inflated(&deflated(text.as_bytes()), text.len()), &whole);
        if let Some(payload) = Deflater::default().message(text.as_bytes()) {
            prop_assert!(payload.len() < text.len());
            prop_assert_eq!(&inflated(&payload, text.len()), &whole);
        }
    }

    #[test]
    fn any_bytes_inflate_to_no_more_than_the_limit(bytes in vec(any::<u8>(), 0..300), limit in 0..2000_usize) {
        if let Ok(message) = inflated(&bytes, limit) {
            prop_assert!(message.len() <= limit);
        }
    }
}
