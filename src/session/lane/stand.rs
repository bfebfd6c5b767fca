//! Where a socket stands in a lane, and how it goes along with a pass.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;
use socket2::SockRef;

use super::{
    Peer,
    pass::{Pass, Piece},
};
use crate::{
    position::Position,
    predicate::Verdict,
    protocol::Encoded,
    ring::{Frame, FrameKind, Place},
    session::{
        deflate::{Agreed, framed},
        interests::Interests,
        link::PIECES,
        seen::Seen,
    },
};

/// Where a socket stands that has been sent everything before, and waits for nothing.
#[derive(Debug)]
pub struct Stand {
    /// The place in the ring.
    pub seq: u64,
    /// The position of the last frame sent or passed over.
    pub cursor: Position,
    /// What the socket takes.
    pub interests: Interests,
    /// What the last default page of each topic saw.
    pub seen: Seen,
    /// The rest of a frame of which the socket took only a part; it is before `seq`.
    pub unsent: Bytes,
    /// The connection is broken.
    pub broken: bool,
}

/// What became of one socket in a pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It was sent so many frames, and stands at the end.
    Through(u64),
    /// Its session must go on.
    Out(u64),
}

impl Stand {
    /// Moves past what has been settled meanwhile: nothing of it was for this socket that it was not sent.
    pub(super) fn move_along(&mut self, settled: Option<&Place>) {
        if let Some(settled) = settled.filter(|settled| self.seq < settled.seq) {
            self.seq = settled.seq;
            self.cursor = settled.position.clone();
        }
    }

    /// Goes along with a pass, as far as the socket takes it.
    pub(super) fn go(&mut self, pass: &mut Pass, peer: &Peer) -> Went {
        if self.seq >= pass.end() {
            // It came later than this pass began.
            return Went::Through(0);
        }
        let Some(first) = self.seq.checked_sub(pass.from) else {
            return Went::Out(0);
        };
        let first = first as usize;
        let Some(socket) = peer.socket() else {
            return self.go_without(pass, first);
        };
        let piece = match !pass.pages || self.seen.is_empty() {
            true => pass.piece_for(&self.interests, peer.agreed),
            false => None,
        };
        match piece {
            Some(number) => {
                let piece = (pass.piece(number), first);
                self.go_with_all(pass, piece, (&socket, peer.agreed))
            }
            None => self.go_with_some(pass, first, (&socket, peer.agreed)),
        }
    }

    /// Past frames that are not for it, where nobody here can write the others.
    fn go_without(&mut self, pass: &Pass, first: usize) -> Went {
        let concerns = |frame: &Arc<Frame>| self.needs_session(frame) || self.form(frame).is_some();
        if pass.frames[first..].iter().any(concerns) {
            return Went::Out(0);
        }
        self.stand_after(pass, pass.frames.len());
        Went::Through(0)
    }

    /// All that it takes, in one piece that is shared by all who take the same.
    fn go_with_all(
        &mut self,
        pass: &Pass,
        (piece, first): (&Piece, usize),
        (socket, agreed): (&SockRef<'_>, Option<Agreed>),
    ) -> Went {
        let bytes = &piece.bytes[piece.starts[first]..];
        let written = match bytes.is_empty() {
            true => 0,
            false => match self.written(socket.send(bytes)) {
                Some(written) => written,
                None => return Went::Out(0),
            },
        };
        if written == bytes.len() {
            self.stand_after(pass, pass.frames.len());
            return Went::Through(piece.counts[pass.frames.len()] - piece.counts[first]);
        }
        let reached = piece.starts[first] + written;
        // The frames that are written, those that have no bytes included.
        let next = piece.starts.partition_point(|start| *start <= reached) - 1;
        let sent = piece.counts[next] - piece.counts[first];
        self.stand_after(pass, next);
        let part = reached - piece.starts[next];
        if part > 0
            && let Some(text) = &pass.frames[next].text
        {
            self.unsent = framed(text, agreed).slice(part..);
            self.stand_after(pass, next + 1);
            return Went::Out(sent + 1);
        }
        Went::Out(sent)
    }

    /// The frames that this socket takes, in the form in which it does.
    fn go_with_some(
        &mut self,
        pass: &Pass,
        mut first: usize,
        (socket, agreed): (&SockRef<'_>, Option<Agreed>),
    ) -> Went {
        let mut sent = 0;
        while first < pass.frames.len() {
            let mut shown = Vec::new();
            let mut next = first;
            while next < pass.frames.len() && shown.len() < PIECES {
                let frame = &pass.frames[next];
                if self.needs_session(frame) {
                    break;
                }
                if let Some((_, text)) = self.form(frame) {
                    shown.push((next, text));
                }
                next += 1;
            }
            if !shown.is_empty() {
                let pieces: Vec<IoSlice<'_>> = shown
                    .iter()
                    .map(|(_, text)| IoSlice::new(framed(text, agreed)))
                    .collect();
                let Some(mut written) = self.written(socket.send_vectored(&pieces)) else {
                    return Went::Out(sent);
                };
                for (index, text) in shown {
                    let frame = framed(&text, agreed);
                    let length = frame.len();
                    if written < length {
                        self.stand_after(pass, index);
                        if written > 0 {
                            self.unsent = frame.slice(written..);
                            self.stand_after(pass, index + 1);
                            sent += 1;
                        }
                        return Went::Out(sent);
                    }
                    written -= length;
                    sent += 1;
                }
            }
            self.stand_after(pass, next);
            if next == first {
                // What it is judged by must be looked at, which takes time.
                return Went::Out(sent);
            }
            first = next;
        }
        Went::Through(sent)
    }

    /// Just after the first `count` frames of a pass.
    fn stand_after(&mut self, pass: &Pass, count: usize) {
        self.seq = pass.from + count as u64;
        if let Some(last) = count.checked_sub(1) {
            self.cursor = pass.frames[last].position.clone();
        }
    }

    /// What the socket took; `None` where that is nothing.
    fn written(&mut self, written: io::Result<usize>) -> Option<usize> {
        match written {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(err) => {
                self.broken = err.kind() != io::ErrorKind::WouldBlock;
                None
            }
        }
    }

    /// Whether what a frame is judged by must be compiled, for the first time or anew.
    fn needs_session(&self, frame: &Frame) -> bool {
        (frame.is_reload() && self.interests.filters(&frame.topic))
            || self.interests.cannot_judge(frame)
    }

    /// The form in which the socket gets a frame.
    fn form(&self, frame: &Frame) -> Option<(Verdict, Encoded)> {
        let seen = || match &frame.kind {
            FrameKind::Event { .. } => false,
            FrameKind::Page(page) => self.seen.covers(&frame.topic, page.as_ref()),
        };
        match self.interests.takes(&frame.topic) && !seen() {
            true => self.interests.form(frame),
            false => None,
        }
    }
}
