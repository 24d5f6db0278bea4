//! amped-lab: a load generator on amped's own loop, for benches, for CI and for what hurts servers.
//!
//! Open and closed loops, idle crowds, modem clients, slow senders and churn; latencies in HDR histograms, counted from the
//! time a request should have left. A request costs one receive, one send and no allocation.
//!
//! ```text
//! cli ─► plan ─► fleet (several processes?) ─► load: the loop, its connections, the schedule
//!                  │                              │ response, catalogue (what is asked), tally (what came of it)
//!                  └──────► live, report, assertion ◄── an interval a second
//! ```
#![forbid(unsafe_code)]

pub mod assertion;
pub mod catalogue;
pub mod cli;
pub mod fleet;
pub mod live;
pub mod load;
pub mod plan;
pub mod quantity;
pub mod random;
pub mod report;
pub mod response;
pub mod sources;
pub mod tally;
pub mod target;
pub mod zipf;
