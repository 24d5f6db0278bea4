//! The provided-buffer ring of io_uring: the kernel picks a buffer when bytes are there, so an idle connection owns none.
//!
//! The ring is small on purpose: its buffers stay in the processor's second-level cache. When it runs dry a multishot receive
//! ends with ENOBUFS and the driver falls back to an ordinary receive, so nobody starves.

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The ring's entries and the buffers behind them, in one mapping.
///
/// INVARIANT: a buffer is either the kernel's (its id is in the ring) or one `RingChunk`'s, never both.
#[derive(Debug)]
pub(crate) struct BufferRing {
    map: NonNull<libc::c_void>,
    tail: Cell<u16>,
}

impl BufferRing {
    /// Maps the memory and registers it with `ring` under `GROUP`; every buffer is the kernel's afterwards.
    pub(crate) fn register(ring: &io_uring::IoUring) -> io::Result<Rc<Self>> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), MAP_SIZE, protection, kind, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map).expect("mmap does not map the null page");
        let this = Rc::new(Self { map, tail: Cell::new(0) });
        // SAFETY: the mapping is page-aligned, holds COUNT entries, and lives until the ring is closed (`Uring` drops the ring
        // first; every `RingChunk` keeps this alive).
        unsafe { ring.submitter().register_buf_ring_with_flags(map.as_ptr() as u64, COUNT, GROUP, 0)? };
        for id in 0..COUNT {
            this.give(id);
        }
        Ok(this)
    }

    /// The bytes that a completion says the kernel has put into buffer `id`.
    pub(crate) fn take(self: &Rc<Self>, id: u16, len: usize) -> RingChunk {
        assert!(id < COUNT && len <= SIZE, "the kernel names its own buffers");
        RingChunk { ring: Rc::clone(self), id, len: len as u32 }
    }

    fn give(&self, id: u16) {
        let tail = self.tail.get();
        // SAFETY: the index is masked to the ring's size; the entry belongs to user space until the tail passes it.
        let entry = unsafe { &mut *self.map.as_ptr().cast::<BufRingEntry>().add((tail & (COUNT - 1)) as usize) };
        entry.set_addr(self.buffer(id) as u64);
        entry.set_len(SIZE as u32);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail is a u16 inside the first entry's reserved part; the kernel reads it with acquire ordering.
        unsafe {
            let shared = BufRingEntry::tail(self.map.as_ptr().cast::<BufRingEntry>()).cast::<AtomicU16>();
            (*shared).store(self.tail.get(), Ordering::Release);
        }
    }

    fn buffer(&self, id: u16) -> *mut u8 {
        // SAFETY: `id` < COUNT, so the result is inside the mapping.
        unsafe { self.map.as_ptr().cast::<u8>().add(RING_SIZE + id as usize * SIZE) }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no chunk refers to it any more (each holds an Rc).
        unsafe { libc::munmap(self.map.as_ptr(), MAP_SIZE) };
    }
}

/// A received buffer; dropping it gives it back to the kernel.
#[derive(Debug)]
pub(crate) struct RingChunk {
    ring: Rc<BufferRing>,
    id: u16,
    len: u32,
}

impl RingChunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the kernel has written `len` bytes and, by the ring's invariant, does not touch them until `give`.
        unsafe { std::slice::from_raw_parts(self.ring.buffer(self.id), self.len as usize) }
    }
}

impl Drop for RingChunk {
    fn drop(&mut self) {
        self.ring.give(self.id);
    }
}

/// Most requests fit in one; a larger burst arrives as several.
const SIZE: usize = 4096;
const COUNT: u16 = 128;
const RING_SIZE: usize = COUNT as usize * size_of::<BufRingEntry>();
const MAP_SIZE: usize = RING_SIZE + COUNT as usize * SIZE;
/// The buffer group's id; there is one.
pub(crate) const GROUP: u16 = 0;

const _: () = assert!(COUNT.is_power_of_two());
