//! What is right: the answers that a request may have, given what was on the simulated disk and when.

use std::collections::HashMap;
use std::sync::Arc;

use amped::observe::counters::Counters;
use amped_runtime::sim::World;
use amped_wire::semantics::date::format;

use crate::response::Response;

/// What a client has asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub what: What,
    /// Its place in the site.
    pub name: usize,
    pub head_only: bool,
    /// First and last byte.
    pub range: Option<(u64, u64)>,
    pub says_close: bool,
    /// When its last byte was sent, and what had been counted by then.
    pub at: u64,
    pub stale: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A request for a file.
    File,
    /// A method that files do not have, with or without a body.
    Method,
    /// No request at all.
    Garbage,
}

/// What may happen in a scenario beside the right answer.
#[derive(Clone, Debug, Default)]
pub struct Excuses {
    /// The disk fails: 500, 503, and memory answers for up to a minute.
    pub disk_errors: bool,
    /// There is, or may be, too much to do: 503.
    pub overload: bool,
    /// Clients are limited: 429.
    pub limits: bool,
    /// The loop waits for the disk itself (`disk = "inline"`), so that a healthy one too may keep it longer than it is to take.
    pub waits: bool,
}

/// What answers are judged by.
#[derive(Debug, Default)]
pub struct Model {
    pub excuses: Excuses,
    /// The server has been told to finish.
    pub is_stopped: bool,
    /// From when on nothing is excused any more.
    pub recovered: u64,
    /// Nanoseconds for which memory is trusted.
    pub revalidate: u64,
    /// Nanoseconds of a turn that the clock of the loop may lag behind.
    pub slack: u64,
    /// What each strong entity tag of a file has stood for.
    tags: HashMap<(usize, String), Arc<[u8]>>,
    pub counters: Option<Arc<Counters>>,
    /// Answers by status, for the report.
    pub answers: std::collections::BTreeMap<u16, u64>,
}

impl Model {
    pub fn new(excuses: Excuses, revalidate: u64, slack: u64) -> Self {
        Self { excuses, recovered: u64::MAX, revalidate, slack, ..Self::default() }
    }

    /// How often memory has answered for a disk that was late.
    pub fn stale(&self) -> u64 {
        self.counters.as_ref().map_or(0, |counters| counters.stale.get())
    }

    /// Judges an answer.
    pub fn judge(&mut self, world: &World, file: &[u8], asked: &Asked, answer: &Response) -> Result<(), String> {
        *self.answers.entry(answer.status).or_default() += 1;
        let wrong = |why: &str| {
            let Response { status, length, etag, content_range, .. } = answer;
            Err(format!("{why}: {status}, {length} bytes, {etag:?} {content_range:?}, for {asked:?}"))
        };
        if asked.says_close && !answer.closes {
            return wrong("the connection goes on although it was to end");
        }
        let is_recovered = asked.at >= self.recovered;
        let disk_errors = self.excuses.disk_errors && !is_recovered;
        let closes_at_fault = answer.closes && answer.status >= 400;
        match (asked.what, answer.status) {
            (_, 503) if (self.excuses.overload && (!is_recovered || self.excuses.waits)) || disk_errors => {
                return Ok(());
            }
            (_, 429) if self.excuses.limits => return Ok(()),
            // A head that took too long, or of which the end never came.
            (_, 408) if closes_at_fault => return Ok(()),
            (What::Garbage, 400..=505) => return Ok(()),
            (What::Method, 405 | 413 | 501) => return Ok(()),
            (What::File, 500) if disk_errors => return Ok(()),
            (What::File, 200 | 206 | 403 | 404 | 416) => {}
            _ => return wrong("not an answer to this"),
        }
        // The loop looks at the wall clock 20 times a second.
        let is_then = |second| format(second) == *answer.date.as_bytes();
        if let Some((first, last)) = world.wall_second(asked.at).zip(world.wall_second(world.now()))
            && !(first - 1..=last).any(is_then)
        {
            return wrong(&format!("it is of {}", answer.date));
        }
        let window = match disk_errors || self.stale() != asked.stale {
            true => MINUTE + self.revalidate,
            false => self.revalidate + self.slack,
        };
        let (from, until) = (asked.at.saturating_sub(window), world.now());
        let history = world.history(file);
        let lives = |at: usize| {
            let ends = history.get(at + 1).map_or(u64::MAX, |next| next.from);
            history[at].from <= until && ends >= from
        };
        let mut living = (0..history.len()).filter(|at| lives(*at)).map(|at| &history[at].bytes);
        // A folder without its index is not shown.
        if answer.status == 404 || (answer.status == 403 && file.ends_with(b"index.html")) {
            let was_never = history.first().is_none_or(|first| first.from > from);
            return if was_never || living.any(Option::is_none) {
                Ok(())
            } else {
                wrong("the file was there all the time")
            };
        }
        let is_right = |bytes: &[u8]| match (answer.status, asked.range) {
            (200, _) => answer.length == bytes.len() as u64 && (asked.head_only || answer.body == bytes),
            (206, Some((first, last))) => {
                let last = last.min((bytes.len() as u64).saturating_sub(1));
                let said = format!("bytes {first}-{last}/{}", bytes.len());
                let slice = bytes.get(first as usize..last as usize + 1);
                answer.content_range.as_deref() == Some(&*said)
                    && slice.is_some_and(|slice| {
                        answer.length == slice.len() as u64 && (asked.head_only || answer.body == slice)
                    })
            }
            (416, Some((first, _))) => {
                first >= bytes.len() as u64
                    && answer.content_range.as_deref() == Some(&*format!("bytes */{}", bytes.len()))
            }
            _ => false,
        };
        let Some(version) = living.flatten().find(|bytes| is_right(bytes)) else {
            let alike = |at: &usize| {
                let bytes = history[*at].bytes.as_deref().unwrap_or_default();
                let bytes = bytes.get(asked.range.map_or(0, |(first, _)| first as usize)..).unwrap_or_default();
                bytes.iter().zip(&answer.body).take_while(|(one, other)| one == other).count()
            };
            let nearest = (0..history.len()).max_by_key(alike).map(|at| (&history[at], alike(&at)));
            let nearest = nearest.map(|(version, alike)| {
                let length = version.bytes.as_ref().map(|bytes| bytes.len());
                format!("{alike} bytes are those of the version from {} on, of {length:?}", version.from)
            });
            return wrong(&format!("not on the disk at any moment from {from} on; {}", nearest.unwrap_or_default()));
        };
        if let Some(tag) =
            answer.etag.as_ref().filter(|tag| !tag.starts_with("W/") && answer.status == 200 && !asked.head_only)
        {
            let bytes = self.tags.entry((asked.name, tag.clone())).or_insert_with(|| Arc::clone(version));
            if bytes != version {
                return wrong("one entity tag stands for two versions");
            }
        }
        Ok(())
    }
}

/// Memory answers for so long when the disk does not (`STALE_LIMIT_MS`).
const MINUTE: u64 = 60_000_000_000;
