//! A topic's name is one word of a subject and no pattern; an event's id is a header that says the same of no
//! other id. What is split at the first NUL are two of each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::{
    bus::jetstream::{Names, header_text},
    topic::is_topic_name,
};

fn is_plain(text: &str) -> bool {
    let special = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '>');
    !text.is_empty() && !text.contains(special) && text.is_ascii()
}

fuzz_target!(|text: &str| {
    let (a, b) = text.split_once('\0').unwrap_or((text, "patient"));
    let names = Names::new("rowcast");
    if is_topic_name(a) {
        for subject in [names.change(a), names.event(a)] {
            assert!(is_plain(&subject), "{subject:?}");
            assert_eq!(subject.split('.').count(), 3, "{subject:?}");
            assert_eq!(subject.rsplit('.').next(), Some(a));
        }
        if is_topic_name(b) {
            assert_eq!(names.event(a) == names.event(b), a == b);
        }
        assert_ne!(names.change(a), names.event(b));
    } else {
        // These would be more than one word, none, or a pattern.
        assert!(a.len() > 64 || !is_plain(a) || a.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-'));
    }
    let header = header_text(a);
    assert!(a.is_empty() || header.bytes().all(|byte| byte.is_ascii_graphic()), "{header:?}");
    assert_eq!(header == header_text(b), a == b, "{a:?} {b:?}");
});
