//! What the server knows about itself: counters and the access log.

pub mod access_log;
pub mod admin;
pub mod counters;
#[cfg(debug_assertions)]
pub mod fault;
