//! From a request to its answer: which workspace, a lease, the headers, the workspace's own port.
//!
//! [`Proxy`] belongs to one thread. It names the request (`request_id`), finds the workspace
//! (`route`), enters its gate or waits at it (`hold`), where somebody who opens a page is shown one
//! (`page`), edits the head (`headers`), sends the request over a connection of this thread's own
//! pool (`upstream`), and hands the answer's body to the listener with the lease inside. After an
//! upgrade (over HTTP/2: `extended_connect`), `tunnel` moves the bytes; it knows where frames end
//! (`frames`), and how much passes where that is what counts (`meter`). What goes wrong becomes an
//! answer in `reply`, or in `grpc` for those who speak that, and nowhere else.

mod access;
mod extended_connect;
mod forward;
mod frames;
pub(crate) mod fuzz;
mod grpc;
mod headers;
mod hold;
mod meter;
mod page;
mod reply;
mod request_id;
mod route;
mod tunnel;
mod upstream;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::{Request, Response};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::lifecycle::Registry;
use crate::listen::{Ends, Serve};
use crate::metrics::Requests;

pub use page::Template;
pub use reply::Body;

/// How requests are passed on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether `/w/{id}/…` routes to a workspace, on hosts that are nobody's.
    pub paths: bool,
    /// The host that is the API's alone.
    pub admin_host: Option<String>,
    /// What the waiting page looks like.
    pub waiting_page: Arc<Template>,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where clients that come by plain HTTP are sent; `None`: they are served.
    pub redirect: Option<Redirect>,
    /// How long browsers are told to come by HTTPS only; zero: they are told nothing.
    pub hsts: Duration,
    /// How long a connection to a workspace that is up may take, retries included.
    pub connect_timeout: Duration,
    /// How long a workspace may take until it begins to answer, counted from the last byte of the
    /// request.
    pub response_timeout: Duration,
    /// How long a client may be silent in the middle of a body, while its workspace waits for more
    /// of it and has not begun to answer.
    pub body_timeout: Duration,
    /// Bytes that it sends of such a body in a second, on average and after that time; 0: any.
    pub body_rate_min: u64,
    /// Requests inside a workspace; 0: any number.
    pub requests_per_workspace_max: usize,
    /// Idle connections that this thread keeps for a workspace.
    pub idle_per_workspace_max: usize,
    /// Where requests are written down.
    pub access_log: Option<Arc<AccessLog>>,
    /// Turns true when what has no end of its own is to end.
    pub draining: watch::Receiver<bool>,
    /// Our name in `Via` fields: differs from that of every other Frostgate, so that a request
    /// that comes back to us is known by it.
    pub pseudonym: String,
}

/// To where plain requests are redirected, and which are not.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// The port at which end users find HTTPS.
    pub port: u16,
    /// The host for those that name none.
    pub domain: String,
    /// A path that is served all the same on hosts that are no workspace's.
    pub except: &'static str,
}

/// What answers requests that are for no workspace. It is told who asks, and whether by TLS.
pub type Elsewhere = Arc<
    dyn Fn(SocketAddr, bool, Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>>>>
        + Send
        + Sync,
>;

/// The data plane of one thread.
#[derive(Clone)]
pub struct Proxy {
    registry: Arc<Registry>,
    options: Options,
    upstreams: Rc<upstream::Upstreams>,
    elsewhere: Elsewhere,
    via: headers::Via,
    request_ids: Rc<request_id::RequestIds>,
    requests: Rc<Requests>,
    /// `Strict-Transport-Security`, where it is said.
    hsts: Option<HeaderValue>,
    /// Tunnels outlive the connections that they came over.
    tunnels: TaskTracker,
}

impl Proxy {
    /// A proxy for the thread that calls; `seed` makes the names of its requests differ from those
    /// of every other. Must be called inside its `LocalSet`.
    pub fn new(
        registry: Arc<Registry>,
        options: Options,
        elsewhere: Elsewhere,
        tunnels: TaskTracker,
        seed: u64,
    ) -> Rc<Self> {
        let upstreams = upstream::Upstreams::new(
            registry.notices(),
            options.connect_timeout,
            options.idle_per_workspace_max,
        );
        let via = headers::Via::new(&options.pseudonym);
        let request_ids = Rc::new(request_id::RequestIds::new(seed));
        let hsts = headers::hsts(options.hsts);
        let requests = Rc::new(registry.metrics().requests_of_thread());
        Rc::new(Self {
            registry,
            options,
            upstreams,
            elsewhere,
            via,
            request_ids,
            requests,
            hsts,
            tunnels,
        })
    }

    /// The same by other options: with the same connections to workspaces.
    pub fn renewed(&self, options: Options, elsewhere: Elsewhere) -> Rc<Self> {
        self.upstreams.change_limits(options.connect_timeout, options.idle_per_workspace_max);
        let via = headers::Via::new(&options.pseudonym);
        let hsts = headers::hsts(options.hsts);
        Rc::new(Self { options, elsewhere, via, hsts, ..self.clone() })
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.options.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}

/// Whether a request is for that host, whatever the port.
pub fn is_for_host<B>(request: &Request<B>, host: &str) -> bool {
    route::Authority::of(request).is_ok_and(|authority| authority.as_str() == host)
}

impl Serve for Proxy {
    type Client = headers::Client;
    type Body = Body;

    fn meet(&self, ends: Ends) -> headers::Client {
        let trusted = self.trusts(ends.peer.ip());
        headers::Client::new(ends, trusted)
    }

    async fn answer(
        self: Rc<Self>,
        client: Rc<headers::Client>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        forward::forward(&self, &client, request).await
    }

    fn close(&self) {
        self.upstreams.close();
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({:?})", self.registry)
    }
}
