//! Sockets as the loop's tasks see them.

pub(crate) mod socket;

mod listener;
mod stream;

pub use listener::Listener;
pub use socket::ConnectOptions;
pub use stream::Stream;
