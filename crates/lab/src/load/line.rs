//! A slow line: how much a modem client may read, and when.
//!
//! The line takes what has arrived in pieces of half a second at most, and then is busy for as long as a modem of its rate
//! would be. Times follow from the bytes, not from when the timer fired, so the rate is kept to the bit over any length.

use std::time::{Duration, Instant};

/// One connection's line.
#[derive(Debug)]
pub struct Line {
    bytes_per_second: f64,
    piece: usize,
    free_from: Instant,
}

impl Line {
    /// A line of so many bits per second, behind a receive buffer of this size.
    pub fn new(bits_per_second: u64, receive_buffer: usize, now: Instant) -> Self {
        let bytes_per_second = bits_per_second as f64 / 8.0;
        // Less than the buffer holds: else the window would close although the line is not full.
        let piece = ((bytes_per_second * LONGEST_PIECE) as usize).clamp(1, (receive_buffer / 2).max(1));
        Self { bytes_per_second, piece, free_from: now }
    }

    /// The most to read at a time.
    pub fn piece(&self) -> usize {
        self.piece
    }

    /// How long it is busy yet.
    pub fn busy(&self, now: Instant) -> Duration {
        self.free_from.saturating_duration_since(now)
    }

    /// So many bytes go through it; says when the last one is there. What was not used of the line before is lost.
    pub fn carry(&mut self, bytes: usize, now: Instant) -> Instant {
        // A timer may be late by some milliseconds; that much is made up for.
        let from = self.free_from.max(now.checked_sub(LATENESS).unwrap_or(now));
        self.free_from = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        self.free_from.max(now)
    }
}

const LONGEST_PIECE: f64 = 0.5;
const LATENESS: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        let start = Instant::now();
        let mut line = Line::new(28_800, 4096, start);
        assert_eq!(line.piece(), 1800);
        let (mut now, mut read) = (start, 0);
        while read < 36_000 {
            line.carry(line.piece(), now);
            read += line.piece();
            // The timer is late each time.
            now += line.busy(now) + Duration::from_millis(3);
        }
        let seconds = (now - start).as_secs_f64();
        assert!((9.99..10.02).contains(&seconds), "36,000 bytes at 3,600 a second took {seconds}");
    }

    #[test]
    fn pauses_are_not_saved_up_and_pieces_fit() {
        let start = Instant::now();
        let mut line = Line::new(8000, 4096, start);
        let later = start + Duration::from_secs(60);
        line.carry(500, later);
        assert!(line.busy(later) > Duration::from_millis(450), "{:?}", line.busy(later));
        assert_eq!(Line::new(10_000_000, 4096, start).piece(), 2048);
        assert_eq!(Line::new(8, 1, start).piece(), 1);
    }
}
