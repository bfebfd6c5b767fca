//! Where a request ends. Two servers that read this differently can be made to take one client's bytes
//! for another's request ("request smuggling"), so what could be read in two ways is not read at all.

/// Follows the bytes of a connection from head to head.
///
/// The body of a request is skipped by its `Content-Length`. Behind one in chunks, and behind one that
/// asks for another protocol, nothing is followed any further, so that must be the connection's last.
#[derive(Debug, Default)]
pub struct Framing(State);

#[derive(Debug)]
enum State {
    /// In a head, of which this came in earlier reads.
    Head(Vec<u8>),
    /// In a body, which has so many bytes more.
    Body(u64),
    /// Not followed.
    Beyond,
    /// There was something that could be read in two ways.
    Ambiguous,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Framing {
    /// Follows what was read. False from the first byte on that could be read in two ways.
    pub fn follow(&mut self, mut read: &[u8]) -> bool {
        while !read.is_empty() {
            match &mut self.0 {
                State::Head(before) => {
                    if before.is_empty() {
                        // Empty lines before a request are none of it (RFC 9112 §2.2).
                        let empty = read.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
                        read = &read[empty.count()..];
                    }
                    let Some(end) = end(before, read) else {
                        // As much as hyper reads of a head.
                        before.extend_from_slice(read);
                        return true;
                    };
                    let (head, rest) = read.split_at(end);
                    read = rest;
                    self.0 = match before.is_empty() {
                        true => behind(head),
                        false => {
                            before.extend_from_slice(head);
                            behind(before)
                        }
                    };
                }
                State::Body(left) => {
                    let here =
                        usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
                    *left -= here as u64;
                    read = &read[here..];
                    if *left == 0 {
                        self.0 = State::default();
                    }
                }
                State::Beyond => return true,
                State::Ambiguous => return false,
            }
        }
        !self.is_ambiguous()
    }

    pub fn is_ambiguous(&self) -> bool {
        matches!(self.0, State::Ambiguous)
    }
}

/// How many bytes of `read` belong to the head whose beginning is `before`: up to an empty line,
/// however its lines end.
fn end(before: &[u8], read: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', read).find_map(|at| {
        let mut back = before.iter().chain(&read[..at]).rev();
        let last = back.find(|b| **b != b'\r');
        (last == Some(&b'\n')).then_some(at + 1)
    })
}

/// What comes behind a whole head.
fn behind(head: &[u8]) -> State {
    let mut length = None;
    let (mut chunked, mut upgrade) = (false, false);
    for line in head.split_inclusive(|b| *b == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return State::Ambiguous;
        };
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            match (length, number(value)) {
                (None, Some(number)) => length = Some(number),
                _ => return State::Ambiguous,
            }
        }
    }
    match (length, chunked) {
        (Some(_), true) => State::Ambiguous,
        (None, true) => State::Beyond,
        (_, false) if upgrade => State::Beyond,
        (None | Some(0), false) => State::default(),
        (Some(length), false) => State::Body(length),
    }
}

/// Digits, and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is followed to its end, however it comes in pieces.
    fn follows(text: &str) -> bool {
        let whole = Framing::default().follow(text.as_bytes());
        for size in 1..text.len().min(40) {
            let mut framing = Framing::default();
            let mut pieces = text.as_bytes().chunks(size);
            let followed = pieces.all(|piece| framing.follow(piece));
            assert_eq!(followed, whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn requests_that_can_be_read_in_one_way_only_are_followed() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n{\n\n}\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\n\n}\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n\n\n\n",
            "GET / HTTP/1.1\r\nHost: a",
            // Frames.
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\u{1}\n\n",
        ] {
            assert!(follows(text), "{text:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\n\n",
        ] {
            assert!(!follows(text), "{text:?}");
        }
    }
}
