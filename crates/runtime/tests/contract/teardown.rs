//! Tasks, wakes from other threads, and the end of a loop: nothing hangs, nothing is left behind.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use amped_runtime::disk::{Class, Helpers};
use amped_runtime::driver::Kind;
use amped_runtime::net::Listener;
use amped_runtime::{Runtime, SendQueue, yield_now};

use crate::files::{file, send_file};
use crate::support::*;

on_every_driver!(
    a_job_wakes_a_loop_that_waits,
    many_threads_wake_one_loop,
    a_task_is_woken_while_it_runs,
    tasks_beget_tasks,
    chunks_outlive_their_stream,
);

alone_on_every_driver!(
    tasks_that_wait_are_dropped_with_the_loop,
    a_loop_runs_again,
    a_stream_may_outlive_the_run,
    a_task_that_panics_takes_nothing_with_it,
    a_task_that_panics_ends_alone,
    a_loop_that_never_ran_is_dropped,
    loops_come_and_go,
    a_wake_after_the_end_is_nothing,
);

async fn a_job_wakes_a_loop_that_waits(runtime: Rc<Runtime>) {
    let helpers = Helpers::new(2, 64);
    for round in 0..200u64 {
        let job = helpers.submit(Class::Serve, move || {
            if round % 20 == 0 {
                thread::sleep(Duration::from_millis(3));
            }
            round * 2
        });
        assert_eq!(soon(&runtime, "a job", job).await, Ok(round * 2));
    }
}

async fn many_threads_wake_one_loop(runtime: Rc<Runtime>) {
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let this = Rc::clone(&runtime);
        tasks.push(task(&runtime, async move {
            for _ in 0..50 {
                assert_eq!(soon(&this, "a thread", in_thread(|| 7)).await, 7);
            }
        }));
    }
    for task in tasks {
        soon(&runtime, "every task", task).await;
    }
}

/// A waker that is called from several threads all the time: no wake may be lost, whatever the task is doing.
async fn a_task_is_woken_while_it_runs(runtime: Rc<Runtime>) {
    let shared = Arc::new(Shared::default());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let shared = Arc::clone(&shared);
            in_thread(move || {
                for number in 0..3000 {
                    shared.count.fetch_add(1, Relaxed);
                    let waker = shared.waker.lock().expect("no panic under this lock").clone();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    if number % 64 == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let counting = poll_fn(|context| {
        *shared.waker.lock().expect("no panic under this lock") = Some(context.waker().clone());
        if shared.count.load(Relaxed) == 9000 { Poll::Ready(()) } else { Poll::Pending }
    });
    soon(&runtime, "the last wake", counting).await;
    for thread in threads {
        soon(&runtime, "the threads", thread).await;
    }
    shared.waker.lock().expect("no panic under this lock").take();
}

#[derive(Default)]
struct Shared {
    count: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

async fn tasks_beget_tasks(runtime: Rc<Runtime>) {
    let alive = Rc::new(Cell::new(0));
    fn beget(runtime: Rc<Runtime>, guard: Guard, depth: u32) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            for _ in 0..3 {
                if depth > 0 {
                    let (child, guard) = (Rc::clone(&runtime), guard.another());
                    runtime.spawn(async move { beget(child, guard, depth - 1).await });
                }
                yield_now().await;
            }
        })
    }
    let (this, guard) = (Rc::clone(&runtime), Guard::new(&alive));
    runtime.spawn(async move { beget(this, guard, 6).await });
    until(&runtime, "all descendants end", || alive.get() == 0).await;
}

async fn chunks_outlive_their_stream(runtime: Rc<Runtime>) {
    let mut chunks = Vec::new();
    for round in 0..300u64 {
        let (stream, peer) = pair(&runtime);
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        let bytes = pattern(500, round);
        write(&peer, &bytes);
        chunks.push((soon(&runtime, "a chunk", stream.recv()).await.expect("bytes"), bytes));
    }
    for (chunk, bytes) in &chunks {
        assert_same(chunk, bytes, "a chunk whose stream is gone");
    }
}

/// Counts how many of its kind are alive: what a task holds must be dropped with the task.
struct Guard(Rc<Cell<usize>>);

impl Guard {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }

    fn another(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Every kind of waiting a task can be in when its loop ends, those included that no driver knows of.
fn tasks_that_wait_are_dropped_with_the_loop(kind: Kind) {
    let helpers = Helpers::new(1, 16);
    // The helper's thread is there before the first count.
    helpers.submit(Class::Serve, || ());
    leaves_no_descriptor(|| {
        let alive = Rc::new(Cell::new(0));
        let (let_go, hold) = mpsc::channel::<()>();
        let pool = helpers.clone();
        run(kind, |runtime| {
            let count = Rc::clone(&alive);
            async move {
                wait_in_every_way(&runtime, &count, pool, hold);
                for _ in 0..5 {
                    runtime.sleep(Duration::from_millis(2)).await;
                }
                assert_eq!(count.get(), 12, "{} tasks wait", count.get());
            }
        });
        assert_eq!(alive.get(), 0, "{kind}: tasks were left behind");
        drop(let_go);
    });
}

fn wait_in_every_way(runtime: &Rc<Runtime>, count: &Rc<Cell<usize>>, helpers: Helpers, hold: mpsc::Receiver<()>) {
    let spawn = |future: Pin<Box<dyn Future<Output = ()>>>| {
        let guard = Guard::new(count);
        runtime.spawn(async move {
            let _guard = guard;
            future.await;
        });
    };
    // Each task keeps its peer too, so that nothing ends but the loop.
    let (stream, peer) = pair(runtime);
    spawn(Box::pin(async move { drop((stream.recv().await, peer)) }));
    let (stream, peer) = pair(runtime);
    spawn(Box::pin(async move { drop((send(&stream, &vec![0; 32 << 20]).await, peer)) }));
    let (stream, peer) = pair(runtime);
    spawn(Box::pin(async move { drop((send_file(&stream, &file(32 << 20).0, 0, 32 << 20).await, peer)) }));
    let (stream, peer) = pair(runtime);
    spawn(Box::pin(async move { drop((gone(&stream, true).await, peer)) }));
    let (stream, peer) = pair(runtime);
    spawn(Box::pin(async move {
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        let mut queue = SendQueue::default();
        queue.own().resize(32 << 20, 1);
        let _ = stream.send(&mut queue).await;
        pending::<()>().await;
        drop(peer);
    }));
    let listening = listener(runtime);
    spawn(Box::pin(async move { drop(listening.accept().await) }));
    let sleeping = runtime.sleep(Duration::from_secs(3600));
    spawn(Box::pin(sleeping));
    spawn(Box::pin(async {
        loop {
            yield_now().await;
        }
    }));
    // Waits for a helper that is stuck, and for one that will never be had.
    let stuck = helpers.submit(Class::Serve, move || {
        let _ = hold.recv();
    });
    spawn(Box::pin(async move {
        let _ = stuck.await;
    }));
    let queued = helpers.submit(Class::Serve, || ());
    let both = pair(runtime);
    spawn(Box::pin(async move { drop((queued.await, both)) }));
    // Waits for nothing at all.
    spawn(Box::pin(pending()));
    // A knot: the task holds what holds the task's waker.
    let knot = Rc::new(RefCell::new(None::<Waker>));
    spawn(Box::pin(async move {
        poll_fn(|context: &mut Context<'_>| {
            *knot.borrow_mut() = Some(context.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }));
}

fn a_loop_runs_again(kind: Kind) {
    leaves_no_descriptor(|| {
        let runtime = Runtime::new(kind).expect("a loop");
        let (mut held, alone) = (Vec::new(), runtime.descriptors());
        for round in 0..10 {
            let this = Rc::clone(&runtime);
            let value = runtime.run(async move {
                // The last completion for a stream that the run before closed may come now.
                until(&this, "the last run's stream is let go of", || this.descriptors() == alone).await;
                this.spawn(pending());
                let (stream, peer) = pair(&this);
                write(&peer, b"bytes");
                assert_eq!(soon(&this, "bytes", receive(&stream, 5)).await, b"bytes");
                assert!(glance(&stream).await.is_none(), "nothing more");
                soon(&this, "a thread", in_thread(move || round)).await
            });
            assert_eq!(value.expect("a loop that waits"), round);
            held.push(runtime.descriptors());
        }
        assert!(held[9] <= held[1], "{kind}: every run left something: {held:?}");
        assert_eq!(runtime.late_events(), 0, "{kind}: nothing of an earlier run is reported");
    });
}

fn a_stream_may_outlive_the_run(kind: Kind) {
    leaves_no_descriptor(|| {
        let runtime = Runtime::new(kind).expect("a loop");
        let this = Rc::clone(&runtime);
        let (stream, peer) = runtime
            .run(async move {
                let (stream, peer) = pair(&this);
                assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
                yield_now().await;
                (stream, peer)
            })
            .expect("a loop that waits");
        write(&peer, b"between");
        let stream = runtime
            .run(async move {
                assert_eq!(receive(&stream, 7).await, b"between");
                stream
            })
            .expect("a loop that waits");
        drop(runtime);
        drop(stream);
    });
}

fn a_task_that_panics_takes_nothing_with_it(kind: Kind) {
    // The message of the panic is expected; a silent hook would be another test's as well, so it is left as it is.
    leaves_no_descriptor(|| {
        let alive = Rc::new(Cell::new(0));
        let runtime = Runtime::new(kind).expect("a loop");
        let (this, count) = (Rc::clone(&runtime), Rc::clone(&alive));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            runtime.run(async move {
                let (guard, other) = (Guard::new(&count), Guard::new(&count));
                let (stream, peer) = pair(&this);
                this.spawn(async move {
                    let _held = (guard, peer);
                    drop(stream.recv().await);
                });
                this.spawn_vital(async move {
                    let _held = other;
                    yield_now().await;
                    panic!("a vital task's own panic (expected)");
                });
                pending::<()>().await;
            })
        }));
        assert!(outcome.is_err(), "a vital task's panic is not swallowed");
        drop(outcome);
        assert_eq!(alive.get(), 0, "{kind}: tasks were left behind");
        assert_eq!(Rc::strong_count(&runtime), 1, "{kind}: something still holds the loop");
        drop(runtime);
        run(kind, |runtime| async move { runtime.sleep(Duration::from_millis(1)).await });
    });
}

fn a_task_that_panics_ends_alone(kind: Kind) {
    leaves_no_descriptor(|| {
        let alive = Rc::new(Cell::new(0));
        let count = Rc::clone(&alive);
        run(kind, move |runtime| async move {
            let guard = Guard::new(&count);
            let (stream, peer) = pair(&runtime);
            runtime.spawn(async move {
                let _held = (guard, peer);
                yield_now().await;
                panic!("a task's own panic (expected)");
            });
            // What it held is let go of: the other end of its stream hears of it.
            let end = stream.recv().await.expect("an end in order");
            assert!(end.is_empty(), "{kind}: more came");
            assert_eq!((runtime.panics(), count.get()), (1, 0), "{kind}: it was counted, and nothing of it is left");
            runtime.sleep(Duration::from_millis(1)).await;
        });
        assert_eq!(alive.get(), 0);
    });
}

fn a_loop_that_never_ran_is_dropped(kind: Kind) {
    leaves_no_descriptor(|| {
        let alive = Rc::new(Cell::new(0));
        let runtime = Runtime::new(kind).expect("a loop");
        let listening = listener(&runtime);
        let (stream, _peer) = pair(&runtime);
        let guard = Guard::new(&alive);
        runtime.spawn(async move {
            let _guard = guard;
            let _ = listening.accept().await;
        });
        drop(stream);
        let before = Rc::strong_count(&runtime);
        runtime.run(async {}).expect("a loop that waits");
        assert_eq!(alive.get(), 0, "{kind}: tasks were left behind");
        assert!(Rc::strong_count(&runtime) < before);
    });
}

fn loops_come_and_go(kind: Kind) {
    leaves_no_descriptor(|| {
        for round in 0..30 {
            run(kind, move |runtime| async move {
                let listener = listener(&runtime);
                let peer = client(&listener);
                let socket = soon(&runtime, "a connection", listener.accept()).await.expect("a connection");
                let stream = Listener::stream(&runtime, socket);
                write(&peer, b"bytes");
                assert_eq!(soon(&runtime, "bytes", receive(&stream, 5)).await, b"bytes");
                if round % 2 == 0 {
                    runtime.spawn(echo(stream));
                    yield_now().await;
                }
            });
        }
    });
}

/// A helper that finishes when the loop has gone wakes nobody, frees nothing twice, and holds nothing.
fn a_wake_after_the_end_is_nothing(kind: Kind) {
    let helpers = Helpers::new(1, 16);
    helpers.submit(Class::Serve, || ());
    let dropped = Arc::new(AtomicBool::new(false));
    let alive = Rc::new(Cell::new(0));
    let (let_go, hold) = mpsc::channel::<()>();
    let mark = Mark(Arc::clone(&dropped));
    let pool = helpers.clone();
    run(kind, |runtime| {
        let guard = Guard::new(&alive);
        async move {
            let job = pool.submit(Class::Serve, move || {
                let _ = hold.recv();
                mark
            });
            runtime.spawn(async move {
                let _guard = guard;
                drop(job.await);
            });
            runtime.sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(alive.get(), 0, "{kind}: the task was left behind");
    drop(let_go);
    for _ in 0..1000 {
        if dropped.load(Relaxed) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{kind}: the result that nobody wanted was not dropped");
}

struct Mark(Arc<AtomicBool>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
