//! amped-wire: HTTP/1.1 as pure functions, bytes in and meaning out; RFC 9110 and RFC 9112 in one room.
//! Goal: refuse what is ambiguous, never panic on bytes from outside, never touch a descriptor, a clock or a task.
//! Costs: one pass over a request head, no allocation before a range list or a percent-encoded path needs one.
#![forbid(unsafe_code)]

pub mod h1;
pub mod head;
pub mod limits;
pub mod semantics;
pub mod status;
