//! Configuration: what was typed ([`text`]) becomes what is meant ([`plan`]), or a report of
//! every mistake.

pub mod choice;
mod nearest;
pub mod pattern;
pub mod plan;
pub mod template;
