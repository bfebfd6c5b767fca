//! WebSocket frames by hand, right ones and wrong ones, as a client sends them.

/// The first byte of a frame that is not the last of its message lacks this bit.
pub const FIN: u8 = 0x80;
/// A reserved bit, which an extension may give a meaning.
pub const RSV1: u8 = 0x40;
/// A fragment after the first.
pub const CONTINUATION: u8 = 0x0;
/// Text.
pub const TEXT: u8 = 0x1;
/// Bytes.
pub const BINARY: u8 = 0x2;
/// The end.
pub const CLOSE: u8 = 0x8;
/// A question.
pub const PING: u8 = 0x9;
/// An answer.
pub const PONG: u8 = 0xa;

/// What the frames made here are masked with.
pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In seven bits.
    Short,
    /// In sixteen bits.
    Middle,
    /// In 64 bits.
    Long,
}

/// The shortest form, which alone is right.
pub fn shortest(length: u64) -> Form {
    match length {
        0..=125 => Form::Short,
        126..=0xffff => Form::Middle,
        _ => Form::Long,
    }
}

/// A header with any first byte, any length in any form, masked with `KEY`.
pub fn header(first: u8, length: u64, form: Form) -> Vec<u8> {
    let mut header = vec![first];
    match form {
        Form::Short => header.push(0x80 | length as u8),
        Form::Middle => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        Form::Long => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(KEY);
    header
}

/// A payload as `KEY` masks it.
pub fn masked(payload: &[u8]) -> Vec<u8> {
    let keys = KEY.iter().cycle();
    payload
        .iter()
        .zip(keys)
        .map(|(byte, key)| byte ^ key)
        .collect()
}

/// A frame whose first byte is `first`.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    let mut frame = header(first, length, shortest(length));
    frame.extend(masked(payload));
    frame
}

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason].concat()
}
