//! The socket calls, one function each: non-blocking, errors as the kernel names them.
//!
//! They sit apart so that every driver makes the same call in the same way, and so that `unsafe` is short.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;

use crate::buffer::SendQueue;

/// How a connection is made, where that is not to be left to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The address to connect from: each has ports of its own, about 28,000 towards one destination.
    pub source: Option<IpAddr>,
    /// Bytes the kernel may keep for a reader that is slow (SO_RCVBUF, socket(7): it doubles the number, and has a least one).
    pub receive_buffer: Option<usize>,
    /// How long the peer may take to answer; it stays the stream's deadline until another is set.
    pub patience: Option<Duration>,
}

/// Receives what is there. 0 means that the peer has finished.
pub(crate) fn recv(fd: BorrowedFd<'_>, memory: &mut [u8]) -> io::Result<usize> {
    simulated!(|world| world.recv(fd.as_raw_fd(), memory));
    retry(|| {
        // SAFETY: pointer and length describe `memory`.
        unsafe { libc::recv(fd.as_raw_fd(), memory.as_mut_ptr().cast(), memory.len(), libc::MSG_DONTWAIT) }
    })
}

/// `recv` that waits for bytes if the descriptor is in blocking mode. A signal, or its time limit, ends it with an error.
pub(crate) fn recv_waiting(fd: BorrowedFd<'_>, memory: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `memory`.
    outcome(unsafe { libc::recv(fd.as_raw_fd(), memory.as_mut_ptr().cast(), memory.len(), 0) })
}

/// Sends what the socket takes of the queue, in one call. `more` promises that bytes follow at once: without that promise kept
/// the kernel would hold a partial segment back for 200 ms.
pub(crate) fn send(fd: BorrowedFd<'_>, queue: &mut SendQueue, more: bool) -> io::Result<usize> {
    simulated!(|world| world.send(fd.as_raw_fd(), queue));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    if let Some(bytes) = queue.single() {
        // SAFETY: pointer and length describe `bytes`.
        return retry(|| unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) });
    }
    let mut vectors: [MaybeUninit<libc::iovec>; MAX_VECTORS] = [const { MaybeUninit::uninit() }; MAX_VECTORS];
    let mut count = 0;
    for bytes in queue.slices(MAX_VECTORS) {
        vectors[count].write(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        count += 1;
    }
    // SAFETY: an all-zero msghdr is a valid empty one.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = vectors.as_mut_ptr().cast();
    header.msg_iovlen = count;
    // SAFETY: the header names `count` initialised vectors, which lead to bytes that the queue keeps.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &header, flags) })
}

/// Sends from a file without touching its bytes. May wait for the disk unless the window is known to be in memory.
pub(crate) fn sendfile(fd: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
    simulated!(|world| world.sendfile(fd.as_raw_fd(), file.as_raw_fd(), offset, length));
    let mut offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `offset` is valid for the call.
    retry(|| unsafe { libc::sendfile(fd.as_raw_fd(), file.as_raw_fd(), &mut offset, length) })
}

/// Whether the socket would take no bytes now: then, and only then, a readiness interface tells of the moment when it does.
pub(crate) fn is_full(fd: BorrowedFd<'_>) -> bool {
    simulated!(|world| world.is_full(fd.as_raw_fd()));
    let mut ready = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    rustix::event::poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}

/// Takes the next connection off the listener's queue, non-blocking and closed on exec. TCP_NODELAY and the like are inherited
/// from the listener.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    loop {
        match accept_waiting(fd) {
            // The peer gave up while it was queued: the next one is what was asked for.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            accepted => return accepted,
        }
    }
}

/// `accept` that waits for a connection if the listener is in blocking mode. A signal, or its time limit, ends it with an error.
pub(crate) fn accept_waiting(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    simulated!(|world| world.accept(fd.as_raw_fd()));
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for, so both pointers may be null.
    let fd = unsafe { libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    // SAFETY: accept4 returned a descriptor that nobody else owns.
    outcome(fd as isize).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A listening socket with the options its connections inherit.
pub(crate) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = bound(address, true)?;
    pass_on(fd.as_fd())?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Options that a listener's connections inherit.
pub(crate) fn pass_on(fd: BorrowedFd<'_>) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    set_queue_ahead(fd, false)
}

/// Whether nobody listens on `address` yet. With SO_REUSEPORT a second server of the same user would bind without a word and
/// take half of the first one's connections.
pub(crate) fn is_free(address: SocketAddr) -> io::Result<()> {
    bound(address, false).map(drop)
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let fd = stream_socket(address)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    sockopt::set_socket_reuseport(&fd, shared)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    Ok(fd)
}

fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?)
}

/// Starts a connection; it is made when the descriptor becomes writable.
pub(crate) fn connect(address: SocketAddr, options: &ConnectOptions) -> io::Result<OwnedFd> {
    let fd = stream_socket(address)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    set_queue_ahead(fd.as_fd(), false)?;
    if let Some(size) = options.receive_buffer {
        // Before the connect: the window's scale is settled with the SYN.
        sockopt::set_socket_recv_buffer_size(&fd, size)?;
    }
    if let Some(source) = options.source {
        // The port is then chosen by connect(2), per destination: bind(2) alone would choose it for all of them.
        if source.is_ipv4() {
            set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        }
        rustix::net::bind(&fd, &SocketAddr::new(source, 0))?;
    }
    match rustix::net::connect(&fd, &address) {
        Err(rustix::io::Errno::INPROGRESS) | Ok(()) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// How much may wait unsent in the kernel before the socket counts as full (TCP_NOTSENT_LOWAT, tcp(7)): little for a reader
/// that may be slow (measured on one that does not read at all: 256 KB instead of 3.9 MB), the whole send buffer for one that
/// has shown itself fast, which saves a quarter of the processor time of a large download.
pub(crate) fn set_queue_ahead(fd: BorrowedFd<'_>, deep: bool) -> io::Result<()> {
    simulated!(|world| world.set_option(fd.as_raw_fd()));
    set_tcp_option(fd, TCP_NOTSENT_LOWAT, if deep { libc::c_int::MAX } else { NOT_SENT_LOW_WATER })
}

/// Has a connection reported when its first bytes are there, or after a second without any (TCP_DEFER_ACCEPT, tcp(7)).
pub(crate) fn defer_accept(fd: BorrowedFd<'_>) -> io::Result<()> {
    const SECONDS: libc::c_int = 1;
    set_tcp_option(fd, libc::TCP_DEFER_ACCEPT, SECONDS)
}

/// See `Listener::watch_peers`.
pub(crate) fn watch_peers(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<()> {
    let (idle, interval) = probing(patience.as_secs());
    sockopt::set_socket_keepalive(fd, true)?;
    set_tcp_option(fd, libc::TCP_KEEPIDLE, idle)?;
    set_tcp_option(fd, libc::TCP_KEEPINTVL, interval)?;
    set_tcp_option(fd, libc::TCP_KEEPCNT, PROBES as libc::c_int)?;
    // Not TCP_USER_TIMEOUT: it counts from the first time a window was too small for the segment that waits, and does not begin
    // anew when the peer has read (tcp_ack_probe, net/ipv4/tcp_input.c, asks whether the whole segment fits). A modem with a small
    // window was reset after a minute, whatever it had taken. A listener of an earlier version may have it.
    set_tcp_option(fd, libc::TCP_USER_TIMEOUT, 0)
}

/// Seconds until the first probe and between two, so that all of them take what may pass, or a little more: five seconds at the
/// least, and at the most what the kernel takes (32,767, include/net/tcp.h).
fn probing(patience: u64) -> (libc::c_int, libc::c_int) {
    let bounded = |seconds: u64| seconds.clamp(1, 32_767) as libc::c_int;
    let idle = bounded(patience / 2);
    (idle, bounded(patience.saturating_sub(idle as u64).div_ceil(PROBES)))
}

/// How many connections wait to be accepted: for a listener that is what `tcpi_unacked` says (tcp_get_info, net/ipv4/tcp.c).
pub(crate) fn accept_queue(fd: BorrowedFd<'_>) -> io::Result<usize> {
    simulated!(|world| world.accept_queue());
    // SAFETY: an all-zero tcp_info is a valid one: it has numbers only.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    let place = (&raw mut info).cast();
    // SAFETY: pointer and size describe `info`.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.tcpi_unacked as usize) }
}

/// Bytes that the kernel has taken and the peer has not acknowledged (SIOCOUTQ, tcp(7)).
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    simulated!(|world| world.unacknowledged(fd.as_raw_fd()));
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is what this request writes to. SIOCOUTQ is TIOCOUTQ.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.max(0) as usize) }
}

/// Sends FIN (shutdown(2)).
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    simulated!(|world| world.shutdown_write(fd.as_raw_fd()));
    Ok(rustix::net::shutdown(fd, rustix::net::Shutdown::Write)?)
}

/// Lets a close reset the connection (SO_LINGER, socket(7)).
pub(crate) fn reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    simulated!(|world| world.reset_on_close(fd.as_raw_fd()));
    Ok(sockopt::set_socket_linger(fd, Some(Duration::ZERO))?)
}

/// The address of a socket.
pub(crate) fn address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    simulated!(|world| world.address(fd.as_raw_fd()));
    Ok(rustix::net::getsockname(fd)?.try_into()?)
}

/// The address of a connection's peer.
pub(crate) fn peer_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    simulated!(|world| world.address(fd.as_raw_fd()));
    let name = rustix::net::getpeername(fd)?;
    name.and_then(|name| name.try_into().ok()).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// The length of a listener's queue from now on (listen(2)).
pub(crate) fn let_wait(fd: BorrowedFd<'_>, connections: usize) -> io::Result<()> {
    simulated!(|world| world.let_wait(connections));
    Ok(rustix::net::listen(fd, i32::try_from(connections).unwrap_or(i32::MAX))?)
}

/// Has the kernel ignore attempts to connect (SO_ATTACH_FILTER, socket(7)), or heed them again. The filter sees TCP segments, and
/// those that begin a connection are dropped; what is under way goes on.
pub(crate) fn ignore_newcomers(fd: BorrowedFd<'_>, ignore: bool) -> io::Result<()> {
    simulated!(|world| world.ignore_newcomers(fd.as_raw_fd(), ignore));
    if !ignore {
        return match set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        };
    }
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, SYN, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: pointer and size describe `program`, which names as many steps as there are; the kernel copies them.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const program).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether `ignore_newcomers`, or anybody else, has put a filter there (SO_GET_FILTER says how many steps it has).
pub(crate) fn has_filter(fd: BorrowedFd<'_>) -> io::Result<bool> {
    simulated!(|world| world.has_filter(fd.as_raw_fd()));
    let mut steps: libc::socklen_t = 0;
    let option = libc::SO_GET_FILTER;
    // SAFETY: without room for them no steps are written, only their number, to `steps`.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::null_mut(), &raw mut steps) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(steps > 0) }
}

fn set_tcp_option(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, option, value)
}

fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: pointer and size describe `value`.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match outcome(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn outcome(result: isize) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// A descriptor for a socket made elsewhere, made fit for the loop.
pub(crate) fn adopt(fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let fd = fd.into();
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

/// Vectors in one send. More would be split by the kernel's own limit (1,024) at the latest; 64 cover 32 answers.
pub(crate) const MAX_VECTORS: usize = 64;
/// Unanswered probes after which a peer is given up.
const PROBES: u64 = 4;
const NOT_SENT_LOW_WATER: i32 = 128 * 1024;
const TCP_NOTSENT_LOWAT: i32 = 25;
/// Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn.
pub(crate) const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_take_what_may_pass() {
        for patience in [5, 6, 15, 60, 61, 3600, 86_400] {
            let (idle, interval) = probing(patience);
            let all = (idle + PROBES as libc::c_int * interval) as u64;
            assert!((patience..patience + PROBES).contains(&all), "{patience}: {idle} and {PROBES} times {interval}");
        }
        assert_eq!(probing(1), (1, 1));
    }
}
