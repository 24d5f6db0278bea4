//! HTTP/1.1 on the wire (RFC 9112): request heads in, body framing in and out, answer heads out.
//! Goal: strict where two readers could disagree, since that is how requests are smuggled.
//! Costs: see each part; none allocates for itself.

pub mod body;
pub mod encode;
pub mod parse;
pub mod peek;

mod authority;
mod chunked;
mod connection;
mod field_lines;
mod framing;
mod request_line;
mod scan;
mod target;

pub use crate::status::Reject;
pub use body::{BodyDecoder, BodyEvent};
pub use parse::parse_request;
