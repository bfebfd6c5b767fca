//! A cursor has one spelling, and a checkpoint that is written down again is the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::position::{Checkpoint, Position};

fuzz_target!(|text: &str| {
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string(), text);
    }
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    }
});
