//! No bytes make the decoder of PostgreSQL's replication messages panic, or take much memory.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rowcast::source::postgres::pgoutput::{Message, decode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) =
        decode(&Bytes::copy_from_slice(bytes))
    {
        for index in 0..=new.len() {
            let _ = new.get(index);
        }
    }
});
