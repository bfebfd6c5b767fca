//! A text as it goes over the wire: encoded once, whole, and shared by every socket that is sent it.
//!
//! Follows RFC 6455 §5.2. What a server sends is not masked, so the same bytes serve everybody.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

/// The first byte of a text message in one frame.
const FINAL_TEXT: u8 = 0x81;

/// The longest header of a frame that is not masked.
pub const MAX_HEADER_BYTES: usize = 10;

/// A text message as one whole WebSocket frame: header and payload. Dereferences to the text, which
/// is UTF-8. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Encodes a text.
    pub fn of(text: &str) -> Self {
        let mut frame = BytesMut::with_capacity(MAX_HEADER_BYTES + text.len());
        put_header(&mut frame, FINAL_TEXT, text.len());
        frame.put_slice(text.as_bytes());
        Self(frame.freeze())
    }

    /// The whole frame, as it is written to a socket.
    pub fn frame(&self) -> &Bytes {
        &self.0
    }
}

/// Writes the header of a frame that is not masked; `first` is its first byte, `length` that of
/// its payload.
pub fn put_header(out: &mut impl BufMut, first: u8, length: usize) {
    out.put_u8(first);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let header = match self.0.get(1) {
            Some(126) => 4,
            Some(127) => MAX_HEADER_BYTES,
            _ => 2,
        };
        &self.0[header..]
    }
}

impl From<String> for Encoded {
    fn from(text: String) -> Self {
        Self::of(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_framed_and_read_back() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10)] {
            let text = "x".repeat(length);
            let encoded = Encoded::of(&text);
            assert_eq!(encoded.frame().len(), header + length);
            assert_eq!(&*encoded, text.as_bytes());
        }
        assert_eq!(&Encoded::of("ab").frame()[..], b"\x81\x02ab");
    }
}
