//! The state of a world, and the crowd that lives in it: whoever acts from outside the server, at times of its own.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Instant;

use super::connection::Connection;
use super::descriptors::{Descriptors, Thing};
use super::events::Events;
use super::faults::Faults;
use super::files::Files;
use super::helper::Helper;
use super::listening::Listening;
use super::random::Random;
use super::wall::SECOND;
use crate::driver::Token;

/// Everything outside of the server.
pub struct World {
    pub(super) random: Random,
    pub(super) faults: Faults,
    /// What instants are counted from, and what loops count their ticks from.
    pub(super) base: Instant,
    /// Virtual nanoseconds since `base`.
    pub(super) now: u64,
    pub(super) wall_step: i64,
    /// Whether reports come by edges, once asked for; else each must be asked for.
    pub(super) by_edge: bool,
    pub(super) events: Events,
    pub(super) descriptors: Descriptors,
    pub(super) listening: Option<Listening>,
    pub(super) lost: usize,
    pub(super) connections: Vec<Connection>,
    /// Accepted, and perhaps closed again without having been in a loop's care.
    pub(super) fresh: Vec<RawFd>,
    /// Closed, and reported all the same.
    pub(super) late: Vec<Token>,
    pub(super) files: Files,
    pub(super) helpers: Vec<Helper>,
    pub(super) crowd: Option<Box<dyn Crowd>>,
    digest: u64,
    notes: u64,
    tells: bool,
    boundary: u64,
}

/// Who acts from outside: clients, whoever changes files, whoever stops the server.
pub trait Crowd {
    /// It is the turn of `who`: it asked to be called, or something has come for it.
    fn act(&mut self, world: &mut World, who: u32);

    /// Looks at the server from inside, without touching the world.
    fn look(&mut self);
}

impl World {
    /// The world of a seed, with nothing in it.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut random = Random::new(seed);
        let (by_edge, boundary) = (random.chance(500_000), random.draw());
        // Now and then a machine whose loops have run for 49 days, and whose short ticks are about to wrap.
        let now = if random.chance(100_000) { ((1 << 32) - random.below(20_000)) * (SECOND / 1000) } else { SECOND };
        Self {
            random,
            faults,
            base: Instant::now(),
            now,
            wall_step: 0,
            by_edge,
            events: Events::default(),
            descriptors: Descriptors::default(),
            listening: None,
            lost: 0,
            connections: Vec::new(),
            fresh: Vec::new(),
            late: Vec::new(),
            files: Files::default(),
            helpers: Vec::new(),
            crowd: None,
            digest: 0xCBF2_9CE4_8422_2325,
            notes: 0,
            tells: false,
            boundary,
        }
    }

    /// Who lives in it.
    pub fn invite(&mut self, crowd: Box<dyn Crowd>) {
        self.crowd = Some(crowd);
    }

    /// Has everything that happens written to standard error.
    pub fn tell(&mut self) {
        self.tells = true;
    }

    /// Virtual nanoseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The world's chance.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// What goes wrong from now on.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// A fingerprint of everything that has happened so far, and how much that was.
    pub fn digest(&self) -> (u64, u64) {
        (self.digest, self.notes)
    }

    /// Takes note of something that happened.
    pub fn note(&mut self, what: &'static str, which: u64, how: u64) {
        let number = what.len() as u64 | u64::from(what.as_bytes()[0]) << 8;
        for part in [self.now, number, which, how] {
            // FNV-1a (RFC 9923), a word at a time, turned so that high bits count too.
            self.digest = (self.digest ^ part).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        }
        self.notes += 1;
        if self.tells {
            eprintln!("{:>15} {what} {which} {how}", self.now);
        }
    }

    pub(crate) fn reports_by_edge(&self) -> bool {
        self.by_edge
    }

    /// A number that would be drawn from the machine's own chance.
    pub(crate) fn seed(&mut self) -> u64 {
        self.boundary = self.boundary.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.boundary
    }

    /// A system call takes its time.
    pub(super) fn call(&mut self) {
        self.now += self.random.below(self.faults.call_time.max(1));
        if self.random.chance(self.faults.stall) {
            let stall = self.random.below(self.faults.stall_time.max(1));
            self.note("stall", stall, 0);
            self.now += stall;
        }
    }

    /// A descriptor for `thing`.
    pub(super) fn give(&mut self, thing: Thing, limit: usize) -> io::Result<OwnedFd> {
        self.look_for_closed();
        let (fd, before) = self.descriptors.give(thing, limit)?;
        if let Some(Thing::Connection(connection)) = before {
            self.server_closes(connection);
        }
        Ok(fd)
    }

    /// Descriptors that are open: connections, files.
    pub fn open_descriptors(&mut self) -> (usize, usize) {
        let things = self.descriptors.sweep();
        let connections = things.iter().filter(|thing| matches!(thing, Thing::Connection(_))).count();
        let files = things.iter().filter(|thing| matches!(thing, Thing::File(_))).count();
        (connections, files)
    }

    /// Files of which the server holds descriptors, once for each.
    pub fn open_files(&mut self) -> usize {
        self.open_descriptors().1
    }

    /// Helpers that have a job.
    pub fn busy_helpers(&self) -> usize {
        self.helpers.iter().filter(|helper| helper.is_busy()).count()
    }
}

/// A digest of bytes, eight at a time.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |digest: u64, word: u64| (digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let digest = words.iter().fold(bytes.len() as u64, |digest, word| mix(digest, u64::from_le_bytes(*word)));
    rest.iter().fold(digest, |digest, byte| mix(digest, u64::from(*byte)))
}
