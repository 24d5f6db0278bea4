//! amped-wire.
