//! A request that finds the gate shut: what wakes nobody is sent away, the rest waits with its body
//! unread, and somebody who opens a page is not left looking at nothing for long.

use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response, Version};
use tokio::time::{Instant, sleep};

use super::headers::{self, Client};
use super::page::{self, Sight};
use super::reply::{Body, Problem};
use super::{Proxy, route};
use crate::lifecycle::{Lease, Refusal, Visit, Workspace};
use crate::model::Caller;

/// How a wait has ended, if not with a refusal.
pub(super) enum Held {
    /// Let in, after so long.
    In(Lease, Duration),
    /// Shown a page.
    Shown(Response<Body>),
}

/// Waits for a lease, and has the workspace woken if the request is one that may.
pub(super) async fn hold<B: http_body::Body>(
    proxy: &Proxy,
    client: &Client,
    request: &Request<B>,
    workspace: &Arc<Workspace>,
    prefix: Option<&str>,
) -> Result<Held, Problem> {
    let since = Instant::now();
    let visit = visit(proxy, client, request, workspace, prefix).ok_or(Problem::WakesNobody)?;
    let is_unread = request.version() != Version::HTTP_2 && !request.body().is_end_stream();
    // Of the others hyper hears itself, and drops this.
    let leaves = async {
        match is_unread {
            true => client.hangs_up().await,
            false => std::future::pending().await,
        }
    };
    let opens_page = headers::opens_page(request)
        && request.body().is_end_stream()
        && !headers::is_grpc(request.headers());
    let policy = workspace.policy();
    let page_after = Some(policy.page_after).filter(|after| opens_page && *after < policy.hold_max);
    let has_waited = async {
        match page_after {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let shown = |sight: Sight| {
        Ok(Held::Shown(page::page(&proxy.options.waiting_page, workspace, prefix, &sight)))
    };
    tokio::select! {
        biased;
        entered = enter(proxy, workspace, visit) => match entered {
            Ok(lease) => Ok(Held::In(lease, since.elapsed())),
            Err(Problem::NotLetIn(Refusal::Full, _)) if opens_page => {
                shown(Sight::full(workspace.id().as_str()))
            }
            Err(Problem::NotLetIn(Refusal::Failed { .. }, _)) if opens_page => {
                shown(Sight::of(workspace.id().as_str(), workspace.progress()))
            }
            Err(problem) => Err(problem),
        },
        () = leaves => Err(Problem::ClientLeft),
        () = has_waited => {
            // It goes on without anybody at the gate.
            workspace.want();
            shown(Sight::of(workspace.id().as_str(), workspace.progress()))
        }
    }
}

/// What kind of visit a request is; `None`: one that wakes nobody.
pub(super) fn visit<B>(
    proxy: &Proxy,
    client: &Client,
    request: &Request<B>,
    workspace: &Workspace,
    prefix: Option<&str>,
) -> Option<Visit> {
    let caller = Caller {
        path: route::path_below(request.uri(), prefix),
        method: request.method().as_str(),
        user_agent: request.headers().get(USER_AGENT).map_or(&[], HeaderValue::as_bytes),
        address: client.origin(request.headers(), |address| proxy.trusts(address)),
    };
    // What can't be frozen is not woken by anybody either, but on its way.
    let wakes = !workspace.can_freeze() || !workspace.policy().no_wake.covers(&caller);
    wakes.then(|| headers::visit(request))
}

/// A lease, when the gate opens; else why not.
pub(super) async fn enter(
    proxy: &Proxy,
    workspace: &Arc<Workspace>,
    visit: Visit,
) -> Result<Lease, Problem> {
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
