//! `POST /v1/check-in`: a workspace's own report of its activity.
//!
//! The sender is the workspace that sends from the socket's peer address, or whose token the URL
//! has. It reports `active=N`: zero means idle, anything else active. Three spellings of the field
//! are in use by reporter scripts, and three places: form, JSON and query.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::{HeaderMap, StatusCode};

use super::fields::Fields;
use super::reply::Problem;
use super::{Context, Peer};
use crate::lifecycle::Workspace;

/// Spellings of the field; the first one present counts.
const FIELD_NAMES: [&str; 3] = ["active", "active-connections", "active_connections"];

pub(super) async fn check_in(
    State(context): State<Context>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<StatusCode, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
    let token = query.iter().find(|(name, _)| name == "token").map(|(_, token)| token.as_str());
    let workspace = sender(&context, token, peer.ip(), &headers)?;
    fields.0.extend(query);
    let active = match FIELD_NAMES.iter().find_map(|name| fields.get(name)) {
        None | Some("") => {
            let missing = "the field \"active\" is missing: send active=0 when idle, else a number";
            return Err(Problem::Invalid(missing.to_owned()));
        }
        // Zero in any notation is idle, anything else is not.
        Some(value) => value != "false" && value.parse::<f64>() != Ok(0.0),
    };
    workspace.check_in(active).await?;
    Ok(StatusCode::OK)
}

fn sender(
    context: &Context,
    token: Option<&str>,
    peer: IpAddr,
    headers: &HeaderMap,
) -> Result<Arc<Workspace>, Problem> {
    let found = match token {
        Some(token) => context.registry.by_check_in_token(token),
        None => context.registry.by_address(client_address(context, peer, headers)),
    };
    found.ok_or(Problem::UnknownSender)
}

/// The peer, or, if that is a trusted proxy, the nearest hop that isn't.
fn client_address(context: &Context, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let is_trusted =
        |address: &IpAddr| context.trusted_proxies.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    let said: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in said.iter().rev() {
        if !is_trusted(&address) {
            break;
        }
        let Ok(earlier) = hop.trim().parse::<IpAddr>() else { break };
        address = earlier.to_canonical();
    }
    address
}
