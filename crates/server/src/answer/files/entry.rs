//! What memory knows of one path: a small file whole, a large one's facts, a folder, or that there is nothing.
//!
//! A small file's answer is one allocation, ready to be sent; a hit touches this entry, that memory and nothing else.
//! A cached small file holds no descriptor.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use amped_runtime::disk::{Held, Mark, Root, Stamp};
use amped_wire::h1::encode;
use amped_wire::semantics::date;
use amped_wire::status::Status;

use super::super::opening;
use super::super::reply::Piece;
use super::shelf::{Key, OwnedKey};
use super::transfer::Transfer;

/// What a path leads to, and when that was last known for certain.
#[derive(Debug)]
pub struct Entry {
    key: OwnedKey,
    content: Content,
    /// The loop's ticks (all loops of a process count alike) when this was last known to be right.
    confirmed: AtomicU64,
    /// The tick in which somebody last set out to write a new opening.
    reopened: AtomicU64,
    /// What its folder held when it was last looked at (`Mark::pack`); 0: nobody watches.
    mark: AtomicU64,
    /// When that was, in ticks.
    looked: AtomicU64,
}

/// What a path leads to.
#[derive(Debug)]
pub enum Content {
    /// A small file.
    Memory(MemoryContent),
    /// A file that is sent from the page cache, window by window.
    File(FileContent),
    /// A folder asked for without its slash: the location with it.
    Folder(Box<str>),
    /// Nothing to be had, and why.
    Refused(Status),
}

/// A small file: opening, field lines, empty line and body in one piece of memory.
#[derive(Debug)]
pub struct MemoryContent {
    /// All of them; the opening of the second in which the file was last asked for, or an earlier one's, or none.
    pub bytes: Arc<[u8]>,
    /// Where the body begins.
    pub head: usize,
    /// Where it ends.
    pub end: usize,
    /// What the head says, for the replies that say it differently.
    pub representation: Representation,
}

/// A large file, open.
#[derive(Clone, Debug)]
pub struct FileContent {
    /// The file.
    pub file: Arc<Held>,
    /// The folder it was found in.
    pub root: Arc<Root>,
    /// What its head says.
    pub representation: Representation,
}

/// A file's metadata as HTTP sees it.
#[derive(Clone, Debug)]
pub struct Representation {
    /// Which version of the file this is.
    pub stamp: Stamp,
    /// Changed so shortly before it was read that a later change might leave the same stamp.
    pub is_fresh: bool,
    /// Seconds since the Unix epoch: when it last changed, or when that was read, if the file claims to be of the future
    /// (RFC 9110 section 8.8.2.1). `None` for a file from before the epoch.
    pub last_modified: Option<u64>,
    /// The media type, with its charset.
    pub media_type: &'static str,
    /// The configuration's field lines for this path, ready to be sent.
    pub fields: Arc<[u8]>,
}

impl Entry {
    /// What `key` leads to, confirmed at `now` (ticks).
    pub fn new(key: OwnedKey, content: Content, now: u64) -> Self {
        Self {
            key,
            content,
            confirmed: AtomicU64::new(now),
            reopened: AtomicU64::new(now),
            mark: AtomicU64::new(0),
            looked: AtomicU64::new(0),
        }
    }

    /// The same in memory of its own size, where it lies in a buffer that is used over and over.
    pub fn into_kept(mut self) -> Self {
        if let Content::Memory(memory) = &mut self.content
            && memory.bytes.len() > memory.end
        {
            memory.bytes = Arc::from(&memory.bytes[..memory.end]);
        }
        self
    }

    /// Whether it is what `key` leads to.
    pub fn is_of(&self, key: &Key<&[u8]>) -> bool {
        self.key.as_ref() == *key
    }

    /// What the path leads to.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Whether an answer could be sent as it lies here if it began with `opening`, and somebody should see to that: once in a tick, since
    /// whoever is being sent a file may keep others from it for long.
    pub fn wants(&self, opening: &opening::Bytes, now: u64) -> bool {
        let Content::Memory(memory) = &self.content else { return false };
        memory.end > opening::COPIED_UP_TO
            && !memory.bytes.starts_with(opening)
            // Most who are late are not even the first to see it: what would not change is not written.
            && self.reopened.load(Relaxed) < now
            && self.reopened.fetch_max(now, Relaxed) < now
    }

    /// Lets answers begin with `opening`, unless somebody refers to the memory.
    pub fn reopen(&mut self, opening: &opening::Bytes) {
        if let Content::Memory(memory) = &mut self.content
            && let Some(place) = Arc::get_mut(&mut memory.bytes).and_then(|bytes| bytes.first_chunk_mut())
        {
            *place = *opening;
        }
    }

    /// Has the memory fetched that an answer will be sent from, as far as the processor would have to wait for it.
    pub fn prefetch_content(&self) {
        if let Content::Memory(memory) = &self.content {
            amped_runtime::prefetch_run(memory.bytes.get(..memory.end).unwrap_or_default());
        }
    }

    /// Milliseconds since the entry was last confirmed.
    pub fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.confirmed.load(Relaxed))
    }

    /// The disk has confirmed the entry, or whoever would have told of a change.
    pub fn confirm(&self, now: u64) {
        self.confirmed.fetch_max(now, Relaxed);
    }

    /// It was looked at: as long as the mark stands nothing has happened to the file since.
    pub fn trust(&self, mark: Mark, now: u64) {
        self.looked.store(now, Relaxed);
        self.mark.store(mark.pack(), Relaxed);
    }

    /// The last mark it was given, and the milliseconds since then.
    pub fn trusted(&self, now: u64) -> Option<(Mark, u64)> {
        let mark = Mark::unpack(self.mark.load(Relaxed))?;
        Some((mark, now.saturating_sub(self.looked.load(Relaxed))))
    }

    /// The file's metadata, if the path leads to one.
    pub fn representation(&self) -> Option<&Representation> {
        match &self.content {
            Content::Memory(memory) => Some(&memory.representation),
            Content::File(file) => Some(&file.representation),
            Content::Folder(_) | Content::Refused(_) => None,
        }
    }

    /// A range of the body.
    pub fn piece(&self, range: Range<u64>) -> Piece {
        match &self.content {
            Content::Memory(memory) => {
                let range = memory.head + range.start as usize..memory.head + range.end as usize;
                Piece::Shared(Arc::clone(&memory.bytes), range)
            }
            Content::File(file) => Piece::File(Box::new(Transfer::new(file, range))),
            Content::Folder(_) | Content::Refused(_) => Piece::Own(Vec::new()),
        }
    }

    /// Whether it keeps a file open.
    pub fn holds_descriptor(&self) -> bool {
        matches!(self.content, Content::File(_))
    }

    /// Bytes to be charged to the cache's budget.
    pub fn weight(&self) -> u64 {
        let own = match &self.content {
            Content::Memory(memory) => memory.end,
            Content::Folder(location) => NOTHING_WEIGHT.max(location.len()),
            Content::File(_) | Content::Refused(_) => NOTHING_WEIGHT,
        };
        (own + self.key.path.len() + OVERHEAD) as u64
    }

    /// What its room counts against others: opening the file anew for every download, and learning anew which
    /// of its windows are in memory, costs more than reading one of the many small files that fit there.
    pub fn burden(&self) -> u64 {
        match &self.content {
            Content::File(_) => OPEN_FILE_BURDEN,
            _ => self.weight(),
        }
    }
}

impl Representation {
    /// Appends the entity tag, quotes included: weak while the stamp cannot be trusted to change with the file (RFC 9110
    /// section 8.8.1).
    pub fn etag(&self, out: &mut Vec<u8>) {
        let Stamp { identity: (_, inode), size, modified: (seconds, nanos), .. } = self.stamp;
        out.extend_from_slice(if self.is_fresh { b"W/\"" } else { b"\"" });
        encode::hexadecimal(out, size);
        out.push(b'-');
        encode::hexadecimal(out, seconds as u64);
        out.push(b'.');
        encode::hexadecimal(out, u64::from(nanos));
        out.push(b'-');
        encode::hexadecimal(out, inode);
        out.push(b'"');
    }

    /// The head of an answer that carries `length` bytes of it.
    pub fn head(&self, length: u64) -> Vec<u8> {
        let mut head = Vec::with_capacity(224 + self.fields.len());
        self.put_head(&mut head, self.media_type.as_bytes(), length);
        head
    }

    /// Appends the head of an answer that carries `length` bytes, with this media type or another one around it
    /// (multipart/byteranges).
    pub fn put_head(&self, head: &mut Vec<u8>, media_type: &[u8], length: u64) {
        encode::field(head, b"Content-Type", media_type);
        encode::field_u64(head, b"Content-Length", length);
        encode::field(head, b"Accept-Ranges", b"bytes");
        self.validators(head);
        encode::end(head);
    }

    /// The head of a 304, which repeats what a cache may have to update (RFC 9110 section 15.4.5).
    pub fn validator_head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(128 + self.fields.len());
        self.validators(&mut head);
        encode::end(&mut head);
        head
    }

    fn validators(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(b"ETag: ");
        self.etag(head);
        head.extend_from_slice(b"\r\n");
        if let Some(seconds) = self.last_modified {
            encode::field(head, b"Last-Modified", &date::format(seconds));
        }
        head.extend_from_slice(&self.fields);
    }
}

/// An entry's own memory (256 bytes), what is beside its bytes (28) and its places in two tables (80), roughly.
const OVERHEAD: usize = 352;
/// What is not there is charged like a small file, since anybody can ask for any number of such.
const NOTHING_WEIGHT: usize = 2048;
const OPEN_FILE_BURDEN: u64 = 8 * 1024;
