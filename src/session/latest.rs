//! `mode: "latest"`: of the frames that a socket has not got yet, only the newest of each key, in
//! the order of the stream. Worked out a window at a time, so that a socket costs the same however
//! far it has fallen behind.

use std::{collections::HashMap, sync::Arc};

use crate::{
    position::Position,
    predicate::Verdict,
    protocol::Encoded,
    ring::{Frame, FrameKind},
};

/// The most frames of a window, and their keys in memory.
const WINDOW_FRAMES: usize = 4096;

/// The most bytes of texts that a window keeps. A text is shared with the ring while it is there;
/// when it has left, only this holds it.
const WINDOW_BYTES: usize = 256 * 1024;

/// A frame that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its place.
    pub position: Position,
    /// Its text, in the form that the socket gets.
    pub text: Encoded,
}

/// A stretch of the stream, as far as it is not superseded.
///
/// A frame is kept while it is among the newest of at least one key that it touches. Who has got
/// the kept ones up to any of them, and then everything that follows it, has what everything would
/// have brought: what was left out before it is made good by something after it.
#[derive(Debug, Default)]
pub struct Window {
    /// By number; one that was superseded is none.
    kept: Vec<Option<Kept>>,
    /// In how many lists each of them stands.
    listed: Vec<usize>,
    bytes: usize,
    topics: HashMap<Arc<str>, Newest>,
}

/// The numbers of one topic's frames that are not superseded.
#[derive(Debug, Default)]
struct Newest {
    /// Of each key the last frame that tells the whole row, and what adds to it.
    of_key: HashMap<Box<str>, Vec<usize>>,
    /// The last page, truncation or reload.
    whole: Option<usize>,
}

/// What a frame touches, in the form in which it is sent.
enum Touches<'a> {
    /// The rows of these keys.
    Keys(&'a str, Option<&'a str>),
    /// Everything that the topic shows.
    Whole,
    /// Nothing that another frame could supersede.
    Nothing,
}

impl Window {
    /// Takes the next frame that the socket would be sent, in the form in which it would be.
    pub fn push(&mut self, frame: &Frame, verdict: Verdict, text: Encoded) {
        let number = self.kept.len();
        self.bytes += text.len();
        self.listed.push(1);
        self.kept.push(Some(Kept {
            position: frame.position.clone(),
            text,
        }));
        match touches(frame, verdict) {
            Touches::Nothing => {}
            Touches::Whole => {
                let topic = self.topics.entry(frame.topic.clone()).or_default();
                let mut before: Vec<usize> =
                    topic.of_key.drain().flat_map(|(_, list)| list).collect();
                before.extend(topic.whole.replace(number));
                self.supersede(before);
            }
            Touches::Keys(key, old_key) => {
                let partial = frame.change.as_ref().is_some_and(|change| change.partial);
                let topic = self.topics.entry(frame.topic.clone()).or_default();
                let mut before = Vec::new();
                let old_key = old_key.filter(|old| *old != key);
                self.listed[number] = 1 + usize::from(old_key.is_some());
                if let Some(old_key) = old_key {
                    let list = topic.of_key.entry(old_key.into()).or_default();
                    // Of the old key this frame says all: the row is there no more.
                    before.append(list);
                    list.push(number);
                }
                let list = topic.of_key.entry(key.into()).or_default();
                match partial {
                    // What it leaves out, the frames before it tell, under whichever key.
                    true => list.append(&mut before),
                    false => before.append(list),
                }
                list.push(number);
                self.supersede(before);
            }
        }
    }

    /// Whether it must be sent before more is taken.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= WINDOW_FRAMES || self.bytes >= WINDOW_BYTES
    }

    /// What is to be sent, in the order of the stream.
    pub fn into_kept(self) -> impl Iterator<Item = Kept> + Send {
        self.kept.into_iter().flatten()
    }

    /// Each of these has lost its place in one list.
    fn supersede(&mut self, numbers: Vec<usize>) {
        for number in numbers {
            self.listed[number] -= 1;
            if self.listed[number] == 0
                && let Some(gone) = self.kept[number].take()
            {
                self.bytes -= gone.text.len();
            }
        }
    }
}

fn touches(frame: &Frame, verdict: Verdict) -> Touches<'_> {
    let change = match (&frame.kind, &frame.change) {
        (FrameKind::Page(_), _) => return Touches::Whole,
        (FrameKind::Event { .. }, None) => return Touches::Nothing,
        (FrameKind::Event { .. }, Some(change)) => change,
    };
    let Some(key) = change.key.as_deref() else {
        return Touches::Whole;
    };
    let old_key = change.old_key.as_deref();
    match verdict {
        Verdict::Pass => Touches::Keys(key, old_key),
        Verdict::Insert => Touches::Keys(key, None),
        // It says nothing of the row's new key.
        Verdict::Delete => Touches::Keys(old_key.unwrap_or(key), None),
        Verdict::Reload => Touches::Whole,
        Verdict::Nothing => Touches::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value as Json, value::RawValue};

    use super::*;
    use crate::{
        event::{Body, ChangeData, Delivery, Event, Op},
        position::Epoch,
    };

    /// One event of the stream, and what a filter makes of it.
    #[derive(Debug, Clone)]
    struct Step {
        topic: u8,
        op: u8,
        key: u8,
        old_key: u8,
        verdict: u8,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..2_u8, 0..20_u8, 0..4_u8, 0..6_u8, 0..8_u8);
        let step = step.prop_map(|(topic, op, key, old_key, verdict)| Step {
            topic,
            op,
            key,
            old_key,
            verdict,
        });
        vec(step, 0..60)
    }

    fn raw(text: String) -> Option<Box<RawValue>> {
        Some(RawValue::from_string(text).unwrap())
    }

    /// Each row has two columns, of which an update may leave out one.
    fn event(step: &Step, offset: u64) -> (Body, Verdict) {
        let checkpoint = format!("s:{offset:x}.0").parse().unwrap();
        if step.op == 19 {
            let data = RawValue::from_string(offset.to_string()).unwrap();
            return (Body::Emitted { checkpoint, data }, Verdict::Pass);
        }
        let mut data = match step.op {
            0 => ChangeData::whole(Op::Truncate),
            1 => ChangeData::whole(Op::Reload),
            2..=5 => ChangeData::whole(Op::Delete),
            6..=8 => ChangeData::whole(Op::Insert),
            _ => ChangeData::whole(Op::Update),
        };
        let mut verdict = Verdict::Pass;
        if step.op > 1 {
            data.key = raw(format!("{{\"id\":{}}}", step.key));
            verdict = [Verdict::Pass, Verdict::Nothing][usize::from(step.verdict == 1)];
        }
        if step.op > 5 {
            data.row = raw(format!("{{\"a\":{offset},\"b\":{offset}}}"));
        }
        if data.op == Op::Update {
            let moved = step.old_key < 4 && step.old_key != step.key;
            data.old_key = raw(format!("{{\"id\":{}}}", step.old_key)).filter(|_| moved);
            if step.op > 15 {
                data.row = raw(format!("{{\"a\":{offset}}}"));
                data.unchanged = vec!["b".into()];
            }
            verdict = match step.verdict {
                2 => Verdict::Insert,
                3 => Verdict::Delete,
                4 => Verdict::Reload,
                _ => verdict,
            };
        }
        (Body::Change { checkpoint, data }, verdict)
    }

    fn frames(steps: &[Step]) -> Vec<(Frame, Verdict)> {
        let epoch = Epoch::parse("e").unwrap();
        let frame = |(step, offset): (&Step, u64)| {
            let (body, verdict) = event(step, offset);
            let event = Event {
                id: String::new(),
                source: String::new(),
                topic: ["s", "t"][usize::from(step.topic)].into(),
                subject: None,
                at_ms: 0,
                tx: None,
                xid: None,
                body,
            };
            let position = Position::new(epoch.clone(), offset);
            let event = Some(event);
            (Frame::of(&Delivery { position, event }), verdict)
        };
        steps.iter().zip(1..).map(frame).collect()
    }

    /// What a client holds: rows by topic and key, when it last had to query, and what it was told
    /// by applications.
    #[derive(Debug, Clone, Default, PartialEq)]
    struct Client {
        rows: BTreeMap<(String, String), BTreeMap<String, Json>>,
        queried: BTreeMap<String, u64>,
        heard: Vec<Json>,
    }

    impl Client {
        fn apply(&mut self, text: &[u8]) {
            let frame: Json = serde_json::from_slice(text).unwrap();
            let topic = frame["type"].as_str().unwrap().to_owned();
            let key = |member: &str| (topic.clone(), frame[member].to_string());
            match frame["op"].as_str().unwrap() {
                "event" => self.heard.push(frame["data"].clone()),
                "truncate" => {
                    self.rows.retain(|(of, _), _| *of != topic);
                    self.queried.remove(&topic);
                }
                "reload" => {
                    self.rows.retain(|(of, _), _| *of != topic);
                    let cursor = frame["cursor"].as_str().unwrap();
                    let offset = cursor.rsplit(':').next().unwrap().parse().unwrap();
                    self.queried.insert(topic, offset);
                }
                "delete" => drop(self.rows.remove(&key("key"))),
                _ => {
                    let moved = self.rows.remove(&key("old_key"));
                    let row = self.rows.entry(key("key")).or_default();
                    *row = moved.unwrap_or_else(|| std::mem::take(row));
                    let data = frame["data"].as_object().unwrap();
                    row.extend(
                        data.iter()
                            .map(|(name, value)| (name.clone(), value.clone())),
                    );
                }
            }
        }
    }

    fn everything(frames: &[(Frame, Verdict)]) -> Client {
        let mut client = Client::default();
        let texts = frames
            .iter()
            .filter_map(|(frame, verdict)| frame.form(*verdict, None));
        texts.for_each(|text| client.apply(&text));
        client
    }

    /// The kept frames of windows of these lengths.
    fn windows(frames: &[(Frame, Verdict)], lengths: &[usize]) -> Vec<Kept> {
        let (mut kept, mut rest) = (Vec::new(), frames);
        let mut lengths = lengths.iter().cycle();
        while !rest.is_empty() {
            let length = lengths.next().copied().unwrap_or(7).min(rest.len());
            let mut window = Window::default();
            for (frame, verdict) in &rest[..length] {
                if let Some(text) = frame.form(*verdict, None) {
                    window.push(frame, *verdict, text);
                }
            }
            kept.extend(window.into_kept());
            rest = &rest[length..];
        }
        kept
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A client is cut off after any of the frames that it got, and resumes from that one's
        /// cursor, with compaction or without.
        #[test]
        fn what_is_left_out_is_never_missed(
            steps in steps(),
            lengths in vec(1..20_usize, 1..4),
            cut in 0..60_usize,
        ) {
            let frames = frames(&steps);
            let expected = everything(&frames);
            let kept = windows(&frames, &lengths);
            prop_assert!(kept.is_sorted_by(|a, b| a.position.offset < b.position.offset));
            let cut = cut.min(kept.len());
            let mut client = Client::default();
            kept[..cut].iter().for_each(|kept| client.apply(&kept.text));
            let cursor = kept[..cut].last().map_or(0, |kept| kept.position.offset);
            let after: Vec<_> = frames.into_iter()
                .filter(|(frame, _)| frame.position.offset > cursor)
                .collect();
            let mut condensed = client.clone();
            for (frame, verdict) in &after {
                if let Some(text) = frame.form(*verdict, None) {
                    client.apply(&text);
                }
            }
            prop_assert_eq!(&client, &expected);
            for kept in windows(&after, &lengths) {
                condensed.apply(&kept.text);
            }
            prop_assert_eq!(&condensed, &expected);
        }
    }

    #[test]
    fn what_a_row_keeps_goes_with_it_to_its_new_key() {
        let step = |op, key, old_key| Step {
            topic: 0,
            op,
            key,
            old_key,
            verdict: 0,
        };
        // Row 1 becomes row 2, of which one column is not told, and another row 1 comes.
        let frames = frames(&[step(10, 1, 5), step(16, 2, 1), step(6, 1, 5)]);
        let expected = everything(&frames);
        let mut client = Client::default();
        for kept in windows(&frames, &[3]) {
            client.apply(&kept.text);
        }
        assert_eq!(client, expected);
    }

    #[test]
    fn many_changes_of_few_keys_are_few_frames() {
        let step = |number: usize| Step {
            topic: 0,
            op: 10,
            key: u8::try_from(number % 4).unwrap(),
            old_key: 9,
            verdict: 0,
        };
        let steps: Vec<Step> = (0..WINDOW_FRAMES).map(step).collect();
        let frames = frames(&steps);
        let mut window = Window::default();
        for (frame, verdict) in &frames {
            assert!(!window.is_full());
            window.push(frame, *verdict, frame.form(*verdict, None).unwrap());
        }
        assert!(window.is_full());
        let kept: Vec<u64> = window
            .into_kept()
            .map(|kept| kept.position.offset)
            .collect();
        assert_eq!(kept, [4093, 4094, 4095, 4096]);
    }
}
