//! From a request to its answer: which workspace, a lease, the headers, the workspace's own port.
//!
//! [`Proxy`] belongs to one thread. It finds the workspace (`route`), enters its gate, edits the
//! head (`headers`), sends the request over a connection of this thread's own pool (`upstream`),
//! and hands the answer's body to the listener with the lease inside. After an upgrade, `tunnel`
//! moves the bytes; it knows where frames end (`frames`), and how much passes where that is what
//! counts (`meter`). What goes wrong becomes an answer in `reply`, and nowhere else.

mod forward;
mod frames;
mod headers;
mod meter;
mod reply;
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
use tokio_util::task::TaskTracker;

use crate::lifecycle::Registry;
use crate::listen::{Ends, Serve};

pub use reply::Body;

/// How requests are passed on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether `/w/{id}/…` routes to a workspace, on hosts that are nobody's.
    pub paths: bool,
    /// The host that is the API's alone.
    pub admin_host: Option<String>,
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
    /// Idle connections that this thread keeps for a workspace.
    pub idle_per_workspace_max: usize,
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

/// What answers requests that are for no workspace. It is told who asks.
pub type Elsewhere = Arc<
    dyn Fn(SocketAddr, Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>>>>
        + Send
        + Sync,
>;

/// The data plane of one thread.
pub struct Proxy {
    registry: Arc<Registry>,
    options: Options,
    upstreams: Rc<upstream::Upstreams>,
    elsewhere: Elsewhere,
    via: headers::Via,
    /// `Strict-Transport-Security`, where it is said.
    hsts: Option<HeaderValue>,
    /// Tunnels outlive the connections that they came over.
    tunnels: TaskTracker,
}

impl Proxy {
    /// A proxy for the thread that calls. Must be called inside its `LocalSet`.
    pub fn new(
        registry: Arc<Registry>,
        options: Options,
        elsewhere: Elsewhere,
        tunnels: TaskTracker,
    ) -> Rc<Self> {
        let upstreams = upstream::Upstreams::new(
            registry.notices(),
            options.connect_timeout,
            options.idle_per_workspace_max,
        );
        let via = headers::Via::new(&options.pseudonym);
        let hsts = headers::hsts(options.hsts);
        Rc::new(Self { registry, options, upstreams, elsewhere, via, hsts, tunnels })
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
