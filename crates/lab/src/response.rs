//! Reads responses as they arrive: status, framing, end; the bodies are counted and forgotten (RFC 9112 sections 6 and 7).
//!
//! A head that lies whole in a chunk, which is the rule, is read where it is; only a split one is copied together. Strict
//! where it matters to a load generator: what cannot be framed with certainty is a bad answer and not a fast one.

use amped_wire::h1::{BodyDecoder, BodyEvent};
use amped_wire::head::Framing;
use memchr::memchr;

/// The reader of one connection's responses.
#[derive(Debug, Default)]
pub struct ResponseReader {
    state: State,
    /// The beginning of a head that arrives in pieces.
    held: Vec<u8>,
    answer: Answer,
}

/// A response that has been read to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code, 200 to 999.
    pub status: u16,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// Bytes of its body, chunk framing not counted.
    pub body: u64,
}

/// What is wrong with what came.
pub type Fault = &'static str;

/// What the end of the connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ended a body that only the end delimits.
    Whole(Answer),
    /// It came between two responses.
    Between,
    /// It came within a response.
    Short,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Length(u64),
    /// Boxed: rare, and every connection would carry its size.
    Chunked(Box<BodyDecoder>),
    UntilClose,
}

impl ResponseReader {
    /// Reads on: how many bytes were used, and the response they complete, if they do. `to_head` says that the request was a
    /// HEAD, so that no body follows. All of `input` is used unless a response is complete.
    ///
    /// # Errors
    /// What cannot be a response; the connection is of no use any more.
    pub fn read(&mut self, input: &[u8], to_head: bool) -> Result<(usize, Option<Answer>), Fault> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match &mut self.state {
                State::Head => match self.read_head(rest, to_head)? {
                    (used, true) => at += used,
                    (used, false) => return Ok((at + used, None)),
                },
                State::Length(left) => {
                    let there = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= there as u64;
                    self.answer.body += there as u64;
                    at += there;
                    return Ok(if *left == 0 { (at, Some(self.finish())) } else { (at, None) });
                }
                State::Chunked(decoder) => {
                    let (used, event) = decoder.decode(rest).map_err(|_| "the chunked coding is broken")?;
                    at += used;
                    match event {
                        BodyEvent::Data(data) => self.answer.body += data.len() as u64,
                        BodyEvent::NeedMore => return Ok((at, None)),
                        BodyEvent::Done => return Ok((at, Some(self.finish()))),
                    }
                }
                State::UntilClose => {
                    self.answer.body += rest.len() as u64;
                    return Ok((input.len(), None));
                }
            }
        }
    }

    /// The peer has finished sending.
    pub fn end(&mut self) -> Ending {
        match self.state {
            State::UntilClose => Ending::Whole(self.finish()),
            State::Head if self.held.is_empty() => Ending::Between,
            _ => Ending::Short,
        }
    }

    /// Forgets a connection's rest before the next one begins.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.held.clear();
    }

    fn finish(&mut self) -> Answer {
        self.state = State::Head;
        self.answer
    }

    /// Reads a head; says how much it used and whether a head was complete. Interim responses (1xx) are read over.
    fn read_head(&mut self, input: &[u8], to_head: bool) -> Result<(usize, bool), Fault> {
        let before = self.held.len();
        let parsed = if before == 0 {
            parse(input)?
        } else {
            self.held.extend_from_slice(input);
            parse(&self.held)?
        };
        let Some((size, head)) = parsed else {
            if before == 0 {
                self.held.extend_from_slice(input);
            }
            return if self.held.len() > MAX_HEAD { Err("the head is endless") } else { Ok((input.len(), false)) };
        };
        self.held.clear();
        let used = size - before;
        if head.status < 200 {
            return if head.status == 101 { Err("the protocol is switched unasked") } else { Ok((used, true)) };
        }
        self.answer = Answer { status: head.status, keep_alive: head.keep_alive, body: 0 };
        self.state = if to_head || matches!(head.status, 204 | 304) {
            State::Length(0)
        } else if head.chunked {
            State::Chunked(Box::new(BodyDecoder::new(Framing::Chunked)))
        } else if let (Some(length), false) = (head.length, head.coded) {
            State::Length(length)
        } else {
            self.answer.keep_alive = false;
            State::UntilClose
        };
        Ok((used, true))
    }
}

/// What matters of a head.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    keep_alive: bool,
    length: Option<u64>,
    /// There is a Transfer-Encoding, and its last coding is `chunked`.
    coded: bool,
    chunked: bool,
}

/// Reads a head from its first byte; `None` when it is not complete.
fn parse(input: &[u8]) -> Result<Option<(usize, Head)>, Fault> {
    let Some(end) = memchr(b'\n', input) else {
        return if input.starts_with(&START[..START.len().min(input.len())]) { Ok(None) } else { Err(NO_HTTP) };
    };
    let mut head = status_line(without_cr(&input[..end]))?;
    let mut at = end + 1;
    loop {
        let Some(length) = memchr(b'\n', &input[at..]) else { return Ok(None) };
        let line = without_cr(&input[at..at + length]);
        at += length + 1;
        let Some(first) = line.first() else { return Ok(Some((at, head))) };
        // Three fields matter, and their names begin with two letters.
        if matches!(first | 0x20, b'c' | b't') {
            field(line, &mut head)?;
        }
    }
}

fn status_line(line: &[u8]) -> Result<Head, Fault> {
    let rest = line.strip_prefix(START).ok_or(NO_HTTP)?;
    let [minor @ b'0'..=b'9', b' ', digits @ ..] = rest else { return Err(NO_HTTP) };
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] = digits else { return Err("no status") };
    if !matches!(reason, [] | [b' ', ..]) {
        return Err("no status");
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    let status = digit(a) * 100 + digit(b) * 10 + digit(c);
    Ok(Head { status, keep_alive: *minor != b'0', ..Head::default() })
}

fn field(line: &[u8], head: &mut Head) -> Result<(), Fault> {
    let Some(colon) = memchr(b':', line) else { return Err("a field without a colon") };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.eq_ignore_ascii_case(b"content-length") {
        let length = number(value).ok_or("no number in Content-Length")?;
        if head.length.is_some_and(|other| other != length) {
            return Err("two lengths");
        }
        head.length = Some(length);
    } else if name.eq_ignore_ascii_case(b"connection") {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                head.keep_alive = false;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                head.keep_alive = true;
            }
        }
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
        (head.coded, head.chunked) = (true, last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    }
    Ok(())
}

fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

const START: &[u8] = b"HTTP/1.";
const NO_HTTP: Fault = "no HTTP/1 response";
/// More than any server sends, less than would hurt.
const MAX_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// All answers in `input` given in pieces of `step`, and what its end means.
    fn read(input: &[u8], step: usize, to_head: bool) -> Result<(Vec<Answer>, Ending), Fault> {
        let (mut reader, mut answers) = (ResponseReader::default(), Vec::new());
        for piece in input.chunks(step) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (used, answer) = reader.read(rest, to_head)?;
                assert!(used > 0 && (answer.is_some() || used == rest.len()), "all is used, or an answer is complete");
                answers.extend(answer);
                rest = &rest[used..];
            }
        }
        Ok((answers, reader.end()))
    }

    /// The same in one piece, byte by byte, and split in two at every byte.
    fn everyhow(input: &[u8], to_head: bool) -> Result<(Vec<Answer>, Ending), Fault> {
        let whole = read(input, input.len(), to_head);
        for step in 1..input.len() {
            assert_eq!(read(input, step, to_head), whole, "in steps of {step}");
        }
        for at in 1..input.len() {
            let (mut reader, mut answers, mut outcome) = (ResponseReader::default(), Vec::new(), Ok(()));
            'pieces: for piece in [&input[..at], &input[at..]] {
                let mut rest = piece;
                while !rest.is_empty() {
                    match reader.read(rest, to_head) {
                        Ok((used, answer)) => {
                            answers.extend(answer);
                            rest = &rest[used..];
                        }
                        Err(fault) => {
                            outcome = Err(fault);
                            break 'pieces;
                        }
                    }
                }
            }
            assert_eq!(outcome.map(|()| (answers, reader.end())), whole, "split at {at}");
        }
        whole
    }

    fn answer(status: u16, keep_alive: bool, body: u64) -> Answer {
        Answer { status, keep_alive, body }
    }

    #[test]
    fn lengths_chunks_and_ends() {
        let cases: [(&[u8], Vec<Answer>, Ending); 11] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", vec![answer(200, true, 5)], Ending::Between),
            (b"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", vec![answer(200, true, 0)], Ending::Between),
            (b"HTTP/1.1 404 Not Found\nContent-Length: 2\n\nno", vec![answer(404, true, 2)], Ending::Between),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nb;x=y\r\nhello world\r\n0\r\nT: v\r\n\r\n",
                vec![answer(200, true, 14)],
                Ending::Between,
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nto the end", vec![], Ending::Whole(answer(200, false, 10))),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", vec![answer(200, false, 1)], Ending::Between),
            (
                b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx",
                vec![answer(200, true, 1)],
                Ending::Between,
            ),
            (
                b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 1\r\n\r\nx",
                vec![answer(200, false, 1)],
                Ending::Between,
            ),
            (
                b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                vec![answer(304, true, 0)],
                Ending::Between,
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", vec![], Ending::Short),
            (b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1", vec![answer(204, true, 0)], Ending::Short),
        ];
        for (input, answers, ending) in cases {
            assert_eq!(everyhow(input, false), Ok((answers, ending)), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn pipelined_answers_are_told_apart() {
        let one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nDate: x\r\n\r\nabc";
        let two = b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        let both = [&one[..], two, one].concat();
        let expected = vec![answer(200, true, 3), answer(500, true, 1), answer(200, true, 3)];
        assert_eq!(everyhow(&both, false), Ok((expected, Ending::Between)));
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n".repeat(2);
        assert_eq!(everyhow(&two, true), Ok((vec![answer(200, true, 0); 2], Ending::Between)));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for input in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nconnection close\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"\x16\x03\x01",
        ] {
            assert!(everyhow(input, false).is_err(), "{}", String::from_utf8_lossy(input));
        }
        let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; MAX_HEAD]].concat();
        assert_eq!(read(&endless, 4096, false), Err("the head is endless"));
    }

    #[test]
    fn a_reader_is_fit_for_the_next_connection() {
        let mut reader = ResponseReader::default();
        assert_eq!(reader.read(b"HTTP/1.1 200 OK\r\nContent-Le", false), Ok((27, None)));
        reader.reset();
        assert_eq!(reader.end(), Ending::Between);
        assert!(reader.read(b"HTTP/1.1 204 X\r\n\r\n", false).is_ok_and(|(_, answer)| answer.is_some()));
    }
}
