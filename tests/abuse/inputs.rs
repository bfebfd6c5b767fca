//! Where inputs come from: two public lists that stand in tests/fixtures with their licences, and a source
//! of numbers that is the same in every run.

use std::fs;

use rowcast::row::unhex;

use crate::tidy::root;

/// A test of JSONTestSuite.
pub struct Parsing {
    /// `y_…` is JSON, `n_…` is not, `i_…` may be taken or not.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// JSONTestSuite's tests of parsers.
pub fn parsing() -> Vec<Parsing> {
    let path = root().join("tests/fixtures/json_test_suite/parsing.txt");
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let tests = lines.map(|line| {
        let (name, bytes) = line.split_once(' ').unwrap();
        Parsing {
            name: name.into(),
            bytes: unhex(bytes).unwrap(),
        }
    });
    // Half of the originals, so that they fit into a message.
    let large = [
        ("n_structure_opening_arrays", "[".repeat(50_000)),
        ("n_structure_open_array_object", "[{\"\":".repeat(12_000)),
    ];
    let large = large.map(|(name, text)| Parsing {
        name: name.into(),
        bytes: text.into(),
    });
    tests.chain(large).collect()
}

/// The Big List of Naughty Strings.
pub fn naughty() -> Vec<String> {
    let text = fs::read_to_string(root().join("tests/fixtures/blns/blns.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Whether a topic could have that name.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A generator of numbers for inputs that are made: SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}
