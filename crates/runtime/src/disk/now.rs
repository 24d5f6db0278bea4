//! Reads that do not wait: preadv2(2) with RWF_NOWAIT, and the question whether a window is in memory.
//!
//! Not strictly without waiting: where extent maps are cold the kernel may sleep for one read of metadata (measured: 0.3 ms on
//! a fragmented ext4, 1.9 ms on XFS), and a read of what is not in memory begins to bring it there: 0.1 to 0.3 ms on the loop to
//! tell a virtual disk, more where room must be made first, and one more request in the disk's own queue whether or not
//! anybody will wait for it. So the first miss is noticed in passing, and while there are more `read_resident` asks
//! before it reads. The loop's meter watches these steps.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::mount::{Ability, Mount};
use super::root::read_at;

/// Reads what is in memory. A short count means the rest is not (or the file ends).
///
/// # Errors
/// `WouldBlock` when nothing is in memory, or the mount cannot tell: ask a helper, once.
pub fn read_now(mount: &Mount, file: &File, memory: &mut [u8], offset: u64) -> io::Result<usize> {
    match mount.ability() {
        Ability::None => Err(io::ErrorKind::WouldBlock.into()),
        Ability::Memory => read_at(file, memory, offset),
        Ability::NoWait => match read_now_unchecked(file, memory, offset) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
                mount.refuse();
                Err(io::ErrorKind::WouldBlock.into())
            }
            read => read,
        },
    }
}

/// `read_now` for when the disk has work already: cachestat(2) is asked first, so that the kernel begins to read nothing on
/// behalf of the loop. Where it may not tell (Linux before 6.5, another user's file), `or_try` says whether to try all the same.
///
/// # Errors
/// As `read_now`.
pub fn read_resident(mount: &Mount, file: &File, memory: &mut [u8], offset: u64, or_try: bool) -> io::Result<usize> {
    if mount.ability() == Ability::NoWait && !is_resident(file, offset, memory.len()).unwrap_or(or_try) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    read_now(mount, file, memory, offset)
}

pub(crate) fn read_now_unchecked(file: &File, memory: &mut [u8], offset: u64) -> io::Result<usize> {
    simulated!(|world| world.read_file_now(file.as_raw_fd(), memory, offset));
    let mut vectors = [IoSliceMut::new(memory)];
    Ok(preadv2(file, &mut vectors, offset, ReadWriteFlags::NOWAIT)?)
}

/// Whether the page cache has it all, be it still being read (cachestat(2)); `None` when the kernel does not tell: before Linux
/// 6.5, and of another user's file.
pub fn is_resident(file: &File, offset: u64, length: usize) -> Option<bool> {
    simulated!(|world| world.is_resident(file.as_raw_fd(), offset, length));
    let range = [offset, length as u64];
    let mut stat = CacheStat::default();
    // SAFETY: both pointers lead to memory of the size that the call expects, and no flags are defined.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_fd().as_raw_fd(), &range, &mut stat, 0) };
    let pages = (offset + length as u64).div_ceil(PAGE) - offset / PAGE;
    (result == 0).then_some(stat.cached >= pages)
}

/// Whether the end of every read-ahead unit can be read without waiting. cachestat(2) counts pages that are being read as
/// present. That a unit's end is there says nothing of a page in its middle that had left memory alone: see `is_all_readable`.
/// Units that are small after a seek go untested.
pub(super) fn is_readable(mount: &Mount, file: &File, offset: u64, length: usize) -> bool {
    let last = offset + length as u64;
    let end_of = |at: u64| {
        let unit = if at < RAMP { FIRST_READ_AHEAD } else { READ_AHEAD };
        last.min((at / unit + 1) * unit)
    };
    let mut ends = std::iter::successors(Some(end_of(offset)), |end| (*end < last).then(|| end_of(*end)));
    ends.all(|end| matches!(read_now(mount, file, &mut [0], end - 1), Ok(1)))
}

/// Whether all of it can be read without waiting: every page is read. For when pages leave memory and come back: one out of the
/// middle of a file that many ask for was still being read for the first of them, and `sendfile` for the second slept until it
/// was there, 12 times in 100 s and for up to 0.8 s (65 to 110 KB each, with the disk asked for more than it can do).
pub(super) fn is_all_readable(mount: &Mount, file: &File, offset: u64, length: usize) -> bool {
    SEEN.with_borrow_mut(|seen| {
        seen.resize(SCRATCH, 0);
        let last = offset + length as u64;
        let mut at = offset;
        while at < last {
            let step = (last - at).min(SCRATCH as u64) as usize;
            match read_now(mount, file, &mut seen[..step], at) {
                Ok(read) if read == step => at += read as u64,
                _ => return false,
            }
        }
        true
    })
}

/// Brings the window into memory and says how much of it there is.
pub(super) fn warm(file: &File, offset: u64, length: usize) -> io::Result<usize> {
    // Reading is the only proof of presence that works on every mount; the scratch memory stays in the processor's cache.
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length as u64), rustix::fs::Advice::WillNeed);
    let mut scratch = vec![0; SCRATCH.min(length)];
    let mut done = 0;
    while done < length {
        let step = scratch.len().min(length - done);
        match read_at(file, &mut scratch[..step], offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

thread_local! {
    /// Where the pages go that are only read to see whether they are there: it stays in the processor's cache.
    static SEEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The kernel's `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// cachestat(2), Linux 6.5; the number is the same on every architecture.
const CACHESTAT: libc::c_long = 451;
const PAGE: u64 = 4096;
/// The kernel's usual read-ahead: who reads on is read ahead for in units of this size, none of which lies between two of its
/// multiples.
const READ_AHEAD: u64 = 128 * 1024;
/// It begins with units no smaller than this and doubles them (mm/readahead.c), so they have grown where this part of a file ends.
const FIRST_READ_AHEAD: u64 = 16 * 1024;
const RAMP: u64 = 256 * 1024;
const SCRATCH: usize = 128 * 1024;
