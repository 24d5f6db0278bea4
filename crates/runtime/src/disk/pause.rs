//! A pause of a helper, which has the time to wait for something that passes.

use std::time::Duration;

/// Lets this thread sleep. For helpers: a loop never sleeps so.
pub fn pause(time: Duration) {
    simulated!(|world| world.pause(time));
    std::thread::sleep(time);
}
