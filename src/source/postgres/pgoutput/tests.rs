//! The decoder against what a server sent, and against what none would send.

use super::*;

/// What `tests/fixtures/pgoutput/capture.sh` recorded from a real server: `name hex`, a line
/// for each message.
const CAPTURED: &str = include_str!("../../../../tests/fixtures/pgoutput/captured.txt");

fn captured() -> Vec<Bytes> {
    let lines = CAPTURED.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|hex| {
            let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(digits).collect()
        })
        .collect()
}

#[test]
fn what_a_server_sent_is_understood() {
    let messages: Vec<Message> = captured()
        .iter()
        .map(|bytes| decode(bytes).unwrap())
        .collect();
    let has = |what: fn(&Message) -> bool| messages.iter().any(what);
    assert!(has(|m| matches!(m, Message::Begin { xid, .. } if *xid > 0)));
    assert!(has(
        |m| matches!(m, Message::Commit { commit_lsn, end_lsn, .. } if end_lsn > commit_lsn)
    ));
    assert!(has(|m| matches!(m, Message::Origin)));
    assert!(has(
        |m| matches!(m, Message::Type { name, .. } if name == "mood")
    ));
    assert!(has(
        |m| matches!(m, Message::Truncate { relations } if relations.len() == 2)
    ));
    assert!(has(
        |m| matches!(m, Message::Logical { prefix, content, transactional: true, .. }
        if prefix == "rowcast:bell" && &content[..] == b"{\"ward\": 3}")
    ));
    assert!(has(|m| matches!(
        m,
        Message::Logical {
            transactional: false,
            ..
        }
    )));
    assert!(has(
        |m| matches!(m, Message::Delete { old, .. } if old.key_only)
    ));
    assert!(has(
        |m| matches!(m, Message::Delete { old, .. } if !old.key_only)
    ));
    assert!(has(|m| matches!(m, Message::Update { old: None, new, .. }
        if new.get(2) == Some(Cell::Unchanged))));
    assert!(has(
        |m| matches!(m, Message::Update { old: Some(old), .. } if old.key_only)
    ));
    assert!(has(|m| matches!(m, Message::Insert { new, .. }
        if new.get(1) == Some(Cell::Text("王秀英".into())) && new.get(2) == Some(Cell::Null))));
    let relation = messages.iter().find_map(|message| match message {
        Message::Relation(relation) if relation.name == "patient" => Some(relation),
        _ => None,
    });
    let relation = relation.expect("a relation");
    assert_eq!((&*relation.schema, relation.identity), ("public", b'd'));
    let columns: Vec<_> = relation
        .columns
        .iter()
        .map(|c| (&*c.name, c.identity))
        .collect();
    assert_eq!(columns[..2], [("id", true), ("name", false)]);
}

#[test]
fn every_end_and_every_surplus_is_an_error() {
    for bytes in captured() {
        for end in 0..bytes.len() {
            assert!(
                decode(&bytes.slice(..end)).is_err(),
                "{bytes:?} up to {end}"
            );
        }
        let longer = Bytes::from([&bytes[..], b"x"].concat());
        assert!(decode(&longer).is_err());
    }
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let tuple = |count: i16| [&b"I\0\0\0\x01N"[..], &count.to_be_bytes()].concat();
    assert_eq!(decode(&tuple(i16::MAX).into()), Err(Malformed::Short));
    assert_eq!(decode(&tuple(-1).into()), Err(Malformed::Negative));
    let truncate = [&b"T"[..], &i32::MAX.to_be_bytes(), b"\0"].concat();
    assert_eq!(decode(&truncate.into()), Err(Malformed::Short));
    let value = [&tuple(1)[..], b"t", &i32::MAX.to_be_bytes()].concat();
    assert_eq!(decode(&value.into()), Err(Malformed::Short));
}

proptest::proptest! {
    #[test]
    fn no_bytes_whatever_do_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = decode(&bytes.into());
    }

    #[test]
    fn no_damage_to_a_message_does_harm(
        which in 0_usize..1000,
        at in 0_usize..1000,
        byte in proptest::num::u8::ANY,
    ) {
        let messages = captured();
        let mut bytes = messages[which % messages.len()].to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = decode(&bytes.into()) {
            for index in 0..=new.len() {
                let _ = new.get(index);
            }
        }
    }
}
