//! The grammar of the chunked transfer coding, byte by byte (RFC 9112 section 7.1), data left out.
//! Goal: one way to read it: strict line ends, bounded sizes, extensions and trailers, nothing skipped unseen.
//! Costs: a few instructions for each byte that is not data.

use super::scan;
use crate::limits::{MAX_CHUNK_DIGITS, MAX_CHUNK_EXTENSIONS, MAX_TRAILERS};
use crate::status::{Reject, Status};

/// A chunked body on its way in.
///
/// ```text
///            ┌──────────────── size ────────────────┐
///            ▼                                      │
///  Digits ─► Blank ─► Extension ─► SizeLf ─► Data ─► DataCr ─► DataLf
///    │          ▲──────────┘          │ size 0
///    └───────────────► SizeLf         ▼
///                            ┌─► LineStart ─► Name ─► Value ─► LineLf ─┐
///                            │        └─► EndLf ─► Done                │
///                            └─────────────────────────────────────────┘
/// ```
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    pub state: State,
    /// Bytes of extensions that may still come.
    extensions_left: u32,
    /// Bytes of trailers that may still come.
    trailers_left: u32,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The size of a chunk: the digits so far.
    Digits {
        size: u64,
        count: u32,
    },
    /// White space behind the size: an extension must follow.
    Blank {
        size: u64,
    },
    /// Behind a semicolon, up to the end of the line.
    Extension {
        size: u64,
    },
    /// The LF of the size's line.
    SizeLf {
        size: u64,
    },
    /// A chunk's data: so many bytes to come.
    Data(u64),
    DataCr,
    DataLf,
    /// The first byte of a trailer line or of the last CRLF.
    LineStart,
    Name,
    Value,
    LineLf,
    EndLf,
    Done,
}

impl Chunked {
    pub fn new() -> Chunked {
        Chunked { state: CHUNK_START, extensions_left: MAX_CHUNK_EXTENSIONS, trailers_left: MAX_TRAILERS }
    }

    /// Takes note that of a chunk's data so much is still to come.
    pub fn data_left(&mut self, left: u64) {
        self.state = if left == 0 { State::DataCr } else { State::Data(left) };
    }

    /// Takes one byte of the framing. A `match` over the whole grammar, kept in one place to be read against RFC 9112
    /// section 7.1.
    pub fn step(&mut self, byte: u8) -> Result<(), Reject> {
        self.state = match (self.state, byte) {
            (State::Digits { size, count }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => digit(size, count, byte)?,
            (State::Digits { count: 0, .. }, _) => return Err(Reject::bad("chunk without a size")),
            (State::Digits { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Digits { size, .. } | State::Blank { size }, b' ' | b'\t') => {
                self.extension(State::Blank { size })?
            }
            (State::Digits { size, .. } | State::Blank { size }, b';') => self.extension(State::Extension { size })?,
            (State::Digits { .. } | State::Blank { .. }, _) => {
                return Err(Reject::bad("malformed chunk size"));
            }
            (State::Extension { size }, _) if is_text(byte) => self.extension(State::Extension { size })?,
            (State::Extension { .. }, _) => {
                return Err(Reject::bad("control byte in a chunk extension"));
            }
            (State::SizeLf { size: 0 }, b'\n') => State::LineStart,
            (State::SizeLf { size }, b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => CHUNK_START,
            (State::DataCr | State::DataLf, _) => {
                return Err(Reject::bad("chunk longer than its size"));
            }
            (State::LineStart, b'\r') => State::EndLf,
            (State::LineStart | State::Name, _) if scan::is_tchar(byte) => self.trailer(State::Name)?,
            (State::Name, b':') => self.trailer(State::Value)?,
            (State::LineStart | State::Name, _) => {
                return Err(Reject::bad("malformed trailer name"));
            }
            (State::Value, b'\r') => self.trailer(State::LineLf)?,
            (State::Value, _) if is_text(byte) => self.trailer(State::Value)?,
            (State::Value, _) => return Err(Reject::bad("control byte in a trailer")),
            (State::LineLf, b'\n') => State::LineStart,
            (State::EndLf, b'\n') => State::Done,
            (State::SizeLf { .. } | State::LineLf | State::EndLf, _) => {
                return Err(Reject::bad("bare CR in chunked body"));
            }
            // Not reached: data and what follows the end are not steps.
            (state @ (State::Data(_) | State::Done), _) => state,
        };
        Ok(())
    }

    fn extension(&mut self, next: State) -> Result<State, Reject> {
        self.extensions_left = self.extensions_left.checked_sub(1).ok_or(Reject::bad("chunk extensions too long"))?;
        Ok(next)
    }

    fn trailer(&mut self, next: State) -> Result<State, Reject> {
        self.trailers_left = self.trailers_left.checked_sub(1).ok_or(TRAILERS_TOO_LONG)?;
        Ok(next)
    }
}

/// One more digit of a chunk size. Their number is bounded, so that the shift loses nothing.
fn digit(size: u64, count: u32, byte: u8) -> Result<State, Reject> {
    if count == MAX_CHUNK_DIGITS {
        return Err(Reject::bad("chunk size too large"));
    }
    let value = (byte as char).to_digit(16).unwrap_or_default();
    Ok(State::Digits { size: size << 4 | u64::from(value), count: count + 1 })
}

/// Whether this byte may stand in a value: visible, blank, tab or above 0x7f.
fn is_text(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

const CHUNK_START: State = State::Digits { size: 0, count: 0 };
const TRAILERS_TOO_LONG: Reject = Reject::new(Status::REQUEST_HEADER_FIELDS_TOO_LARGE, "trailers too long");
