//! What a client sends: bytes in whatever pieces they arrive, messages out, as RFC 6455 has a server
//! read them. Here is no socket and no clock. A decoder in which nothing is incomplete holds no heap,
//! and one in which something is holds what has arrived of it, never what was announced.

mod assembly;
mod header;
mod mask;

use assembly::Assembly;
use header::{Head, Header, Opcode};

/// How much of a message is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a message, summed over its fragments.
    pub message_bytes: usize,
    /// The most frames that a message may come in.
    pub fragments: usize,
}

/// A whole message, or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// A ping, to be answered with the same bytes, at most 125.
    Ping(Vec<u8>),
    /// A pong, whatever was in it.
    Pong,
    /// The client closes, and gave this code if it gave any. Nothing comes after it.
    Close(Option<u16>),
}

/// Why the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame breaks RFC 6455: close code 1002.
    #[error("a frame breaks RFC 6455")]
    Protocol,
    /// A text, or the reason of a close, is not UTF-8: close code 1007.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A message is over [`Limits::message_bytes`]: close code 1009.
    #[error("the message is too large")]
    TooBig,
    /// A message comes in more than [`Limits::fragments`]: close code 1008.
    #[error("the message comes in too many fragments")]
    TooManyFragments,
}

/// Reads one client's frames.
#[derive(Debug)]
pub struct Decoder {
    rules: Rules,
    /// What has begun and is not whole; boxed, as nearly all sockets say nothing nearly all of the time.
    begun: Option<Box<Begun>>,
    /// After a close or a violation.
    over: bool,
}

/// What a client may send.
#[derive(Debug, Clone, Copy)]
struct Rules {
    limits: Limits,
    /// Whether permessage-deflate was agreed on.
    deflate: bool,
}

/// What has arrived of a message, and of a frame.
#[derive(Debug, Default)]
struct Begun {
    /// The beginning of a header.
    head: Head,
    /// The frame whose payload is incomplete.
    frame: Option<Frame>,
    /// The message of which at least a header was read.
    message: Option<Assembly>,
    /// What has arrived of a control frame's payload.
    control: Vec<u8>,
}

/// A frame whose header was read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    header: Header,
    /// Bytes of its payload that have arrived.
    arrived: usize,
}

impl Frame {
    /// Takes from `input` what is there of the payload.
    fn take<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let missing = self.header.payload_bytes - self.arrived;
        let (chunk, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        self.arrived += chunk.len();
        chunk
    }

    fn is_complete(&self) -> bool {
        self.arrived == self.header.payload_bytes
    }
}

impl Decoder {
    /// A decoder at the beginning of a connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            rules: Rules {
                limits,
                deflate: false,
            },
            begun: None,
            over: false,
        }
    }

    /// The same for a connection on which permessage-deflate was agreed on, without context takeover.
    /// The limit holds for a compressed message as it is sent, and for what becomes of it.
    pub fn with_deflate(mut self) -> Self {
        self.rules.deflate = true;
        self
    }

    /// Consumes from `input` what belongs to one message, and returns it; call it again with the
    /// rest. `None` says that everything was consumed and more is needed. A control frame between
    /// the fragments of a message is returned when it is complete, before that message.
    ///
    /// After [`Message::Close`] or an error whatever else is put in is consumed unread.
    ///
    /// # Errors
    /// The first [`Violation`], as soon as the bytes prove it: a header that announces too much is
    /// refused before its payload comes, and text in the middle of a frame.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Violation> {
        let decoded = if self.over {
            Ok(None)
        } else {
            self.advance(input)
        };
        if matches!(decoded, Err(_) | Ok(Some(Message::Close(_)))) {
            *self = Self {
                over: true,
                ..Self::new(self.rules.limits)
            };
        }
        if self.over {
            *input = &[];
        }
        decoded
    }

    /// The heap that is held, in bytes: none while nothing is incomplete, and never more than twice
    /// of what has arrived and a control frame.
    pub fn held_bytes(&self) -> usize {
        self.begun.as_ref().map_or(0, |begun| {
            let message = begun.message.as_ref().map_or(0, Assembly::held_bytes);
            message + begun.control.capacity()
        })
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Violation> {
        if let Some(begun) = &mut self.begun {
            let decoded = begun.advance(input, &self.rules);
            if begun.is_nothing() {
                self.begun = None;
            }
            return decoded;
        }
        let mut begun = Begun::default();
        let decoded = begun.advance(input, &self.rules);
        if !begun.is_nothing() {
            self.begun = Some(Box::new(begun));
        }
        decoded
    }
}

impl Begun {
    fn is_nothing(&self) -> bool {
        self.head.is_empty()
            && self.frame.is_none()
            && self.message.is_none()
            && self.control.is_empty()
    }

    fn advance(&mut self, input: &mut &[u8], rules: &Rules) -> Result<Option<Message>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.head.read(input)? {
                    Some(header) => self.begin(header, rules)?,
                    None => return Ok(None),
                },
            };
            let place = frame.arrived;
            let chunk = frame.take(input);
            let complete = frame.is_complete();
            let message = if frame.header.opcode.is_control() {
                mask::append(&mut self.control, chunk, frame.header.mask, place);
                complete.then(|| self.control(frame.header.opcode))
            } else {
                self.data(frame.header, chunk, place, complete)?
                    .then(|| self.whole(rules))
            };
            if let Some(message) = message {
                return message.map(Some);
            }
            if !complete {
                self.frame = Some(frame);
                return Ok(None);
            }
        }
    }

    /// Whether a frame may come now, and with that length.
    fn begin(&mut self, header: Header, rules: &Rules) -> Result<Frame, Violation> {
        if header.is_compressed && !rules.deflate {
            return Err(Violation::Protocol);
        }
        if !header.opcode.is_control() {
            match (header.opcode, &mut self.message) {
                (Opcode::Continuation, Some(message)) => message.fragments += 1,
                (Opcode::Continuation, None) | (_, Some(_)) => return Err(Violation::Protocol),
                (_, None) => self.message = Some(Assembly::new(&header)),
            }
            let message = self.message.as_ref().expect("it was just there or made");
            let room = rules.limits.message_bytes.saturating_sub(message.len());
            if header.payload_bytes > room {
                return Err(Violation::TooBig);
            }
            if message.fragments > rules.limits.fragments {
                return Err(Violation::TooManyFragments);
            }
        }
        Ok(Frame { header, arrived: 0 })
    }

    /// Takes a piece of the message, and returns whether it was the last one.
    fn data(
        &mut self,
        header: Header,
        chunk: &[u8],
        place: usize,
        complete: bool,
    ) -> Result<bool, Violation> {
        let message = self.message.as_mut().expect("its first frame has begun it");
        let last = complete && header.is_final;
        let missing = header.payload_bytes - place;
        message.append(chunk, missing, header.mask, place);
        if !last {
            message.check()?;
        }
        Ok(last)
    }

    /// The message that is complete.
    fn whole(&mut self, rules: &Rules) -> Result<Message, Violation> {
        let message = self.message.take().expect("its last frame belongs to it");
        message.finish(rules.limits.message_bytes)
    }

    /// The control frame that is complete.
    fn control(&mut self, opcode: Opcode) -> Result<Message, Violation> {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            Opcode::Ping => Ok(Message::Ping(payload)),
            Opcode::Close => close(&payload).map(Message::Close),
            _ => Ok(Message::Pong),
        }
    }
}

/// The code of a close frame (RFC 6455 §5.5.1, §7.4).
fn close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Protocol),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_sendable(code) {
                return Err(Violation::Protocol);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(Some(code))
        }
    }
}

/// Whether a close frame may carry it: what RFC 6455 and IANA's registry define for frames, and what
/// is left to libraries and applications.
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
