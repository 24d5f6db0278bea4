//! Redirects: a folder without its slash, and those of the configuration.
//!
//! The target is made from what was asked, so it is percent-encoded before it becomes a field value.

use amped_wire::h1::encode;
use amped_wire::head::Request;
use amped_wire::status::Status;

use super::reply::Reply;
use crate::config::plan::{Parts, Route, Template};

/// 301 to a folder's own path, which is valid in a field as it stands; the query goes along.
pub fn to_folder(location: &str, query: Option<&[u8]>) -> Reply {
    match query.and_then(|query| std::str::from_utf8(query).ok()) {
        Some(query) => to(Status::MOVED_PERMANENTLY, &format!("{location}?{query}")),
        None => to(Status::MOVED_PERMANENTLY, location),
    }
}

/// The redirect of a route, filled with what was asked.
pub fn to_template(request: &Request<'_>, path: &[u8], route: &Route, template: &Template, status: u16) -> Reply {
    let rest = route.pattern.rest(path);
    let parts = Parts { host: request.host, path, rest, query: request.target.query() };
    to(Status::new(status).unwrap_or(Status::FOUND), &template.fill(parts))
}

fn to(status: Status, location: &str) -> Reply {
    let mut head = Vec::with_capacity(location.len() + 48);
    encode::field(&mut head, b"Location", location.as_bytes());
    encode::field_u64(&mut head, b"Content-Length", 0);
    encode::end(&mut head);
    Reply::own(status, head)
}
