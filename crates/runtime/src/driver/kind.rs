//! The drivers' names.

use std::fmt;

/// A way to wait, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// io_uring.
    Uring,
    /// Edge-triggered epoll.
    EpollEdge,
    /// Level-triggered epoll.
    EpollLevel,
    /// poll(2).
    Poll,
    /// select(2).
    Select,
    /// Realtime signals.
    Sigio,
    /// The system's own way, by the `polling` crate.
    Portable,
    /// Blocking calls: for a thread that serves one connection at a time.
    Blocking,
    /// None: the thread's simulation says what happens.
    #[cfg(feature = "sim")]
    Sim,
}

impl Kind {
    /// Every driver this build has, the best to fall back to first.
    pub const ALL: [Self; 8] = [
        Self::Uring,
        Self::EpollEdge,
        Self::EpollLevel,
        Self::Portable,
        Self::Poll,
        Self::Select,
        Self::Sigio,
        Self::Blocking,
    ];

    /// The name that the command line and the logs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::EpollEdge => "epoll-edge",
            Self::EpollLevel => "epoll-level",
            Self::Poll => "poll",
            Self::Select => "select",
            Self::Sigio => "sigio",
            Self::Portable => "portable",
            Self::Blocking => "blocking",
            #[cfg(feature = "sim")]
            Self::Sim => "sim",
        }
    }

    /// Whether a simulation says what happens. What pays only now and then is done always there, or it would hardly be seen.
    pub(crate) fn is_simulated(self) -> bool {
        match self {
            #[cfg(feature = "sim")]
            Self::Sim => true,
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
