//! amped.

pub mod config;
pub mod route;
