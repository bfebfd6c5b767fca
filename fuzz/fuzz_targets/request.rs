//! No text makes the reader of clients' requests panic or answer what it should not; a request that is
//! written down again is the same one. Nor does a URL's query.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::protocol::{ErrorCode, JsonLimits, Request, query_string};
use serde_json::Value;

fuzz_target!(|text: &str| {
    let limits = JsonLimits::default();
    match Request::parse(text, &limits) {
        Ok(request) => {
            let value: Value = serde_json::from_str(text).expect("a request is JSON");
            assert_eq!(Request::parse(&value.to_string(), &limits), Ok(request));
        }
        Err(failure) => {
            assert!((400..500).contains(&failure.code.status()));
            assert_ne!(failure.code, ErrorCode::Internal);
        }
    }
    if let Err(failure) = query_string(text) {
        assert!((400..500).contains(&failure.code.status()));
    }
});
