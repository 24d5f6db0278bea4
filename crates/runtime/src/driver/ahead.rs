//! What was received before its task asked for it, so that all that came in one turn can be looked at together.
//!
//! io_uring receives by itself; here it is one recv(2) for each connection that waits for its next request and was reported readable, before the
//! first of their tasks runs instead of in it. Nothing is paid twice, and it is only done when somebody wants to look.

use std::io;
use std::num::NonZeroU16;
use std::rc::Rc;

use super::readiness::recv_now;
use super::slots::Token;
use super::source::{Flags, Source};
use crate::buffer::{Chunk, Pool};

/// Where a source's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(NonZeroU16);

/// The bytes of several sources.
#[derive(Debug)]
pub(crate) struct Ahead {
    pool: Rc<Pool>,
    places: Vec<Option<io::Result<Chunk>>>,
    free: Vec<Place>,
    /// Whose bytes came in this turn.
    pub(crate) arrived: Vec<Token>,
}

impl Default for Ahead {
    fn default() -> Self {
        let pool = Rc::new(Pool::new(SIZE, usize::from(MOST)));
        Self { pool, places: Vec::new(), free: Vec::new(), arrived: Vec::new() }
    }
}

impl Ahead {
    /// Receives what has come for a source whose task waits for its next request, unless too many have not taken theirs yet.
    pub(crate) fn receive(&mut self, source: &mut Source, token: Token) {
        let is_told = Flags::HANGUP | Flags::RESET | Flags::TIMED_OUT;
        if !source.flags.has(Flags::IDLE) || source.flags.has(is_told) || source.ahead.is_some() {
            return;
        }
        let Some(place) = self.place() else { return };
        match recv_now(source, &self.pool, SIZE) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                source.flags.clear(Flags::READABLE);
                self.free.push(place);
            }
            Err(error) => self.put(source, place, Err(error)),
            Ok((chunk, may_hold_more)) => {
                if !may_hold_more {
                    source.flags.clear(Flags::READABLE);
                }
                self.put(source, place, Ok(chunk));
                self.arrived.push(token);
            }
        }
    }

    /// What there is for a source, at most `limit` bytes of it.
    pub(crate) fn take(&mut self, source: &mut Source, limit: usize) -> Option<io::Result<Chunk>> {
        let place = source.ahead.take()?;
        let received = self.places[place.index()].take()?;
        match received {
            Ok(chunk) if chunk.len() > limit.max(1) => {
                let (now, later) = chunk.split_at(limit.max(1));
                self.put(source, place, Ok(Chunk::owned(later.to_vec())));
                Some(Ok(Chunk::owned(now.to_vec())))
            }
            received => {
                self.free.push(place);
                Some(received)
            }
        }
    }

    /// A source's bytes, if it has not taken them yet.
    pub(crate) fn bytes(&self, source: &Source) -> Option<&[u8]> {
        self.places[source.ahead?.index()].as_ref()?.as_deref().ok()
    }

    fn put(&mut self, source: &mut Source, place: Place, received: io::Result<Chunk>) {
        self.places[place.index()] = Some(received);
        source.ahead = Some(place);
    }

    fn place(&mut self) -> Option<Place> {
        if let Some(place) = self.free.pop() {
            return Some(place);
        }
        let number = NonZeroU16::new(u16::try_from(self.places.len() + 1).ok().filter(|number| *number <= MOST)?)?;
        self.places.push(None);
        Some(Place(number))
    }
}

impl Place {
    fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// Most requests fit in one; what is longer is received by its task, as ever.
const SIZE: usize = 4096;
/// Together they should stay in the processor's second-level cache.
const MOST: u16 = 64;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::driver::slots::Slots;

    /// A source that waits for its next request, and its peer.
    fn idle(slots: &mut Slots<Source>) -> (Token, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("descriptors");
        ours.set_nonblocking(true).expect("a socket");
        let mut source = Source::new(ours.into());
        source.flags.set(Flags::IDLE);
        (slots.insert(source), theirs)
    }

    #[test]
    fn what_came_is_shown_and_taken_in_portions() {
        let (mut slots, mut ahead) = (Slots::default(), Ahead::default());
        let (token, mut peer) = idle(&mut slots);
        peer.write_all(b"0123456789").expect("it is open");
        let source = slots.get_mut(token).expect("a source");
        ahead.receive(source, token);
        assert_eq!((&ahead.arrived[..], ahead.bytes(source)), (&[token][..], Some(&b"0123456789"[..])));
        // The next is not received before this one is taken: that would be the wrong order.
        ahead.receive(source, token);
        assert_eq!(ahead.arrived.len(), 1);
        for (limit, portion) in [(4, &b"0123"[..]), (0, b"4"), (usize::MAX, b"56789")] {
            let chunk = ahead.take(source, limit).expect("something").expect("bytes");
            assert_eq!(&chunk[..], portion);
        }
        assert!(ahead.take(source, 1).is_none() && !source.flags.has(Flags::READABLE));
        assert_eq!(ahead.free.len(), ahead.places.len());
    }

    #[test]
    fn only_who_waits_for_a_request_is_looked_at() {
        let (mut slots, mut ahead) = (Slots::default(), Ahead::default());
        for (flag, is_set) in
            [(Flags::IDLE, false), (Flags::HANGUP, true), (Flags::RESET, true), (Flags::TIMED_OUT, true)]
        {
            let (token, mut peer) = idle(&mut slots);
            peer.write_all(b"x").expect("it is open");
            let source = slots.get_mut(token).expect("a source");
            if is_set {
                source.flags.set(flag)
            } else {
                source.flags.clear(flag)
            }
            ahead.receive(source, token);
            assert!(source.ahead.is_none() && ahead.arrived.is_empty(), "{flag:?}");
        }
        let (token, _peer) = idle(&mut slots);
        let source = slots.get_mut(token).expect("a source");
        ahead.receive(source, token);
        assert!(source.ahead.is_none() && !source.flags.has(Flags::READABLE), "nothing has come");
    }

    #[test]
    fn an_end_is_an_empty_chunk_and_places_are_few() {
        let (mut slots, mut ahead) = (Slots::default(), Ahead::default());
        let tokens: Vec<Token> = (0..usize::from(MOST) + 1).map(|_| idle(&mut slots).0).collect();
        for token in &tokens {
            ahead.receive(slots.get_mut(*token).expect("a source"), *token);
        }
        assert_eq!(ahead.arrived, tokens[..usize::from(MOST)]);
        for token in &ahead.arrived.clone() {
            let chunk = ahead.take(slots.get_mut(*token).expect("a source"), 10).expect("an end").expect("no error");
            assert!(chunk.is_empty());
        }
        let last = tokens[usize::from(MOST)];
        ahead.receive(slots.get_mut(last).expect("a source"), last);
        assert!(slots.get(last).expect("a source").ahead.is_some(), "a place is free again");
    }
}
