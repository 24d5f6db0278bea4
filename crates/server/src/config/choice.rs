//! The choices that have names: architecture, driver, disk, access log, symbolic links.
//!
//! Goal: the command line and the file accept the same words and refuse others with the same
//! sentence. One table per choice; the first name is the default.

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::nearest::one_of;

/// How connections are shared out over loops, threads and processes. Without a choice, the number of workers decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// One event loop, helpers for the disk.
    Amped,
    /// An event loop for each core.
    Symped,
    /// One event loop that waits for the disk itself.
    Sped,
    /// A thread for each connection, from a pool.
    Mt,
    /// A process for each connection, from a pool that is forked before.
    Mp,
}

/// The system interface of the event loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// io_uring where it works and pays, else edge-triggered epoll.
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// epoll, edge triggered.
    EpollEdge,
    /// epoll, level triggered.
    EpollLevel,
    /// poll(2).
    Poll,
    /// select(2).
    Select,
    /// Realtime signals.
    Sigio,
    /// The system's own way, by the `polling` crate.
    Portable,
    /// Blocking calls, one connection at a time.
    Blocking,
}

/// Where work that may wait on the disk is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskMode {
    /// Memory first, then tries that cannot wait, then helpers.
    #[default]
    Amped,
    /// Everything on the loop: one slow file delays everybody. For comparison.
    Inline,
    /// Everything but the cache on helpers. For comparison.
    Helpers,
}

/// Which symbolic links are followed below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Those whose target stays below the root.
    #[default]
    Within,
    /// None.
    Never,
    /// All, wherever they lead.
    Anywhere,
}

/// How soon a route's requests are refused when there is too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Not before the sheddable ones, and only where more than memory is needed.
    #[default]
    Normal,
    /// Last: only when there is no place in any queue.
    Essential,
    /// First, also what memory could answer.
    Sheddable,
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// The combined format of Apache and nginx.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Appended to a file, which SIGUSR1 reopens.
    File {
        /// Absolute.
        path: PathBuf,
        /// Of each line.
        format: LogFormat,
    },
    /// To standard error.
    Stderr {
        /// Of each line.
        format: LogFormat,
    },
}

impl AccessLog {
    /// `off`, `stderr`, or a path (made absolute against the current folder).
    pub fn from_word(word: &str, format: LogFormat) -> AccessLog {
        match word {
            "off" => AccessLog::Off,
            "stderr" => AccessLog::Stderr { format },
            path => {
                let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
                AccessLog::File { path, format }
            }
        }
    }
}

/// Gives a choice its table of names, `name()`, a schema, and a `FromStr` whose error says what
/// to type.
macro_rules! named {
    ($type:ident, $what:literal, $($name:literal => $variant:ident),+) => {
        impl $type {
            /// The names to type, the default first.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The name to type.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<$type, String> {
                match name {
                    $($name => Ok($type::$variant),)+
                    _ => Err(one_of($what, name, $type::NAMES)),
                }
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "enum": $type::NAMES })
            }
        }
    };
}

named!(Architecture, "architecture",
    "amped" => Amped, "symped" => Symped, "sped" => Sped, "mt" => Mt, "mp" => Mp);
named!(DriverChoice, "driver",
    "auto" => Auto, "uring" => Uring, "epoll-edge" => EpollEdge, "epoll-level" => EpollLevel,
    "poll" => Poll, "select" => Select, "sigio" => Sigio, "portable" => Portable, "blocking" => Blocking);
named!(DiskMode, "disk mode", "amped" => Amped, "inline" => Inline, "helpers" => Helpers);
named!(Symlinks, "symlink policy", "within" => Within, "never" => Never, "anywhere" => Anywhere);
named!(Priority, "priority", "normal" => Normal, "essential" => Essential, "sheddable" => Sheddable);
named!(LogFormat, "log format", "combined" => Combined, "json" => Json);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in DriverChoice::NAMES {
            assert_eq!(name.parse::<DriverChoice>().unwrap().name(), *name);
        }
        for name in DiskMode::NAMES {
            assert_eq!(name.parse::<DiskMode>().unwrap().name(), *name);
        }
        assert_eq!(Symlinks::default().name(), Symlinks::NAMES[0]);
        assert_eq!(LogFormat::default().name(), LogFormat::NAMES[0]);
    }

    #[test]
    fn a_wrong_name_is_told_the_nearest() {
        let error = "epol-edge".parse::<DriverChoice>().unwrap_err();
        assert_eq!(
            error,
            "unknown driver `epol-edge`: did you mean `epoll-edge`? \
             (valid: `auto`, `uring`, `epoll-edge`, `epoll-level`, `poll`, `select`, `sigio`, `portable`, `blocking`)"
        );
    }
}
