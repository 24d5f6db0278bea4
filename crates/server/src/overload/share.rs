//! The share of costly requests that a drowned loop still admits. Pure.
//!
//! Additive increase, multiplicative decrease, like a TCP window: the share that a loop can serve depends on what is offered and
//! what it costs, and nobody tells it either. The cut is mild, so that little of the processor is idle after it.

/// An admitted share, in parts of `WHOLE`.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    part: u32,
    /// What is left over from those admitted so far: who comes when it is full goes in.
    credit: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { part: WHOLE, credit: 0 }
    }
}

impl Share {
    /// Adapts to a lag, as a multiple of what is aimed at.
    pub fn adapt(&mut self, lag: f32) {
        self.part = if lag > HEAVY {
            self.part / 2
        } else if lag > 1.0 {
            self.part - self.part / 8
        } else {
            self.part + (self.part / 16).max(LEAST_RISE)
        }
        .clamp(LEAST, WHOLE);
    }

    /// Whether everything is admitted.
    pub fn is_whole(&self) -> bool {
        self.part == WHOLE
    }

    /// Whether it is as small as it gets.
    pub fn is_least(&self) -> bool {
        self.part == LEAST
    }

    /// The admitted share, from 0 to 1.
    pub fn part(&self) -> f32 {
        self.part as f32 / WHOLE as f32
    }

    /// Whether the next one is admitted: evenly spread, not by chance.
    pub fn admits(&mut self) -> bool {
        self.credit += self.part;
        let admits = self.credit >= WHOLE;
        self.credit -= if admits { WHOLE } else { 0 };
        admits
    }
}

const WHOLE: u32 = 4096;
/// One in 128: so that it is noticed when serving has become possible again.
const LEAST: u32 = 32;
const LEAST_RISE: u32 = 16;
/// From here on the cut is a half.
const HEAVY: f32 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_its_share_evenly() {
        let mut share = Share { part: WHOLE / 4, credit: 0 };
        let admitted: Vec<usize> = (0..100).filter(|_| share.admits()).collect();
        assert_eq!(admitted.len(), 25);
        assert!(admitted.windows(2).all(|two| two[1] - two[0] == 4));
    }

    /// A loop that can serve one in eight: its lag is what was admitted too much.
    #[test]
    fn settles_where_the_loop_can_follow() {
        let mut share = Share::default();
        let mut served = 0.0;
        for tick in 0..400 {
            let load = share.part() * 8.0;
            share.adapt(load);
            if tick >= 100 {
                served += load.min(1.0);
            }
        }
        assert!(served / 300.0 > 0.9, "{served} of 300");
    }

    #[test]
    fn recovers_when_the_load_is_gone() {
        let mut share = Share::default();
        (0..50).for_each(|_| share.adapt(10.0));
        assert!(share.is_least());
        let ticks = (0..1000)
            .take_while(|_| {
                !share.is_whole() && {
                    share.adapt(0.1);
                    true
                }
            })
            .count();
        assert!((10..150).contains(&ticks), "{ticks} ticks");
    }
}
