//! A file that stays open while it is sent, and is closed where nobody waits for it.
//!
//! close(2) asks some file systems for leave (FUSE flushes, NFS may commit): on a dead one it never returns. Such files are
//! closed by one thread of their own, which costs a loop the hand-over and nothing else.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use super::mount::{Ability, Mount};
use super::now::{is_all_readable, is_readable, is_resident, warm};
use super::proven::{Proven, UNIT};
use super::root::Place;

/// An open file and where it lies.
#[derive(Debug)]
pub struct Held {
    /// There until it is dropped.
    file: Option<File>,
    place: Place,
    proven: Proven,
}

impl Held {
    /// Holds a file open.
    pub fn new(file: File, place: Place) -> Self {
        Self { file: Some(file), place, proven: Proven::default() }
    }

    /// How far from its start this part can be sent without waiting for the disk, as far as can be told at `now` without reading it.
    ///
    /// cachestat(2) counts pages that are still being read as present, so the end of every read-ahead unit is touched as well; the
    /// last one only, if all were lately, and, if `trusts`, nothing is asked of what was found a moment ago. Without the right to ask
    /// (the file is another user's) it is not known of any.
    pub fn warm_until(&self, mount: &Mount, part: Range<u64>, now: Instant, trusts: bool) -> u64 {
        match mount.ability() {
            Ability::Memory => return part.end,
            Ability::None => return part.start,
            Ability::NoWait => {}
        }
        let mut at = part.start;
        while at < part.end {
            let end = part.end.min((at / UNIT + 1) * UNIT);
            if !self.is_warm(mount, at..end, now, trusts) {
                break;
            }
            at = end;
        }
        at
    }

    /// The same of a part that lies within one unit.
    fn is_warm(&self, mount: &Mount, part: Range<u64>, now: Instant, trusts: bool) -> bool {
        let (unit, length) = (part.start / UNIT, (part.end - part.start) as usize);
        if trusts && self.proven.trusts(unit, now) {
            return true;
        }
        if is_resident(self, part.start, length) != Some(true) {
            return false;
        }
        let is_proven = self.proven.holds(unit, now);
        let (from, asked) = if is_proven { (part.end - 1, 1) } else { (part.start, length) };
        let is_readable = is_readable(mount, self, from, asked);
        // What was seen of a part says nothing of the rest.
        match is_readable && length as u64 == UNIT {
            true if is_proven => self.proven.note_seen(unit, now),
            true => self.proven.note(unit, now),
            false => {}
        }
        is_readable
    }

    /// Whether the kernel has dropped some of this part, or has and is reading it again for somebody else, as far as it tells.
    /// `asks_all`: every page is read to see, which costs about as much as to send it, and tells also where cachestat(2) may not
    /// (Linux before 6.5, another user's file).
    pub fn has_gone(&self, mount: &Mount, offset: u64, length: usize, asks_all: bool) -> bool {
        let can_tell = self.place == Place::Own && mount.ability() == Ability::NoWait;
        if !can_tell {
            return false;
        }
        match is_resident(self, offset, length) {
            Some(false) => true,
            None if !asks_all => false,
            _ if asks_all => !is_all_readable(mount, self, offset, length),
            _ => !is_readable(mount, self, offset, length),
        }
    }

    /// Brings this part into memory and says how much of it there is. Waits for the disk: for helpers.
    ///
    /// # Errors
    /// EIO from the disk.
    pub fn warm(&self, offset: u64, length: usize) -> io::Result<usize> {
        // Some of the file has left memory, and the kernel reads ahead: what it is reading counts as resident.
        self.proven.forget();
        warm(self, offset, length)
    }

    /// Where it lies, which decides what a loop may do with it.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        self.file.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        simulated!(|world| world.pause(std::time::Duration::ZERO));
        if self.place == Place::Remote
            && let Some(file) = self.file.take()
        {
            // Where no thread could be started the file comes back, and is closed here after all.
            let _ = closer().send(file);
        }
    }
}

fn closer() -> &'static Sender<File> {
    static CLOSER: OnceLock<Sender<File>> = OnceLock::new();
    CLOSER.get_or_init(|| {
        let (sender, files) = channel::<File>();
        let thread = std::thread::Builder::new().name("amped-closer".into()).stack_size(STACK);
        let _ = thread.spawn(move || files.into_iter().for_each(drop));
        sender
    })
}

const STACK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    #[test]
    fn every_file_is_closed_in_the_end() {
        for place in [Place::Own, Place::Local, Place::Remote] {
            let held = Held::new(tempfile::tempfile().expect("a temporary file"), place);
            let link = format!("/proc/self/fd/{}", held.as_raw_fd());
            let file = std::fs::read_link(&link).expect("an open file");
            drop(held);
            let start = Instant::now();
            while std::fs::read_link(&link).is_ok_and(|present| present == file) {
                assert!(start.elapsed() < Duration::from_secs(10), "{place:?}: it is still open");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
