//! How many connections may wait in the kernel to be accepted: as many as can be accepted in time. Pure.
//!
//! What waits there is seen by nobody, and a queue of thousands is a delay that no later step can take back. A connection that the
//! kernel ignores (its SYN is sent again a second later) costs a few microseconds; accepting and closing it costs more than a hit.

/// One listener's queue.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    full: usize,
    limit: usize,
    /// Looks in a row at which the queue was too long, or was short.
    long: u32,
    short: u32,
}

impl Backlog {
    /// A queue of `full` connections at most.
    pub fn new(full: usize) -> Self {
        Self { full, limit: full, long: 0, short: 0 }
    }

    /// Takes note of a look: so many wait, and so many were accepted since the last one, in which time `per_look` times the wait
    /// that is aimed at has passed. The queue's new length, if it is another.
    pub fn look(&mut self, waiting: usize, accepted: usize, per_look: f32) -> Option<usize> {
        let in_time = (accepted as f32 / per_look) as usize;
        let is_long = accepted > 0 && waiting > (in_time * 2).max(LEAST);
        self.long = if is_long { self.long + 1 } else { 0 };
        self.short = if waiting * 2 <= self.limit.min(in_time.max(LEAST)) { self.short + 1 } else { 0 };
        let limit = if self.long >= STANDING {
            in_time.clamp(LEAST, self.limit)
        } else if self.short >= CALM {
            self.short = 0;
            (self.limit * 2).min(self.full)
        } else {
            self.limit
        };
        let is_new = limit != self.limit;
        self.limit = limit;
        is_new.then_some(limit)
    }

    /// Whether it is shorter than it could be.
    pub fn is_short(&self) -> bool {
        self.limit < self.full
    }
}

/// A queue of fewer is no delay.
const LEAST: usize = 16;
/// Looks after which a long queue is no burst, and a short one no accident.
const STANDING: u32 = 3;
const CALM: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait() {
        let mut backlog = Backlog::new(4096);
        assert_eq!([backlog.look(4000, 500, 10.0), backlog.look(3000, 500, 10.0)], [None, None]);
        assert_eq!(backlog.look(10, 500, 10.0), None);
        assert!(!backlog.is_short());
    }

    #[test]
    fn a_standing_queue_is_cut_to_what_is_accepted_in_time() {
        let mut backlog = Backlog::new(4096);
        let looks: Vec<_> = (0..5).map(|_| backlog.look(4000, 3000, 10.0)).collect();
        assert_eq!(looks, [None, None, Some(300), None, None]);
        assert!(backlog.is_short());
        let mut last = 0;
        for _ in 0..100 {
            last = backlog.look(0, 100, 10.0).unwrap_or(last);
        }
        assert_eq!((last, backlog.is_short()), (4096, false), "and grows again when nothing waits");
    }

    #[test]
    fn a_loop_that_accepts_nothing_says_nothing() {
        let mut backlog = Backlog::new(4096);
        assert!((0..20).all(|_| backlog.look(4000, 0, 10.0).is_none()));
    }
}
