//! What HTTP's messages mean whatever the version on the wire: dates, conditions, ranges, types, paths (RFC 9110).
//! Goal: the rules that are easy to get wrong, each in one place, as functions of their input alone.
//! Costs: see each part; only range lists and decoded paths allocate.

pub mod condition;
pub mod date;
pub mod media_type;
pub mod multipart;
pub mod path;
pub mod range;
