//! No `page.next` that a client makes up makes its reader panic; one that is taken and written down again is
//! the same. The input is what the hexadecimal digits stand for, and the digits themselves.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::{
    protocol::{After, Select},
    row::hex,
};
use serde_json::{Map, Value};

fn read(token: &str) -> Option<After> {
    let mut params = Map::new();
    params.insert("after".into(), Value::from(token));
    match Select::read(&params) {
        Ok(Select::After(after)) => Some(after),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => {
            assert_eq!(failure.code.status(), 400);
            None
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let token = hex(bytes)[2..].to_owned();
    if let Some(after) = read(&token) {
        // Not the values themselves: NaN is not equal to itself.
        let token = after.token();
        assert_eq!(read(&token).map(|again| again.token()), Some(token));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
});
