//! No payload inflates to more than the limit, and none makes the reader panic; what we compress is read
//! back. The first two bytes are the limit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::session::deflate::{Agreed, Deflater, inflate};

fuzz_target!(|bytes: &[u8]| {
    let Some((limit, payload)) = bytes.split_first_chunk() else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes(*limit));
    if let Ok(message) = inflate(payload.to_vec(), limit) {
        assert!(message.len() <= limit);
        // A limit that just holds it changes nothing.
        assert_eq!(inflate(payload.to_vec(), message.len()), Ok(message));
    }
    if let Some(compressed) = Deflater::default().message(payload) {
        assert!(compressed.len() < payload.len());
        assert_eq!(inflate(compressed.to_vec(), payload.len()).as_deref(), Ok(payload));
    }
    if let Ok(offer) = std::str::from_utf8(payload)
        && let Some(agreed) = Agreed::among([offer])
    {
        let answer = agreed.answer();
        assert_eq!(Agreed::among([&*answer]), Some(agreed), "{offer:?}");
    }
});
