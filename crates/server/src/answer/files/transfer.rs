//! A large file on its way to a client, window by window.
//!
//! The loop sends only what is known to be in memory. For the rest a helper brings the next window in while the loop still sends
//! the last one. A turn gives one transfer a fair share and no more. If the file changes under way, the transfer fails: the
//! client was promised a version, and gets a broken connection rather than a mixture.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use amped_runtime::disk::{Class, Helpers, Job, is_warm, stamp, warm};
use amped_runtime::net::Stream;

use super::entry::FileContent;
use crate::config::choice::DiskMode;

/// A range of a file that is being sent.
#[derive(Debug)]
pub struct Transfer {
    content: FileContent,
    /// What is still to be sent.
    left: Range<u64>,
    /// Everything before this is in memory.
    warm_until: u64,
    warming: Option<Job<io::Result<usize>>>,
}

/// What a transfer needs of its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Where the bytes go.
    pub stream: &'a Stream,
    /// Who brings windows into memory.
    pub helpers: &'a Helpers,
    /// Whether to ask them.
    pub mode: DiskMode,
}

impl Transfer {
    /// A transfer of `range` of the file's body.
    pub fn new(content: &FileContent, range: Range<u64>) -> Self {
        Self { content: content.clone(), warm_until: range.start, left: range, warming: None }
    }

    /// Whether everything has been handed to the kernel.
    pub fn is_done(&self) -> bool {
        self.left.start >= self.left.end
    }

    /// Whether it waits for a helper rather than for the client.
    pub fn awaits_disk(&self) -> bool {
        self.warming.is_some() && self.warm_until <= self.left.start
    }

    /// Whether the next bytes can be sent at once, so that the head may wait for them in the kernel (MSG_MORE).
    pub fn is_ready(&mut self, means: Means<'_>) -> bool {
        self.warm_until > self.left.start || self.look_ahead(means)
    }

    /// Sends at most one fair share: ready with the bytes sent, pending when the socket is full or the window is on the disk.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` when the file has changed or shrunk, `Other` when the disk refused.
    pub fn poll_send(&mut self, means: Means<'_>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.warm_until <= self.left.start && !self.look_ahead(means) {
            ready!(self.poll_warm(means, context))?;
        }
        let window = self.warm_until.min(self.left.end) - self.left.start;
        let share = window.min(FAIR_SHARE) as usize;
        let file = &self.content.file;
        let meter = means.stream.runtime().meter();
        let send = || means.stream.poll_sendfile(file, self.left.start, share, context);
        let sent = ready!(meter.timed("disk: send a window", send))?;
        if sent == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the file has shrunk")));
        }
        self.left.start += sent as u64;
        self.prepare_next(means);
        Poll::Ready(Ok(sent))
    }

    /// The window is on the disk: waits for the helper that brings it in.
    fn poll_warm(&mut self, means: Means<'_>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let start = self.warm_until.max(self.left.start);
        let window = (self.left.end - start).min(WINDOW) as usize;
        let job = self.warming.get_or_insert_with(|| self.content.warm_by(means.helpers, start, window));
        let outcome = ready!(Pin::new(job).poll(context));
        self.warming = None;
        let warmed = outcome.map_err(|_| io::Error::other("the disk has too much to do"))??;
        self.check_version()?;
        if warmed < window {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the file has shrunk")));
        }
        self.warm_until = start + warmed as u64;
        Poll::Ready(Ok(()))
    }

    /// Moves `warm_until` if the kernel has the next window in memory already; says whether there is anything to send.
    fn look_ahead(&mut self, means: Means<'_>) -> bool {
        if self.warming.is_some() || self.is_done() {
            return false;
        }
        let start = self.warm_until.max(self.left.start);
        let window = (self.left.end - start).min(WINDOW);
        let mount = self.content.root.mount();
        let is_there = || match means.mode {
            DiskMode::Inline => true,
            DiskMode::Helpers => false,
            DiskMode::Amped => is_warm(mount, &self.content.file, start, window as usize),
        };
        let is_there = means.stream.runtime().meter().timed("disk: is the window in memory", is_there);
        if window == 0 || !is_there || self.check_version().is_err() {
            return false;
        }
        self.warm_until = start + window;
        true
    }

    /// Half-way through the warm window the next one is looked for, and a helper asked if it is not there.
    fn prepare_next(&mut self, means: Means<'_>) {
        let ahead = self.warm_until - self.left.start;
        if ahead * 2 > WINDOW || self.warm_until >= self.left.end || self.warming.is_some() {
            return;
        }
        if !self.look_ahead(means) && ahead > 0 {
            let window = (self.left.end - self.warm_until).min(WINDOW) as usize;
            self.warming = Some(self.content.warm_by(means.helpers, self.warm_until, window));
        }
    }

    fn check_version(&self) -> io::Result<()> {
        let (_, present) = stamp(&self.content.file)?;
        let promised = self.content.representation.stamp;
        // The change time is left out: a file that is replaced by rename keeps its bytes, and only loses its name.
        if (present.size, present.modified) == (promised.size, promised.modified) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file has changed"))
    }
}

impl FileContent {
    fn warm_by(&self, helpers: &Helpers, start: u64, window: usize) -> Job<io::Result<usize>> {
        let file = Arc::clone(&self.file);
        helpers.submit(Class::Serve, move || warm(&file, start, window))
    }
}

/// What is brought into memory at once. Large enough that a helper's round trip is lost in it, small enough that thousands of
/// transfers do not push each other out.
const WINDOW: u64 = 1024 * 1024;
/// What one transfer may send in a turn, about 30 us of the loop's time.
const FAIR_SHARE: u64 = 256 * 1024;
