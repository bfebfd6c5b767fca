//! What was read from one socket, frame by frame: no JSON is parsed, only marks are looked for.

use miniz_oxide::inflate::decompress_slice_iter_to_slice;

use super::{
    frame::{self, Header},
    mark::{MARK_BYTES, Mark},
    tally::{Progress, Tally, Window},
};

/// Bytes of a frame that are looked at; the rest of a longer one is skipped.
const LOOKED_AT: usize = 64 * 1024;

/// Compressed frames whose content is remembered. A server that compresses an event once for all
/// sends the same bytes a thousand times, and inflating them each time would measure this program.
const REMEMBERED: usize = 256;

/// What one socket's frames are counted for.
pub struct Walk<'a> {
    /// Everything that is counted.
    pub tally: &'a mut Tally,
    /// The closed loop, where there is one.
    pub window: Option<&'a mut Window>,
    /// What was inflated.
    pub inflated: &'a mut Inflated,
    /// When the bytes were read.
    pub now_ns: u64,
    /// Whether a frame may carry several events, and commands of NATS between them.
    pub nats: bool,
    /// Frames to be sent back.
    pub answers: &'a mut Vec<u8>,
}

/// What a stretch of bytes came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Bytes that need not be seen again.
    pub consumed: usize,
    /// Bytes that are still to come and need not be looked at.
    pub skip: u64,
    /// The code with which the server has closed, 1005 where it said none.
    pub closed: Option<u16>,
    /// Data frames that carried no mark.
    pub unmarked: u64,
    /// First deliveries of an event, or marked answers.
    pub delivered: u64,
}

/// Compressed frames that were seen lately, and the mark in each.
pub struct Inflated {
    seen: Vec<(Vec<u8>, Option<Mark>)>,
    /// Which of them is expected next: sockets are sent the same events in the same order.
    next: usize,
    /// Where the next new one goes.
    newest: usize,
    space: Vec<u8>,
    whole: Vec<u8>,
}

impl Walk<'_> {
    /// Counts the whole frames in `bytes`, of which the first `inside` belong to a long frame that
    /// began before.
    pub fn over(&mut self, bytes: &[u8], inside: u64, progress: &mut Progress) -> Walked {
        let mut walked = Walked::default();
        self.within(bytes, inside, progress, &mut walked);
        if walked.skip > 0 {
            return walked;
        }
        while let Some(header) = Header::read(&bytes[walked.consumed..]) {
            let begin = walked.consumed + header.len;
            let wanted = header.payload.min(LOOKED_AT as u64) as usize;
            let Some(payload) = bytes.get(begin..begin + wanted) else {
                break;
            };
            if self.nats && header.payload > wanted as u64 && !header.compressed {
                walked.consumed = begin;
                self.within(&bytes[begin..], header.payload, progress, &mut walked);
            } else {
                self.frame(header, payload, progress, &mut walked);
                let rest = header.payload - wanted as u64;
                let there = rest.min((bytes.len() - begin - wanted) as u64);
                walked.consumed = begin + wanted + there as usize;
                walked.skip = rest - there;
            }
            if walked.skip > 0 {
                break;
            }
        }
        walked
    }

    /// Goes on within a long frame, of which `inside` bytes were not consumed. NATS puts any number
    /// of messages into one, so all of it is looked at; of others the rest is passed over.
    fn within(&mut self, bytes: &[u8], inside: u64, progress: &mut Progress, walked: &mut Walked) {
        let there = inside.min(bytes.len() as u64) as usize;
        let mut done = there;
        if self.nats {
            let looked_at = self.commands(&bytes[..there], progress, walked);
            if inside > there as u64 {
                // A mark may be cut in two here.
                done = looked_at.max(there.saturating_sub(MARK_BYTES - 1));
            }
        }
        walked.consumed += done;
        walked.skip = inside - done as u64;
    }

    #[inline]
    fn frame(
        &mut self,
        header: Header,
        payload: &[u8],
        progress: &mut Progress,
        walked: &mut Walked,
    ) {
        match header.opcode {
            0..=frame::BINARY if header.compressed => {
                self.tally.compressed += 1;
                self.compressed(payload, progress, walked);
            }
            0..=frame::BINARY if self.nats => _ = self.commands(payload, progress, walked),
            0..=frame::BINARY => match Mark::find(payload) {
                Some((mark, _)) => self.mark(mark, progress, walked),
                None => walked.unmarked += 1,
            },
            frame::PING => frame::write(frame::PONG, payload, self.answers),
            frame::CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                walked.closed = Some(code.unwrap_or(1005));
            }
            _ => {}
        }
    }

    #[inline]
    fn mark(&mut self, mark: Mark, progress: &mut Progress, walked: &mut Walked) {
        if self.tally.deliver(progress, mark, self.now_ns) {
            walked.delivered += 1;
            if let Some(window) = &mut self.window {
                window.deliver(mark.number);
            }
        }
    }

    /// NATS: a frame is a stretch of its protocol, with any number of messages in it. Returns where
    /// the last mark ends.
    fn commands(&mut self, payload: &[u8], progress: &mut Progress, walked: &mut Walked) -> usize {
        if payload == b"PING\r\n" {
            frame::write(frame::BINARY, b"PONG\r\n", self.answers);
        }
        let mut from = 0;
        while let Some((mark, end)) = Mark::find(&payload[from..]) {
            self.mark(mark, progress, walked);
            from += end;
        }
        from
    }

    fn compressed(&mut self, payload: &[u8], progress: &mut Progress, walked: &mut Walked) {
        let mut inflated = std::mem::replace(self.inflated, Inflated::none());
        match self.nats {
            true => _ = self.commands(inflated.text(payload), progress, walked),
            false => match inflated.mark(payload) {
                Some(mark) => self.mark(mark, progress, walked),
                None => walked.unmarked += 1,
            },
        }
        *self.inflated = inflated;
    }
}

impl Inflated {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self {
            space: vec![0; LOOKED_AT * 4],
            ..Self::none()
        }
    }

    fn none() -> Self {
        Self {
            seen: Vec::new(),
            next: 0,
            newest: 0,
            space: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// The mark in a compressed message.
    fn mark(&mut self, payload: &[u8]) -> Option<Mark> {
        let is_it = |(seen, _): &(Vec<u8>, Option<Mark>)| seen == payload;
        let expected = self.seen.get(self.next).is_some_and(is_it);
        let at = match expected {
            true => Some(self.next),
            false => self.seen.iter().position(is_it),
        };
        if let Some(at) = at {
            self.next = (at + 1) % REMEMBERED;
            return self.seen[at].1;
        }
        let mark = Mark::find(self.text(payload)).map(|(mark, _)| mark);
        let entry = (payload.to_vec(), mark);
        match self.seen.get_mut(self.newest) {
            Some(oldest) => *oldest = entry,
            None => self.seen.push(entry),
        }
        self.newest = (self.newest + 1) % REMEMBERED;
        self.next = self.newest;
        mark
    }

    /// A message without context takeover; the tail that RFC 7692 §7.2.1 leaves out is put back.
    fn text(&mut self, payload: &[u8]) -> &[u8] {
        self.whole.clear();
        self.whole.extend_from_slice(payload);
        self.whole
            .extend_from_slice(&[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
        let pieces = std::iter::once(&*self.whole);
        let len = decompress_slice_iter_to_slice(&mut self.space, pieces, false, true);
        &self.space[..len.unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::{
        MZFlush,
        deflate::{
            core::{CompressorOxide, create_comp_flags_from_zip_params},
            stream::deflate,
        },
    };

    fn walk(bytes: &[u8], nats: bool) -> (Walked, Tally, Vec<u8>) {
        let (mut tally, mut answers) = (Tally::new(0), Vec::new());
        let walked = Walk {
            tally: &mut tally,
            window: None,
            inflated: &mut Inflated::new(),
            now_ns: 10,
            nats,
            answers: &mut answers,
        }
        .over(bytes, 0, &mut Progress::default());
        (walked, tally, answers)
    }

    /// A frame of a server.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0x80 | first];
        match payload.len() {
            len @ 0..126 => out.push(len as u8),
            len => {
                out.push(126);
                out.extend((len as u16).to_be_bytes());
            }
        }
        out.extend(payload);
        out
    }

    fn event(number: u64) -> Vec<u8> {
        let mut text = b"{\"data\":\"".to_vec();
        Mark { due_ns: 1, number }.write(&mut text);
        text.extend(b"\"}");
        text
    }

    #[test]
    fn whole_frames_are_counted_and_the_rest_waits() {
        let mut bytes = frame(frame::TEXT, &event(0));
        bytes.extend(frame(frame::TEXT, b"{\"type\":\"other\"}"));
        bytes.extend(frame(frame::TEXT, &event(1)));
        let whole = bytes.len();
        bytes.extend(&frame(frame::TEXT, &event(2))[..20]);
        let (walked, tally, _) = walk(&bytes, false);
        assert_eq!((walked.consumed, walked.unmarked), (whole, 1));
        assert_eq!(tally.delivered, 2);
    }

    #[test]
    fn a_ping_is_answered_and_a_close_is_told() {
        let mut bytes = frame(frame::PING, b"abc");
        bytes.extend(frame(frame::CLOSE, &1012_u16.to_be_bytes()));
        let (walked, _, answers) = walk(&bytes, false);
        assert_eq!(walked.closed, Some(1012));
        assert_eq!(answers[0] & 0x0f, frame::PONG);
        assert!(answers.ends_with(b"abc"));
    }

    #[test]
    fn a_frame_of_nats_holds_any_number_of_messages() {
        let text = [event(0), b"\r\nMSG bench 1 40\r\n".to_vec(), event(1)].concat();
        let (_, tally, _) = walk(&frame(frame::BINARY, &text), true);
        assert_eq!(tally.delivered, 2);
    }

    #[test]
    fn a_long_frame_of_nats_is_looked_at_to_its_end_in_any_pieces() {
        let mut text = Vec::new();
        for number in 0..700 {
            text.extend(event(number));
            text.resize((number as usize + 1) * 200, b'x');
        }
        let mut bytes = vec![0x82, 127];
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text);
        bytes.extend(frame(frame::BINARY, &event(700)));
        for piece in [70_001, 100_000, bytes.len()] {
            let (mut tally, mut progress) = (Tally::new(0), Progress::default());
            let (mut kept, mut inside) = (Vec::new(), 0);
            for more in bytes.chunks(piece) {
                kept.extend_from_slice(more);
                let walked = Walk {
                    tally: &mut tally,
                    window: None,
                    inflated: &mut Inflated::new(),
                    now_ns: 10,
                    nats: true,
                    answers: &mut Vec::new(),
                }
                .over(&kept, inside, &mut progress);
                kept.drain(..walked.consumed);
                inside = walked.skip;
            }
            assert_eq!((tally.delivered, tally.duplicates), (701, 0), "{piece}");
            assert!(kept.is_empty());
        }
    }

    #[test]
    fn a_compressed_event_is_known_by_its_mark() {
        let packed = |number| {
            let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(6, -15, 0));
            let mut packed = vec![0; 200];
            let done = deflate(&mut compressor, &event(number), &mut packed, MZFlush::Sync);
            packed.truncate(done.bytes_written - 4);
            packed
        };
        let bytes = [0_u64, 1].map(|number| frame(0x40 | frame::TEXT, &packed(number)));
        let (_, tally, _) = walk(&bytes.concat(), false);
        assert_eq!((tally.delivered, tally.compressed), (2, 2));
    }

    #[test]
    fn a_long_frame_is_looked_into_and_skipped() {
        let mut bytes = vec![0x81, 127];
        bytes.extend(1_000_000_u64.to_be_bytes());
        bytes.extend(event(0));
        bytes.resize(LOOKED_AT + 10 + 500, b'x');
        let (walked, tally, _) = walk(&bytes, false);
        assert_eq!((walked.consumed, tally.delivered), (bytes.len(), 1));
        assert_eq!(walked.skip, (1_000_000 - LOOKED_AT - 500) as u64);
    }
}
