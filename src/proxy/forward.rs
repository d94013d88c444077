//! The life of one request.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Method, StatusCode, Version};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::headers::{Client, Hop};
use super::meter::Meter;
use super::reply::{Body, Problem};
use super::route::{self, Authority, Route};
use super::tunnel::Tunnel;
use super::upstream::{Exchange, RequestBody, ResponseBody, Reuse, SendError, Upstreams};
use super::{Proxy, headers};
use crate::lifecycle::{Lease, Refusal, TunnelLease, Visit, Workspace};

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

/// Answers a request: by its workspace, by whatever is elsewhere, or by saying why not.
pub(super) async fn forward(
    proxy: &Rc<Proxy>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<Body> {
    match find(proxy, &request) {
        Ok(Route::Host(workspace)) => to_workspace(proxy, client, request, &workspace, None).await,
        Ok(Route::Path(workspace, prefix)) => {
            to_workspace(proxy, client, request, &workspace, Some(&prefix)).await
        }
        Ok(Route::AddSlash) => {
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            Err(Problem::AddSlash(format!("{}/{query}", request.uri().path())))
        }
        Ok(Route::Elsewhere) => Ok((proxy.elsewhere)(client.ends(), request).await),
        Err(problem) => Err(problem),
    }
    .unwrap_or_else(Problem::into_response)
}

fn find(proxy: &Proxy, request: &Request<Incoming>) -> Result<Route, Problem> {
    headers::check(request, &proxy.via).map_err(Problem::Unforwardable)?;
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Problem::MethodNotAllowed);
    }
    let authority = Authority::of(request).map_err(|_| Problem::NoClearHost)?;
    let host = authority.as_str();
    // A workspace's pages must not be of one origin with the API.
    let paths = proxy.options.paths && proxy.options.admin_host.as_deref() != Some(host);
    Ok(route::find(&proxy.registry, host, request.uri().path(), paths))
}

async fn to_workspace(
    proxy: &Rc<Proxy>,
    client: &Client,
    mut request: Request<Incoming>,
    workspace: &Arc<Workspace>,
    prefix: Option<&str>,
) -> Result<Response<Body>, Problem> {
    // The body stays unread until there is a workspace to read it.
    let lease = match workspace.try_enter() {
        Some(lease) => lease,
        None => Box::pin(enter(proxy, workspace, headers::visit(&request))).await?,
    };
    let version = request.version();
    // A switch comes after the whole request, so one with a body is for its body alone.
    let wants_switch = headers::wants_websocket(&request) && request.body().is_end_stream();
    let switch = wants_switch.then(|| hyper::upgrade::on(&mut request));
    let outbound = prepare(proxy, client, request, prefix, switch.is_some())?;
    let (exchange, lease) = send(proxy, lease, outbound, switch.is_some()).await?;
    if let Err(reason) = headers::check_answer(&exchange.response) {
        tracing::warn!(workspace = %workspace.id(), reason, "an answer can't be passed on");
        return Err(Problem::Broken);
    }
    match (exchange.response.status(), switch) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(switch)) => {
            Ok(open_tunnel(proxy, exchange, switch, lease))
        }
        // Nobody asked for it.
        (StatusCode::SWITCHING_PROTOCOLS, None) => Err(Problem::Broken),
        _ => Ok(pass_on(proxy, exchange, lease, version)),
    }
}

async fn enter(proxy: &Proxy, workspace: &Arc<Workspace>, visit: Visit) -> Result<Lease, Problem> {
    workspace.enter(visit).await.map_err(|refusal| {
        if let (Refusal::TimedOut, Some(before)) = (&refusal, workspace.view().queue_position) {
            return Problem::Queued(before);
        }
        let retry = match &refusal {
            Refusal::Failed { retry_at: until } | Refusal::HeldOff { until } => {
                Some(proxy.registry.until(*until))
            }
            Refusal::Full | Refusal::TimedOut | Refusal::Removed => None,
        };
        Problem::NotLetIn(refusal, retry)
    })
}

/// The request as the workspace gets it.
fn prepare(
    proxy: &Proxy,
    client: &Client,
    request: Request<Incoming>,
    prefix: Option<&str>,
    websocket: bool,
) -> Result<Request<RequestBody>, Problem> {
    let target = route::origin_form(request.method(), request.uri(), prefix);
    let host = route::host_value(&request);
    let (mut parts, body) = request.into_parts();
    parts.uri = target.ok_or(Problem::NoClearHost)?;
    let version = std::mem::replace(&mut parts.version, Version::HTTP_11);
    let hop = Hop { client, version, host, prefix, websocket };
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
    mut lease: Lease,
    mut request: Request<RequestBody>,
    websocket: bool,
) -> Result<(Exchange, Lease), Problem> {
    let spare = copy_if_repeatable(&request).filter(|_| !websocket);
    let mut reuse = if spare.is_some() { Reuse::Any } else { Reuse::Fresh };
    let mut resends = 0;
    let response_timeout = proxy.options.response_timeout;
    let mut patience: Option<Patience> = None;
    loop {
        let reason = match proxy.upstreams.send(&lease, request, reuse, response_timeout).await {
            Ok(exchange) => return Ok((exchange, lease)),
            // Not again: that would wake what somebody has just stopped.
            Err(_) if proxy.upstreams.is_severed(lease.workspace(), lease.generation()) => {
                return Err(Problem::Stopped);
            }
            Err(SendError::TimedOut) => return Err(Problem::Silent),
            Err(SendError::BodyFailed) => return Err(Problem::BadBody),
            Err(SendError::Unsent { request: unsent, reason }) => {
                request = *unsent;
                reason
            }
            Err(SendError::Broken { reason, pooled }) => {
                let copy = spare.as_ref().and_then(copy_if_repeatable);
                let Some(copy) = copy.filter(|_| resends < RESENDS_MAX) else {
                    tracing::debug!(workspace = %lease.workspace().id(), reason, "no answer");
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
        let visit = headers::visit(&request);
        lease = Box::pin(patience.come_back(proxy, lease, visit, &reason)).await?;
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
        lease: Lease,
        visit: Visit,
        reason: &str,
    ) -> Result<Lease, Problem> {
        let workspace = lease.workspace().clone();
        drop(lease);
        if self.since.elapsed() >= proxy.options.connect_timeout || self.runs > RUNS_MAX {
            tracing::warn!(workspace = %workspace.id(), reason, "could not reach a workspace");
            return Err(Problem::Broken);
        }
        // The look may be slow when the engine is. Whatever it finds, we try again.
        drop(timeout(proxy.options.connect_timeout, workspace.suspect()).await);
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let lease = enter(proxy, &workspace, visit).await?;
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
    exchange: Exchange,
    lease: Lease,
    version: Version,
) -> Response<Body> {
    let Exchange { response, sender } = exchange;
    let (mut parts, incoming) = response.into_parts();
    headers::to_client(&mut parts.headers, parts.version, false, &proxy.via);
    // The version is a matter of each hop; the listener lowers it for older clients.
    parts.version = if version == Version::HTTP_2 { version } else { Version::HTTP_11 };
    let body = ResponseBody::new(&parts, incoming, sender, proxy.upstreams.clone(), lease);
    Response::from_parts(parts, Body::Workspace(Box::new(body)))
}

/// Both sides switch protocols. The lease goes with the bytes.
fn open_tunnel(
    proxy: &Rc<Proxy>,
    exchange: Exchange,
    switch: OnUpgrade,
    lease: Lease,
) -> Response<Body> {
    let (mut parts, incoming) = exchange.response.into_parts();
    let received = parts.version;
    parts.version = Version::HTTP_11;
    headers::to_client(&mut parts.headers, received, true, &proxy.via);
    let mut switched = Response::from_parts(parts, incoming);
    let workspace_side = hyper::upgrade::on(&mut switched);
    let (parts, _) = switched.into_parts();
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
