//! What is said when there is no file to say it with: statuses in the site's own pages or in one plain line.
//!
//! The pages are read once, when the plan is: an error page never waits for the disk that caused it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use amped_wire::h1::encode;
use amped_wire::semantics::media_type;
use amped_wire::status::Status;

use super::reply::{Body, Head, NOWHERE, Reply};
use crate::config::plan::Plan;

/// The error pages of a plan, in memory.
#[derive(Debug, Default)]
pub struct ErrorPages {
    pages: HashMap<(u16, u16), Page>,
    overload: Option<Page>,
    retry_after: u32,
}

#[derive(Debug)]
struct Page {
    media_type: &'static str,
    bytes: Arc<[u8]>,
}

impl ErrorPages {
    /// Reads the pages that the plan names.
    ///
    /// # Errors
    /// The path and what the system said, when a page cannot be read or is larger than `MAX_PAGE`.
    pub fn load(plan: &Plan) -> Result<Self, String> {
        let mut pages = HashMap::new();
        for (site, index) in plan.sites.iter().zip(0u16..) {
            for (status, path) in &site.error_pages {
                let page = Page::read(path).map_err(|error| format!("error page {}: {error}", path.display()))?;
                pages.insert((index, *status), page);
            }
        }
        let overload = plan.overload_body.as_ref().map(|body| Page {
            media_type: media_type::from_path(body.path.as_os_str().as_encoded_bytes()),
            bytes: Arc::clone(&body.bytes),
        });
        Ok(Self { pages, overload, retry_after: plan.retry_after })
    }

    /// The status with the site's page, or with its own name.
    pub fn reply(&self, site: u16, status: Status) -> Reply {
        self.build(site, status, &[], "")
    }

    /// The status with a word on what was wrong, for a peer that broke the rules. The connection ends with it.
    pub fn explain(&self, site: u16, status: Status, reason: &'static str) -> Reply {
        let mut reply = self.build(site, status, &[], reason);
        reply.close = is_fatal(status);
        reply
    }

    /// The status with one more field.
    pub fn with_field(&self, site: u16, status: Status, name: &[u8], value: &[u8]) -> Reply {
        self.build(site, status, &[(name, value)], "")
    }

    /// 405 with the methods that would do.
    pub fn not_allowed(&self, site: u16, methods: &str) -> Reply {
        self.with_field(site, Status::METHOD_NOT_ALLOWED, b"Allow", methods.as_bytes())
    }

    /// 503 because there is too much to do: cheap, small, and with a time to come back, which is not the same for all: `lot` is any
    /// number that differs from one to the next.
    pub fn overloaded(&self, site: u16, lot: u64) -> Reply {
        let retry_after = jittered(self.retry_after, lot).to_string();
        let fields: [(&[u8], &[u8]); 2] = [(b"Retry-After", retry_after.as_bytes()), (b"Cache-Control", b"no-store")];
        match &self.overload {
            Some(page) => page.reply(Status::SERVICE_UNAVAILABLE, &fields),
            None => self.build(site, Status::SERVICE_UNAVAILABLE, &fields, ""),
        }
    }

    /// 429 because the client has asked too often, with the seconds until it may ask again.
    pub fn too_many(&self, site: u16, seconds: u32) -> Reply {
        let seconds = seconds.to_string();
        let fields: [(&[u8], &[u8]); 2] = [(b"Retry-After", seconds.as_bytes()), (b"Cache-Control", b"no-store")];
        self.build(site, Status::TOO_MANY_REQUESTS, &fields, "")
    }

    /// The answer of a route that is a status and a body.
    pub fn fixed(&self, site: u16, code: u16, body: Option<&Arc<str>>) -> Reply {
        let status = Status::new(code).unwrap_or(Status::INTERNAL_SERVER_ERROR);
        match body {
            _ if status.is_bodiless() => {
                let mut head = Vec::new();
                encode::end(&mut head);
                Reply::own(status, head)
            }
            Some(body) => {
                let page = Page { media_type: PLAIN, bytes: Arc::from(body.as_bytes()) };
                page.reply(status, &[])
            }
            None => self.reply(site, status),
        }
    }

    fn build(&self, site: u16, status: Status, fields: &[(&[u8], &[u8])], reason: &str) -> Reply {
        if let Some(page) = self.pages.get(&(site, status.code())) {
            return page.reply(status, fields);
        }
        let separator = if reason.is_empty() { "" } else { ": " };
        let line = format!("{} {}{separator}{reason}\n", status.code(), status.reason());
        Page { media_type: PLAIN, bytes: Arc::from(line.into_bytes()) }.reply(status, fields)
    }
}

impl Page {
    fn read(path: &Path) -> io::Result<Self> {
        let size = fs::metadata(path)?.len();
        if size > MAX_PAGE {
            return Err(io::Error::other(format!("it has {size} bytes; a page may have {MAX_PAGE}")));
        }
        let media_type = media_type::from_path(path.as_os_str().as_encoded_bytes());
        Ok(Self { media_type, bytes: fs::read(path)?.into() })
    }

    fn reply(&self, status: Status, fields: &[(&[u8], &[u8])]) -> Reply {
        let mut head = Vec::with_capacity(128);
        for (name, value) in fields {
            encode::field(&mut head, name, value);
        }
        encode::field(&mut head, b"Content-Type", self.media_type.as_bytes());
        encode::field_u64(&mut head, b"Content-Length", self.bytes.len() as u64);
        encode::end(&mut head);
        let length = self.bytes.len();
        let body = Body::Shared(Arc::clone(&self.bytes), 0..length);
        Reply { status, head: Head::Own(head), body, length: length as u64, close: false, site: NOWHERE }
    }
}

/// After these, nobody knows where the next request would begin, or the peer should not try again on this connection.
fn is_fatal(status: Status) -> bool {
    status != Status::NOT_FOUND && status != Status::BAD_REQUEST
}

/// Up to half as much again: clients that were refused together do not come back together.
fn jittered(seconds: u32, lot: u64) -> u32 {
    // Fibonacci hashing: neighbours are sent far apart.
    let spread = lot.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    seconds + ((spread * (u64::from(seconds.div_ceil(2)) + 1)) >> 32) as u32
}

const PLAIN: &str = "text/plain; charset=utf-8";
/// An error page should not be what a server is busy sending.
const MAX_PAGE: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::jittered;

    #[test]
    fn refused_clients_come_back_at_different_times() {
        let times: Vec<u32> = (0..1000).map(|lot| jittered(10, lot)).collect();
        assert!(times.iter().all(|time| (10..=15).contains(time)));
        assert!((10..=15).all(|time| times.iter().filter(|one| **one == time).count() > 100));
        assert!((0..100).all(|lot| jittered(0, lot) == 0 && (1..=2).contains(&jittered(1, lot))));
    }
}
