//! amped.
