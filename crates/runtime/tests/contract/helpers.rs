//! Helpers: their order, their bound, jobs that nobody wants, that panic, or that never end.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use amped_runtime::disk::{Class, Helpers, Job, Refused};

/// Waits for a job without a loop: a `Job` is a future like any other.
fn wait<T>(job: Job<T>) -> Result<T, Refused> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut context, mut job) = (Context::from_waker(&waker), pin!(job));
    let began = Instant::now();
    loop {
        if let Poll::Ready(outcome) = job.as_mut().poll(&mut context) {
            return outcome;
        }
        assert!(began.elapsed() < LIMIT, "a job was neither run nor refused");
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// Waits until `is_so`, or fails.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}: not so after {LIMIT:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A job that runs until it is let go.
struct Held {
    let_go: mpsc::Sender<()>,
    job: Job<()>,
}

impl Held {
    fn new(helpers: &Helpers, class: Class) -> Self {
        Self::new_in(helpers, 0, class)
    }

    fn new_in(helpers: &Helpers, folder: usize, class: Class) -> Self {
        let (let_go, hold) = mpsc::channel();
        let (began, has_begun) = mpsc::channel();
        let job = helpers.submit_in(folder, class, move || {
            began.send(()).expect("a listener");
            let _ = hold.recv();
        });
        has_begun.recv_timeout(LIMIT).expect("a free helper begins");
        Self { let_go, job }
    }

    fn end(self) {
        drop(self.let_go);
        wait(self.job).expect("it was run");
    }
}

type Order = Arc<Mutex<Vec<usize>>>;

fn numbered(helpers: &Helpers, class: Class, order: &Order, number: usize) -> Job<usize> {
    let order = Arc::clone(order);
    helpers.submit(class, move || {
        order.lock().expect("no panic under this lock").push(number);
        number
    })
}

#[test]
fn results_come_back() {
    let helpers = Helpers::new(3, 1000);
    let jobs: Vec<Job<usize>> = (0..300).map(|number| helpers.submit(Class::Serve, move || number * 3)).collect();
    for (number, job) in jobs.into_iter().enumerate() {
        assert_eq!(wait(job), Ok(number * 3));
    }
    until("all jobs counted", || helpers.stats().ran == 300);
    let stats = helpers.stats();
    assert!(stats.threads <= 3, "{stats:?}");
    assert_eq!((stats.refused, stats.dropped, stats.queued), (0, 0, 0), "{stats:?}");
    until("nobody is busy", || helpers.stats().busy == 0);
}

#[test]
fn the_first_to_come_is_the_first_to_go() {
    let helpers = Helpers::new(1, 100);
    let held = Held::new(&helpers, Class::Serve);
    let order = Order::default();
    let jobs: Vec<_> = (0..20).map(|number| numbered(&helpers, Class::Serve, &order, number)).collect();
    assert!(!helpers.is_overloaded());
    assert_eq!(helpers.stats().queued, 20);
    held.end();
    for job in jobs {
        wait(job).expect("it was run");
    }
    assert_eq!(*order.lock().expect("no panic"), (0..20).collect::<Vec<_>>());
    assert!(helpers.stats().longest_delay > Duration::ZERO, "delays are measured");
}

#[test]
fn overloaded_the_last_to_come_is_the_first_to_go() {
    let helpers = Helpers::new(1, 20);
    let held = Held::new(&helpers, Class::Serve);
    let order = Order::default();
    let jobs: Vec<_> = (0..16).map(|number| numbered(&helpers, Class::Serve, &order, number)).collect();
    assert!(helpers.is_overloaded());
    held.end();
    for job in jobs {
        wait(job).expect("it was run");
    }
    // The newest first while the queue is half full (16 down to 10 jobs), then the oldest first.
    let expected: Vec<usize> = (9..16).rev().chain(0..9).collect();
    assert_eq!(*order.lock().expect("no panic"), expected);
    assert!(!helpers.is_overloaded());
}

#[test]
fn overloaded_what_many_wait_for_goes_first() {
    let helpers = Helpers::new(1, 20);
    let held = Held::new(&helpers, Class::Serve);
    let order = Order::default();
    let mut jobs: Vec<_> = (0..9).map(|number| numbered(&helpers, Class::Serve, &order, number)).collect();
    helpers.join(&jobs[1]);
    jobs.extend((9..16).map(|number| numbered(&helpers, Class::Serve, &order, number)));
    // Besides who asked first: three for 12, one each for 2 and 3, and two for 4, which is as good as one.
    for joined in [2, 12, 3, 12, 12, 4, 4] {
        helpers.join(&jobs[joined]);
    }
    helpers.join(&held.job);
    held.end();
    for job in jobs {
        wait(job).expect("it was run");
    }
    // Nine are less than half of what may wait: from then on the oldest go first.
    let expected = [12, 4, 3, 2, 1, 15, 14, 0, 5, 6, 7, 8, 9, 10, 11, 13];
    assert_eq!(*order.lock().expect("no panic"), expected);
    assert_eq!(helpers.stats().refused, 0);
}

#[test]
fn what_many_wait_for_is_refused_all_the_same_when_it_has_waited_too_long() {
    let target = Duration::from_millis(5);
    let helpers = Helpers::with_target(1, 10_000, target);
    let slow = || helpers.submit(Class::Serve, || thread::sleep(Duration::from_millis(5)));
    let mut jobs = Vec::new();
    until("the queue stands", || {
        jobs.extend([slow(), slow()]);
        helpers.is_overloaded()
    });
    let held = Held::new(&helpers, Class::Essential);
    let is_refused = |asked: &mut Job<()>| {
        let outcome = pin!(asked).poll(&mut Context::from_waker(Waker::noop()));
        assert_ne!(outcome, Poll::Ready(Ok(())), "nobody can have run it");
        outcome.is_ready()
    };
    let mut asked = slow();
    until("there is room for it", || {
        let has_room = !is_refused(&mut asked);
        if !has_room {
            asked = slow();
        }
        has_room
    });
    let began = Instant::now();
    until("it is refused", || {
        helpers.join(&asked);
        jobs.push(slow());
        is_refused(&mut asked)
    });
    assert!(began.elapsed() + Duration::from_millis(1) >= target * 2, "refused after {:?}", began.elapsed());
    held.end();
}

#[test]
fn a_standing_queue_refuses_newcomers_until_it_is_forgotten() {
    let helpers = Helpers::with_target(1, 10_000, Duration::from_millis(2));
    let slow = || helpers.submit(Class::Serve, || thread::sleep(Duration::from_millis(5)));
    assert!(!helpers.may_refuse());
    let mut jobs = Vec::new();
    until("newcomers are refused", || {
        jobs.extend([slow(), slow()]);
        helpers.stats().no_room > 0
    });
    assert!(helpers.may_refuse());
    drop(jobs);
    // Intervals without a job: what was known of the queue is old.
    until("it is forgotten", || {
        thread::sleep(Duration::from_millis(250));
        wait(slow()).is_ok() && !helpers.may_refuse()
    });
}

#[test]
fn a_full_queue_refuses_its_oldest() {
    let helpers = Helpers::new(1, 8);
    let held = Held::new(&helpers, Class::Serve);
    let order = Order::default();
    let jobs: Vec<_> = (0..20).map(|number| numbered(&helpers, Class::Serve, &order, number)).collect();
    assert_eq!(helpers.stats().queued, 8, "the bound holds");
    assert_eq!(helpers.stats().refused, 12);
    // The refused are told at once, not when a helper is free.
    let mut jobs = jobs.into_iter();
    for job in jobs.by_ref().take(12) {
        assert_eq!(wait(job), Err(Refused));
    }
    held.end();
    for (job, number) in jobs.zip(12..) {
        assert_eq!(wait(job), Ok(number));
    }
}

#[test]
fn a_job_that_nobody_wants_is_not_run() {
    let helpers = Helpers::new(1, 100);
    let held = Held::new(&helpers, Class::Serve);
    let order = Order::default();
    let mut jobs: Vec<_> = (0..10).map(|number| Some(numbered(&helpers, Class::Serve, &order, number))).collect();
    for dropped in [0, 3, 4, 9] {
        jobs[dropped] = None;
    }
    held.end();
    for job in jobs.into_iter().flatten() {
        wait(job).expect("it was run");
    }
    until("the unwanted are counted", || helpers.stats().dropped == 4);
    assert_eq!(*order.lock().expect("no panic"), [1, 2, 5, 6, 7, 8]);
    assert_eq!(helpers.stats().refused, 0);
}

/// What an unwanted job holds may be slow to let go of (a file on a dead disk), or may ask the pool itself: neither may happen
/// while the queue is locked, or every loop would wait.
#[test]
fn an_unwanted_job_is_dropped_outside_the_lock() {
    struct Asks(Helpers, Arc<AtomicBool>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let _ = self.0.stats();
            self.1.store(true, Relaxed);
        }
    }
    let helpers = Helpers::new(1, 100);
    let held = Held::new(&helpers, Class::Serve);
    let asked = Arc::new(AtomicBool::new(false));
    let asks = Asks(helpers.clone(), Arc::clone(&asked));
    drop(helpers.submit(Class::Serve, move || drop(asks)));
    held.end();
    until("the unwanted job is dropped", || asked.load(Relaxed));
    assert_eq!(wait(helpers.submit(Class::Serve, || 1)), Ok(1), "the pool lives on");
}

#[test]
fn a_panic_is_a_refusal_and_the_pool_lives_on() {
    let helpers = Helpers::new(2, 100);
    for _ in 0..10 {
        let job: Job<u8> = helpers.submit(Class::Serve, || panic!("a job's own panic (expected)"));
        assert_eq!(wait(job), Err(Refused));
        let job: Job<u8> = helpers.submit(Class::Urgent, || panic!("an urgent job's own panic (expected)"));
        assert_eq!(wait(job), Err(Refused));
    }
    assert_eq!(wait(helpers.submit(Class::Serve, || 5)), Ok(5));
    assert_eq!(wait(helpers.submit(Class::Urgent, || 6)), Ok(6));
    until("nobody is busy", || helpers.stats().busy == 0);
    assert!(helpers.stats().threads <= 3);
}

/// A result that panics when it is dropped is its owner's mistake; the helper that drops it for want of an owner lives on.
#[test]
fn a_result_that_panics_when_dropped_costs_no_helper() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("a result's own panic (expected)");
            }
        }
    }
    let helpers = Helpers::new(1, 100);
    for _ in 0..3 {
        let (let_go, hold) = mpsc::channel::<()>();
        let (began, has_begun) = mpsc::channel();
        let job = helpers.submit(Class::Serve, move || {
            began.send(()).expect("a listener");
            let _ = hold.recv();
            Bomb
        });
        has_begun.recv_timeout(LIMIT).expect("a free helper begins");
        drop(job);
        drop(let_go);
    }
    assert_eq!(wait(helpers.submit(Class::Serve, || 5)), Ok(5), "the only helper lives");
    until("nobody is busy", || helpers.stats().busy == 0);
}

#[test]
fn a_stuck_helper_is_counted_and_the_others_go_on() {
    let helpers = Helpers::new(3, 100);
    let stuck = [Held::new(&helpers, Class::Serve), Held::new(&helpers, Class::Serve)];
    for number in 0..50 {
        assert_eq!(wait(helpers.submit(Class::Serve, move || number)), Ok(number), "the third helper serves");
    }
    until("two stuck helpers", || helpers.stats().stuck == 2);
    assert_eq!(helpers.stats().busy, 2);
    assert_eq!(wait(helpers.submit(Class::Serve, || 1)), Ok(1));
    for stuck in stuck {
        stuck.end();
    }
    until("nobody is stuck", || helpers.stats().stuck == 0);
}

#[test]
fn urgent_jobs_are_not_held_by_stuck_helpers() {
    let helpers = Helpers::new(2, 4);
    let stuck = [Held::new(&helpers, Class::Serve), Held::new(&helpers, Class::Serve)];
    let waiting: Vec<_> = (0..4).map(|number| helpers.submit(Class::Serve, move || number)).collect();
    for number in 0..20 {
        assert_eq!(wait(helpers.submit(Class::Urgent, move || number)), Ok(number));
    }
    assert_eq!(helpers.stats().queued, 4, "the others wait");
    for stuck in stuck {
        stuck.end();
    }
    for (job, number) in waiting.into_iter().zip(0..) {
        assert_eq!(wait(job), Ok(number));
    }
}

#[test]
fn serving_is_not_held_by_a_stuck_urgent_job() {
    let helpers = Helpers::new(1, 4);
    let stuck = Held::new(&helpers, Class::Urgent);
    let order = Order::default();
    let waiting: Vec<_> = (0..5).map(|number| numbered(&helpers, Class::Urgent, &order, number)).collect();
    for number in 0..20 {
        assert_eq!(wait(helpers.submit(Class::Serve, move || number)), Ok(number));
    }
    stuck.end();
    for job in waiting {
        wait(job).expect("it was run");
    }
    assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3, 4], "urgent jobs keep their order");
}

/// Found by the simulation's seed 3: the folder counted as dead, its jobs waited, and nobody was woken when the urgent job was over.
#[test]
fn a_stuck_urgent_job_does_not_shut_its_folder() {
    let helpers = Helpers::new(2, 4);
    let stuck = Held::new_in(&helpers, 1, Class::Urgent);
    until("it is stuck", || helpers.stats().stuck == 1);
    assert_eq!(wait(helpers.submit_in(1, Class::Serve, || 5)), Ok(5));
    assert_eq!(helpers.stats().threads, 2, "nobody has to be replaced");
    stuck.end();
}

#[test]
fn what_waits_behind_a_stuck_urgent_job_goes_to_the_others() {
    let helpers = Helpers::new(2, 4);
    for _incident in 0..2 {
        let stuck = Held::new_in(&helpers, 1, Class::Urgent);
        let [other, same] = [2, 1].map(|folder| helpers.submit_in(folder, Class::Urgent, move || folder));
        until("it is stuck", || helpers.stats().stuck == 1);
        helpers.relieve();
        assert_eq!(wait(other), Ok(2));
        assert_eq!(helpers.stats().queued, 1, "those of its folder wait for it");
        for folder in [3, 2, 0] {
            assert_eq!(wait(helpers.submit_in(folder, Class::Urgent, move || folder)), Ok(folder));
        }
        stuck.end();
        assert_eq!(wait(same), Ok(1));
    }
}

/// Many submitters, all helpers, jobs wanted and unwanted: every job ends in exactly one way.
#[test]
fn every_job_is_accounted_for() {
    let helpers = Helpers::new(4, 50);
    let ran = Arc::new(AtomicUsize::new(0));
    let submitters: Vec<_> = (0..4)
        .map(|_| {
            let (helpers, ran) = (helpers.clone(), Arc::clone(&ran));
            thread::spawn(move || {
                let (mut done, mut refused) = (0, 0);
                for batch in 0..100 {
                    let jobs: Vec<_> = (0..20)
                        .map(|_| {
                            let ran = Arc::clone(&ran);
                            helpers.submit(Class::Serve, move || ran.fetch_add(1, Relaxed))
                        })
                        .collect();
                    for (number, job) in jobs.into_iter().enumerate() {
                        if (batch + number) % 7 == 0 {
                            drop(job);
                            continue;
                        }
                        match wait(job) {
                            Ok(_) => done += 1,
                            Err(Refused) => refused += 1,
                        }
                    }
                }
                (done, refused)
            })
        })
        .collect();
    let (mut done, mut refused) = (0, 0);
    for submitter in submitters {
        let (its_done, its_refused) = submitter.join().expect("no panic");
        done += its_done;
        refused += its_refused;
    }
    until("all jobs are over", || {
        let stats = helpers.stats();
        stats.ran + stats.refused + stats.dropped == 8000
    });
    let stats = helpers.stats();
    assert_eq!(stats.ran as usize, ran.load(Relaxed));
    assert!(stats.ran >= done && stats.refused >= refused, "{stats:?}: {done} done, {refused} refused");
    assert_eq!((stats.queued, stats.threads), (0, 4), "{stats:?}");
}

const LIMIT: Duration = Duration::from_secs(20);
