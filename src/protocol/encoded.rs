//! A text as it goes over the wire: encoded once, whole, and shared by every socket that is sent it.
//!
//! Follows RFC 6455 §5.2. What a server sends is not masked, so the same bytes serve everybody.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};

/// The first byte of a text message in one frame.
const FINAL_TEXT: u8 = 0x81;

/// The longest header of a frame that is not masked.
pub const MAX_HEADER_BYTES: usize = 10;

/// A text message as one whole WebSocket frame: header and payload. Dereferences to the text, which
/// is UTF-8. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Encoded(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    plain: Bytes,
    /// The same in fewer bytes; none where it would not be fewer.
    shorter: OnceLock<Option<Bytes>>,
    grown: Grown,
}

/// Bytes that were made since something was first counted, and the sum that they count in.
#[derive(Debug, Default)]
pub struct Grown {
    bytes: AtomicUsize,
    sum: OnceLock<Arc<AtomicUsize>>,
}

impl Encoded {
    /// Encodes a text.
    pub fn of(text: &str) -> Self {
        let mut frame = BytesMut::with_capacity(MAX_HEADER_BYTES + text.len());
        put_header(&mut frame, FINAL_TEXT, text.len());
        frame.put_slice(text.as_bytes());
        Self(Arc::new(Forms {
            plain: frame.freeze(),
            shorter: OnceLock::new(),
            grown: Grown::default(),
        }))
    }

    /// The whole frame, as it is written to a socket.
    pub fn frame(&self) -> &Bytes {
        &self.0.plain
    }

    /// The whole frame of the same message in fewer bytes, for sockets that can read it: made by the first
    /// who asks, and kept for all. `None` where nothing shorter could be made.
    pub fn shorter(&self, make: impl FnOnce(&[u8]) -> Option<Bytes>) -> Option<&Bytes> {
        let made = self.0.shorter.get_or_init(|| {
            let made = make(self);
            self.0.grown.by(made.as_ref().map_or(0, Bytes::len));
            made
        });
        made.as_ref()
    }

    /// From now on what is made of it counts in this sum.
    pub fn count_in(&self, sum: &Arc<AtomicUsize>) {
        self.0.grown.count_in(sum);
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
        let header = match self.frame().get(1) {
            Some(126) => 4,
            Some(127) => MAX_HEADER_BYTES,
            _ => 2,
        };
        &self.frame()[header..]
    }
}

/// What was made of it since makes no difference.
impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.frame() == other.frame()
    }
}

impl Eq for Encoded {}

impl Grown {
    /// From now on what is made counts in this sum. Only the first one holds.
    pub fn count_in(&self, sum: &Arc<AtomicUsize>) {
        let _ = self.sum.set(sum.clone());
    }

    /// What is made of this text from now on counts in the same sum.
    pub fn count(&self, text: &Encoded) {
        if let Some(sum) = self.sum.get() {
            text.count_in(sum);
        }
    }

    /// So many bytes were made.
    pub fn by(&self, bytes: usize) {
        if let Some(sum) = self.sum.get() {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            sum.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Grown {
    fn drop(&mut self) {
        if let Some(sum) = self.sum.get() {
            sum.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        }
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

    #[test]
    fn a_shorter_form_is_made_once_and_counts_for_as_long_as_it_is_held() {
        let (encoded, sum) = (Encoded::of("aaaa"), Arc::new(AtomicUsize::new(7)));
        encoded.count_in(&sum);
        let held = encoded.clone();
        let shorter = encoded.shorter(|text| Some(Bytes::copy_from_slice(&text[..1])));
        assert_eq!(shorter.map(|bytes| &bytes[..]), Some(&b"a"[..]));
        assert_eq!(held.shorter(|_| unreachable!()), shorter);
        assert_eq!(sum.load(Ordering::Relaxed), 8);
        drop(encoded);
        assert_eq!(sum.load(Ordering::Relaxed), 8);
        drop(held);
        assert_eq!(sum.load(Ordering::Relaxed), 7);
    }
}
