//! Deadlines of descriptors, and sleepers, in one wheel.
//!
//! A deadline is moved with every use of a connection and nearly never passes. So to move it is a store in the source, and the wheel
//! keeps one entry a slot: when it comes up too early it is put back. Deadlines that pass together end a few at a time.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::slots::{Slots, Token};
use super::source::{Flags, Source, Tick, wait};
use crate::timer::Wheel;

/// When whose wait is over.
#[derive(Debug)]
pub(super) struct Deadlines {
    wheel: Wheel,
    /// By slot: when the wheel will look at it next. It belongs to the slot, not to its occupant: a connection that ends leaves its
    /// entry to the next one, so the wheel holds about one entry a slot however many connections come and go.
    ticks: Vec<Tick>,
    /// What the wheel has handed over and nobody has looked at yet: a turn ends only so many waits.
    due: VecDeque<u64>,
    sleepers: Slots<Sleeper>,
    now: u64,
}

#[derive(Debug, Default)]
struct Sleeper {
    waker: Option<Waker>,
    over: bool,
}

impl Deadlines {
    pub(super) fn new(now: u64) -> Self {
        Self { wheel: Wheel::new(now), ticks: Vec::new(), due: VecDeque::new(), sleepers: Slots::default(), now }
    }

    /// The occupant of slot `index` gives up in `delay` milliseconds, or never. A store, nearly always.
    pub(super) fn set(&mut self, source: &mut Source, index: u32, delay: Option<u32>) {
        source.flags.clear(Flags::TIMED_OUT | Flags::IDLE);
        let Some(delay) = delay else {
            source.deadline = Tick::NEVER;
            return;
        };
        let (deadline, due) = Tick::at(self.now + u64::from(delay.clamp(1, MAX_DELAY)));
        source.deadline = deadline;
        let now = self.now;
        let looked_at = self.tick(index);
        if looked_at.until(now).is_none_or(|until| until > u64::from(delay)) {
            *looked_at = deadline;
            self.wheel.insert(due, u64::from(index));
        }
    }

    fn tick(&mut self, index: u32) -> &mut Tick {
        let index = index as usize;
        if index >= self.ticks.len() {
            self.ticks.resize(index + 1, Tick::NEVER);
        }
        &mut self.ticks[index]
    }

    /// Brings the deadlines of everything idle forward to now.
    pub(super) fn end_idle(&mut self, sources: &mut Slots<Source>) {
        let is_idle = |(index, source): (u32, &Source)| source.flags.has(Flags::IDLE).then_some(index);
        let idle: Vec<u32> = sources.indexed().filter_map(is_idle).collect();
        idle.into_iter().for_each(|index| self.end_wait(sources, index));
    }

    /// Brings the deadlines of those forward that have idled longest: at most `count`, and of those only which have at most `left`
    /// milliseconds left. Says how many. Looks at every descriptor: not for every turn.
    pub(super) fn end_longest_idle(&mut self, sources: &mut Slots<Source>, count: usize, left: u64) -> usize {
        let now = self.now;
        let mut idle: Vec<(u64, u32)> = sources
            .indexed()
            .filter(|(_, source)| source.flags.has(Flags::IDLE))
            .filter_map(|(index, source)| Some((source.deadline.until(now).filter(|until| *until <= left)?, index)))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        idle.iter().for_each(|&(_, index)| self.end_wait(sources, index));
        idle.len()
    }

    /// The time of the slot's occupant is up: as soon as those before it have been looked at.
    fn end_wait(&mut self, sources: &mut Slots<Source>, index: u32) {
        if let Some(source) = sources.occupant(index) {
            source.flags.clear(Flags::IDLE);
            source.deadline = Tick::at(self.now).0;
            *self.tick(index) = Tick::NEVER;
            self.due.push_back(u64::from(index));
        }
    }

    /// A sleeper that wakes after `delay` milliseconds.
    pub(super) fn sleep(&mut self, delay: u64) -> Token {
        let token = self.sleepers.insert(Sleeper::default());
        self.wheel.insert(self.now.saturating_add(delay.max(1)), token.pack() | SLEEPER);
        token
    }

    pub(super) fn slept(&mut self, token: Token, context: &mut Context<'_>) -> Poll<()> {
        match self.sleepers.get_mut(token) {
            Some(sleeper) if !sleeper.over => {
                wait(&mut sleeper.waker, context.waker());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn forget_sleeper(&mut self, token: Token) {
        self.sleepers.remove(token);
    }

    /// The present, in ticks.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Milliseconds until something may be due.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.due.is_empty() { self.wheel.next() } else { Some(0) }
    }

    /// Lets what is due by `now` (ticks) come up, but ends only `most` waits: the others have their turn right after this one, and whoever
    /// the network wakes in between goes first.
    pub(super) fn expire(&mut self, sources: &mut Slots<Source>, now: u64, most: usize) {
        self.now = now;
        self.wheel.advance(now, |key| self.due.push_back(key));
        let mut ended = 0;
        while ended < most
            && let Some(key) = self.due.pop_front()
        {
            let is_over =
                if key & SLEEPER != 0 { self.end_sleep(Token::unpack(key)) } else { self.look_at(sources, key as u32) };
            ended += usize::from(is_over);
        }
    }

    /// Says whether anybody still slept.
    fn end_sleep(&mut self, token: Token) -> bool {
        let Some(sleeper) = self.sleepers.get_mut(token) else { return false };
        sleeper.over = true;
        sleeper.waker.take().is_some_and(|waker| {
            waker.wake();
            true
        })
    }

    /// The wheel has come to a slot: its occupant's time is up, or it has been used since and is looked at again later. Says whether
    /// it is up.
    fn look_at(&mut self, sources: &mut Slots<Source>, index: u32) -> bool {
        let now = self.now;
        let looked_at = self.tick(index);
        if looked_at.until(now).is_some_and(|until| until > 0) {
            return false; // An older entry; a later look has been arranged.
        }
        *looked_at = Tick::NEVER;
        let Some(source) = sources.occupant(index) else { return false };
        match source.deadline.until(now) {
            None => false,
            Some(0) => {
                source.deadline = Tick::NEVER;
                source.flags.set(Flags::TIMED_OUT);
                source.wake_both();
                true
            }
            Some(later) => {
                let (tick, due) = Tick::at(now + later);
                *self.tick(index) = tick;
                self.wheel.insert(due, u64::from(index));
                false
            }
        }
    }

    /// Takes the sleepers' wakers.
    pub(super) fn take_wakers(&mut self) -> impl Iterator<Item = Waker> {
        self.sleepers.iter_mut().filter_map(|sleeper| sleeper.waker.take())
    }
}

/// Marks a wheel's key as a sleeper's; a source's packed token leaves the bit free.
const SLEEPER: u64 = 1 << 63;
/// The longest deadline, 20 days: `Tick` compares rightly up to 24.
const MAX_DELAY: u32 = 20 * 24 * 3600 * 1000;
