//! Fuzzes path normalization: whatever comes out is absolute and holds no dots, no empty segment inside and no NUL.
//! Goal: no encoding leaves the root.
//! Costs: one pass an input.
#![no_main]

use amped_wire::semantics::path::{is_hidden, normalize};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &[u8]| {
    let Ok(normal) = normalize(path) else { return };
    let inner = normal
        .as_bytes()
        .strip_prefix(b"/")
        .expect("an absolute path");
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    let mut segments = inner.split(|&b| b == b'/');
    assert!(inner.is_empty() || segments.all(|segment| !matches!(segment, b"" | b"." | b"..")));
    assert!(!inner.contains(&0));
    is_hidden(normal.as_bytes());
});
