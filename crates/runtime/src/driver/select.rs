//! select(2), as 4.2BSD brought it: three bit sets, indexed by the descriptor's number.
//!
//! The lessons of its man page. The sets are overwritten with the answer, so they are copied for every wait; and what is
//! walked is not the connections but every number up to the highest, by the kernel and by us. FD_SETSIZE (1,024) is a bound of
//! glibc's `fd_set`, and FD_SET beyond it writes past the end of the array, or aborts under _FORTIFY_SOURCE. The kernel knows no
//! such bound: it takes `nfds` bits and as many bytes as these need (core_sys_select, fs/select.c). So the sets here are our own,
//! as long as the highest descriptor asks for, and only the pointers pass for `fd_set`; no macro of libc touches them.
//! Elsewhere POSIX lets `nfds` above FD_SETSIZE fail with EINVAL, which the first wait would report.
//! An end and a reset are merely "readable" here; see `lookout` for those who must know without reading.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::lookout::Lookout;
use super::selector::Event;
use super::slots::Token;
use super::source::Flags;

/// Whom a wait asks for, and whose descriptor is which.
#[derive(Debug, Default)]
pub(crate) struct Select {
    readers: Set,
    writers: Set,
    /// The answer of the last wait, kept for its memory.
    readable: Set,
    writable: Set,
    /// By descriptor: whose it is. Meaningful where a bit is set.
    tokens: Vec<Option<Token>>,
    lookout: Lookout,
}

impl Select {
    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        let number = fd.as_raw_fd() as usize;
        if number >= self.tokens.len() {
            self.tokens.resize(number + 1, None);
        }
        self.tokens[number] = Some(token);
        if interest.has(Flags::ARMED_WRITE) {
            self.writers.insert(number);
        }
        if interest.has(Flags::ARMED_READ) {
            self.readers.insert(number);
            self.lookout.disarm(token);
        }
        if interest == Flags::NONE {
            self.lookout.arm(fd, token, known)?;
        }
        Ok(())
    }

    pub(crate) fn deregister(&mut self, fd: RawFd, token: Token) {
        // A closed descriptor in a set would make every wait fail with EBADF.
        self.readers.remove(fd as usize);
        self.writers.remove(fd as usize);
        self.lookout.disarm(token);
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let timeout = self.lookout.limit(timeout);
        let words = self.readers.words().max(self.writers.words());
        self.readable.copy(&self.readers, words);
        self.writable.copy(&self.writers, words);
        let count = select(words * BITS, &mut self.readable, &mut self.writable, timeout)?;
        if count > 0 {
            for (word, (&readable, &writable)) in self.readable.0.iter().zip(&self.writable.0).enumerate() {
                let mut either = readable | writable;
                while either != 0 {
                    let bit = either & either.wrapping_neg();
                    either ^= bit;
                    let number = word * BITS + bit.trailing_zeros() as usize;
                    let Some(token) = self.tokens[number] else { continue };
                    let mut ready = Flags::NONE;
                    if readable & bit != 0 {
                        ready.set(Flags::READABLE);
                    }
                    if writable & bit != 0 {
                        ready.set(Flags::WRITABLE);
                    }
                    events.push(Event { token, ready });
                    // A report ends the request, or the loop would turn for what nobody waits for.
                    self.readers.remove(number);
                    self.writers.remove(number);
                }
            }
        }
        self.lookout.look(events)
    }
}

/// pselect(2), which takes nanoseconds and leaves the timeout alone; select(2) may or may not write the rest into it.
fn select(bits: usize, read: &mut Set, write: &mut Set, timeout: Option<Duration>) -> io::Result<i32> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let nfds = i32::try_from(bits).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (read, write) = (read.0.as_mut_ptr().cast(), write.0.as_mut_ptr().cast());
    // SAFETY: the kernel reads and writes `nfds` bits of each set, rounded up to whole words, and both have `bits / BITS` words;
    // libc hands the pointers on without looking at an `fd_set`. No set of exceptions and no mask are given.
    let count = unsafe { libc::pselect(nfds, read, write, std::ptr::null_mut(), timeout, std::ptr::null()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count) }
}

/// A bit for each descriptor, in words as the kernel has them.
#[derive(Debug, Default)]
struct Set(Vec<libc::c_ulong>);

impl Set {
    fn insert(&mut self, number: usize) {
        let word = number / BITS;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % BITS);
    }

    fn remove(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / BITS) {
            *word &= !(1 << (number % BITS));
        }
    }

    /// How many words lead up to the highest bit; what lies beyond it is given up.
    fn words(&mut self) -> usize {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self.0.len()
    }

    /// Becomes a copy with this many words, which are no fewer than the other has.
    fn copy(&mut self, other: &Self, words: usize) {
        self.0.clear();
        self.0.extend_from_slice(&other.0);
        self.0.resize(words, 0);
    }
}

const BITS: usize = libc::c_ulong::BITS as usize;
