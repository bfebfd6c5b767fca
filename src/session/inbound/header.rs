//! The header of a frame as a client must send it (RFC 6455 §5.2): what is wrong with it shows at the
//! first byte that makes it wrong.

use super::Violation;

/// The longest header: two bytes, a length of eight, a mask of four.
const MAX_HEADER_BYTES: usize = 14;

/// The most bytes of a control frame's payload.
const MAX_CONTROL_BYTES: u64 = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A fragment after the first.
    Continuation,
    /// Text, or its first fragment.
    Text,
    /// Bytes, or their first fragment.
    Binary,
    /// The end of the connection.
    Close,
    /// A question.
    Ping,
    /// Its answer.
    Pong,
}

impl Opcode {
    /// Whether it may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub opcode: Opcode,
    /// The last frame of its message.
    pub is_final: bool,
    /// The first frame of a message that is compressed, if that was agreed on (RFC 7692 §6).
    pub is_compressed: bool,
    /// What its payload is masked with.
    pub mask: [u8; 4],
    /// The bytes of its payload.
    pub payload_bytes: usize,
}

/// The beginning of a header that is incomplete.
#[derive(Debug, Default)]
pub struct Head {
    bytes: [u8; MAX_HEADER_BYTES],
    len: u8,
}

impl Head {
    /// Whether no header has begun.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Consumes a header from `input`, or all of `input` if it ends before the header does.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Violation> {
        if self.len == 0
            && let Some((header, len)) = parse(input)?
        {
            *input = &input[len..];
            return Ok(Some(header));
        }
        while let [first, rest @ ..] = *input {
            self.bytes[usize::from(self.len)] = *first;
            self.len += 1;
            *input = rest;
            if let Some((header, _)) = parse(&self.bytes[..usize::from(self.len)])? {
                self.len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

/// The header at the beginning of `bytes` and its length, or `None` if more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    let is_final = first & 0x80 != 0;
    let opcode = opcode(*first)?;
    let is_compressed = first & 0x40 != 0;
    let may_be_compressed = matches!(opcode, Opcode::Text | Opcode::Binary);
    // The other reserved bits belong to no extension of ours. Control frames are never fragments.
    if first & 0x30 != 0 || is_compressed && !may_be_compressed || opcode.is_control() && !is_final
    {
        return Err(Violation::Protocol);
    }
    let Some(second) = bytes.get(1) else {
        return Ok(None);
    };
    // A client masks everything.
    if second & 0x80 == 0 {
        return Err(Violation::Protocol);
    }
    let Some((length, len)) = length(second & 0x7f, &bytes[2..])? else {
        return Ok(None);
    };
    if opcode.is_control() && length > MAX_CONTROL_BYTES {
        return Err(Violation::Protocol);
    }
    let Some((mask, _)) = bytes[2 + len..].split_first_chunk() else {
        return Ok(None);
    };
    let header = Header {
        opcode,
        is_final,
        is_compressed,
        mask: *mask,
        payload_bytes: usize::try_from(length).map_err(|_| Violation::TooBig)?,
    };
    Ok(Some((header, 2 + len + mask.len())))
}

fn opcode(first: u8) -> Result<Opcode, Violation> {
    match first & 0x0f {
        0x0 => Ok(Opcode::Continuation),
        0x1 => Ok(Opcode::Text),
        0x2 => Ok(Opcode::Binary),
        0x8 => Ok(Opcode::Close),
        0x9 => Ok(Opcode::Ping),
        0xa => Ok(Opcode::Pong),
        _ => Err(Violation::Protocol),
    }
}

/// The length of the payload, and how many bytes behind the second one say it. The shortest form must
/// be used, and the uppermost of 64 bits must not.
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    let (length, len, least) = match short {
        126 => match bytes.first_chunk() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2, 126),
            None => return Ok(None),
        },
        127 => match bytes.first_chunk() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, 0),
    };
    if length < least || length >> 63 != 0 {
        return Err(Violation::Protocol);
    }
    Ok(Some((length, len)))
}
