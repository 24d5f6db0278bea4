//! Lines of memory that will be needed soon.
//!
//! A line that is in no cache takes 100 ns to come, and a chain of pointers is followed one line after the other. Where it is known
//! early what will be looked at, and by several requests at once, their lines can be on their way together.

/// Has the processor fetch what `what` lies in, if it lies outside its caches. Nothing waits for it, and nothing else comes of it.
pub fn prefetch<T: ?Sized>(what: &T) {
    prefetch_lines(std::ptr::from_ref(what).cast(), size_of_val(what).min(MOST));
}

/// Likewise the first lines of some bytes that will be read one after the other, and the first of every page: the processor sees by itself
/// where that leads, but not from one page to the next.
pub fn prefetch_run(bytes: &[u8]) {
    let start = bytes.as_ptr();
    prefetch_lines(start, bytes.len().min(FIRST));
    let to_next_page = PAGE - start.addr() % PAGE;
    for offset in (to_next_page..bytes.len().min(LONGEST)).step_by(PAGE) {
        prefetch_line(start.wrapping_add(offset));
    }
}

/// The lines that these bytes lie in, the first of which may begin before them.
fn prefetch_lines(start: *const u8, length: usize) {
    let before = start.addr() % LINE;
    for offset in (0..before + length).step_by(LINE) {
        prefetch_line(start.wrapping_sub(before).wrapping_add(offset));
    }
}

fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is a hint: it reads nothing the program could see, and faults for no address (Intel's manual, volume 2).
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: PRFM is a hint likewise (Arm's Architecture Reference Manual, C6.2).
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

const LINE: usize = 64;
const PAGE: usize = 4096;
/// Bytes of one thing that are fetched at most.
const MOST: usize = 8 * LINE;
/// Bytes from which a run is seen to be one.
const FIRST: usize = 16 * LINE;
/// What is longer is not read at once.
const LONGEST: usize = 4 * PAGE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_may_be_fetched() {
        prefetch(&());
        prefetch(&[0u8; 3 * MOST]);
        prefetch("");
        for length in [0, 1, LINE, PAGE - 1, PAGE, 3 * LONGEST] {
            prefetch_run(&vec![7; length]);
        }
    }
}
