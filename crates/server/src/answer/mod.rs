//! From a request to its answer: at once when memory can tell, later when the disk must be asked.
//!
//! A hit costs no await and no system call: routing, one cache look-up, one reference count.

pub mod error_page;
#[cfg(debug_assertions)]
pub mod faults;
pub mod files;
pub mod opening;
pub mod redirect;
pub mod reply;

use std::cell::Cell;
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
use crate::config::plan::{Action, FilesPlan, Plan, Site};
use crate::observe::sites::Table;
use crate::overload::Gate;
use crate::route::{RouteId, Router};

/// Answers for one worker: the plan, the routes, and the files' memory.
#[derive(Debug)]
pub struct Answers {
    plan: Arc<Plan>,
    router: Arc<Router>,
    files: Rc<Files>,
    error_pages: Arc<ErrorPages>,
    gate: Rc<Gate>,
    /// Requests refused so far, which tells one refusal from the next.
    refusals: Cell<u64>,
    /// Where they are counted.
    sites: Arc<Table>,
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
        let gate = Rc::clone(files.gate());
        let sites = files.counters().sites.table(&plan.sites.iter().map(Site::name).collect::<Vec<_>>());
        Rc::new(Self { plan, router, files, error_pages, gate, refusals: Cell::new(0), sites })
    }

    /// What is given up when there is too much to do.
    pub fn gate(&self) -> &Rc<Gate> {
        &self.gate
    }

    /// The counts of the plan's sites.
    pub fn sites(&self) -> &Table {
        &self.sites
    }

    /// The configuration behind the answers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Who finds files.
    pub fn files(&self) -> &Files {
        &self.files
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
                let site = self.router.site(request.host);
                return Answer::Ready(self.error_pages.explain(site, reject.status, reject.reason).at(site));
            }
        };
        let Some(id) = self.router.find(request.host, path.as_bytes()) else {
            let site = self.router.site(request.host);
            return Answer::Ready(self.error_pages.reply(site, Status::NOT_FOUND).at(site));
        };
        let route = id.route(&self.plan);
        if !self.gate.lets_in(route.priority) {
            return Answer::Ready(self.overloaded(id.site));
        }
        #[cfg(debug_assertions)]
        if faults::is_costly(path.as_bytes()) && !self.gate.admits(route.priority) {
            return Answer::Ready(self.overloaded(id.site));
        } else if let Some(answer) = faults::strike(path.as_bytes()) {
            return answer;
        }
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
        reply.with_lines(&reply::field_lines(&fields)).at(id.site)
    }

    /// 429, for a client that has asked too often.
    pub fn too_many(&self, request: &Request<'_>, seconds: u32) -> Reply {
        let site = self.router.site(request.host);
        self.error_pages.too_many(site, seconds).at(site)
    }

    fn overloaded(&self, site: u16) -> Reply {
        self.refusals.set(self.refusals.get() + 1);
        self.error_pages.overloaded(site, self.refusals.get()).at(site)
    }

    /// A refusal in the words of the site, for requests that did not get as far as `answer`.
    pub fn refuse(&self, status: Status, reason: &'static str) -> Reply {
        self.error_pages.explain(0, status, reason)
    }

    /// A request and its route in words, for the log.
    pub fn describe(&self, request: &Request<'_>) -> Box<[u8]> {
        let path = request.target.path().and_then(|raw| path::normalize(raw).ok());
        let id = path.and_then(|path| self.router.find(request.host, path.as_bytes()));
        let route = id.map_or("no route".to_owned(), |id| {
            format!("route `{}` of site {}", id.route(&self.plan).pattern, id.site + 1)
        });
        let target = &request.raw_target[..request.raw_target.len().min(MAX_DESCRIBED)];
        [request.method_raw, b" ", target, b" (", route.as_bytes(), b")"].concat().into()
    }

    fn file(self: &Rc<Self>, request: &Request<'_>, id: RouteId, plan: &FilesPlan, path: &Normal<'_>) -> Answer {
        match request.method {
            Method::Get | Method::Head => {}
            Method::Options => return Answer::Ready(Reply::allow(Status::NO_CONTENT, FILE_METHODS).at(id.site)),
            Method::Other | Method::Connect => {
                return Answer::Ready(self.error_pages.reply(id.site, Status::NOT_IMPLEMENTED).at(id.site));
            }
            _ => return Answer::Ready(self.error_pages.not_allowed(id.site, FILE_METHODS).at(id.site)),
        }
        let path = path.as_bytes();
        if !plan.hidden && path::is_hidden(path) {
            return Answer::Ready(self.error_pages.reply(id.site, Status::NOT_FOUND).at(id.site));
        }
        match self.files.find(id, plan.strip, path, id.route(&self.plan).priority) {
            Found::Now(entry) => {
                Answer::Ready(reply::to_request(request, &entry, &self.error_pages, id.site, self.now()))
            }
            Found::Refused => Answer::Ready(self.overloaded(id.site)),
            Found::Later(later) => {
                let asked = reply::Asked::of(request);
                let this = Rc::clone(self);
                Answer::Pending(Box::pin(async move {
                    match later.await {
                        Ok(entry) => asked.reply(&entry, &this.error_pages, id.site, this.now()).at(id.site),
                        Err(_) => {
                            this.files.count_refusal();
                            this.overloaded(id.site)
                        }
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

/// Bytes of a target that the log shows.
const MAX_DESCRIBED: usize = 120;
const FILE_METHODS: &str = "GET, HEAD, OPTIONS";
