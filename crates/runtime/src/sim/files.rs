//! The disk of a world: names, inodes, the page cache, and what every name has led to since the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::descriptors::Thing;
use super::helper::Helper;
use super::random::Random;
use super::world::World;
use crate::disk::{Ability, FileKind, Place, Stamp};

/// What somebody does to a name.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new file takes the name (rename(2)).
    Replace(Arc<[u8]>),
    /// The file itself is written anew, or made.
    Rewrite(Arc<[u8]>),
    /// The name is gone.
    Remove,
    /// A folder is made.
    Folder,
}

/// What a name led to, from a time on until the next version.
#[derive(Clone, Debug)]
pub struct Version {
    /// Virtual nanoseconds.
    pub from: u64,
    /// The file's bytes; `None` when there was no file.
    pub bytes: Option<Arc<[u8]>>,
}

#[derive(Debug, Default)]
pub(super) struct Files {
    names: BTreeMap<Vec<u8>, usize>,
    inodes: Vec<Inode>,
    history: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Names that the kernel has in memory, also of what is not there.
    known: BTreeSet<Vec<u8>>,
    /// What the loop asked for that may wait for the disk.
    waits: Vec<String>,
    pub place: Option<Place>,
    /// Pages have been forgotten.
    has_evicted: bool,
    /// A helper is at work, and may wait.
    pub in_helper: bool,
}

#[derive(Debug)]
struct Inode {
    kind: FileKind,
    bytes: Arc<[u8]>,
    /// Nanoseconds of the wall clock, and a count of changes that no program can set.
    modified: u64,
    changed: u64,
    /// The pages that are in memory.
    resident: Pages,
    /// Those that are being read for somebody, and when they will be there: to cachestat(2) they are resident.
    arriving: (Pages, u64),
    /// When somebody last read of it.
    read_at: u64,
}

/// A set of pages, 2.5 MB of them; the rest of a larger file is the last one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages([u64; 5]);

impl Pages {
    const NONE: Self = Self([0; 5]);
    const ALL: Self = Self([u64::MAX; 5]);

    fn of(offset: u64, length: usize) -> Self {
        let last = (offset + (length as u64).max(1) - 1) / PAGE;
        let mut pages = Self::NONE;
        for page in offset / PAGE..=last {
            let page = page.min(64 * 5 - 1) as usize;
            pages.0[page / 64] |= 1 << (page % 64);
        }
        pages
    }

    fn draw(random: &mut Random) -> Self {
        Self(std::array::from_fn(|_| random.draw()))
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    fn without(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    fn has_all(self, other: Self) -> bool {
        self.and(other) == other
    }
}

impl Inode {
    fn is_in_memory(&self, pages: Pages) -> bool {
        self.resident.has_all(pages)
    }

    /// What is to be there by `now` is.
    fn arrive(&mut self, now: u64) {
        if now >= self.arriving.1 {
            self.resident = self.resident.or(std::mem::replace(&mut self.arriving.0, Pages::NONE));
        }
    }

    /// All is there or on its way, and not all is there.
    fn is_arriving(&self, pages: Pages) -> bool {
        self.resident.or(self.arriving.0).has_all(pages) && !self.is_in_memory(pages)
    }
}

impl World {
    /// Does something to a name, now.
    pub fn change(&mut self, path: &[u8], change: Change) {
        // The kernel's clock for files ticks every few milliseconds (current_time(9)).
        let time = self.wall_nanos() / TICK * TICK;
        let present = self.files.names.get(path).copied();
        let bytes = match change {
            Change::Remove => {
                self.files.names.remove(path);
                None
            }
            Change::Folder => {
                self.new_inode(path, FileKind::Directory, Arc::default(), time);
                None
            }
            Change::Rewrite(bytes) if present.is_some_and(|inode| self.files.inodes[inode].kind == FileKind::File) => {
                let inode = &mut self.files.inodes[present.expect("just looked at")];
                inode.bytes = Arc::clone(&bytes);
                // What was written is in memory.
                (inode.modified, inode.changed, inode.resident) = (time, time, Pages::ALL);
                Some(bytes)
            }
            Change::Replace(bytes) | Change::Rewrite(bytes) => {
                self.new_inode(path, FileKind::File, Arc::clone(&bytes), time);
                Some(bytes)
            }
        };
        self.note("change", path.len() as u64, bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64));
        let version = Version { from: self.now, bytes };
        self.files.history.entry(path.to_vec()).or_default().push(version);
    }

    fn new_inode(&mut self, path: &[u8], kind: FileKind, bytes: Arc<[u8]>, time: u64) {
        let resident = if self.random.chance(500_000) { Pages::ALL } else { Pages::NONE };
        let arriving = (Pages::NONE, 0);
        self.files.inodes.push(Inode { kind, bytes, modified: time, changed: time, resident, arriving, read_at: 0 });
        self.files.names.insert(path.to_vec(), self.files.inodes.len() - 1);
    }

    /// What a name led to since the beginning.
    pub fn history(&self, path: &[u8]) -> &[Version] {
        self.files.history.get(path).map_or(&[], Vec::as_slice)
    }

    /// What is there now.
    pub fn present(&self, path: &[u8]) -> Option<&Arc<[u8]>> {
        self.files.names.get(path).map(|inode| &self.files.inodes[*inode].bytes)
    }

    /// Where all files lie; told before the folder is opened.
    pub fn place_files(&mut self, place: Place) {
        self.files.place = Some(place);
    }

    /// Calls of the loop that might have waited for the disk.
    pub fn loop_waits(&self) -> &[String] {
        &self.files.waits
    }

    pub(crate) fn root(&mut self) -> io::Result<std::os::fd::OwnedFd> {
        self.give(Thing::Root, usize::MAX)
    }

    pub(crate) fn ability(&self) -> Ability {
        match self.files.place {
            Some(Place::Remote) => Ability::None,
            _ => Ability::NoWait,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.files.place.unwrap_or(Place::Own)
    }

    /// Somebody may change something at any moment.
    fn race(&mut self) {
        if self.random.chance(self.faults.race) {
            self.act(MEDDLER);
        }
    }

    /// The loop asks what only a helper may: that is what the whole design is to prevent.
    fn may_wait(&mut self, what: &str) {
        if !self.files.in_helper {
            self.now += self.random.between(self.faults.disk_time.0, self.faults.disk_time.1);
            self.files.waits.push(format!("{what} at {}", self.now));
        }
    }

    /// openat2(2).
    pub(crate) fn open_file(&mut self, path: &[u8], only_cached: bool) -> io::Result<File> {
        self.call();
        self.race();
        if self.random.chance(self.faults.evict) {
            self.files.known.remove(path);
        }
        if only_cached && !self.files.known.contains(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !only_cached {
            self.may_wait("open");
            self.files.known.insert(path.to_vec());
        }
        if self.random.chance(self.faults.open_error) {
            return Err(io::Error::from_raw_os_error(self.random.pick(&[libc::EIO, libc::ESTALE])));
        }
        if self.random.chance(self.faults.open_shortage) {
            return Err(io::Error::from_raw_os_error(self.random.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])));
        }
        let Some(&inode) = self.files.names.get(path) else {
            self.note("no such file", path.len() as u64, only_cached.into());
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        let limit = self.faults.descriptors;
        let fd = self.give(Thing::File(inode), limit)?;
        self.note("open", inode as u64, only_cached.into());
        Ok(fd.into())
    }

    fn inode(&self, fd: RawFd) -> io::Result<usize> {
        match self.descriptors.get(fd) {
            Some(Thing::File(inode)) => Ok(inode),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// fstat(2).
    pub(crate) fn stat(&mut self, fd: RawFd) -> io::Result<(FileKind, Stamp)> {
        self.call();
        self.race();
        if self.files.place == Some(Place::Remote) {
            self.may_wait("fstat of a remote file");
        }
        let at = self.inode(fd)?;
        let inode = &self.files.inodes[at];
        let time = |nanos: u64| ((nanos / 1_000_000_000) as i64, (nanos % 1_000_000_000) as u32);
        let stamp = Stamp {
            identity: (1, at as u64),
            size: inode.bytes.len() as u64,
            modified: time(inode.modified),
            changed: time(inode.changed),
            links: 1,
        };
        Ok((inode.kind, stamp))
    }

    /// pread(2), until `memory` is full or the file ends.
    pub(crate) fn read_file(&mut self, fd: RawFd, memory: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call();
        self.may_wait("read");
        self.read_error()?;
        let at = self.inode(fd)?;
        // In two steps, between which it may change.
        let half = memory.len() / 2;
        let first = self.copy(at, &mut memory[..half], offset);
        self.race();
        let second = if first < half { 0 } else { self.copy(at, &mut memory[half..], offset + half as u64) };
        let inode = &mut self.files.inodes[at];
        let pages = Pages::of(offset, memory.len());
        (inode.resident, inode.arriving.0) = (inode.resident.or(pages), inode.arriving.0.without(pages));
        inode.read_at = self.now;
        // It has taken the place of something.
        let other = self.random.below(self.files.inodes.len() as u64) as usize;
        self.evict(other, Pages::ALL);
        self.note("read", at as u64, (first + second) as u64);
        Ok(first + second)
    }

    /// preadv2(2) with RWF_NOWAIT.
    pub(crate) fn read_file_now(&mut self, fd: RawFd, memory: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call();
        self.race();
        let at = self.inode(fd)?;
        let pages = Pages::of(offset, memory.len());
        self.evict(at, pages);
        if !self.files.inodes[at].is_in_memory(pages) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read_error()?;
        // The last pages may be missing.
        let is_short = self.random.chance(self.faults.evict);
        let length = if is_short { memory.len() / 2 } else { memory.len() };
        let count = self.copy(at, &mut memory[..length], offset);
        self.note("read now", at as u64, count as u64);
        Ok(count)
    }

    /// cachestat(2); `None` where it may not tell.
    pub(crate) fn is_resident(&mut self, fd: RawFd, offset: u64, length: usize) -> Option<bool> {
        self.call();
        let Ok(at) = self.inode(fd) else { return Some(false) };
        let pages = Pages::of(offset, length);
        self.evict(at, pages);
        let inode = &self.files.inodes[at];
        (!self.faults.blind).then(|| inode.is_in_memory(pages) || inode.is_arriving(pages))
    }

    /// What sendfile(2) takes from a file. Nobody writes to it between the last question for its version and this: it takes the
    /// kernel's own pages, so what is written in place then, or while they wait to be sent, goes out with them, and nobody can tell.
    pub(super) fn file_bytes(&mut self, fd: RawFd, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.read_error()?;
        let at = self.inode(fd)?;
        let inode = &mut self.files.inodes[at];
        inode.arrive(self.now);
        // What has been evicted since somebody looked is nobody's fault.
        let pages = Pages::of(offset, length);
        if inode.is_arriving(pages) {
            self.may_wait("sendfile of a window that is being read");
        } else if !self.files.has_evicted && !inode.is_in_memory(pages) {
            self.may_wait("sendfile of a cold window");
        }
        let mut bytes = vec![0; length];
        let count = self.copy(at, &mut bytes, offset);
        bytes.truncate(count);
        Ok(bytes)
    }

    fn read_error(&mut self) -> io::Result<()> {
        if self.random.chance(self.faults.read_error) {
            self.note("EIO", 0, 0);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn copy(&self, at: usize, memory: &mut [u8], offset: u64) -> usize {
        let bytes = &self.files.inodes[at].bytes;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(memory.len());
        memory[..count].copy_from_slice(&rest[..count]);
        count
    }

    /// The kernel may take some of these pages. While helpers read, the next one may be reading them again already.
    fn evict(&mut self, at: usize, pages: Pages) {
        self.files.inodes[at].arrive(self.now);
        if !self.random.chance(self.faults.evict) {
            return;
        }
        let gone = pages.and(Pages::draw(&mut self.random)).and(Pages::draw(&mut self.random));
        // What a helper has just read is sent unasked.
        let was_read_lately = self.now - self.files.inodes[at].read_at < LATELY;
        let is_read_again = self.helpers.iter().any(Helper::is_busy) && self.random.chance(self.faults.reread);
        let is_wanted = is_read_again && !was_read_lately;
        let time = self.now + self.random.between(self.faults.disk_time.0, self.faults.disk_time.1);
        let inode = &mut self.files.inodes[at];
        let gone = gone.and(inode.resident);
        inode.resident = inode.resident.without(gone);
        if is_wanted {
            inode.arriving = (inode.arriving.0.or(gone), time);
        } else {
            self.files.has_evicted = true;
        }
    }
}

/// Who of the crowd is called when something may change between two calls of the disk.
pub const MEDDLER: u32 = u32::MAX;
/// Two of the kernel's.
const PAGE: u64 = 8192;
/// Nanoseconds.
const LATELY: u64 = 25_000_000;
const TICK: u64 = 4_000_000;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::super::Faults;
    use super::*;

    #[test]
    fn names_have_a_history_and_open_files_keep_their_bytes() {
        let mut world = World::new(3, Faults::none());
        world.change(b"a", Change::Replace(Arc::from(*b"one")));
        let cold = world.open_file(b"a", true).expect_err("nobody has asked for it yet");
        assert_eq!(cold.kind(), io::ErrorKind::WouldBlock);
        let file = world.open_file(b"a", false).expect("a file");
        world.change(b"a", Change::Replace(Arc::from(*b"second")));
        let mut memory = [0; 9];
        assert_eq!(world.read_file(file.as_raw_fd(), &mut memory, 1).expect("bytes"), 2);
        assert_eq!(&memory[..2], b"ne");
        world.change(b"a", Change::Remove);
        assert!(world.open_file(b"a", false).is_err());
        let sizes: Vec<_> = world.history(b"a").iter().map(|version| version.bytes.as_ref().map(|b| b.len())).collect();
        assert_eq!(sizes, [Some(3), Some(6), None]);
        assert_eq!(world.loop_waits().len(), 3, "two opens and a read that no helper made");
    }

    #[test]
    fn what_is_written_in_place_has_new_times_once_the_clock_has_ticked() {
        let mut world = World::new(3, Faults::none());
        world.change(b"a", Change::Replace(Arc::from(*b"one")));
        let file = world.open_file(b"a", false).expect("a file");
        let before = world.stat(file.as_raw_fd()).expect("facts").1;
        world.now += 2 * TICK;
        world.change(b"a", Change::Rewrite(Arc::from(*b"two")));
        let after = world.stat(file.as_raw_fd()).expect("facts").1;
        assert_eq!((before.size, before.identity), (after.size, after.identity));
        assert_ne!(before.modified, after.modified);
    }
}
