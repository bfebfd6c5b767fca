//! permessage-deflate (RFC 7692) as it can be shared: every message is compressed on its own, without
//! what went before, so that one compression serves all sockets that agreed to it, and a socket that
//! waits holds no window.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use miniz_oxide::{
    DataFormat,
    deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress},
    inflate::{
        TINFLStatus,
        core::{
            DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        },
    },
};

use super::inbound::Violation;
use crate::protocol::{Encoded, MAX_HEADER_BYTES, put_header};

/// The extension's name.
const NAME: &str = "permessage-deflate";

/// What a flush ends with, and a message leaves out.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// [`TAIL`], and an empty last block: what was cut off in the middle swallows it, and shows.
const WHOLE_TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// The first byte of a compressed text message in one frame.
const COMPRESSED_TEXT: u8 = 0xc1;

/// The widest window that there is, as a power of two: what refers to nothing beyond it fits every client
/// that has not said less.
const WIDEST: u8 = 15;

/// Smaller texts are not compressed: they fit into a packet as they are.
pub const MIN_BYTES: usize = 256;

/// 1 to 9. At 6 a text of 60 kB becomes 6 % shorter than at 4, in almost twice the time; one of 1 KiB
/// becomes no shorter, and takes 24 µs.
const LEVEL: u8 = 4;

/// How much room a message is given at first, as a multiple of its bytes: what JSON needs.
const FIRST_ROOM: usize = 6;

/// What was agreed on with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// How far back what the client is sent may refer, as a power of two; if the client has said.
    window_bits: Option<u8>,
}

/// Compresses messages, one after the other. It holds a quarter of a megabyte.
pub struct Deflater {
    compressor: Box<CompressorOxide>,
}

impl Agreed {
    /// Takes the first offer that can be kept, of the values of `Sec-WebSocket-Extensions`.
    pub fn among<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut offers = headers.into_iter().flat_map(|header| header.split(','));
        offers.find_map(Self::offer)
    }

    /// The value of `Sec-WebSocket-Extensions` that says so.
    pub fn answer(self) -> String {
        let mut answer = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.window_bits {
            answer.push_str(&format!("; server_max_window_bits={bits}"));
        }
        answer
    }

    /// Whether a text of so many bytes may be sent compressed: whatever fits into the window refers to
    /// nothing beyond it.
    pub fn covers(self, text_bytes: usize) -> bool {
        self.covers_all() || self.window_bits.is_none_or(|bits| text_bytes <= 1 << bits)
    }

    /// Whether texts of any length may be.
    pub fn covers_all(self) -> bool {
        self.window_bits.is_none_or(|bits| bits == WIDEST)
    }

    /// One offer (RFC 7692 §7.1); `None` if it is of another extension, or against the rules.
    fn offer(offer: &str) -> Option<Self> {
        let mut parameters = offer.split(';').map(str::trim);
        if !parameters.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut agreed = Self { window_bits: None };
        let mut seen = Vec::new();
        for parameter in parameters {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name.trim(), Some(window_bits(value.trim())?)),
                None => (parameter, None),
            };
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                // Whatever window the client has, ours holds it.
                ("client_max_window_bits", _) => {}
                ("server_max_window_bits", Some(bits)) => agreed.window_bits = Some(bits),
                _ => return None,
            }
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        Some(agreed)
    }
}

/// 8 to 15, perhaps in quotes.
fn window_bits(value: &str) -> Option<u8> {
    let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    match bare.unwrap_or(value) {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

thread_local! {
    /// One for each thread that writes: what is compressed is compressed once for all sockets, so that it
    /// need not be shared.
    static DEFLATER: RefCell<Deflater> = RefCell::default();
}

/// The whole frame in which a client gets a text, of whom this was agreed.
pub fn framed(text: &Encoded, agreed: Option<Agreed>) -> &Bytes {
    let shorter = match agreed.is_some_and(|agreed| agreed.covers(text.len())) {
        true => text.shorter(compressed),
        false => None,
    };
    shorter.unwrap_or_else(|| text.frame())
}

fn compressed(text: &[u8]) -> Option<Bytes> {
    let payload = DEFLATER.with_borrow_mut(|deflater| deflater.message(text))?;
    let mut frame = BytesMut::with_capacity(MAX_HEADER_BYTES + payload.len());
    put_header(&mut frame, COMPRESSED_TEXT, payload.len());
    frame.extend_from_slice(&payload);
    Some(frame.freeze())
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflater")
    }
}

impl Default for Deflater {
    fn default() -> Self {
        let mut compressor = Box::<CompressorOxide>::default();
        compressor.set_format_and_level(DataFormat::Raw, LEVEL);
        Self { compressor }
    }
}

impl Deflater {
    /// The payload of a compressed message, to be sent with RSV1; `None` if the text is too short, or
    /// would become no shorter.
    pub fn message(&mut self, text: &[u8]) -> Option<Bytes> {
        if text.len() < MIN_BYTES {
            return None;
        }
        self.compressor.reset();
        let mut payload = vec![0; text.len()];
        let flush = TDEFLFlush::Sync;
        let (status, read, written) = compress(&mut self.compressor, text, &mut payload, flush);
        // What has filled the room has not gained anything, and may not be whole.
        if status != TDEFLStatus::Okay || read < text.len() || written == payload.len() {
            return None;
        }
        let payload = payload[..written].strip_suffix(&TAIL)?;
        Some(Bytes::copy_from_slice(payload))
    }
}

/// The message in a client's compressed payload, of at most `limit` bytes: what would become more costs
/// no more than that.
///
/// # Errors
/// - [`Violation::TooBig`]: it is larger.
/// - [`Violation::Protocol`]: it is no whole message, or refers to one before it.
pub fn inflate(mut payload: Vec<u8>, limit: usize) -> Result<Vec<u8>, Violation> {
    payload.extend_from_slice(&WHOLE_TAIL);
    // One byte over the limit shows that there is more.
    let most = limit.saturating_add(1);
    let mut message = vec![0; payload.len().saturating_mul(FIRST_ROOM).min(most)];
    let mut state = Box::<DecompressorOxide>::default();
    let (mut read, mut written) = (0, 0);
    loop {
        let rest = &payload[read..];
        // One buffer for all of it: what refers to before its beginning is refused.
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, used, made) = decompress(&mut state, rest, &mut message, written, flags);
        read += used;
        written += made;
        match status {
            TINFLStatus::Done => break,
            TINFLStatus::HasMoreOutput if message.len() < most => {
                message.resize(message.len().saturating_mul(2).min(most), 0);
            }
            TINFLStatus::HasMoreOutput => return Err(Violation::TooBig),
            _ => return Err(Violation::Protocol),
        }
    }
    if written > limit {
        return Err(Violation::TooBig);
    }
    match ends_well(&payload[read..]) {
        true => {
            message.truncate(written);
            Ok(message)
        }
        false => Err(Violation::Protocol),
    }
}

/// Whether the last block may be followed by this: nothing, if it was [`WHOLE_TAIL`]'s; if it was the
/// client's own, the byte that RFC 7692 §7.2.3.4 puts behind that, which some leave out.
fn ends_well(rest: &[u8]) -> bool {
    matches!(rest.strip_suffix(&WHOLE_TAIL), Some([] | [0])) || rest.is_empty()
}
