//! What the server knows about itself: counters, samples, and the ways to read them.

pub mod access_log;
pub mod admin;
pub mod counters;
pub mod histogram;
pub mod metrics;
pub mod report;
pub mod samples;
pub mod sites;
pub mod sketch;
