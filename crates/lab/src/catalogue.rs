//! What is asked: every request's bytes, prepared before the first is sent, and the order in which they are.
//!
//! A request is one copy into the connection's send queue. The prepared bytes end with the head, so that a connection's last
//! request can say `Connection: close` there; the body, the same for all, follows.

use std::cell::Cell;
use std::fmt;

use crate::random::Random;
use crate::zipf::Zipf;

/// The prepared requests.
#[derive(Debug)]
pub struct Catalogue {
    bytes: Vec<u8>,
    /// Where each request ends; it begins where the one before ends.
    ends: Vec<usize>,
    body: Box<[u8]>,
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
    /// Bytes of each request's body; without one it has no Content-Length.
    pub body: Option<usize>,
}

/// Which request is next.
#[derive(Debug)]
pub struct Picker {
    order: Order,
    random: Random,
    ranks: u32,
}

/// Weights of groups that overlap: `90%:2000,10%:all` asks 90% uniformly of the first 2,000, 10% uniformly of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    typed: String,
    /// Each weight, and of how many of the first it asks; `None` of all.
    groups: Vec<(u32, Option<u32>)>,
}

#[derive(Debug)]
enum Order {
    /// Again and again in order; of several processes each takes every n-th.
    InTurn {
        next: Cell<u32>,
        step: u32,
    },
    Uniform,
    Zipf(Zipf),
    /// Groups: the weights so far, and how many of the first; the last weight is the whole.
    Mix {
        groups: Vec<(u32, u32)>,
        whole: u32,
    },
}

impl Catalogue {
    /// Prepares a request for each path.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>, shape: &Shape<'_>) -> Self {
        let body = vec![b'x'; shape.body.unwrap_or_default()].into();
        let mut this = Self { bytes: Vec::new(), ends: Vec::new(), body };
        let mut tail = format!(" HTTP/1.1\r\nHost: {}\r\n", shape.host);
        for field in shape.fields {
            tail.push_str(field);
            tail.push_str("\r\n");
        }
        if let Some(length) = shape.body {
            tail.push_str(&format!("Content-Length: {length}\r\n"));
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
        to.extend_from_slice(&self.body);
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

    /// By a mix's weights.
    ///
    /// # Errors
    /// When a group asks for more than there are.
    pub fn mix(ranks: u32, mix: &Mix, seed: u64) -> Result<Self, String> {
        let mut whole = 0;
        let mut groups = Vec::new();
        for &(weight, first) in &mix.groups {
            let first = first.unwrap_or(ranks);
            if first > ranks {
                return Err(format!("--mix {mix}: the first {first} of {ranks} cannot be asked for"));
            }
            whole += weight;
            groups.push((whole, first));
        }
        Ok(Self { order: Order::Mix { groups, whole }, random: Random::new(seed), ranks })
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
            Order::Mix { groups, whole } => {
                let drawn = self.random.below(*whole);
                let group = groups.iter().find(|(up_to, _)| drawn < *up_to);
                self.random.below(group.map_or(self.ranks, |(_, first)| *first))
            }
        }
    }
}

impl Mix {
    /// Reads `WEIGHT:FIRST` pairs with commas between; FIRST is a number or `all`.
    ///
    /// # Errors
    /// What is wrong, with an example.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let expected = || format!("`{typed}` is no mix: write '90%:2000,10%:all'");
        let group = |text: &str| {
            let (weight, first) = text.trim().split_once(':')?;
            let weight = weight.strip_suffix('%').unwrap_or(weight).parse().ok()?;
            let first = if first == "all" { None } else { Some(first.parse().ok().filter(|first| *first > 0)?) };
            (1..=MAX_WEIGHT).contains(&weight).then_some((weight, first))
        };
        let groups = typed.split(',').map(group).collect::<Option<Vec<_>>>().ok_or_else(expected)?;
        if groups.len() > MAX_GROUPS { Err(expected()) } else { Ok(Self { typed: typed.to_owned(), groups }) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.typed)
    }
}

/// Weights may be parts of a million; with `MAX_GROUPS` of them their sum fits.
const MAX_WEIGHT: u32 = 1_000_000;
const MAX_GROUPS: usize = 100;
const END: &str = "\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole() {
        let fields = ["A: b".to_owned()];
        let shape = Shape { method: "GET", host: "h:1", fields: &fields, body: None };
        let catalogue = Catalogue::new(["/x", "/yy"], &shape);
        let mut bytes = Vec::new();
        catalogue.append(1, false, &mut bytes);
        catalogue.append(0, true, &mut bytes);
        let expected = "GET /yy HTTP/1.1\r\nHost: h:1\r\nA: b\r\n\r\nGET /x HTTP/1.1\r\nHost: h:1\r\nA: b\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!((catalogue.len(), catalogue.is_empty()), (2, false));
    }

    #[test]
    fn a_body_follows_the_last_field() {
        let shape = Shape { method: "GET", host: "h", fields: &[], body: Some(3) };
        let catalogue = Catalogue::new(["/"], &shape);
        let mut bytes = Vec::new();
        catalogue.append(0, true, &mut bytes);
        let expected = "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxxx";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
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

    #[test]
    fn a_mix_keeps_its_weights() {
        let mix = Mix::parse("90%:10, 10%:all").unwrap();
        let picker = Picker::mix(1000, &mix, 7).unwrap();
        let popular = (0..20_000).filter(|_| picker.pick() < 10).count();
        assert!((17_700..18_350).contains(&popular), "90.1% of 20,000 are {popular}");
        assert!(Picker::mix(9, &mix, 7).unwrap_err().contains("first 10 of 9"));
        for typed in ["", "90", "x:1", "0:all", "1:0", "1:-1", "50%:10,", "2000000:1"] {
            assert!(Mix::parse(typed).unwrap_err().contains("90%:2000"), "{typed}");
        }
    }
}
