//! Which driver the loops use, and why: the choice is logged, because it explains what an operator sees.

use amped_runtime::driver::{self, Kind};

use crate::config::choice::DriverChoice;

/// A driver and the reason for it.
#[derive(Debug)]
pub struct Chosen {
    /// The driver.
    pub kind: Kind,
    /// Why, in a few words.
    pub reason: String,
}

/// Turns the configuration's word into a driver that works here. What cannot be set up is replaced, and said so.
pub fn choose(choice: DriverChoice) -> Chosen {
    let asked = match choice {
        DriverChoice::Auto => return automatic(),
        DriverChoice::Uring => Kind::Uring,
        DriverChoice::EpollEdge => Kind::EpollEdge,
        DriverChoice::EpollLevel => Kind::EpollLevel,
        DriverChoice::Poll => Kind::Poll,
        DriverChoice::Select => Kind::Select,
        DriverChoice::Sigio => Kind::Sigio,
        DriverChoice::Portable => Kind::Portable,
        DriverChoice::Blocking => Kind::Blocking,
    };
    match driver::probe(asked) {
        Ok(()) => Chosen { kind: asked, reason: "as asked".into() },
        Err(error) => {
            let fallback = Kind::ALL.into_iter().find(|&kind| kind != asked && driver::probe(kind).is_ok());
            let kind = fallback.unwrap_or(Kind::Poll);
            Chosen { kind, reason: format!("{asked} does not work here: {error}") }
        }
    }
}

fn automatic() -> Chosen {
    match driver::probe(Kind::Uring) {
        Ok(()) => Chosen { kind: Kind::Uring, reason: "io_uring works here".into() },
        Err(error) => Chosen { kind: Kind::EpollEdge, reason: format!("io_uring does not work here: {error}") },
    }
}
