//! From a request to its answer: at once when memory can tell, later when the disk must be asked.
//!
//! A hit costs no await and no system call: routing, one cache look-up, one reference count.

pub mod error_page;
pub mod files;
pub mod redirect;
pub mod reply;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use amped_runtime::Runtime;
use amped_wire::head::{Method, Request};
use amped_wire::semantics::path::{self, Normal};
use amped_wire::status::Status;

use self::error_page::ErrorPages;
use self::files::{Files, Found};
use self::reply::Reply;
use crate::config::plan::{Action, FilesPlan, Plan};
use crate::route::{RouteId, Router};

/// Answers for one worker: the plan, the routes, and the files' memory.
#[derive(Debug)]
pub struct Answers {
    plan: Arc<Plan>,
    router: Arc<Router>,
    files: Rc<Files>,
    error_pages: Arc<ErrorPages>,
}

/// What became of a request.
pub enum Answer {
    /// Memory answered.
    Ready(Reply),
    /// Something must be waited for; other requests go on meanwhile.
    Pending(Pending),
}

/// An answer on its way. Dropping it withdraws the request.
pub type Pending = Pin<Box<dyn Future<Output = Reply>>>;

impl Answers {
    /// The answers of one worker; `files` is shared by nobody, what is behind it by all.
    pub fn new(plan: Arc<Plan>, router: Arc<Router>, files: Rc<Files>, error_pages: Arc<ErrorPages>) -> Rc<Self> {
        Rc::new(Self { plan, router, files, error_pages })
    }

    /// The configuration behind the answers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The loop they are for.
    pub fn runtime(&self) -> &Rc<Runtime> {
        self.files.runtime()
    }

    /// Answers a request whose head has passed the parser.
    pub fn answer(self: &Rc<Self>, request: &Request<'_>) -> Answer {
        let Some(raw) = request.target.path() else {
            return Answer::Ready(self.without_path(request));
        };
        let path = match path::normalize(raw) {
            Ok(path) => path,
            Err(reject) => {
                return Answer::Ready(self.error_pages.explain(
                    self.router.site(request.host),
                    reject.status,
                    reject.reason,
                ));
            }
        };
        #[cfg(debug_assertions)]
        crate::observe::fault::strike(path.as_bytes());
        let Some(id) = self.router.find(request.host, path.as_bytes()) else {
            return Answer::Ready(self.error_pages.reply(self.router.site(request.host), Status::NOT_FOUND));
        };
        let route = id.route(&self.plan);
        match &route.action {
            Action::Files(files) => self.file(request, id, files, &path),
            Action::Redirect { to, status } => {
                let reply = redirect::to_template(request, path.as_bytes(), route, to, *status);
                Answer::Ready(self.with_fields(reply, id, path.as_bytes()))
            }
            Action::Status { code, body } => {
                let reply = self.error_pages.fixed(id.site, *code, body.as_ref());
                Answer::Ready(self.with_fields(reply, id, path.as_bytes()))
            }
        }
    }

    fn with_fields(&self, reply: Reply, id: RouteId, path: &[u8]) -> Reply {
        let fields = id.site(&self.plan).fields_for(id.route(&self.plan), path);
        reply.with_lines(&reply::field_lines(&fields))
    }

    /// A refusal in the words of the site, for requests that did not get as far as `answer`.
    pub fn refuse(&self, status: Status, reason: &'static str) -> Reply {
        self.error_pages.explain(0, status, reason)
    }

    fn file(self: &Rc<Self>, request: &Request<'_>, id: RouteId, plan: &FilesPlan, path: &Normal<'_>) -> Answer {
        match request.method {
            Method::Get | Method::Head => {}
            Method::Options => return Answer::Ready(Reply::allow(Status::NO_CONTENT, FILE_METHODS)),
            Method::Other | Method::Connect => {
                return Answer::Ready(self.error_pages.reply(id.site, Status::NOT_IMPLEMENTED));
            }
            _ => return Answer::Ready(self.error_pages.not_allowed(id.site, FILE_METHODS)),
        }
        let path = path.as_bytes();
        if !plan.hidden && path::is_hidden(path) {
            return Answer::Ready(self.error_pages.reply(id.site, Status::NOT_FOUND));
        }
        match self.files.find(id, plan.strip, path) {
            Found::Now(entry) => {
                Answer::Ready(reply::to_request(request, &entry, &self.error_pages, id.site, self.now()))
            }
            Found::Later(later) => {
                let asked = reply::Asked::of(request);
                let this = Rc::clone(self);
                Answer::Pending(Box::pin(async move {
                    match later.await {
                        Ok(entry) => asked.reply(&entry, &this.error_pages, id.site, this.now()),
                        Err(_) => this.error_pages.overloaded(id.site),
                    }
                }))
            }
        }
    }

    fn without_path(&self, request: &Request<'_>) -> Reply {
        match request.method {
            Method::Options => Reply::allow(Status::NO_CONTENT, FILE_METHODS),
            _ => self.error_pages.explain(0, Status::NOT_IMPLEMENTED, "CONNECT is not served here"),
        }
    }

    fn now(&self) -> u64 {
        self.runtime().clock().unix_seconds()
    }
}

const FILE_METHODS: &str = "GET, HEAD, OPTIONS";
