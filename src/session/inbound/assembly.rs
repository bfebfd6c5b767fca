//! A message while it arrives: the bytes of its fragments, unmasked, and whether they can still
//! become text.

use super::{
    Message, Violation,
    header::{Header, Opcode},
    mask,
};
use crate::session::deflate::inflate;

/// What has arrived of a message.
#[derive(Debug)]
pub struct Assembly {
    /// The frames that were begun.
    pub fragments: usize,
    is_text: bool,
    is_compressed: bool,
    bytes: Vec<u8>,
    /// So many of the first bytes are known to be whole characters.
    checked: usize,
}

impl Assembly {
    /// A message of which the first header was read.
    pub fn new(first: &Header) -> Self {
        Self {
            fragments: 1,
            is_text: first.opcode == Opcode::Text,
            is_compressed: first.is_compressed,
            bytes: Vec::new(),
            checked: 0,
        }
    }

    /// Bytes that have arrived.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The heap that it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes a chunk, which stands at `place` in its frame; `missing` bytes of that frame had not
    /// arrived before it.
    pub fn append(&mut self, chunk: &[u8], missing: usize, key: [u8; 4], place: usize) {
        let needed = self.bytes.len() + chunk.len();
        if needed > self.bytes.capacity() {
            // Twice of what is there, so that many small chunks are not copied often, but nothing
            // for bytes that the header does not announce.
            let room = (2 * needed).min(self.bytes.len() + missing);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        mask::append(&mut self.bytes, chunk, key, place);
    }

    /// Fails if what has arrived cannot be the beginning of a text. What is compressed tells at its end.
    pub fn check(&mut self) -> Result<(), Violation> {
        if !self.is_text || self.is_compressed {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            // A character whose end has not arrived.
            Err(err) if err.error_len().is_none() => self.checked += err.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    /// The message, all of which has arrived; of at most `limit` bytes, where it was compressed.
    pub fn finish(self, limit: usize) -> Result<Message, Violation> {
        let bytes = match self.is_compressed {
            true => inflate(self.bytes, limit)?,
            false => self.bytes,
        };
        if !self.is_text {
            return Ok(Message::Binary(bytes));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Message::Text(text)),
            Err(_) => Err(Violation::NotUtf8),
        }
    }
}
