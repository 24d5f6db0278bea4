//! A large file on its way to a client, window by window.
//!
//! The loop sends only what is known to be in memory. For the rest a helper brings the next window in while the loop still sends
//! the last one. What lies on a remote mount is read by the helper and sent from memory (`window`). A turn gives all transfers
//! together one share and no more. If the file changes under way, the transfer fails: the client was promised a version, and
//! gets a broken connection rather than a mixture.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use amped_runtime::disk::{Ability, Class, Helpers, Job, Place, UNIT, stamp};
use amped_runtime::net::Stream;
use amped_runtime::{Sleep, read_clock};

use super::Files;
use super::entry::FileContent;
use super::window::{Carried, Window};
use crate::config::choice::DiskMode;

/// A range of a file that is being sent.
#[derive(Debug)]
pub struct Transfer {
    content: FileContent,
    /// What is still to be sent.
    left: Range<u64>,
    /// Everything before this is in memory, or was at `looked`.
    warm_until: u64,
    looked: Option<Instant>,
    /// When the file was last found to be the version that was promised.
    seen: Option<Instant>,
    warming: Option<Job<io::Result<Brought>>>,
    /// The window before `warm_until`, if it is in memory of our own.
    carried: Option<Carried>,
    /// The helpers had too much to do: until they are asked again.
    pause: Option<Sleep>,
    pace: Pace,
}

/// What a helper has brought in, and when.
type Brought = (Window, Instant);

/// How fast the client takes what it is sent.
#[derive(Debug, Default)]
struct Pace {
    /// When, and at which byte, the stretch began that is being timed.
    since: Option<(Instant, u64)>,
    /// The kernel may queue as much as it likes for it.
    deep: bool,
}

/// What one turn of the loop may still send from files, over all transfers.
#[derive(Debug, Default)]
pub struct Budget(Cell<(Option<Instant>, u64)>);

/// What a transfer needs of its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// Where the bytes go.
    pub stream: &'a Stream,
    /// Who brings windows into memory.
    pub helpers: &'a Helpers,
    /// Whether to ask them.
    pub mode: DiskMode,
    /// What this turn may still send.
    pub budget: &'a Budget,
    /// Deep queues for fast readers are memory that is short now.
    pub trims: bool,
    /// Who knows whether files come into memory, so that others leave it: what was seen there a moment ago may be gone.
    pub files: &'a Files,
}

impl Budget {
    /// A share of what is left of this turn's budget; `None` when it is used up.
    fn share(&self, turn: Instant, wanted: u64) -> Option<u64> {
        let (began, used) = self.0.get();
        let used = if began == Some(turn) { used } else { 0 };
        let share = wanted.min(TURN_SHARE - used);
        self.0.set((Some(turn), used + share));
        (share > 0).then_some(share)
    }
}

impl Pace {
    /// Takes note of progress to byte `at`. A stretch taken quickly earns a deep queue, a slow one ends it.
    fn note(&mut self, stream: &Stream, at: u64, trims: bool) {
        let now = stream.runtime().clock().now();
        let (since, from) = *self.since.get_or_insert((now, at));
        if at - from < STRETCH {
            return;
        }
        self.since = Some((now, at));
        let is_fast = now - since < FAST && !trims;
        if is_fast != self.deep && stream.queue_ahead(is_fast).is_ok() {
            self.deep = is_fast;
        }
    }
}

impl Transfer {
    /// A transfer of `range` of the file's body.
    pub fn new(content: &FileContent, range: Range<u64>) -> Self {
        let (content, warm_until) = (content.clone(), range.start);
        let (looked, seen, warming, carried, pause) = (None, None, None, None, None);
        Self { content, left: range, warm_until, looked, seen, warming, carried, pause, pace: Pace::default() }
    }

    /// Whether everything has been handed to the kernel.
    pub fn is_done(&self) -> bool {
        self.left.start >= self.left.end
    }

    /// Whether it waits for a helper rather than for the client.
    pub fn awaits_disk(&self) -> bool {
        (self.warming.is_some() || self.pause.is_some()) && self.warm_until <= self.left.start
    }

    /// Whether the next bytes can be sent at once, so that the head may wait for them in the kernel (MSG_MORE).
    pub fn is_ready(&mut self, means: Means<'_>) -> bool {
        // While others may take its place that is known once it is to be sent, and not before.
        !self.is_at_risk(means) && (self.warm_until > self.left.start || self.look_ahead(means))
    }

    /// Sends at most what the turn has left: ready with the bytes sent (0 when the turn's budget is used up), pending when the socket is
    /// full or the window is on the disk.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` when the file has changed or shrunk, `Other` when the disk refused.
    pub fn poll_send(&mut self, means: Means<'_>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut is_brought = false;
        if self.warm_until <= self.left.start && !self.look_ahead(means) {
            ready!(self.poll_warm(means, context))?;
            is_brought = true;
        }
        let runtime = means.stream.runtime();
        let now = runtime.clock().now();
        // What a helper has read while this one waited for it has just come. It may also have been ready for minutes, or for as long as the
        // loop was put aside within this turn, which the turn's own time does not tell.
        let is_recent =
            |now: Instant| self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < REMEMBERED);
        let may_remember = if is_brought { is_recent(read_clock()) } else { !self.is_at_risk(means) && is_recent(now) };
        let asks = !may_remember;
        let window = self.warm_until.min(self.left.end) - self.left.start;
        let most = if self.pace.deep { ASKED_FOR } else { ASKED_FOR_SLOWLY };
        let window = if asks { window.min(most) } else { window };
        let Some(share) = means.budget.share(now, window) else { return Poll::Ready(Ok(0)) };
        self.looked = Some(now);
        if asks && self.has_gone(means, share as usize) {
            // A job under way is for the next window.
            (self.warm_until, self.warming) = (self.left.start, None);
            return self.poll_warm(means, context).map_ok(|()| 0);
        }
        // A client may take minutes for a window, and the file may be another by then. Asked last before the bytes go, once a turn or after
        // they were looked at: to find out when they have gone is too late for the last ones, as the client would have all it was
        // promised, and a mixture. What a helper has read is one version.
        let was_seen = self.seen.replace(now) == Some(now) && !asks;
        if !was_seen && self.carried.is_none() {
            self.content.check_version()?;
        }
        let (file, stream, at) = (&self.content.file, means.stream, self.left.start);
        let send = || match &mut self.carried {
            Some(carried) => carried.poll_send(stream, at, share as usize, context),
            None => stream.poll_sendfile(file, at, share as usize, context),
        };
        // What the socket does not take is not given back to this turn: small sends cost more for a byte, and with 10,000 slow readers a
        // normal client's 99th percentile was 1.1 ms instead of 0.2 then (epoll).
        let sent = ready!(runtime.meter().timed("disk: send a window", send))?;
        if sent == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the file has shrunk")));
        }
        self.left.start += sent as u64;
        self.pace.note(means.stream, self.left.start, means.trims);
        if self.is_done() && self.pace.deep {
            means.stream.queue_ahead(false)?;
        }
        self.prepare_next(means);
        Poll::Ready(Ok(sent))
    }

    /// Whether the file may leave memory at any moment, and come back for somebody else.
    fn is_at_risk(&self, means: Means<'_>) -> bool {
        means.mode == DiskMode::Amped && self.content.is_read_without_waiting() && means.files.is_disk_in_use()
    }

    /// Whether the kernel has dropped what is to be sent now: a client may take minutes for a window, and where memory is short
    /// the loop would wait for the disk (176 ms were seen, and, where it was being read again for another client, 959). Not
    /// asked of fast readers, who leave it no time, while nothing leaves memory.
    fn has_gone(&self, means: Means<'_>, share: usize) -> bool {
        let (mount, asks_all) = (self.content.root.mount(), self.is_at_risk(means));
        let has_gone = || self.content.file.has_gone(mount, self.left.start, share, asks_all);
        means.mode == DiskMode::Amped
            && means.stream.runtime().meter().timed("disk: is the window still in memory", has_gone)
    }

    /// The window is on the disk: waits for the helper that brings it in.
    fn poll_warm(&mut self, means: Means<'_>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(context));
            self.pause = None;
        }
        let start = self.warm_until.max(self.left.start);
        let window = self.window_at(start);
        let job = self.warming.get_or_insert_with(|| self.content.warm_by(means, start, window));
        let outcome = ready!(Pin::new(job).poll(context));
        self.warming = None;
        let Ok(warmed) = outcome else {
            // Turned away by a full queue. The client has been promised the rest, so ask again, but not at once: downloads that
            // turned each other away in turn would keep the loop busy.
            let pause = self.pause.insert(means.stream.runtime().sleep(PAUSE));
            return Pin::new(pause).poll(context).map(Ok);
        };
        let (warmed, at) = warmed?;
        if self.content.is_read_without_waiting() {
            means.files.note_miss();
        }
        // The helper has asked already, but that may be a while ago. What may wait is not asked again.
        if self.content.file.place() != Place::Remote {
            self.content.check_version()?;
        }
        if warmed.len() < window {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the file has shrunk")));
        }
        self.warm_until = start + window as u64;
        (self.looked, self.seen) = (Some(at), Some(means.stream.runtime().clock().now()));
        self.carried = warmed.carried(start);
        Poll::Ready(Ok(()))
    }

    /// Moves `warm_until` if the kernel has the next window in memory already; says whether there is anything to send.
    fn look_ahead(&mut self, means: Means<'_>) -> bool {
        if self.warming.is_some() || self.is_done() {
            return false;
        }
        let start = self.warm_until.max(self.left.start);
        // In whole units, for which others may have asked.
        let most = self.left.end.min((start / UNIT + 2) * UNIT);
        let (file, mount, runtime) = (&self.content.file, self.content.root.mount(), means.stream.runtime());
        let now = runtime.clock().now();
        let look = || match means.mode {
            DiskMode::Inline => most,
            DiskMode::Amped if file.place() == Place::Own => {
                file.warm_until(mount, start..most, now, !means.files.is_disk_in_use())
            }
            DiskMode::Amped | DiskMode::Helpers => start,
        };
        let end = runtime.meter().timed("disk: is the window in memory", look);
        if end == start {
            return false;
        }
        (self.warm_until, self.carried, self.looked) = (end, None, Some(now));
        true
    }

    /// While no more than a window is warm the next one is looked for: a socket takes more than a window at once, and what ends in the
    /// middle of it costs another turn. If it is not there a helper is asked half-way through this one.
    fn prepare_next(&mut self, means: Means<'_>) {
        let ahead = self.warm_until - self.left.start;
        if ahead > self.window_at(self.left.start) as u64 || self.warm_until >= self.left.end || self.warming.is_some()
        {
            return;
        }
        if !self.look_ahead(means) && ahead > 0 && ahead * 2 <= self.window_at(self.left.start) as u64 {
            let window = self.window_at(self.warm_until);
            self.warming = Some(self.content.warm_by(means, self.warm_until, window));
        }
    }

    /// How much a helper brings in at once from `start` on.
    fn window_at(&self, start: u64) -> usize {
        let most = if self.content.file.place() == Place::Remote { REMOTE_WINDOW } else { WINDOW };
        (self.left.end - start).min(most) as usize
    }
}

impl FileContent {
    /// Whether it is on a disk that tells what is in memory.
    fn is_read_without_waiting(&self) -> bool {
        self.file.place() == Place::Own && self.root.mount().ability() == Ability::NoWait
    }

    fn warm_by(&self, means: Means<'_>, start: u64, window: usize) -> Job<io::Result<Brought>> {
        let content = self.clone();
        let under_way = self.is_read_without_waiting().then(|| means.files.begin_reading());
        // The client has been promised the rest: a new request is refused rather than this.
        means.helpers.submit_in(super::folder(&self.root), Class::Essential, move || {
            let _under_way = under_way;
            let warmed = Window::bring(&content.file, start, window)?;
            let at = read_clock();
            content.check_version()?;
            Ok((warmed, at))
        })
    }

    fn check_version(&self) -> io::Result<()> {
        let (_, present) = stamp(&self.file)?;
        let promised = self.representation.stamp;
        // The change time is left out: a file that is replaced by rename keeps its bytes, and only loses its name.
        if (present.size, present.modified) == (promised.size, promised.modified) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file has changed"))
    }
}

/// What is brought into memory at once. Large enough that a helper's round trip is lost in it, small enough that thousands of
/// transfers do not push each other out.
const WINDOW: u64 = 1024 * 1024;
/// The same where it takes memory of our own.
const REMOTE_WINDOW: u64 = 256 * 1024;
/// The kernel drops what nobody has read for seconds, or for less when memory is short: what is seen to be there need not have been read
/// lately, and may be the next to go.
const REMEMBERED: Duration = Duration::from_millis(20);
/// Of how much that is asked at once, and so what is sent then: a slow reader takes less, and to ask costs a system call for each
/// 128 KB, and where every page is read about as much as to send it.
const ASKED_FOR: u64 = 256 * 1024;
/// The same of a slow one, whose socket takes no more at once (TCP_NOTSENT_LOWAT).
const ASKED_FOR_SLOWLY: u64 = 128 * 1024;
/// How long a transfer leaves the helpers alone that had no time for it.
const PAUSE: Duration = Duration::from_millis(20);
/// What all transfers together may send in a turn, about 250 us of the loop's time: small answers come in between, and who found
/// nothing left goes first the next time. One may have it all: cut to a quarter each, 100 MB files cost 5% more, and with
/// half of it 3%.
const TURN_SHARE: u64 = 2 * 1024 * 1024;
/// What is timed to tell a fast reader from a slow one, and how long a fast one takes for it: 20 MB/s.
const STRETCH: u64 = 2 * 1024 * 1024;
const FAST: Duration = Duration::from_millis(100);
