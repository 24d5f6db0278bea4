//! Listening sockets: for every address one for every worker, so that the kernel spreads connections.
//!
//! They may outlive the process that accepts from them: whoever holds a socket keeps its queue of connections alive, which is
//! how nothing is lost between one server process and the next.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use amped_runtime::net::Listener;
use serde::{Deserialize, Serialize};

use crate::config::plan::{Architecture, Plan};

/// All of them.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Address>);

/// One address and its sockets.
#[derive(Debug)]
pub struct Address {
    /// Where.
    pub place: Place,
    sockets: Vec<OwnedFd>,
}

/// An address in words that another process understands; the sockets travel beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// As the plan has it, where the port may be 0.
    pub asked: SocketAddr,
    /// As the kernel has it.
    pub actual: SocketAddr,
    /// Somebody else has bound it (socket activation): all workers share it, since another one beside it may not be allowed.
    pub foreign: bool,
}

impl Place {
    /// Whether this is what a plan means; it may name the port that the kernel chose.
    pub fn is_at(&self, asked: SocketAddr) -> bool {
        [self.asked, self.actual].contains(&asked)
    }
}

impl Sockets {
    /// Binds what the plan asks for and these do not have.
    ///
    /// # Errors
    /// In words: an address in use, or one that this process or machine may not have. Nothing is bound then.
    pub fn missing(&self, plan: &Plan) -> Result<Self, String> {
        let mut added = Vec::new();
        // Port 0 may be asked for twice, and means two.
        let mut known: Vec<&Address> = self.0.iter().collect();
        for &asked in &plan.listen {
            let failed = |error: io::Error| explain(asked, &error);
            let present = known.iter().position(|address| address.place.is_at(asked)).map(|at| known.remove(at));
            let mut actual = present.map_or(asked, |present| present.place.actual);
            if present.is_none() {
                Listener::is_free(asked).map_err(failed)?;
            }
            let wanted = if present.is_some_and(|present| present.place.foreign) { 1 } else { queues(plan) };
            let mut sockets = Vec::new();
            for _ in present.map_or(0, |present| present.sockets.len())..wanted {
                let socket = Listener::bind(actual).map_err(failed)?;
                Listener::defer(&socket).map_err(failed)?;
                actual = Listener::address_of(&socket).map_err(failed)?;
                sockets.push(socket);
            }
            if !sockets.is_empty() {
                let place = Place { asked, actual, foreign: false };
                added.push(Address { place, sockets });
            }
        }
        Ok(Self(added))
    }

    /// Sockets that somebody else has bound (socket activation).
    ///
    /// # Errors
    /// In words: one that does not listen, or speaks no TCP.
    pub fn given(sockets: Vec<OwnedFd>) -> Result<Self, String> {
        let mut given = Self::default();
        for socket in sockets {
            let failed = |error: io::Error| format!("a socket that was passed on cannot be served: {error}");
            let actual = Listener::address_of(&socket).map_err(failed)?;
            Listener::adopt(&socket).and_then(|()| Listener::defer(&socket)).map_err(failed)?;
            let place = Place { asked: actual, actual, foreign: true };
            given.0.push(Address { place, sockets: vec![socket] });
        }
        Ok(given)
    }

    /// Brings them into the state that a process begins with, whatever an earlier one has made of them: queues as long as they may be,
    /// nobody is ignored, and the kernel looks after the peers of connections to come (`Listener::watch_peers`).
    ///
    /// # Errors
    /// In words; none expected of sockets that listen.
    pub(super) fn reset(&self, dead_peer_timeout: Duration) -> Result<(), String> {
        let reset = |address: &Address| {
            address.sockets.iter().try_for_each(|socket| {
                Listener::watch_peers(socket, dead_peer_timeout)?;
                // A filter of somebody else's is left alone.
                if !address.place.foreign {
                    Listener::ignore_newcomers(socket, false)?;
                }
                Listener::unlimit(socket)
            })
        };
        let outcome: io::Result<()> = self.0.iter().try_for_each(reset);
        outcome.map_err(|error| format!("a listening socket cannot be set up: {error}"))
    }

    /// Adds those of `more`.
    pub fn add(&mut self, more: Self) {
        for mut address in more.0 {
            match self.0.iter_mut().find(|present| present.place.actual == address.place.actual) {
                Some(present) => present.sockets.append(&mut address.sockets),
                None => self.0.push(address),
            }
        }
    }

    /// Lets go of what the plan does not ask for, and brings the rest into its order.
    pub fn keep(&mut self, plan: &Plan) {
        drop(self.part(plan));
    }

    /// `keep`, for all who share the sockets: nobody connects any more to those that are let go of, and whoever else holds them
    /// answers those who have (threads and processes that serve one connection at a time answer no more than they have room for).
    /// Those of somebody else are never let go of: a plan keeps what was given.
    pub fn leave(&mut self, plan: &Plan) {
        // Where the kernel does not take it, one that comes at the last moment is reset.
        self.part(plan).iter().for_each(|socket| drop(Listener::ignore_newcomers(socket, true)));
    }

    /// Keeps what the plan asks for, in its order, and gives the rest.
    fn part(&mut self, plan: &Plan) -> Vec<OwnedFd> {
        let (mut kept, mut rest) = (Vec::new(), Vec::new());
        for asked in &plan.listen {
            if let Some(at) = self.0.iter().position(|address| address.place.is_at(*asked)) {
                let mut address = self.0.remove(at);
                let few = address.sockets.len().min(queues(plan));
                rest.extend(address.sockets.drain(few..));
                kept.push(address);
            }
        }
        rest.extend(std::mem::replace(&mut self.0, kept).into_iter().flat_map(|address| address.sockets));
        rest
    }

    /// Where connections are accepted.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|address| address.place.actual).collect()
    }

    /// Everything, for another process: where, how many sockets at each place, and the sockets in that order.
    pub fn parts(&self) -> (Vec<Place>, Vec<usize>, Vec<BorrowedFd<'_>>) {
        let place = |address: &Address| (address.place, address.sockets.len());
        let (places, counts) = self.0.iter().map(place).unzip();
        (places, counts, self.0.iter().flat_map(|address| &address.sockets).map(AsFd::as_fd).collect())
    }

    /// A copy of what the plan asks for: the same sockets by other numbers.
    ///
    /// # Errors
    /// In words: no descriptor to be had.
    pub fn copy_for(&self, plan: &Plan) -> Result<Self, String> {
        let copy = |address: &Address| {
            let sockets = address.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
            Ok(Address { place: address.place, sockets })
        };
        let copies = self.0.iter().map(copy).collect::<io::Result<_>>();
        let mut copies = Self(copies.map_err(|error| format!("cannot share a listening socket: {error}"))?);
        copies.keep(plan);
        Ok(copies)
    }

    /// The opposite of `parts`.
    pub fn from_parts(places: &[Place], counts: &[usize], descriptors: Vec<OwnedFd>) -> Self {
        let mut descriptors = descriptors.into_iter();
        let addresses = places.iter().zip(counts);
        let addresses = addresses.map(|(&place, &count)| {
            let sockets = descriptors.by_ref().take(count).collect();
            Address { place, sockets }
        });
        Self(addresses.collect())
    }

    /// Refuses connections from now on, for all who share the sockets.
    pub fn refuse(&self) {
        // One that does not listen any more refuses already.
        self.0.iter().flat_map(|address| &address.sockets).for_each(|socket| drop(Listener::refuse(socket)));
    }

    /// For every worker its sockets.
    pub(super) fn for_workers(self, plan: &Plan) -> Result<Vec<Vec<OwnedFd>>, String> {
        // Threads that serve one connection at a time share one queue, as processes do: a queue of its own would wait for its
        // thread. One more than there are threads is for `Server::stop`.
        let workers = match plan.architecture {
            Architecture::Mt => plan.workers + 1,
            Architecture::Mp => 1,
            _ => plan.workers,
        };
        let failed = |error: io::Error| format!("cannot share a listening socket: {error}");
        let mut theirs: Vec<Vec<OwnedFd>> = (0..workers).map(|_| Vec::new()).collect();
        for Address { mut sockets, .. } in self.0.into_iter().filter(|address| !address.sockets.is_empty()) {
            let bound = sockets.len();
            while sockets.len() < workers {
                let shared = sockets[sockets.len() % bound].try_clone().map_err(failed)?;
                sockets.push(shared);
            }
            theirs.iter_mut().zip(sockets).for_each(|(theirs, socket)| theirs.push(socket));
        }
        Ok(theirs)
    }
}

/// Sockets for each address.
fn queues(plan: &Plan) -> usize {
    if plan.serves_one_by_one() { 1 } else { plan.workers }
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there: choose another port with --listen (or this one does for a moment more, \
             if a reload has just taken the address away: try again)"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(listen: &[&str], workers: usize) -> Plan {
        let listen = listen.iter().map(|address| address.parse().expect("an address")).collect();
        Plan { listen, workers, architecture: Architecture::Symped, ..Plan::default() }
    }

    #[test]
    fn what_stays_keeps_its_sockets() {
        let twice = plan(&["127.0.0.1:0", "127.0.0.1:0"], 1);
        let mut sockets = Sockets::default();
        sockets.add(sockets.missing(&twice).expect("free ports"));
        sockets.keep(&twice);
        assert!(sockets.addresses().len() == 2 && sockets.missing(&twice).expect("nothing to bind").0.is_empty());
        let first = plan(&["127.0.0.1:0", "[::1]:0"], 2);
        let mut sockets = Sockets::default();
        sockets.add(sockets.missing(&first).expect("free ports"));
        let before = sockets.addresses();
        let counts = |sockets: &Sockets| sockets.parts().1;
        assert_eq!((counts(&sockets), before.len()), (vec![2, 2], 2));
        assert!(sockets.missing(&first).expect("nothing to bind").0.is_empty());
        // More workers, one address less and another more.
        let second = plan(&["[::1]:0", "127.0.0.2:0"], 3);
        let added = sockets.missing(&second).expect("free ports");
        assert_eq!(counts(&added), [1, 3]);
        sockets.add(added);
        sockets.keep(&second);
        assert_eq!((counts(&sockets), sockets.addresses()[0]), (vec![3, 3], before[1]));
        let refused = |address| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_err();
        let others = sockets.copy_for(&second).expect("descriptors");
        assert!(!refused(before[1]));
        sockets.leave(&plan(&["127.0.0.2:0"], 3));
        assert!(sockets.addresses().len() == 1 && refused(before[1]), "also by who shares the sockets");
        others.reset(Duration::from_secs(30)).expect("they listen");
        assert!(!refused(before[1]), "a new process begins with sockets that are open");
        sockets = others;
        // By the port that the kernel chose.
        let named = before[1].to_string();
        assert!(sockets.missing(&plan(&[&named], 1)).expect("nothing to bind").0.is_empty());
        sockets.keep(&plan(&[&named], 1));
        assert_eq!((counts(&sockets), sockets.addresses()), (vec![1], vec![before[1]]));
    }

    #[test]
    fn given_sockets_are_shared_and_never_added_to() {
        let plan = plan(&["127.0.0.1:0"], 3);
        let mut bound = Sockets::default();
        bound.add(bound.missing(&plan).expect("a free port"));
        let address = bound.addresses()[0];
        let foreign = bound.0.remove(0).sockets.remove(0);
        let mut given = Sockets::given(vec![foreign]).expect("it listens");
        let plan = Plan { listen: vec![address], ..plan };
        assert!(given.missing(&plan).expect("nothing to bind").0.is_empty());
        given.keep(&plan);
        assert_eq!((given.parts().1, given.addresses()), (vec![1], vec![address]));
        let workers = given.for_workers(&plan).expect("descriptors");
        assert!(workers.len() == 3 && workers.iter().all(|sockets| sockets.len() == 1));
    }
}
