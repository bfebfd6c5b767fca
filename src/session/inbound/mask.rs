//! Unmasking (RFC 6455 §5.3), a word at a time.

/// Appends `chunk` unmasked; its first byte stands at `place` in its frame.
pub fn append(to: &mut Vec<u8>, chunk: &[u8], key: [u8; 4], place: usize) {
    let start = to.len();
    to.extend_from_slice(chunk);
    unmask(&mut to[start..], key, place);
}

fn unmask(bytes: &mut [u8], mut key: [u8; 4], place: usize) {
    key.rotate_left(place % 4);
    let half = u32::from_ne_bytes(key);
    let word = u64::from(half) << 32 | u64::from(half);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}
