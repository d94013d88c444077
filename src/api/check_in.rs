//! `POST /v1/check-in`: a workspace's own report of its activity.
//!
//! The sender is the workspace that sends from the socket's peer address, or whose token the URL
//! has. It reports `active=N`: zero means idle, anything else active. Three spellings of the field
//! are in use by reporter scripts, and three places: form, JSON and query.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use super::fields::Fields;
use super::reply::{ErrorCode, Problem, Responses, problems};
use super::{Context, Peer};
use crate::lifecycle::{CommandError, Workspace};
use crate::metrics::CheckInResult;

/// What a workspace says of itself, under one of three names; the first counts, and other fields don't.
#[derive(Debug, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(super) struct Report {
    /// 0: it is idle. Anything else: it is active.
    #[param(schema_with = Level::schema, required = false)]
    active: Option<Level>,
    /// Another name for `active`.
    #[serde(rename = "active-connections")]
    #[param(schema_with = Level::schema, required = false)]
    hyphenated: Option<Level>,
    /// Another name for `active`.
    #[serde(rename = "active_connections")]
    #[param(schema_with = Level::schema, required = false)]
    underscored: Option<Level>,
}

/// Whether there is activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
struct Level(bool);

/// Whose report it is, if not that of whoever sends it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Token {
    /// The workspace's own token, as in the URL that it finds in `FROSTGATE_CHECK_IN_URL`. Left out:
    /// it is known by the address that it sends from.
    #[param(value_type = Option<String>)]
    token: Option<Value>,
}

/// Report the activity of the workspace that sends this.
///
/// Without a token of the API, and by the public listener too. The report may stand in the query
/// instead of the body.
#[utoipa::path(
    post,
    path = "/v1/check-in",
    operation_id = "checkIn",
    tag = "check-in",
    params(Token, Report),
    request_body(content = Option<Report>, description = "The report, if it is not in the query"),
    responses((status = 200, description = "It is noted"), Token, CommandError)
)]
pub(super) async fn check_in(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    fields: Fields,
) -> Result<StatusCode, Problem> {
    let taken = take(&context, peer, &headers, query.as_deref(), fields).await;
    context.registry.metrics().check_in(match &taken {
        Ok(true) => CheckInResult::Active,
        Ok(false) => CheckInResult::Idle,
        Err(Problem::UnknownSender) => CheckInResult::UnknownSender,
        Err(Problem::Invalid(_)) => CheckInResult::Invalid,
        Err(_) => CheckInResult::Refused,
    });
    taken.map(|_| StatusCode::OK)
}

/// Whether it says that its workspace is active.
async fn take(
    context: &Context,
    peer: Peer,
    headers: &HeaderMap,
    query: Option<&str>,
    fields: Fields,
) -> Result<bool, Problem> {
    let mut query = Fields::of_query(query)?;
    let workspace = Token { token: query.take("token")? }.sender(context, peer, headers)?;
    let active = Report::read(fields.or(query))?.active()?;
    workspace.check_in(active).await?;
    Ok(active)
}

/// Reads a report that may be anything: a query, or JSON.
pub(super) fn try_with(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(fields) = Fields::of_query(Some(text)) {
        drop(Report::read(fields).and_then(|report| report.active()));
    }
    if let Ok(value) = serde_json::from_str::<Value>(text)
        && let Ok(Level(active)) = Level::try_from(value.clone())
    {
        assert!(active || value.as_f64() == Some(0.0) || !value.is_number(), "{value}");
    }
}

impl Token {
    fn sender(
        self,
        context: &Context,
        peer: Peer,
        headers: &HeaderMap,
    ) -> Result<Arc<Workspace>, Problem> {
        let found = match self.token {
            // Several are nobody's.
            Some(token) => {
                token.as_str().and_then(|token| context.registry.by_check_in_token(token))
            }
            None => {
                let address = peer.client_address(&context.trusted_proxies, headers);
                context.registry.by_address(address)
            }
        };
        found.ok_or(Problem::UnknownSender)
    }
}

impl IntoResponses for Token {
    fn responses() -> Responses {
        problems(&[ErrorCode::UnknownSender, ErrorCode::UnknownWorkspace])
    }
}

impl Report {
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        Ok(Self {
            active: fields.take("active")?,
            hyphenated: fields.take("active-connections")?,
            underscored: fields.take("active_connections")?,
        })
    }

    fn active(&self) -> Result<bool, Problem> {
        let said = self.active.or(self.hyphenated).or(self.underscored);
        said.map(|Level(active)| active).ok_or_else(|| {
            let missing = "the field \"active\" is missing: send active=0 when idle, else a number";
            Problem::Invalid(missing.to_owned())
        })
    }
}

impl TryFrom<Value> for Level {
    type Error = String;

    /// Zero in any notation is idle, anything else is not.
    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::Bool(active) => return Ok(Self(*active)),
            Value::Number(number) => return Ok(Self(number.as_f64() != Some(0.0))),
            Value::String(text) if !text.trim().is_empty() => {
                let text = text.trim();
                return Ok(Self(text != "false" && text.parse::<f64>() != Ok(0.0)));
            }
            _ => {}
        }
        Err(format!("{value} is no report: send active=0 when idle, else a number"))
    }
}

impl PartialSchema for Level {
    fn schema() -> RefOr<Schema> {
        let of_type = |schema_type| ObjectBuilder::new().schema_type(schema_type);
        OneOfBuilder::new()
            .item(of_type(Type::Number).examples([1]))
            .item(of_type(Type::Boolean))
            .item(of_type(Type::String).pattern(Some(r"\S")).examples(["1"]))
            .description(Some("0, in any notation, or false: idle. Anything else: active."))
            .into()
    }
}

impl ToSchema for Level {}
