//! Reads what a path leads to: the same steps on the loop, without waiting, and in a helper, with.
//!
//! Open beneath the root, ask what it is, read it whole if it is small, and ask again: a file that was changed meanwhile is
//! read anew, so memory never holds half of one version and half of another.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use amped_runtime::disk::{FileKind, Held, Root, Stamp, pause, read_at, read_now, read_resident, stamp};
use amped_runtime::wall_time;
use amped_wire::semantics::{media_type, path};
use amped_wire::status::Status;

use super::super::opening;
use super::super::reply::field_lines;
use super::entry::{Content, Entry, FileContent, MemoryContent, Representation};
use crate::config::plan::{Action, Plan};
use crate::route::RouteId;

/// Whether a reading may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Only what is in memory: on the loop. What is not, the kernel begins to read.
    NoWait,
    /// Likewise, but the kernel begins nothing: while the disk has work. Where it does not tell what it has, `or_try` decides.
    Resident {
        /// Whether to try without knowing.
        or_try: bool,
    },
    /// Whatever it takes: in a helper.
    Wait,
}

/// How a reading is done.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// Whether it may wait.
    pub reading: Reading,
    /// Whether to try first to do without links, for whoever wants to know whether the file's folder tells all that happens to it.
    pub plainly: bool,
    /// Where to put a body, of which nobody knows yet whether it will be kept; memory of its own without.
    pub passing: Option<&'a Passing>,
    /// What the answer is to begin with.
    pub opening: &'a opening::Bytes,
}

/// Memory for answers with their bodies, used over and over: it stays in the processor's cache, which makes sending from it cheaper than from a fresh
/// allocation by as much as opening the file costs. What the cache keeps is copied out of it.
#[derive(Debug, Default)]
pub struct Passing(RefCell<Vec<Arc<[u8]>>>);

impl Passing {
    /// Lets `fill` write `length` bytes to a buffer nobody refers to any more; `None` when it says false.
    fn fill(&self, length: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<bool>) -> io::Result<Option<Arc<[u8]>>> {
        let mut buffers = self.0.borrow_mut();
        let free = buffers.iter_mut().position(|buffer| buffer.len() >= length && Arc::get_mut(buffer).is_some());
        let mut buffer = match free {
            Some(place) => buffers.swap_remove(place),
            None => vec![0; length.max(PASSING_SIZE)].into(),
        };
        let memory = Arc::get_mut(&mut buffer).expect("nobody else refers to a free or new buffer");
        let filled = fill(memory);
        if buffers.len() < MAX_PASSING {
            buffers.push(Arc::clone(&buffer));
        }
        Ok(filled?.then_some(buffer))
    }
}

/// What was found, and how.
#[derive(Debug)]
pub struct Look {
    /// The path leads to this.
    pub loaded: Loaded,
    /// All that happens to it, its folder tells: the path leads there by names alone, and it has no other name. Said only if asked.
    pub is_plain: bool,
}

/// What a path was found to lead to.
#[derive(Debug)]
pub enum Loaded {
    /// What memory holds is still right.
    Unchanged,
    /// Something to remember.
    New(Content),
    /// Something to say once and not to remember (no descriptors left, an I/O error).
    Passing(Content),
}

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The configuration.
    pub plan: &'a Plan,
    /// The folder of the route.
    pub root: &'a Arc<Root>,
    /// The route.
    pub id: RouteId,
    /// Normalized, beginning with a slash.
    pub path: &'a [u8],
    /// The path's first bytes that are the route's.
    pub strip: usize,
}

/// A target with everything a helper needs, so that it can do without the worker.
#[derive(Debug)]
pub struct Errand {
    plan: Arc<Plan>,
    root: Arc<Root>,
    id: RouteId,
    path: Box<[u8]>,
    strip: usize,
}

impl Errand {
    /// The errand of reading `target`, whose plan is `plan`.
    pub fn new(target: &Target<'_>, plan: &Arc<Plan>) -> Self {
        let &Target { root, id, path, strip, .. } = target;
        Self { plan: Arc::clone(plan), root: Arc::clone(root), id, path: path.into(), strip }
    }

    /// Reads it, whatever it takes. `known` is what memory answers with until this is over.
    pub fn run(&self, known: Option<&Entry>) -> Loaded {
        let Self { plan, root, id, path, strip } = self;
        let target = Target { plan, root, id: *id, path, strip: *strip };
        let manner = Manner { reading: Reading::Wait, plainly: false, passing: None, opening: &opening::BLANK };
        let load = || target.load(manner, known).expect("a reading that may wait has a result").loaded;
        // The loop makes room by ending idle connections; a helper has the time to wait for that, and for a file that changes too
        // fast to be read. What memory knows it goes on saying, so nobody needs to wait.
        for _ in 0..MAX_SHORTAGES {
            match load() {
                Loaded::Passing(Content::Refused(Status::SERVICE_UNAVAILABLE)) if known.is_none() => {
                    pause(SHORTAGE_PAUSE);
                }
                loaded => return loaded,
            }
        }
        load()
    }
}

impl Target<'_> {
    /// Reads it; `None` when that would mean waiting and `reading` forbids it.
    pub fn load(&self, manner: Manner<'_>, known: Option<&Entry>) -> Option<Look> {
        for _ in 0..MAX_ATTEMPTS {
            match self.attempt(manner, known) {
                Ok(Some(look)) => return Some(look),
                Ok(None) => {}
                Err(error) if manner.plainly && is_link(&error) => {
                    return self.load(Manner { plainly: false, ..manner }, known);
                }
                Err(error) if manner.reading != Reading::Wait && may_pass(&error, known) => return None,
                Err(error) => return Some(self.refusal(&error, known).into()),
            }
        }
        // A file that changes faster than it can be read has no version to serve.
        Some(Loaded::Passing(Content::Refused(Status::SERVICE_UNAVAILABLE)).into())
    }

    /// One attempt; `None` when the file changed under it.
    fn attempt(&self, manner: Manner<'_>, known: Option<&Entry>) -> io::Result<Option<Look>> {
        let relative = self.relative();
        if is_folder(relative) {
            return self.index(manner, relative, known);
        }
        let file = self.open(manner, relative)?;
        match stamp(&file)? {
            (FileKind::Directory, _) => Ok(Some(self.folder(known).into())),
            (FileKind::Special, _) => Ok(Some(self.refused(Status::FORBIDDEN, known).into())),
            (FileKind::File, stamp) => self.file(manner, file, stamp, self.path, known),
        }
    }

    /// A folder with its slash: the first of its index files that is there.
    fn index(&self, mut manner: Manner<'_>, folder: &[u8], known: Option<&Entry>) -> io::Result<Option<Look>> {
        for name in self.index_names() {
            let path = [folder, name.as_bytes()].concat();
            match self.open(manner, &path) {
                Ok(file) => match stamp(&file)? {
                    (FileKind::File, stamp) => return self.file(manner, file, stamp, name.as_bytes(), known),
                    _ => return Ok(Some(self.refused(Status::FORBIDDEN, known).into())),
                },
                // A first name that is not there may be a link, to something that comes where nobody watches.
                Err(error) if status_of(&error) == Some(Status::NOT_FOUND) => manner.plainly = false,
                Err(error) => return Err(error),
            }
        }
        // Without an index there may still be a folder, which is not shown, or nothing at all.
        let status = match stamp(&self.open(manner, folder.strip_suffix(b"/").unwrap_or(folder))?)? {
            (FileKind::Directory, _) => Status::FORBIDDEN,
            _ => Status::NOT_FOUND,
        };
        Ok(Some(self.refused(status, known).into()))
    }

    /// The path from the root's folder on.
    pub fn relative(&self) -> &[u8] {
        let relative = self.path.get(self.strip..).unwrap_or_default();
        relative.strip_prefix(b"/").unwrap_or(relative)
    }

    fn index_names(&self) -> &[String] {
        match &self.id.route(self.plan).action {
            Action::Files(files) => &files.index,
            _ => unreachable!("only routes that serve files are loaded"),
        }
    }

    fn open(&self, manner: Manner<'_>, path: &[u8]) -> io::Result<File> {
        match (manner.reading, manner.plainly) {
            (Reading::Wait, true) => self.root.open_plain(path),
            (Reading::Wait, false) => self.root.open_file(path),
            (_, true) => self.root.open_plain_now(path),
            (_, false) => self.root.open_now(path),
        }
    }

    fn file(
        &self,
        manner: Manner<'_>,
        file: File,
        stamp: Stamp,
        name: &[u8],
        known: Option<&Entry>,
    ) -> io::Result<Option<Look>> {
        let is_plain = manner.plainly && stamp.links == 1;
        let same = |present: &Representation| present.stamp == stamp && !present.is_fresh;
        if known.and_then(Entry::representation).is_some_and(same) {
            return Ok(Some(Look { loaded: Loaded::Unchanged, is_plain }));
        }
        let representation = self.representation(stamp, name);
        // Who writes in a way of which nobody tells (mapped memory, another machine) and has just done so may not be done: such a file is to be
        // found unchanged once.
        let is_plain = is_plain && is_older_than(SETTLED_NANOS, stamp, wall_time());
        if stamp.size > MAX_MEMORY_FILE {
            let place = self.root.place_of(&file, &stamp);
            let (file, root) = (Arc::new(Held::new(file, place)), Arc::clone(self.root));
            let content = FileContent { file, root, representation };
            return Ok(Some(Look { loaded: Loaded::New(Content::File(content)), is_plain }));
        }
        let whole = SCRATCH.with_borrow_mut(|scratch| self.read_whole(manner, &file, &representation, scratch))?;
        let Some((bytes, head)) = whole else { return Ok(None) };
        let end = head + stamp.size as usize;
        let is_one_version = amped_runtime::disk::stamp(&file)?.1 == stamp
            && (!representation.is_fresh || self.reads_the_same(manner.reading, &file, &bytes[head..end])?);
        let content = MemoryContent { bytes, head, end, representation };
        Ok(is_one_version.then_some(Look { loaded: Loaded::New(Content::Memory(content)), is_plain }))
    }

    /// Whether a file has this body still: one that was written into before and after it was read, within one tick of the clock for
    /// its times, bears the same stamp.
    fn reads_the_same(&self, reading: Reading, file: &File, body: &[u8]) -> io::Result<bool> {
        let mut again = vec![0; body.len()];
        Ok(self.read_body(reading, file, &mut again)? && again == body)
    }

    /// Opening, head and body in one piece of memory, and where the body begins; `None` when the file ended early.
    fn read_whole(
        &self,
        manner: Manner<'_>,
        file: &File,
        representation: &Representation,
        Scratch { head, whole }: &mut Scratch,
    ) -> io::Result<Option<(Arc<[u8]>, usize)>> {
        let size = representation.stamp.size;
        head.clear();
        head.extend_from_slice(manner.opening);
        representation.put_head(head, representation.media_type.as_bytes(), size);
        let length = head.len() + size as usize;
        let read = |memory: &mut [u8]| {
            memory[..head.len()].copy_from_slice(head);
            self.read_body(manner.reading, file, &mut memory[head.len()..length])
        };
        let bytes = match manner.passing {
            Some(passing) => passing.fill(length, read)?,
            None => {
                if whole.len() < length {
                    whole.resize(length.next_power_of_two(), 0);
                }
                read(whole)?.then(|| Arc::from(&whole[..length]))
            }
        };
        Ok(bytes.map(|bytes| (bytes, head.len())))
    }

    /// Fills `memory` from the file; false when the file ended early.
    fn read_body(&self, reading: Reading, file: &File, memory: &mut [u8]) -> io::Result<bool> {
        let read = match reading {
            Reading::NoWait => read_now(self.root.mount(), file, memory, 0)?,
            Reading::Resident { or_try } => read_resident(self.root.mount(), file, memory, 0, or_try)?,
            Reading::Wait => read_at(file, memory, 0)?,
        };
        // A short no-wait read means that the rest is on the disk; some kernels even say 0 (Linux 5.9, 5.10).
        if read < memory.len() && reading != Reading::Wait {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(read == memory.len())
    }

    fn representation(&self, stamp: Stamp, name: &[u8]) -> Representation {
        let now = wall_time();
        Representation {
            stamp,
            is_fresh: is_fresh(stamp, now),
            last_modified: u64::try_from(stamp.modified.0).ok().map(|modified| modified.min(now.as_secs())),
            media_type: media_type::from_path(name),
            fields: self.fields(),
        }
    }

    /// The configuration's fields for this path, as they are sent.
    fn fields(&self) -> Arc<[u8]> {
        let lines = field_lines(&self.id.site(self.plan).fields_for(self.id.route(self.plan), self.path));
        if lines.is_empty() { Arc::default() } else { lines.into() }
    }

    fn folder(&self, known: Option<&Entry>) -> Loaded {
        let mut location = Vec::with_capacity(self.path.len() + 1);
        path::encode(&mut location, self.path);
        location.push(b'/');
        let location = String::from_utf8_lossy(&location);
        match known.map(Entry::content) {
            Some(Content::Folder(present)) if **present == *location => Loaded::Unchanged,
            _ => Loaded::New(Content::Folder(Box::from(&*location))),
        }
    }

    fn refused(&self, status: Status, known: Option<&Entry>) -> Loaded {
        match known.map(Entry::content) {
            // A folder that is not there at all says nothing about what should be in it.
            _ if self.root.is_lost() => Loaded::Passing(Content::Refused(Status::INTERNAL_SERVER_ERROR)),
            Some(Content::Refused(present)) if *present == status => Loaded::Unchanged,
            _ => Loaded::New(Content::Refused(status)),
        }
    }

    fn refusal(&self, error: &io::Error, known: Option<&Entry>) -> Loaded {
        match status_of(error) {
            Some(status) => self.refused(status, known),
            None if is_shortage(error) => Loaded::Passing(Content::Refused(Status::SERVICE_UNAVAILABLE)),
            None => Loaded::Passing(Content::Refused(Status::INTERNAL_SERVER_ERROR)),
        }
    }
}

impl From<Loaded> for Look {
    /// Of which nobody tells.
    fn from(loaded: Loaded) -> Self {
        Self { loaded, is_plain: false }
    }
}

fn is_folder(relative: &[u8]) -> bool {
    relative.is_empty() || relative.ends_with(b"/")
}

/// Whether the file changed so recently that another change could bear the same times: the kernel's clock for them ticks
/// every 1 to 10 ms. A modification time may be set to anything, also to one that is yet to come: that is no recent change.
fn is_fresh(stamp: Stamp, now: Duration) -> bool {
    !is_older_than(FRESH_NANOS, stamp, now)
}

fn is_older_than(limit: i128, stamp: Stamp, now: Duration) -> bool {
    let age =
        |(seconds, nanos): (i64, u32)| now.as_nanos() as i128 - i128::from(seconds) * 1_000_000_000 - i128::from(nanos);
    age(stamp.changed) >= limit && !(0..limit).contains(&age(stamp.modified))
}

/// The status of errors that say something about the file, not about the machine.
fn status_of(error: &io::Error) -> Option<Status> {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    const NO_DEVICE: i32 = 6;
    match (error.kind(), error.raw_os_error()) {
        (NotFound | NotADirectory | InvalidFilename, _) => Some(Status::NOT_FOUND),
        // A link that the policy does not follow, a path that leads out, a socket or a device without a driver.
        (PermissionDenied, _) | (_, Some(LOOP | CROSSING | NO_DEVICE)) => Some(Status::FORBIDDEN),
        _ => None,
    }
}

/// Names alone do not lead there: there is a link on the way, or another mount.
fn is_link(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(LOOP | CROSSING))
}

/// What a helper may do better, since it can wait: for the disk always, for descriptors when memory knows no answer.
fn may_pass(error: &io::Error, known: Option<&Entry>) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || known.is_none() && is_shortage(error)
}

/// Out of descriptors or memory: the machine's trouble, and it passes.
fn is_shortage(error: &io::Error) -> bool {
    const TABLE_FULL: i32 = 23;
    const TOO_MANY_OPEN: i32 = 24;
    const NO_MEMORY: i32 = 12;
    matches!(error.raw_os_error(), Some(TABLE_FULL | TOO_MANY_OPEN | NO_MEMORY))
}

/// Where heads are written and files are read first: it stays in the processor's cache, and a file that changes meanwhile has
/// cost no allocation.
struct Scratch {
    head: Vec<u8>,
    whole: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { head: Vec::new(), whole: Vec::new() }) };
}

const CROSSING: i32 = 18;
const LOOP: i32 = 40;
/// Files up to this size are kept in memory whole; larger ones are sent from the page cache.
const MAX_MEMORY_FILE: u64 = 64 * 1024;
/// Readings of a file that changes under them, before the server gives up for now.
const MAX_ATTEMPTS: usize = 3;
/// A passing buffer holds the largest small file and its head.
const PASSING_SIZE: usize = MAX_MEMORY_FILE as usize + 4096;
/// Buffers a worker keeps for passing bodies, 4 MB in all. With io_uring the sends of a turn leave together, and so many are
/// under way at once: with eight of them kept, requests over 200,000 files cost 4% more. Still more are in use only while
/// clients read slowly.
const MAX_PASSING: usize = 64;
/// Attempts of a helper while descriptors or memory are short, and the pause between them: 200 ms in all.
const MAX_SHORTAGES: usize = 10;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
const FRESH_NANOS: i128 = 20_000_000;
/// For how long a file must not have changed to be trusted at first sight.
const SETTLED_NANOS: i128 = 2_000_000_000;
