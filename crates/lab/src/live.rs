//! How a run goes, on a terminal: one line on standard error that is written over each second.
//!
//! Nothing is written when standard error is no terminal, or with `--quiet`: logs of CI stay clean.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use crate::load::Event;
use crate::plan::Plan;
use crate::report::{show_count, show_duration};
use crate::tally::Interval;

/// The line.
#[derive(Debug)]
pub struct Live {
    shown: bool,
    duration: Option<Duration>,
    limit: Option<u64>,
    answers: u64,
    errors: u64,
    has_crowd: bool,
}

impl Live {
    /// For this run.
    pub fn new(quiet: bool, plan: &Plan) -> Self {
        Self {
            shown: !quiet && stderr().is_terminal(),
            duration: plan.duration,
            limit: plan.limit,
            answers: 0,
            errors: 0,
            has_crowd: plan.idle > 0,
        }
    }

    /// Shows what happened.
    pub fn show(&mut self, event: &Event) {
        if !self.shown {
            return;
        }
        let line = match event {
            Event::Connecting(done, all) => {
                format!("connecting {} of {}", show_count(*done as u64), show_count(*all as u64))
            }
            Event::Ready => "warming up".to_owned(),
            Event::Interval(interval) => self.line(interval),
            Event::Over => return,
        };
        // Over the last one, and the rest of it away (ECMA-48: EL). A terminal that is gone is no reason to stop.
        let _ = write!(stderr(), "\r{line}\x1b[K");
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }

    fn line(&mut self, interval: &Interval) -> String {
        self.answers += interval.main.counts.answers;
        self.errors += interval.main.counts.errors.total() + interval.crowd.counts.errors.total();
        let end = interval.start + interval.length;
        let by_time = self.duration.map(|all| end.as_secs_f64() / all.as_secs_f64());
        let by_count = self.limit.map(|all| self.answers as f64 / all as f64);
        let done = by_time.unwrap_or(0.0).max(by_count.unwrap_or(0.0)).min(1.0);
        let full = (done * BAR as f64) as usize;
        let rate = interval.main.counts.answers as f64 / interval.length.as_secs_f64().max(1e-9);
        let latency = &interval.main.latency;
        let mut line = format!(
            "{}{} {:>3.0}%  {}/s  p50 {}  p99 {}  max {}",
            "█".repeat(full),
            "░".repeat(BAR - full),
            done * 100.0,
            show_count(rate as u64),
            show_duration(latency.quantile(0.5)),
            show_duration(latency.quantile(0.99)),
            show_duration(latency.max()),
        );
        if self.has_crowd {
            line.push_str(&format!("  idle {}", show_count(interval.idle_connected)));
        }
        if self.errors > 0 {
            line.push_str(&format!("  errors {}", show_count(self.errors)));
        }
        line
    }
}

const BAR: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let duration = Some(Duration::from_secs(4));
        let mut live = Live { shown: true, duration, limit: None, answers: 0, errors: 0, has_crowd: true };
        let mut interval = Interval { length: Duration::from_secs(1), idle_connected: 7, ..Interval::default() };
        (0..1500).for_each(|_| interval.main.counts.answer(200, 0));
        interval.main.latency.record(Duration::from_millis(2));
        let line = live.line(&interval);
        assert_eq!(line, "████░░░░░░░░░░░░  25%  1,500/s  p50 2.00 ms  p99 2.00 ms  max 2.00 ms  idle 7");
        interval.main.counts.errors.add(crate::tally::Failure::Reset, 3);
        assert!(live.line(&interval).ends_with("errors 3"));
    }
}
