//! amped-runtime.
