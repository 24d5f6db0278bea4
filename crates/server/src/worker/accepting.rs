//! The listening tasks of a worker: started and stopped while others go on.

use std::cell::{Cell, Ref, RefCell};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use amped_runtime::net::Listener;
use amped_runtime::warn;

use crate::converse::Context;
use crate::listen::{self, Reception};

/// What a worker listens on.
#[derive(Debug)]
pub struct Accepting {
    context: Rc<Context>,
    reception: Rc<Reception>,
    listeners: RefCell<Vec<Rc<Listener>>>,
    one_by_one: Rc<OneByOne>,
}

/// The task of a worker that serves one connection at a time: it is not asked but dropped.
#[derive(Debug, Default)]
struct OneByOne {
    runs: Cell<bool>,
    stopped: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Accepting {
    /// Listens nowhere yet.
    pub fn new(context: &Rc<Context>, reception: &Rc<Reception>) -> Self {
        let (context, reception) = (Rc::clone(context), Rc::clone(reception));
        Self { context, reception, listeners: RefCell::default(), one_by_one: Rc::default() }
    }

    /// Accepts connections from these sockets as well.
    pub fn start(&self, sockets: Vec<OwnedFd>) {
        let listener = |socket| Listener::new(self.context.runtime(), socket);
        let complain = |error| warn!("amped: a listening socket: {error}");
        let listeners = sockets.into_iter().map(listener).filter_map(|made| made.map_err(complain).ok()).map(Rc::new);
        let of_its_own = || (Rc::clone(&self.context), Rc::clone(&self.reception));
        if self.context.answers().plan().serves_one_by_one() {
            let (context, reception) = of_its_own();
            return self
                .one_by_one
                .spawn(&context.clone(), listen::receive_one_by_one(listeners.collect(), context, reception));
        }
        for listener in listeners {
            let (context, reception) = of_its_own();
            self.listeners.borrow_mut().push(Rc::clone(&listener));
            self.context.runtime().spawn_vital(listen::receive(listener, context, reception));
        }
    }

    /// What is listened on now.
    pub fn listeners(&self) -> Ref<'_, Vec<Rc<Listener>>> {
        self.listeners.borrow()
    }

    /// Lets go of every address but these. The kernel begins no more connections there. One of which it knows that says nothing
    /// yet is accepted after a second (`Listener::defer`), so that is how long it goes on; closing the socket resets whatever is left.
    pub fn only(self: &Rc<Self>, addresses: &[SocketAddr]) {
        let gone = |listener: &&Rc<Listener>| !addresses.contains(&listener.address());
        for listener in self.listeners.borrow().iter().filter(gone) {
            // Where the kernel does not take it, one that comes at the last moment is reset.
            let _ = listener.shut();
            let (this, listener) = (Rc::clone(self), Rc::downgrade(listener));
            self.context.runtime().spawn(async move {
                this.context.runtime().sleep(DEFERRED).await;
                // Not there any more: all are being stopped, after the same time.
                if let Some(listener) = listener.upgrade() {
                    listener.stop();
                    this.listeners.borrow_mut().retain(|one| !Rc::ptr_eq(one, &listener));
                }
            });
        }
    }

    /// Accepts what has come, and no more. Where nobody else accepts (`Sockets::leave`) that is also who has connected and says
    /// nothing yet; not so where one connection is served at a time, and what is queued may be more than can be served.
    pub async fn stop(&self) {
        self.one_by_one.stop();
        let runtime = self.context.runtime();
        let all = self.listeners.take();
        let listeners: Vec<Weak<Listener>> = all.iter().map(Rc::downgrade).collect();
        let (shut, shared): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.is_shut());
        shared.iter().for_each(|one| one.stop());
        drop(shared);
        if !shut.is_empty() {
            runtime.sleep(DEFERRED).await;
            shut.iter().for_each(|one| one.stop());
        }
        drop(shut);
        let end = runtime.clock().now() + DEFERRED;
        let accepts = || self.one_by_one.runs.get() || listeners.iter().any(|listener| listener.strong_count() > 0);
        while accepts() && runtime.clock().now() < end {
            runtime.sleep(INTERVAL).await;
        }
    }
}

impl OneByOne {
    fn spawn(self: &Rc<Self>, context: &Context, receive: impl Future<Output = ()> + 'static) {
        let this = Rc::clone(self);
        this.runs.set(true);
        context.runtime().spawn_vital(async move {
            let mut receive = std::pin::pin!(receive);
            std::future::poll_fn(|task| {
                *this.waker.borrow_mut() = Some(task.waker().clone());
                // A connection may have been accepted while it was stopped: nobody else would answer it.
                let received = receive.as_mut().poll(task);
                if this.stopped.get() { Poll::Ready(()) } else { received }
            })
            .await;
            this.runs.set(false);
        });
    }

    fn stop(&self) {
        self.stopped.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How long TCP_DEFER_ACCEPT keeps a silent connection: a second, a round trip, and a little.
const DEFERRED: Duration = Duration::from_millis(1300);
const INTERVAL: Duration = Duration::from_millis(1);
