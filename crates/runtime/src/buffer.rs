//! Pooled chunks for what arrives, and the queue of shared pieces for what leaves.
//!
//! Nobody owns a buffer while idle: a chunk is drawn when bytes are there and goes back when it is dropped, which a
//! conversation does before it waits again. So thousands of connections share a handful of chunks, and those stay in the
//! processor's cache.

use std::cell::RefCell;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::Arc;

use crate::driver::buffer_ring::RingChunk;

/// Bytes that arrived. Empty means the peer has finished sending.
#[derive(Debug)]
pub struct Chunk(Holder);

#[derive(Debug)]
enum Holder {
    Pooled { memory: Box<[u8]>, len: usize, pool: Rc<Pool> },
    Ring(RingChunk),
    Owned(Vec<u8>),
}

impl Chunk {
    pub(crate) fn from_ring(chunk: RingChunk) -> Self {
        Self(Holder::Ring(chunk))
    }

    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        Self(Holder::Owned(bytes))
    }

    pub(crate) fn end() -> Self {
        Self::owned(Vec::new())
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Holder::Pooled { memory, len, .. } => &memory[..*len],
            Holder::Ring(chunk) => chunk.bytes(),
            Holder::Owned(bytes) => bytes,
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Holder::Pooled { memory, pool, .. } = &mut self.0 {
            pool.put(std::mem::take(memory));
        }
    }
}

/// Spare chunks, all of one size. The loop's own are of `CHUNK_SIZE` bytes.
#[derive(Debug)]
pub(crate) struct Pool {
    spare: RefCell<Vec<Box<[u8]>>>,
    size: usize,
    /// More than so many are given back to the allocator.
    most: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(CHUNK_SIZE, MAX_SPARE)
    }
}

impl Pool {
    pub(crate) fn new(size: usize, most: usize) -> Self {
        Self { spare: RefCell::default(), size, most }
    }

    pub(crate) fn get(&self) -> Box<[u8]> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| vec![0; self.size].into_boxed_slice())
    }

    pub(crate) fn put(&self, memory: Box<[u8]>) {
        let mut spare = self.spare.borrow_mut();
        if memory.len() == self.size && spare.len() < self.most {
            spare.push(memory);
        }
    }

    pub(crate) fn chunk(self: &Rc<Self>, memory: Box<[u8]>, len: usize) -> Chunk {
        debug_assert!(len <= memory.len());
        Chunk(Holder::Pooled { memory, len, pool: Rc::clone(self) })
    }
}

/// What is to be sent, in order: bytes of its own and ranges of shared memory, which it keeps alive until they have left.
#[derive(Debug, Default)]
pub struct SendQueue {
    own: Vec<u8>,
    pieces: Vec<Piece>,
    /// Own bytes up to here belong to a piece.
    sealed: usize,
    /// The first piece that still has bytes.
    first: usize,
    unsent: usize,
}

#[derive(Debug)]
enum Piece {
    Own(Range<usize>),
    Shared(Arc<[u8]>, Range<usize>),
}

impl SendQueue {
    /// The queue's own bytes, for appending heads and small bodies. What is already there must not be changed.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends a range of shared memory without copying it.
    pub fn share(&mut self, memory: &Arc<[u8]>, range: Range<usize>) {
        debug_assert!(range.end <= memory.len());
        if range.is_empty() {
            return;
        }
        self.seal();
        self.unsent += range.len();
        self.pieces.push(Piece::Shared(Arc::clone(memory), range));
    }

    /// Bytes not sent yet.
    pub fn len(&self) -> usize {
        self.unsent + (self.own.len() - self.sealed)
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything, sent or not, and keeps the memory unless a burst made it large.
    pub fn clear(&mut self) {
        self.own.clear();
        self.own.shrink_to(MAX_KEPT);
        self.pieces.clear();
        self.pieces.shrink_to(MAX_KEPT_PIECES);
        (self.sealed, self.first, self.unsent) = (0, 0, 0);
    }

    /// Gives up the memory too: for a queue that may wait long.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn seal(&mut self) {
        if self.own.len() > self.sealed {
            self.unsent += self.own.len() - self.sealed;
            self.pieces.push(Piece::Own(self.sealed..self.own.len()));
            self.sealed = self.own.len();
        }
    }

    /// The unsent pieces, at most `limit`.
    pub(crate) fn slices(&mut self, limit: usize) -> impl Iterator<Item = &[u8]> {
        self.seal();
        let own = &self.own;
        self.pieces[self.first..].iter().take(limit).map(move |piece| match piece {
            Piece::Own(range) => &own[range.clone()],
            Piece::Shared(memory, range) => &memory[range.clone()],
        })
    }

    /// The whole rest when it is one piece: `send` is cheaper than `sendmsg`.
    pub(crate) fn single(&mut self) -> Option<&[u8]> {
        self.seal();
        match &self.pieces[self.first..] {
            [Piece::Own(range)] => Some(&self.own[range.clone()]),
            [Piece::Shared(memory, range)] => Some(&memory[range.clone()]),
            _ => None,
        }
    }

    /// Takes note that `sent` bytes have left.
    pub(crate) fn advance(&mut self, mut sent: usize) {
        self.seal();
        debug_assert!(sent <= self.unsent);
        self.unsent -= sent;
        while sent > 0 {
            let (Piece::Own(range) | Piece::Shared(_, range)) = &mut self.pieces[self.first];
            let step = sent.min(range.len());
            range.start += step;
            sent -= step;
            if range.start == range.end {
                self.first += 1;
            }
        }
        if self.unsent == 0 {
            self.clear();
        }
    }
}

/// What one receive can take: a burst of pipelined requests, or a comfortable window of a body.
pub(crate) const CHUNK_SIZE: usize = 32 * 1024;
const MAX_SPARE: usize = 16;
const MAX_KEPT: usize = 64 * 1024;
const MAX_KEPT_PIECES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(queue: &mut SendQueue) -> Vec<u8> {
        queue.slices(usize::MAX).flatten().copied().collect()
    }

    #[test]
    fn pieces_leave_in_order_and_keep_count() {
        let mut queue = SendQueue::default();
        let body: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        queue.own().extend_from_slice(b"head ");
        queue.share(&body, 2..5);
        queue.own().extend_from_slice(b" tail");
        assert_eq!(queue.len(), 13);
        assert_eq!(contents(&mut queue), b"head 234 tail");
        assert!(queue.single().is_none());
        queue.advance(6);
        assert_eq!(contents(&mut queue), b"34 tail");
        queue.own().extend_from_slice(b"!");
        assert_eq!(contents(&mut queue), b"34 tail!");
        queue.advance(8);
        assert!(queue.is_empty());
        assert_eq!(Arc::strong_count(&body), 1, "what has left is not kept alive");
    }

    #[test]
    fn one_piece_is_single() {
        let mut queue = SendQueue::default();
        queue.own().extend_from_slice(b"ab");
        queue.own().extend_from_slice(b"cd");
        assert_eq!(queue.single(), Some(&b"abcd"[..]));
        queue.advance(3);
        assert_eq!(queue.single(), Some(&b"d"[..]));
    }

    /// Every operation in random order against a plain vector of the unsent bytes.
    #[test]
    fn a_queue_is_the_bytes_it_holds() {
        let mut seed = 7u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        let (mut queue, mut model) = (SendQueue::default(), Vec::new());
        let shared: Arc<[u8]> = (0..=255).collect();
        for step in 0..20_000 {
            match random(10) {
                0..3 => {
                    let bytes = vec![step as u8; random(40)];
                    queue.own().extend_from_slice(&bytes);
                    model.extend_from_slice(&bytes);
                }
                3..6 => {
                    let start = random(256);
                    let range = start..start + random(257 - start);
                    queue.share(&shared, range.clone());
                    model.extend_from_slice(&shared[range]);
                }
                6..9 => {
                    let sent = random(queue.len().min(600) + 1);
                    queue.advance(sent);
                    model.drain(..sent);
                }
                _ if random(20) == 0 => {
                    queue.clear();
                    model.clear();
                }
                _ => {
                    queue.release();
                    let first: Vec<u8> = queue.slices(2).flatten().copied().collect();
                    assert!(model.starts_with(&first));
                    assert!(queue.slices(usize::MAX).all(|slice| !slice.is_empty()), "an empty vector sends nothing");
                }
            }
            assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
            if let Some(single) = queue.single() {
                assert_eq!(single, model);
            }
            if step % 16 == 0 {
                assert_eq!(contents(&mut queue), model);
            }
        }
        queue.clear();
        assert_eq!(Arc::strong_count(&shared), 1, "an empty queue holds nothing");
    }

    #[test]
    fn a_burst_does_not_stay() {
        let mut queue = SendQueue::default();
        queue.own().resize(MAX_KEPT * 4, 0);
        queue.advance(MAX_KEPT * 4);
        assert!(queue.own().capacity() <= MAX_KEPT);
        queue.release();
        assert_eq!(queue.own().capacity(), 0);
    }

    #[test]
    fn chunks_return_to_their_pool() {
        let pool = Rc::new(Pool::default());
        let chunk = pool.chunk(pool.get(), 5);
        assert_eq!(chunk.len(), 5);
        drop(chunk);
        assert_eq!(pool.spare.borrow().len(), 1);
    }
}
