//! What may go wrong in a world, and how often. A new fault is a field here, a line where it strikes, and a choice in the
//! scenarios that have it.
//!
//! Rates are in a million questions. All zero and the times short: a world in which nothing goes wrong.

/// The temper of a world.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Nanoseconds that a system call takes at most.
    pub call_time: u64,
    /// A turn is put aside for up to `stall_time` nanoseconds, by calls.
    pub stall: u32,
    /// How long.
    pub stall_time: u64,
    /// Nanoseconds that a segment is under way, at least and at most.
    pub latency: (u64, u64),
    /// Bytes that a segment carries at most.
    pub segment: u64,
    /// Bytes the kernel takes of a send before the socket is full.
    pub send_buffer: u64,
    /// Bytes that may be under way to a client that does not read.
    pub client_buffer: u64,
    /// A send takes less than there is room for.
    pub short_write: u32,
    /// A report of something that is not there.
    pub spurious: u32,
    /// A report for a descriptor that was closed meanwhile.
    pub late_report: u32,
    /// What a client has received and not read is lost with a reset.
    pub reset_loses_data: bool,
    /// Connections are reported with their first bytes (TCP_DEFER_ACCEPT).
    pub defer_accept: bool,
    /// accept(2) finds no descriptor or no memory.
    pub accept_error: u32,
    /// open(2) finds no descriptor or no memory.
    pub open_shortage: u32,
    /// Opening fails with EIO or ESTALE.
    pub open_error: u32,
    /// Reading fails with EIO.
    pub read_error: u32,
    /// Nanoseconds that a helper's job takes, at least and at most.
    pub disk_time: (u64, u64),
    /// A helper's job hangs, for up to `hang_time`.
    pub hang: u32,
    /// How long, in nanoseconds.
    pub hang_time: u64,
    /// No thread can be started.
    pub thread_error: u32,
    /// A file changes between two calls that ask about it.
    pub race: u32,
    /// A file's pages, or the way to it, are forgotten.
    pub evict: u32,
    /// Of what is forgotten while helpers are at work, somebody is reading it again already.
    pub reread: u32,
    /// cachestat(2) may not tell: another user's files, an old kernel.
    pub blind: bool,
    /// The wall clock is stepped, by calls to it.
    pub clock_step: u32,
    /// Descriptors there may be; beyond it is EMFILE.
    pub descriptors: usize,
    /// Pages of memory in use, of 250,000.
    pub memory: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            call_time: 2_000,
            stall: 0,
            stall_time: 0,
            latency: (20_000, 200_000),
            segment: 64 * 1024,
            send_buffer: 256 * 1024,
            client_buffer: 256 * 1024,
            short_write: 0,
            spurious: 0,
            late_report: 0,
            reset_loses_data: true,
            defer_accept: true,
            accept_error: 0,
            open_shortage: 0,
            open_error: 0,
            read_error: 0,
            disk_time: (50_000, 500_000),
            hang: 0,
            hang_time: 0,
            thread_error: 0,
            race: 0,
            evict: 0,
            reread: 0,
            blind: false,
            clock_step: 0,
            descriptors: 4096,
            memory: 10_000,
        }
    }
}
