//! A close that lets the last words arrive.
//!
//! Closing a socket with unread bytes makes the kernel send RST, and the peer's kernel then throws away what it had not read:
//! the client would see a reset instead of the answer that explains it (RFC 9112 section 9.6). So: finish sending, say FIN,
//! and read and forget what still comes, for a while: an upload that was refused is often sent to its end before the answer is
//! read.

use std::future::poll_fn;
use std::time::Duration;

use amped_runtime::net::Stream;

/// Ends a connection whose peer may still be sending.
pub async fn close(stream: Option<Stream>) {
    let Some(stream) = stream else { return };
    stream.deadline_in(PATIENCE);
    let sent = poll_fn(|context| stream.poll_sent(context)).await;
    if sent.is_err() || stream.shutdown_write().is_err() {
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

/// How long the peer may be silent.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may go on sending.
const MAX_LINGER: Duration = Duration::from_secs(30);
/// How much it may still send meanwhile.
const MAX_IGNORED: usize = 16 * 1024 * 1024;
