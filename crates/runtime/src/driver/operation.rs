//! What the kernel carries for an operation of io_uring: which one it is, and whose.

use super::slots::{GENERATION_BITS, Token};

/// What an operation was, carried in the top bits of its user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept,
    Receive,
    Send,
    Readable,
    Writable,
    Reset,
    Cancel,
}

const KINDS: [Kind; 7] =
    [Kind::Accept, Kind::Receive, Kind::Send, Kind::Readable, Kind::Writable, Kind::Reset, Kind::Cancel];

pub(crate) fn user_data(kind: Kind, token: Token) -> u64 {
    (kind as u64) << (32 + GENERATION_BITS) | token.pack()
}

pub(crate) fn unpack(user_data: u64) -> (Kind, Token) {
    (KINDS[(user_data >> (32 + GENERATION_BITS)) as usize], Token::unpack(user_data))
}

/// A token for operations that belong to no source.
pub(crate) const PROOF: Token = Token { index: u32::MAX, generation: 0 };
