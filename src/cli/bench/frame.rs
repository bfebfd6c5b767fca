//! WebSocket frames (RFC 6455 §5), as far as a client needs them that only counts.

/// What a frame carries, by its opcode.
pub const TEXT: u8 = 1;
/// As [`TEXT`], not UTF-8.
pub const BINARY: u8 = 2;
/// The last frame of a connection.
pub const CLOSE: u8 = 8;
/// To be answered with a [`PONG`].
pub const PING: u8 = 9;
/// The answer to a [`PING`].
pub const PONG: u8 = 10;

/// The longest payload that the short form of a length can say.
const SHORT: usize = 125;

/// The head of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The opcode; 0 continues a message.
    pub opcode: u8,
    /// Whether the message is compressed (RFC 7692).
    pub compressed: bool,
    /// Bytes of this header.
    pub len: usize,
    /// Bytes of the payload behind it.
    pub payload: u64,
}

impl Header {
    /// The header that `bytes` begin with; none where more is needed.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else {
            return None;
        };
        // A server does not mask. If one did, nothing would be found in what it sends.
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (len, payload) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
            short => (2, u64::from(short)),
        };
        Some(Self {
            opcode: first & 0x0f,
            compressed: first & 0x40 != 0,
            len: len + mask,
            payload,
        })
    }
}

/// Appends a frame of a client. The mask is zero: it protects proxies from what pages make browsers
/// send, and this is no browser.
pub fn write(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        short if short <= SHORT => out.push(0x80 | short as u8),
        middle if u16::try_from(middle).is_ok() => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_is_written_as_it_is_read() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            write(TEXT, &vec![b'x'; len], &mut out);
            let header = Header::read(&out).unwrap();
            assert_eq!((header.opcode, header.payload), (TEXT, len as u64));
            assert_eq!(header.len + len, out.len());
            for cut in 0..header.len - 4 {
                assert_eq!(Header::read(&out[..cut]), None, "{len}, cut at {cut}");
            }
        }
    }
}
