//! Limits per client: connections at a time, and requests by a token bucket.
//!
//! Goal: one address cannot take what is meant for all. Cost: nothing while no limit is set; else a lock that few share and a
//! look at eight places. The table has a fixed size: when all places for an address are taken by others that are connected, it
//! is let in uncounted, since an attacker with many addresses must not shut out everybody else.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::plan::ClientLimits;

/// The table, shared by all workers of a process.
#[derive(Debug)]
pub struct Clients {
    limits: ClientLimits,
    sets: Box<[Mutex<[Place; WAYS]>]>,
    hasher: RandomState,
    uncounted: AtomicU64,
}

/// A connection that is counted, while it lives.
#[derive(Debug)]
pub struct Ticket {
    clients: Arc<Clients>,
    key: u128,
}

/// What became of a new connection.
#[derive(Debug)]
pub enum Entrance {
    /// It may come in; counted, if there was a place.
    Open(Option<Ticket>),
    /// Its address has as many as it may.
    Shut,
}

/// One address. A key of 0 (nobody connects from `::`) is a free place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    key: u128,
    connections: u32,
    /// What may be asked now, in thousandths of a request.
    tokens: u32,
    /// When that was so, in milliseconds.
    at: u64,
}

impl Clients {
    /// A table for these limits; `None` when there are none.
    pub fn new(limits: &ClientLimits) -> Option<Arc<Self>> {
        let sets = || (0..SETS).map(|_| Mutex::default()).collect();
        let (limits, hasher, uncounted) = (limits.clone(), RandomState::new(), AtomicU64::new(0));
        limits.is_set().then(|| Arc::new(Self { limits, sets: sets(), hasher, uncounted }))
    }

    /// Lets a connection of `address` in, or not.
    pub fn enter(self: &Arc<Self>, address: IpAddr, now: u64) -> Entrance {
        let Some(most) = self.limits.connections.filter(|_| !self.limits.trusts(address)) else {
            return Entrance::Open(None);
        };
        let key = key(address);
        let mut set = self.set(key);
        let Some(place) = self.place(&mut set, key, now) else {
            self.uncounted.fetch_add(1, Relaxed);
            return Entrance::Open(None);
        };
        if place.connections >= most {
            return Entrance::Shut;
        }
        place.connections += 1;
        drop(set);
        Entrance::Open(Some(Ticket { clients: Arc::clone(self), key }))
    }

    /// Takes a token for a request of `address`; without one, says in how many seconds there will be one.
    ///
    /// # Errors
    /// The seconds, at least 1.
    pub fn ask(&self, address: IpAddr, now: u64) -> Result<(), u32> {
        let Some(rate) = self.limits.requests.filter(|_| !self.limits.trusts(address)) else { return Ok(()) };
        let key = key(address);
        let mut set = self.set(key);
        let Some(place) = self.place(&mut set, key, now) else {
            self.uncounted.fetch_add(1, Relaxed);
            return Ok(());
        };
        self.refill(place, now);
        if place.tokens >= TOKEN {
            place.tokens -= TOKEN;
            return Ok(());
        }
        Err((TOKEN - place.tokens).div_ceil(rate.saturating_mul(TOKEN)).max(1))
    }

    /// Requests and connections of addresses that had no place.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Relaxed)
    }

    fn set(&self, key: u128) -> MutexGuard<'_, [Place; WAYS]> {
        let number = self.hasher.hash_one(key) as usize % SETS;
        self.sets[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address's place, or a free one, or that of whoever has not been seen for longest and is not connected.
    fn place<'a>(&self, set: &'a mut [Place; WAYS], key: u128, now: u64) -> Option<&'a mut Place> {
        let known = set.iter().position(|place| place.key == key);
        let number = known.or_else(|| {
            let free = set.iter().enumerate().filter(|(_, place)| place.connections == 0);
            free.min_by_key(|(_, place)| (place.key != 0, place.at)).map(|(number, _)| number)
        })?;
        if known.is_none() {
            set[number] = Place { key, connections: 0, tokens: self.limits.burst.saturating_mul(TOKEN), at: now };
        }
        Some(&mut set[number])
    }

    /// A loop's clock may be a turn behind another's: time that goes back is no time.
    fn refill(&self, place: &mut Place, now: u64) {
        let millis = now.saturating_sub(place.at);
        // A thousandth of a request each millisecond for a rate of one a second.
        let earned = millis.saturating_mul(u64::from(self.limits.requests.unwrap_or(0)));
        let most = self.limits.burst.saturating_mul(TOKEN);
        place.tokens = u32::try_from(earned).unwrap_or(u32::MAX).saturating_add(place.tokens).min(most);
        place.at = place.at.max(now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut set = self.clients.set(self.key);
        if let Some(place) = set.iter_mut().find(|place| place.key == self.key) {
            place.connections -= 1;
        }
    }
}

/// One client: an IPv4 address, or the /64 that an IPv6 site has at the least (RFC 6177): within it addresses cost nothing.
fn key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => u128::from(address) & !u128::from(u64::MAX) | u128::from(Ipv6Addr::LOCALHOST),
    }
}

/// Addresses that can be remembered at a time: 32,768, in a little over 1 MB.
const SETS: usize = 4096;
const WAYS: usize = 8;
const TOKEN: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(connections: Option<u32>, requests: Option<u32>, burst: u32) -> Arc<Clients> {
        let trusted = vec!["10.1.0.0/16".parse().unwrap()];
        Clients::new(&ClientLimits { connections, requests, burst, trusted }).expect("a limit is set")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_limit_is_no_table() {
        assert!(Clients::new(&ClientLimits::default()).is_none());
    }

    #[test]
    fn a_bucket_holds_its_burst_and_fills_at_its_rate() {
        let clients = clients(None, Some(10), 3);
        let ask = |now| clients.ask(ip("192.0.2.1"), now);
        assert_eq!([ask(0), ask(0), ask(0), ask(0)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert_eq!([ask(99), ask(100), ask(100)], [Err(1), Ok(()), Err(1)]);
        assert_eq!(clients.ask(ip("192.0.2.2"), 100), Ok(()), "another's bucket is another");
        assert_eq!([ask(100_000), ask(100_000), ask(100_000), ask(100_000)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert_eq!(ask(50_000), Err(1), "a clock that goes back earns nothing");
    }

    #[test]
    fn connections_are_counted_while_they_live() {
        let clients = clients(Some(2), None, 0);
        let enter = |text: &str| match clients.enter(ip(text), 0) {
            Entrance::Open(ticket) => Some(ticket),
            Entrance::Shut => None,
        };
        let first = enter("192.0.2.1").expect("the first");
        let second = enter("::ffff:192.0.2.1").expect("the second, of the same address");
        assert!(enter("192.0.2.1").is_none() && enter("192.0.2.2").is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        drop(second);
        assert!(enter("10.1.2.3").expect("trusted").is_none(), "who is trusted is not counted");
    }

    #[test]
    fn a_site_of_ipv6_is_one_client() {
        assert_eq!(key(ip("2001:db8:1:2::1")), key(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(key(ip("2001:db8:1:2::1")), key(ip("2001:db8:1:3::1")));
        assert_ne!(key(ip("::1")), 0);
    }

    #[test]
    fn a_full_table_lets_in_and_forgets_the_longest_gone() {
        let clients = clients(Some(1), None, 0);
        let mut tickets = Vec::new();
        for at in 0..(SETS * WAYS * 2) as u32 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from(0x2000_0000 + at));
            match clients.enter(address, 0) {
                Entrance::Open(ticket) => tickets.push(ticket),
                Entrance::Shut => panic!("{address} has no connection yet"),
            }
        }
        let counted = tickets.iter().flatten().count();
        assert!(counted <= SETS * WAYS && counted > SETS * WAYS * 3 / 4, "{counted}");
        assert_eq!(clients.uncounted() as usize, tickets.len() - counted);
        drop(tickets);
        assert!(matches!(clients.enter(ip("192.0.2.1"), 1), Entrance::Open(Some(_))));
    }
}
