//! The ladder: what is given up for which pressure, in order, and when it is taken back. Pure.
//!
//! ```text
//!   Calm ─► Reap ─► Close ─► Trim ─► Refuse ─► Pause
//!        ◄─ one step down for each `PATIENCE` of less pressure: no step is taken back in the moment it helps
//! ```
//!
//! Every resource has a ladder of its own, so that only what waits on it is given up: connections say nothing of the disk.

/// What is given up; each step includes those before it that help its resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nothing.
    #[default]
    Calm,
    /// The keep-alive connections that have idled longest are ended.
    Reap,
    /// Answers end their connections, and the others may idle for a shorter time.
    Close,
    /// Work that nobody asked for: deep socket queues for fast readers.
    Trim,
    /// Requests that cost more than their refusal are answered 503, by the priority of their route.
    Refuse,
    /// Connections stay in the kernel's queue, which is made short.
    Pause,
}

/// What pressure is measured of. Disk jobs have a queue of their own that knows (`disk::Helpers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The loop's lag, as a multiple of what is aimed at.
    Loop,
    /// Connections, as a part of what there may be.
    Connections,
    /// Resident memory, as a part of what there is.
    Memory,
}

/// One resource's place on the ladder.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    rungs: &'static [(Step, f32)],
    step: Step,
    /// When the pressure was last as high as the present step asks for.
    held_at: u64,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [Self::Calm, Self::Reap, Self::Close, Self::Trim, Self::Refuse, Self::Pause];

    /// The name that logs and numbers use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Reap => "reap",
            Self::Close => "close",
            Self::Trim => "trim",
            Self::Refuse => "refuse",
            Self::Pause => "pause",
        }
    }
}

impl Ladder {
    /// The ladder of a resource.
    pub fn new(resource: Resource) -> Self {
        let rungs: &[_] = match resource {
            Resource::Loop => &[(Step::Trim, 0.5), (Step::Refuse, 1.0), (Step::Pause, 4.0)],
            Resource::Connections => &[(Step::Reap, 0.85), (Step::Close, 0.92)],
            Resource::Memory => &[
                (Step::Reap, 0.80),
                (Step::Close, 0.85),
                (Step::Trim, 0.85),
                (Step::Refuse, 0.90),
                (Step::Pause, 0.95),
            ],
        };
        Self { rungs, step: Step::Calm, held_at: 0 }
    }

    /// Takes note of a pressure at `now` (milliseconds) and says where that leads.
    pub fn feel(&mut self, pressure: f32, now: u64) -> Step {
        let reached = self.highest(pressure);
        if reached > self.step {
            self.step = reached;
            self.held_at = now;
        } else if self.highest(pressure / SLACK) >= self.step {
            self.held_at = now;
        } else if now.saturating_sub(self.held_at) >= PATIENCE_MS {
            self.step = self.below();
            self.held_at = now;
        }
        self.step
    }

    /// The present step.
    pub fn step(&self) -> Step {
        self.step
    }

    fn highest(&self, pressure: f32) -> Step {
        self.rungs.iter().rev().find(|(_, at)| pressure >= *at).map_or(Step::Calm, |(step, _)| *step)
    }

    fn below(&self) -> Step {
        self.rungs.iter().rev().map(|(step, _)| *step).find(|step| *step < self.step).unwrap_or(Step::Calm)
    }
}

/// A step is left when the pressure is this part of what it is entered at.
const SLACK: f32 = 0.9;
const PATIENCE_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_at_once_and_down_slowly() {
        let mut ladder = Ladder::new(Resource::Memory);
        assert_eq!(ladder.feel(0.5, 0), Step::Calm);
        assert_eq!(ladder.feel(0.91, 100), Step::Refuse);
        assert_eq!(ladder.feel(0.2, 200), Step::Refuse);
        assert_eq!(ladder.feel(0.2, 599), Step::Refuse);
        assert_eq!(ladder.feel(0.2, 600), Step::Trim);
        assert_eq!(ladder.feel(0.2, 1100), Step::Close);
        assert_eq!(ladder.feel(0.2, 1600), Step::Reap);
        assert_eq!(ladder.feel(0.2, 2100), Step::Calm);
    }

    #[test]
    fn a_pressure_about_the_mark_does_not_flap() {
        let mut ladder = Ladder::new(Resource::Connections);
        let mut changes = 0;
        let mut before = Step::Calm;
        for at in 0..200u64 {
            let step = ladder.feel(if at % 2 == 0 { 0.86 } else { 0.84 }, at * 100);
            changes += u32::from(step != before);
            before = step;
        }
        assert_eq!((changes, before), (1, Step::Reap));
    }

    #[test]
    fn every_step_of_every_resource_can_be_left() {
        for resource in [Resource::Loop, Resource::Connections, Resource::Memory] {
            let mut ladder = Ladder::new(resource);
            ladder.feel(1000.0, 0);
            for at in 1..=Step::ALL.len() as u64 {
                ladder.feel(0.0, at * PATIENCE_MS);
            }
            assert_eq!(ladder.step(), Step::Calm, "{resource:?}");
        }
    }
}
