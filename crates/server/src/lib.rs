//! amped: a web server that never waits on the disk.
//!
//! Imports point down only: `cli`, `config`, `supervise`, `prefork`, `worker`, `listen`, `converse`, then `route`, `answer` and `overload`, which stand on the
//! crates amped-runtime (system calls) and amped-wire (protocols). `config` and `observe` may be imported by all.
#![forbid(unsafe_code)]
// `say!` and `cli::print` do not panic where nobody listens.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod answer;
pub mod cli;
pub mod config;
pub mod converse;
pub mod listen;
pub mod observe;
pub mod overload;
pub mod prefork;
pub mod route;
pub mod supervise;
pub mod worker;
