//! No bytes in whatever pieces make the reader of client frames panic, hold more than has arrived, or
//! read anything else than it reads in one piece.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::session::inbound::{Decoder, Limits, Message, Violation};

const LIMITS: Limits = Limits {
    message_bytes: 4096,
    fragments: 16,
};

/// Reads pieces of that many bytes.
fn read(bytes: &[u8], piece: usize) -> (Vec<Message>, Option<Violation>) {
    let mut decoder = Decoder::new(LIMITS);
    let (mut messages, mut given) = (Vec::new(), 0);
    for mut piece in bytes.chunks(piece) {
        given += piece.len();
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
        assert!(piece.is_empty());
        assert!(decoder.held_bytes() <= (2 * given).min(LIMITS.message_bytes) + 256);
    }
    (messages, None)
}

// The first byte says how the others are cut.
fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(bytes, usize::MAX);
    assert_eq!(read(bytes, 1 + usize::from(*piece % 32)), whole);
});
