//! The runtime's contract: everything it promises, on every driver, with real sockets and real files.
//!
//! A test is one async function; a macro makes `name::epoll_edge`, `name::uring` and so on of it, so a failure names the
//! driver. Where io_uring cannot be set up, its variants say so and check that the set-up reports an error. Nothing here
//! measures time finely: waits are generous, and a test that hangs fails with a message after `support::PATIENCE`.
//!
//! Under the address sanitizer (the nightly toolchain has its runtime for this target):
//!
//! ```text
//! RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p amped-runtime --target x86_64-unknown-linux-gnu
//! ```
//!
//! Under valgrind, which knows nothing of what io_uring writes, so without that driver:
//!
//! ```text
//! cargo test -p amped-runtime --test contract --no-run      # prints the binary's path
//! AMPED_TEST_PATIENCE=300 valgrind --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
//!     BINARY --test-threads=2 --skip uring
//! ```

#[macro_use]
#[path = "contract/support.rs"]
mod support;

#[path = "contract/blocking.rs"]
mod blocking;
#[path = "contract/bytes.rs"]
mod bytes;
#[path = "contract/connections.rs"]
mod connections;
#[path = "contract/endings.rs"]
mod endings;
#[path = "contract/files.rs"]
mod files;
#[path = "contract/folders.rs"]
mod folders;
#[path = "contract/helpers.rs"]
mod helpers;
#[path = "contract/selectors.rs"]
mod selectors;
#[path = "contract/teardown.rs"]
mod teardown;
#[path = "contract/time.rs"]
mod time;
