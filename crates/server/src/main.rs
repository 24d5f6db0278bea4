//! The amped command.

fn main() {}
