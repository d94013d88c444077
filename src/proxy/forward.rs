//! The life of one request.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING,
};
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::access::{self, Waited};
use super::extended_connect::ExtendedConnect;
use super::grpc;
use super::headers::{Client, Hop};
use super::hold::{self, Held};
use super::meter::Meter;
use super::page;
use super::reply::{Body, Problem};
use super::request_id::X_REQUEST_ID;
use super::route::{self, Authority, Route};
use super::tunnel::Tunnel;
use super::upstream::{Answer, Limits, RequestBody, ResponseBody, Reuse, SendError, Upstreams};
use super::{Options, Proxy, Redirect, headers};
use crate::lifecycle::{Lease, TunnelLease, Visit, Workspace};
use crate::model::Protocol;

/// Waits between attempts to connect: from this, doubling, to `PAUSE_MAX`.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(25);
/// Runs of a workspace that one request may outlive before it is given up.
const RUNS_MAX: u32 = 3;
/// How often a request is sent again that got no answer: once because a pooled connection was dead,
/// and once because its workspace was.
const RESENDS_MAX: u32 = 2;
/// How long both sides may take to hand their connections over after a 101.
const SWITCH_MAX: Duration = Duration::from_secs(10);

/// A request and who asks.
#[derive(Clone, Copy)]
struct Call<'a> {
    client: &'a Client,
    /// What the request is called.
    id: &'a HeaderValue,
}

/// Answers a request: by its workspace, by whatever is elsewhere, or by saying why not.
pub(super) async fn forward(
    proxy: &Rc<Proxy>,
    client: &Client,
    mut request: Request<Incoming>,
) -> Response<Body> {
    ExtendedConnect::rewrite(&mut request);
    let is_secure = proxy.hsts.is_some() && client.is_secure(request.headers());
    let id = proxy.request_ids.of(request.headers(), client.is_trusted());
    let mut line = access::line(proxy, client, &request, &id);
    let call = Call { client, id: &id };
    let grpc = grpc::kind(&request);
    let answered = match find(proxy, client, &request) {
        Ok(Route::Host(workspace)) => {
            access::note_workspace(&mut line, &workspace);
            to_workspace(proxy, call, request, &workspace, None).await
        }
        Ok(Route::Path(workspace, prefix)) => {
            access::note_workspace(&mut line, &workspace);
            to_workspace(proxy, call, request, &workspace, Some(&prefix)).await
        }
        Ok(Route::AddSlash) => {
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            Err(Problem::AddSlash(format!("{}/{query}", request.uri().path())))
        }
        Ok(Route::Elsewhere) if ExtendedConnect::of(&request).is_some() => {
            Err(Problem::MethodNotAllowed)
        }
        // There, none is answered.
        Ok(Route::Elsewhere) if grpc.is_some() => Err(Problem::NothingThere),
        Ok(Route::Elsewhere) => {
            Ok((proxy.elsewhere)(client.peer(), client.speaks_tls(), request).await)
        }
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| {
        tracing::debug!(request = ?id, ?problem, "a request is not answered by a workspace");
        match grpc {
            Some(kind) => grpc::answer(problem, kind),
            None => problem.into_response(),
        }
    });
    if let Some(hsts) = proxy.hsts.as_ref().filter(|_| is_secure) {
        // A workspace may have said it for itself.
        response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
    response.headers_mut().insert(X_REQUEST_ID, id);
    proxy.requests.count(response.status());
    access::answered(line, &mut response);
    response
}

/// Finds out for whom a request is. Nothing is woken by that.
fn find(proxy: &Proxy, client: &Client, request: &Request<Incoming>) -> Result<Route, Problem> {
    headers::check(request, &proxy.via).map_err(Problem::Unforwardable)?;
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Problem::MethodNotAllowed);
    }
    let authority = Authority::of(request).map_err(|_| Problem::NoClearHost)?;
    let host = authority.as_str();
    if !client.may_ask_for(host) {
        return Err(Problem::Misdirected);
    }
    // A workspace's pages must not be of one origin with the API.
    let paths = proxy.options.paths && proxy.options.admin_host.as_deref() != Some(host);
    let route = route::find(&proxy.registry, host, request.uri().path(), paths);
    match &proxy.options.redirect {
        Some(redirect) if !client.is_secure(request.headers()) => {
            redirected(redirect, host, request.uri(), route)
        }
        _ => Ok(route),
    }
}

fn redirected(redirect: &Redirect, host: &str, uri: &Uri, route: Route) -> Result<Route, Problem> {
    if matches!(route, Route::Elsewhere) && uri.path() == redirect.except {
        return Ok(route);
    }
    let host = if host.is_empty() { &redirect.domain } else { host };
    Err(Problem::OnlyByHttps(route::https_url(host, redirect.port, uri)))
}

async fn to_workspace(
    proxy: &Rc<Proxy>,
    call: Call<'_>,
    mut request: Request<Incoming>,
    workspace: &Arc<Workspace>,
    prefix: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let path = route::path_below(request.uri(), prefix);
    if path.starts_with(page::RESERVED) {
        return page::answer(&request, path, workspace, proxy.options.draining.clone());
    }
    // The body stays unread until there is a workspace to read it.
    let (lease, held) = match workspace.try_enter() {
        Some(lease) => (lease, None),
        None => {
            let deadline = grpc::deadline(request.headers());
            let held = Box::pin(hold::hold(proxy, call.client, &request, workspace, prefix));
            match grpc::before(deadline, held).await? {
                Held::In(lease, time) => {
                    grpc::tell_time_left(request.headers_mut(), deadline);
                    (lease, Some(time))
                }
                Held::Shown(page) => return Ok(page),
            }
        }
    };
    let inside_max = proxy.options.requests_per_workspace_max;
    if inside_max > 0 && workspace.inside() > inside_max {
        return Err(Problem::Crowded);
    }
    let version = request.version();
    // A switch comes after the whole request, so one with a body is for its body alone.
    let wants_switch = headers::wants_websocket(&request) && request.body().is_end_stream();
    if wants_switch && workspace.protocol() == Protocol::H2c {
        return Err(Problem::NoWebSockets);
    }
    let switch = wants_switch.then(|| hyper::upgrade::on(&mut request));
    let extended = ExtendedConnect::of(&request).cloned();
    let outbound = prepare(proxy, call, request, prefix, switch.is_some())?;
    let (mut response, lease) = send(proxy, call, lease, outbound, switch.is_some()).await?;
    if let Err(reason) = headers::check_answer(&response) {
        let request = call.id;
        tracing::warn!(workspace = %workspace.id(), ?request, reason, "an answer can't be passed on");
        return Err(Problem::Broken);
    }
    if extended.as_ref().is_some_and(|extended| !extended.allows(&response)) {
        return Err(Problem::Broken);
    }
    if let Some(time) = held {
        let wake = workspace.last_wake();
        headers::add_timing(response.headers_mut(), time, wake);
        response.extensions_mut().insert(Waited { hold: time, wake });
    }
    match (response.status(), switch) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(switch)) => {
            Ok(open_tunnel(proxy, response, switch, lease, version))
        }
        // Nobody asked for it.
        (StatusCode::SWITCHING_PROTOCOLS, None) => Err(Problem::Broken),
        _ => Ok(pass_on(proxy, response, lease, version)),
    }
}

/// The request as the workspace gets it.
fn prepare(
    proxy: &Proxy,
    call: Call<'_>,
    request: Request<Incoming>,
    prefix: Option<&str>,
    websocket: bool,
) -> Result<Request<RequestBody>, Problem> {
    let target = route::origin_form(request.method(), request.uri(), prefix);
    let host = route::host_value(&request);
    let (mut parts, body) = request.into_parts();
    parts.uri = target.ok_or(Problem::NoClearHost)?;
    let version = std::mem::replace(&mut parts.version, Version::HTTP_11);
    let Call { client, id } = call;
    let hop = Hop { client, id: id.clone(), version, host, prefix, websocket };
    headers::to_workspace(&mut parts.headers, hop, &proxy.via);
    parts.extensions.clear();
    let body = RequestBody::from(body);
    if body.size_hint().exact().is_none() {
        // Left to itself hyper takes it that a GET has no body.
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(Request::from_parts(parts, body))
}

/// Sends it, and sends it again where that is safe: as often as it takes if nothing was sent, and
/// if the connection broke before any answer, `RESENDS_MAX` times, if the method may be repeated
/// (RFC 9110 §9.2.2).
async fn send(
    proxy: &Rc<Proxy>,
    call: Call<'_>,
    mut lease: Lease,
    mut request: Request<RequestBody>,
    websocket: bool,
) -> Result<(Response<Answer>, Lease), Problem> {
    let spare = copy_if_repeatable(&request).filter(|_| !websocket);
    let mut reuse = if spare.is_some() { Reuse::Any } else { Reuse::Fresh };
    let mut resends = 0;
    let is_call = headers::is_grpc(request.headers());
    let limits = limits(&proxy.options, is_call);
    let deadline = is_call.then(|| grpc::deadline(request.headers())).flatten();
    let mut patience: Option<Patience> = None;
    loop {
        let reason = match proxy.upstreams.send(&lease, request, reuse, limits).await {
            Ok(response) => return Ok((response, lease)),
            // Not again: that would wake what somebody has just stopped.
            Err(_) if proxy.upstreams.is_severed(lease.workspace(), lease.generation()) => {
                return Err(Problem::Stopped);
            }
            Err(SendError::TimedOut) => return Err(Problem::Silent),
            Err(SendError::BodyTooSlow) => return Err(Problem::SlowBody),
            Err(SendError::BodyFailed) => return Err(Problem::BadBody),
            Err(SendError::Unsent { request: unsent, reason }) => {
                request = *unsent;
                reason
            }
            Err(SendError::Garbled { reason }) => {
                let (workspace, request) = (lease.workspace().id(), call.id);
                tracing::warn!(%workspace, ?request, reason, "an answer can't be read");
                return Err(Problem::Broken);
            }
            Err(SendError::Broken { reason, pooled }) => {
                let copy = spare.as_ref().and_then(copy_if_repeatable);
                let Some(copy) = copy.filter(|_| resends < RESENDS_MAX) else {
                    let workspace = lease.workspace().id();
                    tracing::debug!(%workspace, request = ?call.id, reason, "no answer");
                    return Err(Problem::Broken);
                };
                request = copy;
                resends += 1;
                reuse = Reuse::Never;
                if pooled {
                    // Closed as the request arrived, most likely. That says nothing of the
                    // workspace, and a new connection will tell.
                    continue;
                }
                reason
            }
        };
        let patience = patience.get_or_insert_with(|| Patience::new(&lease));
        let visit = hold::visit(proxy, call.client, &request, lease.workspace(), None);
        let back = Box::pin(patience.come_back(proxy, call, lease, visit, &reason));
        lease = grpc::before(deadline, back).await?;
        grpc::tell_time_left(request.headers_mut(), deadline);
    }
}

/// The ends of a gRPC call may both be silent for long, in the middle of it.
fn limits(options: &Options, is_call: bool) -> Limits {
    let Options { response_timeout, body_timeout, body_rate_min, .. } = *options;
    if is_call {
        Limits { response_timeout, body_timeout: response_timeout, body_rate_min: 0 }
    } else {
        Limits { response_timeout, body_timeout, body_rate_min }
    }
}

/// What is left of the time in which a workspace that is up must let itself be connected to.
struct Patience {
    generation: u32,
    runs: u32,
    since: Instant,
    pause: Duration,
}

impl Patience {
    fn new(lease: &Lease) -> Self {
        let generation = lease.generation();
        Self { generation, runs: 1, since: Instant::now(), pause: PAUSE_FIRST }
    }

    /// Leaves, has the workspace looked at, and enters again: perhaps another run of it.
    async fn come_back(
        &mut self,
        proxy: &Proxy,
        call: Call<'_>,
        lease: Lease,
        visit: Option<Visit>,
        reason: &str,
    ) -> Result<Lease, Problem> {
        let workspace = lease.workspace().clone();
        drop(lease);
        if self.since.elapsed() >= proxy.options.connect_timeout || self.runs > RUNS_MAX {
            let (workspace, request) = (workspace.id(), call.id);
            tracing::warn!(%workspace, ?request, reason, "could not reach a workspace");
            return Err(Problem::Broken);
        }
        // The look may be slow when the engine is. Whatever it finds, we try again.
        drop(timeout(proxy.options.connect_timeout, workspace.suspect()).await);
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let lease = match visit {
            Some(visit) => hold::enter(proxy, &workspace, visit).await?,
            None => workspace.try_enter().ok_or(Problem::WakesNobody)?,
        };
        if lease.generation() != self.generation {
            *self = Self { runs: self.runs + 1, ..Self::new(&lease) };
        }
        Ok(lease)
    }
}

fn copy_if_repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let repeatable =
        request.method().is_idempotent() && matches!(request.body(), RequestBody::Empty);
    repeatable.then(|| {
        let mut copy = Request::new(RequestBody::Empty);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

fn pass_on(
    proxy: &Rc<Proxy>,
    response: Response<Answer>,
    lease: Lease,
    version: Version,
) -> Response<Body> {
    let (mut parts, answer) = response.into_parts();
    headers::to_client(&mut parts.headers, parts.version, false, &proxy.via);
    // The version is a matter of each hop; the listener lowers it for older clients.
    parts.version = if version == Version::HTTP_2 { version } else { Version::HTTP_11 };
    let body = ResponseBody::new(&parts, answer, proxy.upstreams.clone(), lease);
    Response::from_parts(parts, Body::Workspace(Box::new(body)))
}

/// Both sides switch protocols. The lease goes with the bytes.
fn open_tunnel(
    proxy: &Rc<Proxy>,
    response: Response<Answer>,
    switch: OnUpgrade,
    lease: Lease,
    version: Version,
) -> Response<Body> {
    let (mut parts, answer) = response.into_parts();
    let received = parts.version;
    let is_stream = version == Version::HTTP_2;
    parts.version = version;
    headers::to_client(&mut parts.headers, received, !is_stream, &proxy.via);
    let mut switched = Response::from_parts(parts, answer);
    let workspace_side = hyper::upgrade::on(&mut switched);
    let (mut parts, _) = switched.into_parts();
    if is_stream {
        parts.status = StatusCode::OK;
        parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
        parts.headers.remove(CONTENT_LENGTH);
    }
    // Counted before the client hears of it.
    let token = proxy.tunnels.token();
    let (workspace, generation) = (lease.workspace().clone(), lease.generation());
    let (upstreams, lease) = (proxy.upstreams.clone(), lease.into_tunnel());
    proxy.upstreams.keep_tunnel(&workspace, generation, |look| async move {
        let _token = token;
        let both = futures_util::future::try_join(switch, workspace_side);
        if let Ok(Ok((client, workspace))) = timeout(SWITCH_MAX, both).await {
            let tunnel = Tunnel::new(TokioIo::new(client), TokioIo::new(workspace));
            run_tunnel(tunnel, &upstreams, lease, &look).await;
        }
    });
    Response::from_parts(parts, Body::Text(Full::default()))
}

/// Moves bytes until its ends have had enough, or it is severed.
async fn run_tunnel(
    mut tunnel: Tunnel<TokioIo<Upgraded>, TokioIo<Upgraded>>,
    upstreams: &Upstreams,
    mut lease: TunnelLease,
    look: &Notify,
) {
    let (workspace, generation) = (lease.workspace().clone(), lease.generation());
    let is_severed = || upstreams.is_severed(&workspace, generation);
    while !is_severed() {
        let mut meter = Meter::under(&workspace.policy());
        lease.set_quiet(meter.is_some());
        let ran = tunnel.run(|bytes| {
            if meter.as_mut().is_some_and(|meter| meter.pass(bytes)) {
                lease.note_activity();
            }
        });
        let over = tokio::select! {
            ran = ran => ran.is_err() || tunnel.is_over(),
            () = look.notified() => false,
        };
        // How a tunnel ends is its ends' affair, unless one of them is being frozen.
        if over && !is_severed() {
            return;
        }
    }
    tunnel.part(lease).await;
}
