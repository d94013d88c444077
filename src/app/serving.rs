//! What the threads serve: the proxy, the API and the dashboard, as the configuration of the moment says.
//!
//! A new configuration makes a new [`Serving`], which every thread takes over by itself: requests that
//! come after that are served by it, over the connections that there are. Those under way go on with
//! what they began with.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::sync::Arc;

use crate::api::{LocalAdmin, Peer};
use crate::listen::{self, Ends, Serve};
use crate::proxy::{self, Body, Elsewhere, Proxy};

/// What is served, and by which options.
pub(super) struct Serving {
    pub(super) listen: listen::Options,
    pub(super) proxy: proxy::Options,
    pub(super) elsewhere: Elsewhere,
    /// The API and the dashboard, as the admin listener has them.
    pub(super) admin: axum::Router,
    /// How long what is under way may take when no more is accepted.
    pub(super) grace: Duration,
}

/// What can serve something else from now on.
pub(super) trait Renew: Serve {
    /// Serves that.
    fn renew(&self, serving: &Serving);

    /// Limits on its connections.
    fn listen_options(&self, serving: &Serving) -> listen::Options;
}

/// The public listeners.
pub(super) struct Public {
    proxy: RefCell<Rc<Proxy>>,
}

/// A client, and what the proxy of the moment makes of it.
pub(super) struct Met {
    ends: Ends,
    by: RefCell<(Rc<Proxy>, Rc<<Proxy as Serve>::Client>)>,
}

impl Public {
    pub(super) fn new(proxy: Rc<Proxy>) -> Rc<Self> {
        Rc::new(Self { proxy: RefCell::new(proxy) })
    }
}

impl Renew for Public {
    fn renew(&self, serving: &Serving) {
        let renewed = self.proxy.borrow().renewed(serving.proxy.clone(), serving.elsewhere.clone());
        self.proxy.replace(renewed);
    }

    fn listen_options(&self, serving: &Serving) -> listen::Options {
        serving.listen.clone()
    }
}

impl Serve for Public {
    type Client = Met;
    type Body = Body;

    fn meet(&self, ends: Ends) -> Met {
        let proxy = self.proxy.borrow().clone();
        let client = Rc::new(proxy.meet(ends.clone()));
        Met { ends, by: RefCell::new((proxy, client)) }
    }

    async fn answer(
        self: Rc<Self>,
        client: Rc<Met>,
        request: Request<Incoming>,
    ) -> Response<Self::Body> {
        let proxy = self.proxy.borrow().clone();
        let client = client.as_met_by(&proxy);
        proxy.answer(client, request).await
    }

    fn close(&self) {
        self.proxy.borrow().close();
    }
}

impl Met {
    /// Whom we trust may have changed since it connected.
    fn as_met_by(&self, proxy: &Rc<Proxy>) -> Rc<<Proxy as Serve>::Client> {
        let mut by = self.by.borrow_mut();
        if !Rc::ptr_eq(&by.0, proxy) {
            *by = (proxy.clone(), Rc::new(proxy.meet(self.ends.clone())));
        }
        by.1.clone()
    }
}

/// The admin listener.
pub(super) struct Admin {
    router: RefCell<axum::Router>,
}

impl Admin {
    pub(super) fn new(router: axum::Router) -> Rc<Self> {
        Rc::new(Self { router: RefCell::new(router) })
    }
}

impl Renew for Admin {
    fn renew(&self, serving: &Serving) {
        *self.router.borrow_mut() = serving.admin.clone();
    }

    /// Its clients are few, and come by themselves.
    fn listen_options(&self, serving: &Serving) -> listen::Options {
        listen::Options { proxy_protocol: vec![], clients: None, ..serving.listen.clone() }
    }
}

impl Serve for Admin {
    type Client = Ends;
    type Body = axum::body::Body;

    fn meet(&self, ends: Ends) -> Ends {
        ends
    }

    async fn answer(
        self: Rc<Self>,
        ends: Rc<Ends>,
        request: Request<Incoming>,
    ) -> Response<Self::Body> {
        let router = self.router.borrow().clone();
        let mut request = request;
        if ends.user.is_some_and(is_ours) {
            request.extensions_mut().insert(LocalAdmin);
        }
        call(router, Peer { address: ends.peer, tls: ends.tls.is_some() }, request).await
    }

    /// Calls are answered in a moment, or wait for what the end of the program ends as well.
    fn close(&self) {}
}

/// Whether it is root or the user that we run as: both could read the token as well.
pub(super) fn is_ours(user: u32) -> bool {
    [0, rustix::process::geteuid().as_raw()].contains(&user)
}

/// What the public listener serves on hosts that are no workspace's: check-ins, and, where the
/// host is the admin's, all that the admin listener serves.
pub(super) fn elsewhere(
    check_in_only: axum::Router,
    admin: axum::Router,
    admin_host: Option<String>,
) -> Elsewhere {
    Arc::new(move |address, tls, request| {
        let is_admin = admin_host.as_deref().is_some_and(|host| proxy::is_for_host(&request, host));
        let router = if is_admin { admin.clone() } else { check_in_only.clone() };
        Box::pin(async move {
            let response = call(router, Peer { address, tls }, request).await;
            response.map(|body| Body::Other(body.map_err(Into::into).boxed_unsync()))
        })
    })
}

async fn call(
    mut router: axum::Router,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<axum::body::Body> {
    let mut request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(peer);
    match tower_service::Service::call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
