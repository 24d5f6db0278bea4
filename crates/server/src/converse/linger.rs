//! Ends of connections at which nothing is lost.
//!
//! Closing a socket with unread bytes makes the kernel send RST, and the peer's kernel then throws away what it had not read:
//! the client would see a reset instead of the answer that explains it (RFC 9112 section 9.6). So: finish sending, say FIN,
//! and read and forget what still comes, for a while: an upload that was refused is often sent to its end before the answer is
//! read.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use amped_runtime::net::Stream;

use super::Context;
use super::pace::{Demand, Pace};

/// Ends a connection whose peer may still be sending.
pub async fn close(context: &Context, stream: &Stream) {
    if sent(context, stream).await.is_err() || stream.shutdown_write().is_err() {
        return;
    }
    let clock = stream.runtime().clock();
    let end = clock.now() + MAX_LINGER;
    let mut ignored = 0;
    while ignored < MAX_IGNORED && clock.now() < end {
        stream.deadline_in(PATIENCE);
        match stream.recv().await {
            Ok(chunk) if !chunk.is_empty() => ignored += chunk.len(),
            _ => return,
        }
    }
}

/// Lets what is in flight leave, for as long as the peer keeps the rate that is asked of every reader.
///
/// # Errors
/// It has not left, and never will.
pub async fn sent(context: &Context, stream: &Stream) -> io::Result<()> {
    let demand = Demand::of_reader(&context.limits());
    let ticks = || context.runtime().clock().ticks();
    // What fills the kernel's buffer is not taken yet.
    let held = || (stream.in_flight() + stream.unacknowledged().unwrap_or(0)) as u64;
    let all = held();
    let mut pace = Pace::new(demand, ticks(), 0);
    loop {
        stream.deadline_in(Duration::from_millis(pace.left().into()));
        match poll_fn(|task| stream.poll_sent(task)).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if pace.note(demand, ticks(), all.saturating_sub(held())) == 0 {
                    context.counters.timeouts.add(1);
                    context.counters.too_slow.add(1);
                    let _ = stream.reset_on_close();
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
}

/// How long the peer may be silent.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may go on sending.
const MAX_LINGER: Duration = Duration::from_secs(30);
/// How much it may still send meanwhile.
const MAX_IGNORED: usize = 16 * 1024 * 1024;
