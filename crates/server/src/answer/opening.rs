//! What every 200 of one second begins with: status line, Server and Date.
//!
//! A file in memory has room for it before its own head, so that the whole answer is one piece of memory, which the kernel can copy
//! from as it lies there. It is written there once a second, and only while nobody else refers to that memory: where somebody always
//! does (a slow reader, several busy workers) answers are copied.

use std::cell::Cell;

use amped_wire::h1::encode;
use amped_wire::semantics::date;

/// The opening of the present second.
#[derive(Debug)]
pub struct Opening(Cell<(u64, Bytes)>);

/// An opening as it is sent.
pub type Bytes = [u8; LENGTH];

impl Default for Opening {
    fn default() -> Self {
        Self(Cell::new((0, render(0))))
    }
}

impl Opening {
    /// The opening of this second (since 1970), rendered when that is another than last time.
    pub fn at(&self, second: u64) -> Bytes {
        let (rendered, bytes) = self.0.get();
        if rendered == second {
            return bytes;
        }
        let bytes = render(second);
        self.0.set((second, bytes));
        bytes
    }
}

fn render(second: u64) -> Bytes {
    let mut out = Vec::with_capacity(LENGTH);
    out.extend_from_slice(STATUS_LINE);
    encode::field(&mut out, b"Server", b"amped");
    encode::field(&mut out, b"Date", &date::format(second));
    out.try_into().expect("a date has one length")
}

/// What an answer of another status begins with is the same from here on.
pub const AFTER_STATUS: usize = STATUS_LINE.len();
/// For memory whose opening is yet to be written: no second's.
pub const BLANK: Bytes = [b' '; LENGTH];
/// Up to this size copying an answer costs no more than to count references to its memory.
pub const COPIED_UP_TO: usize = 2048;
/// An opening's bytes.
pub const LENGTH: usize =
    STATUS_LINE.len() + "Server: amped\r\n".len() + "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".len();
const STATUS_LINE: &[u8] = b"HTTP/1.1 200 OK\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_the_time_of_the_second_it_is_asked_for() {
        let opening = Opening::default();
        let expected = b"HTTP/1.1 200 OK\r\nServer: amped\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        assert_eq!(opening.at(784_111_777), *expected);
        assert_eq!(opening.at(784_111_777), *expected);
        assert_ne!(opening.at(784_111_778), *expected);
        assert_eq!(opening.at(784_111_777), *expected, "a clock may be set back");
        for second in [0, 1, u64::MAX] {
            assert!(Opening::default().at(second).starts_with(STATUS_LINE));
        }
    }
}
