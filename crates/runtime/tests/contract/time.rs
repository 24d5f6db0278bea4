//! Time: deadlines that fire, move and vanish, sleepers in order, and a fair turn for everybody.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use amped_runtime::driver::Kind;
use amped_runtime::{Alarm, Runtime, SendQueue, yield_now};

use crate::support::*;

on_every_driver!(
    a_deadline_ends_a_receive,
    a_deadline_ends_a_send,
    a_deadline_that_moves_is_kept_at_its_last_place,
    a_deadline_brought_forward_fires_early,
    a_deadline_taken_away_does_not_fire,
    a_deadline_that_has_passed_is_found_later,
    nothing_is_lost_by_a_deadline,
    idle_streams_are_ended_and_busy_ones_not,
    sleepers_wake_in_order_and_not_early,
    a_nearer_sleeper_does_not_wait_for_a_farther_one,
    sleepers_wake_though_turns_are_long,
    a_long_turn_delays_nothing_after_it,
    waits_that_end_together_do_not_end_in_one_turn,
    sleepers_that_are_given_up_cost_nothing,
    a_sleep_for_ever_sleeps,
    an_alarm_rings_once_and_not_early,
    yielding_takes_turns,
    a_busy_task_does_not_stop_the_others,
);

const SHORT: Duration = Duration::from_millis(30);

async fn a_deadline_ends_a_receive(runtime: Rc<Runtime>) {
    let (stream, _peer) = pair(&runtime);
    for _ in 0..3 {
        let began = Instant::now();
        stream.deadline_in(SHORT);
        let error = soon(&runtime, "a deadline", stream.recv()).await.map(drop).expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert_not_early(began, SHORT);
    }
}

async fn a_deadline_ends_a_send(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, _peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let began = Instant::now();
        stream.deadline_in(SHORT);
        let error = soon(&runtime, "a deadline", send(&stream, &vec![1; 32 << 20])).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert_not_early(began, SHORT);
    }
}

/// A deadline is counted from the turn's beginning in whole milliseconds, so two of them are forgiven.
fn assert_not_early(began: Instant, delay: Duration) {
    let took = began.elapsed();
    assert!(took + Duration::from_millis(2) >= delay, "after {took:?} of {delay:?}");
}

async fn a_deadline_that_moves_is_kept_at_its_last_place(runtime: Rc<Runtime>) {
    let (stream, _peer) = pair(&runtime);
    // Generous, because a machine that sleeps too long between two extensions would fire the earlier one.
    let delay = Duration::from_secs(2);
    let began = Instant::now();
    for _ in 0..20 {
        stream.deadline_in(delay);
        let early = within(&runtime, Duration::from_millis(10), stream.recv()).await;
        assert!(early.is_none() || began.elapsed() > delay, "the deadline moves on");
    }
    stream.deadline_in(delay);
    let moved = Instant::now();
    let error = soon(&runtime, "the last deadline", stream.recv()).await.map(drop).expect_err("nothing was sent");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert_not_early(moved, delay);
}

async fn a_deadline_brought_forward_fires_early(runtime: Rc<Runtime>) {
    let (stream, _peer) = pair(&runtime);
    stream.deadline_in(Duration::from_secs(3600));
    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    runtime.sleep(Duration::from_millis(5)).await;
    stream.deadline_in(SHORT);
    let error = soon(&runtime, "the nearer deadline", stream.recv()).await.map(drop).expect_err("nothing was sent");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

async fn a_deadline_taken_away_does_not_fire(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    stream.deadline_in(SHORT);
    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    stream.no_deadline();
    let waiting = within(&runtime, SHORT * 4, stream.recv()).await;
    assert!(waiting.is_none(), "no deadline, no end");
    // One that has passed is taken away as well.
    stream.deadline_in(Duration::from_millis(1));
    assert!(soon(&runtime, "a deadline", stream.recv()).await.is_err());
    assert!(soon(&runtime, "the same deadline", stream.recv()).await.is_err(), "a deadline stays passed");
    stream.no_deadline();
    write(&peer, b"after all");
    assert_eq!(soon(&runtime, "bytes", receive(&stream, 9)).await, b"after all");
}

async fn a_deadline_that_has_passed_is_found_later(runtime: Rc<Runtime>) {
    let (stream, _peer) = pair(&runtime);
    stream.deadline_in(Duration::from_millis(1));
    runtime.sleep(SHORT).await;
    let error = soon(&runtime, "a passed deadline", stream.recv()).await.map(drop).expect_err("it has passed");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    let mut queue = SendQueue::default();
    queue.own().push(1);
    let error = soon(&runtime, "a passed deadline", stream.send(&mut queue)).await.expect_err("it has passed");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert_eq!(queue.len(), 1, "what was not sent stays in its queue");
    soon(&runtime, "a passed deadline", gone(&stream, false)).await;
}

async fn nothing_is_lost_by_a_deadline(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    let bytes = pattern(100_000, 3);
    let all = bytes.clone();
    let wrote = in_thread(move || {
        for part in all.chunks(1000) {
            write(&peer, part);
            std::thread::sleep(Duration::from_micros(500));
        }
        peer
    });
    let mut seen = Vec::new();
    let receiving = async {
        while seen.len() < bytes.len() {
            stream.deadline_in(Duration::from_millis(1));
            match stream.recv().await {
                Ok(chunk) => seen.extend_from_slice(&chunk),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}"),
            }
        }
    };
    soon(&runtime, "all bytes", receiving).await;
    assert_same(&seen, &bytes, "bytes between deadlines");
    soon(&runtime, "the peer ends", wrote).await;
}

async fn idle_streams_are_ended_and_busy_ones_not(runtime: Rc<Runtime>) {
    let (idle, _first) = pair(&runtime);
    let (busy, second) = pair(&runtime);
    let (was_idle, _third) = pair(&runtime);
    idle.idle_for(Duration::from_secs(3600));
    busy.deadline_in(Duration::from_secs(3600));
    was_idle.idle_for(Duration::from_secs(3600));
    was_idle.deadline_in(Duration::from_secs(3600));
    let ended = task(&runtime, async move { idle.recv().await.map(drop) });
    yield_now().await;
    runtime.end_idle();
    let error = soon(&runtime, "an idle stream's end", ended).await.expect_err("it was idle");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(glance(&was_idle).await.is_none(), "a request has begun there");
    assert!(glance(&busy).await.is_none(), "a busy stream goes on");
    write(&second, b"going on");
    assert_eq!(soon(&runtime, "bytes", receive(&busy, 8)).await, b"going on");
}

async fn sleepers_wake_in_order_and_not_early(runtime: Rc<Runtime>) {
    let order = Rc::new(RefCell::new(Vec::new()));
    let mut tasks = Vec::new();
    for delay in [70u64, 10, 40, 130, 64, 0, 63, 100, 65] {
        let (order, sleeping) = (Rc::clone(&order), Rc::clone(&runtime));
        tasks.push(task(&runtime, async move {
            let began = sleeping.clock().now();
            sleeping.sleep(Duration::from_millis(delay)).await;
            assert_not_early(began, Duration::from_millis(delay));
            order.borrow_mut().push(delay);
        }));
    }
    for task in tasks {
        soon(&runtime, "every sleeper", task).await;
    }
    assert_eq!(*order.borrow(), [0, 10, 40, 63, 64, 65, 70, 100, 130]);
}

/// Each sleep begins after a wait for something else, for which the loop had prepared with a farther limit.
async fn a_nearer_sleeper_does_not_wait_for_a_farther_one(runtime: Rc<Runtime>) {
    for delay in [20, 5, 1, 30] {
        soon(&runtime, "a thread", in_thread(|| std::thread::sleep(SHORT))).await;
        let delay = Duration::from_millis(delay);
        let began = Instant::now();
        runtime.sleep(delay).await;
        assert_not_early(began, delay);
        assert!(began.elapsed() < Duration::from_secs(1), "{delay:?} took {:?}", began.elapsed());
    }
}

/// Turns are long and begin at any time, so what is to end the next wait may come while the loop works; it may even be of a sleep that
/// was found to be over already.
async fn sleepers_wake_though_turns_are_long(runtime: Rc<Runtime>) {
    let mut tasks = Vec::new();
    for number in 0..3 {
        let sleeping = Rc::clone(&runtime);
        tasks.push(task(&runtime, async move {
            for round in 0..150 {
                let odd = move |bound| Duration::from_micros((round * 379 + number * 611) % bound);
                let began = Instant::now();
                in_thread(move || std::thread::sleep(odd(1500))).await;
                std::thread::sleep(odd(900));
                sleeping.sleep(Duration::from_millis(1 + number)).await;
                std::thread::sleep(odd(700));
                assert!(began.elapsed() < Duration::from_secs(1), "round {round} took {:?}", began.elapsed());
            }
        }));
    }
    for task in tasks {
        soon(&runtime, "every sleeper", task).await;
    }
}

/// What is left of a sleep when a long turn ends is waited for, not all of it; and not by those who come after.
async fn a_long_turn_delays_nothing_after_it(runtime: Rc<Runtime>) {
    let began = Instant::now();
    let farther = runtime.sleep(Duration::from_millis(1000));
    std::thread::sleep(Duration::from_millis(950));
    soon(&runtime, "a thread", in_thread(|| ())).await;
    runtime.sleep(Duration::from_millis(100)).await;
    farther.await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1700), "one second and a little took {took:?}");
}

/// Whoever is served meanwhile waits for a few of them, not for all.
async fn waits_that_end_together_do_not_end_in_one_turn(runtime: Rc<Runtime>) {
    const MANY: u32 = 1000;
    let ended = Rc::new(Cell::new(0u32));
    let mut tasks = Vec::new();
    for _ in 0..MANY {
        let (ended, sleeping) = (Rc::clone(&ended), Rc::clone(&runtime));
        tasks.push(task(&runtime, async move {
            sleeping.sleep(SHORT).await;
            ended.set(ended.get() + 1);
        }));
    }
    let (mut before, mut most) = (0, 0);
    let began = Instant::now();
    while before < MANY {
        assert!(began.elapsed() < patience(), "{before} of {MANY} have ended");
        yield_now().await;
        most = most.max(ended.get() - before);
        before = ended.get();
    }
    let bound = if matches!(runtime.kind(), Kind::Poll | Kind::Select) { 64 } else { 4 };
    assert_eq!(most, bound, "in one turn");
    for task in tasks {
        soon(&runtime, "every sleeper", task).await;
    }
}

async fn sleepers_that_are_given_up_cost_nothing(runtime: Rc<Runtime>) {
    for round in 0..20_000u64 {
        let sleep = runtime.sleep(Duration::from_millis(round % 5000));
        if round % 3 == 0 {
            assert!(poll_once(sleep).await.is_none(), "a sleep takes a turn at least");
        }
    }
    let began = Instant::now();
    runtime.sleep(Duration::from_millis(5)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the others are not waited for");
}

async fn a_sleep_for_ever_sleeps(runtime: Rc<Runtime>) {
    still_waits(&runtime, "a sleep for ever", runtime.sleep(Duration::MAX)).await;
    still_waits(&runtime, "a sleep for long", runtime.sleep(Duration::from_secs(1 << 40))).await;
    let (stream, _peer) = pair(&runtime);
    stream.deadline_in(Duration::MAX);
    still_waits(&runtime, "a deadline in the far future", stream.recv()).await;
    stream.deadline_in(Duration::ZERO);
    let error = soon(&runtime, "a deadline at once", stream.recv()).await.map(drop).expect_err("nothing was sent");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

async fn an_alarm_rings_once_and_not_early(runtime: Rc<Runtime>) {
    let alarm = Alarm::new(&runtime).expect("a timer");
    soon(&runtime, "no wait", alarm.after(Duration::ZERO)).await.expect("a timer");
    for micros in [1, 150, 700, 3_000, 20_000, 90] {
        let (delay, began) = (Duration::from_micros(micros), Instant::now());
        soon(&runtime, "an alarm", alarm.after(delay)).await.expect("a timer");
        assert!(began.elapsed() >= delay, "{:?} instead of {delay:?}", began.elapsed());
    }
    // Given up: the next one is not ended by it, whether its time has passed or not.
    for given_up in [1, 50_000] {
        assert!(poll_once(alarm.after(Duration::from_micros(given_up))).await.is_none());
        runtime.sleep(Duration::from_millis(2)).await;
        let began = Instant::now();
        soon(&runtime, "an alarm", alarm.after(SHORT)).await.expect("a timer");
        assert!(began.elapsed() >= SHORT, "{:?} instead of {SHORT:?}", began.elapsed());
    }
    still_waits(&runtime, "an alarm far away", alarm.after(Duration::from_secs(3600))).await;
}

async fn yielding_takes_turns(runtime: Rc<Runtime>) {
    let steps = Rc::new([Cell::new(0u32), Cell::new(0), Cell::new(0)]);
    let mut tasks = Vec::new();
    for me in 0..3 {
        let steps = Rc::clone(&steps);
        tasks.push(task(&runtime, async move {
            for step in 1..=500u32 {
                steps[me].set(step);
                for other in steps.iter() {
                    assert!(other.get().abs_diff(step) <= 1, "everybody has had the same number of turns");
                }
                yield_now().await;
            }
        }));
    }
    for task in tasks {
        soon(&runtime, "everybody's last turn", task).await;
    }
}

async fn a_busy_task_does_not_stop_the_others(runtime: Rc<Runtime>) {
    let over = Rc::new(Cell::new(false));
    let until_over = Rc::clone(&over);
    let busy = task(&runtime, async move {
        let mut turns = 0u64;
        while !until_over.get() {
            yield_now().await;
            turns += 1;
        }
        turns
    });
    let (stream, peer) = pair(&runtime);
    let echoing = task(&runtime, echo(stream));
    let echoed = in_thread(move || {
        for round in 0..50 {
            let bytes = pattern(2000, round);
            write(&peer, &bytes);
            assert_same(&read(&peer, 2000), &bytes, "an echo beside a busy task");
        }
    });
    soon(&runtime, "echoes beside a busy task", echoed).await;
    soon(&runtime, "the end of the echo", echoing).await;
    runtime.sleep(SHORT).await;
    over.set(true);
    assert!(soon(&runtime, "the busy task's end", busy).await > 0);
}
