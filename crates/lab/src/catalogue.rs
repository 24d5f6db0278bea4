//! What is asked: every request's bytes, prepared before the first is sent, and the order in which they are.
//!
//! A request is one copy into the connection's send queue. The bytes end before the last CRLF is due, so that a connection's
//! last request can say `Connection: close` there.

use std::cell::Cell;

use crate::random::Random;
use crate::zipf::Zipf;

/// The prepared requests.
#[derive(Debug)]
pub struct Catalogue {
    bytes: Vec<u8>,
    /// Where each request ends; it begins where the one before ends.
    ends: Vec<usize>,
}

/// What all requests have in common.
#[derive(Debug)]
pub struct Shape<'a> {
    /// GET or HEAD.
    pub method: &'a str,
    /// The value of Host.
    pub host: &'a str,
    /// More fields, as `Name: value`.
    pub fields: &'a [String],
}

/// Which request is next.
#[derive(Debug)]
pub struct Picker {
    order: Order,
    random: Random,
    ranks: u32,
}

#[derive(Debug)]
enum Order {
    /// Again and again in order; of several processes each takes every n-th.
    InTurn { next: Cell<u32>, step: u32 },
    Uniform,
    Zipf(Zipf),
}

impl Catalogue {
    /// Prepares a request for each path.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>, shape: &Shape<'_>) -> Self {
        let mut this = Self { bytes: Vec::new(), ends: Vec::new() };
        let mut tail = format!(" HTTP/1.1\r\nHost: {}\r\n", shape.host);
        for field in shape.fields {
            tail.push_str(field);
            tail.push_str("\r\n");
        }
        for path in paths {
            for part in [shape.method, " ", path, &tail, END] {
                this.bytes.extend_from_slice(part.as_bytes());
            }
            this.ends.push(this.bytes.len());
        }
        this
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends one; with `last`, as the last of its connection.
    pub fn append(&self, at: u32, last: bool, to: &mut Vec<u8>) {
        let at = at as usize;
        let begin = if at == 0 { 0 } else { self.ends[at - 1] };
        let request = &self.bytes[begin..self.ends[at]];
        if last {
            to.extend_from_slice(&request[..request.len() - END.len()]);
            to.extend_from_slice(b"Connection: close\r\n\r\n");
        } else {
            to.extend_from_slice(request);
        }
    }
}

impl Picker {
    /// In turn from `first`, then every `step`-th.
    pub fn in_turn(ranks: u32, first: u32, step: u32) -> Self {
        let order = Order::InTurn { next: Cell::new(first % ranks), step };
        Self { order, random: Random::new(0), ranks }
    }

    /// All alike.
    pub fn uniform(ranks: u32, seed: u64) -> Self {
        Self { order: Order::Uniform, random: Random::new(seed), ranks }
    }

    /// The first most often, by Zipf's law.
    pub fn zipf(ranks: u32, exponent: f64, seed: u64) -> Self {
        Self { order: Order::Zipf(Zipf::new(ranks, exponent)), random: Random::new(seed), ranks }
    }

    /// The next request's place in the catalogue.
    pub fn pick(&self) -> u32 {
        match &self.order {
            // The usual case, and no division for it.
            Order::InTurn { .. } if self.ranks == 1 => 0,
            Order::InTurn { next, step } => {
                let at = next.get();
                next.set(((u64::from(at) + u64::from(*step)) % u64::from(self.ranks)) as u32);
                at
            }
            Order::Uniform => self.random.below(self.ranks),
            Order::Zipf(zipf) => zipf.sample(&self.random),
        }
    }
}

const END: &str = "\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole() {
        let fields = ["A: b".to_owned()];
        let shape = Shape { method: "GET", host: "h:1", fields: &fields };
        let catalogue = Catalogue::new(["/x", "/yy"], &shape);
        let mut bytes = Vec::new();
        catalogue.append(1, false, &mut bytes);
        catalogue.append(0, true, &mut bytes);
        let expected = "GET /yy HTTP/1.1\r\nHost: h:1\r\nA: b\r\n\r\nGET /x HTTP/1.1\r\nHost: h:1\r\nA: b\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!((catalogue.len(), catalogue.is_empty()), (2, false));
    }

    #[test]
    fn orders_are_kept() {
        let picks = |picker: Picker| (0..7).map(|_| picker.pick()).collect::<Vec<_>>();
        assert_eq!(picks(Picker::in_turn(3, 0, 1)), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(picks(Picker::in_turn(5, 1, 2)), [1, 3, 0, 2, 4, 1, 3]);
        assert_eq!(picks(Picker::in_turn(1, 3, 4)), [0; 7]);
        assert!(picks(Picker::uniform(3, 5)).iter().all(|&pick| pick < 3));
        assert!(picks(Picker::zipf(3, 1.0, 5)).iter().all(|&pick| pick < 3));
    }
}
