//! `POST /v1/check-in`: a workspace's own report of its activity.
//!
//! The sender is the workspace that sends from the socket's peer address, or whose token the URL
//! has. It reports `active=N`: zero means idle, anything else active. Three spellings of the field
//! are in use by reporter scripts, and three places: form, JSON and query.

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
    Extension(peer): Extension<Peer>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<StatusCode, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
    let token = query.iter().find(|(name, _)| name == "token").map(|(_, token)| token.as_str());
    let workspace = sender(&context, token, peer, &headers)?;
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
    peer: Peer,
    headers: &HeaderMap,
) -> Result<Arc<Workspace>, Problem> {
    let found = match token {
        Some(token) => context.registry.by_check_in_token(token),
        None => {
            let address = peer.client_address(&context.trusted_proxies, headers);
            context.registry.by_address(address)
        }
    };
    found.ok_or(Problem::UnknownSender)
}
