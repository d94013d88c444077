//! Failures as callers see them: `application/problem+json` (RFC 9457) with the further members
//! `message`, for people, and `error_code`, for programs. Nothing internal is in them that an admin
//! could not know anyway.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::keyring::ChangeError;
use crate::lifecycle::registry::MakeError;
use crate::lifecycle::{CommandError, CreateError};

/// Why a call did not do what it was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// No token, or a wrong one.
    Unauthorized,
    /// Too many wrong tokens from there, for so long.
    TooManyFailures { retry_after: Duration },
    /// The token is not good for this.
    Forbidden(String),
    /// There is no such call.
    UnknownCall,
    /// No workspace is where an end user looked for one.
    NoWorkspaceHere,
    /// There is such a call, by another method.
    WrongMethod,
    /// There is no such workspace.
    UnknownWorkspace(String),
    /// There is no such token.
    UnknownToken(String),
    /// The workspace is gone, since a moment ago.
    Gone,
    /// Whoever checked in is no workspace.
    UnknownSender,
    /// Something in the call can't be used; names it and the fix.
    Invalid(String),
    /// Its body is larger than any call's needs to be.
    TooLarge,
    /// The workspace is in no state for that, or of no kind.
    Conflict(String),
    /// What is wanted can't be made.
    Unmakeable(String),
    /// It was tried and failed.
    Failed(String),
    /// Not now.
    Unavailable,
    /// What was to be changed could not be kept, and so is as it was.
    NotKept(String),
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    message: &'a str,
    error_code: &'static str,
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Impossible(reason) => Self::Conflict(reason),
            CommandError::Failed(reason) => Self::Failed(reason),
            CommandError::Gone => Self::Gone,
            CommandError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown(_) => Self::UnknownToken(error.to_string()),
            ChangeError::Taken(_)
            | ChangeError::Configured(_)
            | ChangeError::OfStateDir(_)
            | ChangeError::TooMany => Self::Conflict(error.to_string()),
            ChangeError::NotKept(_) => Self::NotKept(error.to_string()),
            ChangeError::NotWritten(_) => {
                let system = error.source().map(|system| format!(": {system}"));
                Self::NotKept(format!("{error}{}", system.unwrap_or_default()))
            }
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        let words = error.to_string();
        match error {
            CreateError::UnknownProject(_) => {
                Self::Invalid(format!("project_id: {words}; GET /api/v1/projects lists them"))
            }
            CreateError::InlineSpec => Self::Forbidden(words),
            CreateError::NoDriver(_) => Self::Unmakeable(words),
            CreateError::NoRandomness => Self::Failed(words),
            CreateError::Make(MakeError::Taken(_)) => Self::Conflict(words),
            CreateError::Make(MakeError::Store(_)) => Self::Failed(words),
            CreateError::Make(MakeError::Failed(CommandError::Impossible(_))) => {
                Self::Unmakeable(words)
            }
            CreateError::Make(MakeError::Failed(error)) => error.into(),
        }
    }
}

impl Problem {
    /// Why a body could not be read: it is too large, or its sender broke off.
    pub(super) fn of_body(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::TooLarge;
        }
        Self::Invalid("the body could not be read".to_owned())
    }

    fn parts(&self) -> (StatusCode, &'static str, &'static str, String) {
        match self {
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "Not authorized",
                "send a token as \"Authorization: Bearer <token>\"".to_owned(),
            ),
            Self::TooManyFailures { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_failures",
                "Too many wrong tokens",
                "too many wrong tokens were sent; a right one is accepted at any time".to_owned(),
            ),
            Self::Forbidden(detail) => {
                (StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail.clone())
            }
            Self::UnknownCall => (
                StatusCode::NOT_FOUND,
                "not_found",
                "Not found",
                "there is no such call".to_owned(),
            ),
            Self::NoWorkspaceHere => (
                StatusCode::NOT_FOUND,
                "no_workspace",
                "No workspace here",
                "there is no workspace at this address; its name may be misspelt, or it was removed"
                    .to_owned(),
            ),
            Self::WrongMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                "this call wants another method".to_owned(),
            ),
            Self::UnknownWorkspace(id) => (
                StatusCode::NOT_FOUND,
                "unknown_workspace",
                "Unknown workspace",
                format!("there is no workspace {id:?}"),
            ),
            Self::UnknownToken(detail) => {
                (StatusCode::NOT_FOUND, "unknown_token", "Unknown token", detail.clone())
            }
            Self::Gone => (
                StatusCode::NOT_FOUND,
                "unknown_workspace",
                "Unknown workspace",
                "the workspace is gone".to_owned(),
            ),
            Self::UnknownSender => (
                StatusCode::NOT_FOUND,
                "unknown_sender",
                "Unknown sender",
                "this check-in comes from no workspace's address and has no workspace's token; \
                 use the URL in FROSTGATE_CHECK_IN_URL"
                    .to_owned(),
            ),
            Self::Invalid(detail) => {
                (StatusCode::BAD_REQUEST, "invalid_request", "Invalid request", detail.clone())
            }
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "Too large",
                "the body of this call is too large".to_owned(),
            ),
            Self::Conflict(detail) => {
                (StatusCode::CONFLICT, "conflict", "Not possible now", detail.clone())
            }
            Self::Unmakeable(detail) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "creation_failed",
                "It can't be created",
                detail.clone(),
            ),
            Self::Failed(detail) => (
                StatusCode::BAD_GATEWAY,
                "workspace_failed",
                "The workspace failed",
                detail.clone(),
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Unavailable",
                "the workspace takes no calls at the moment; try again".to_owned(),
            ),
            Self::NotKept(detail) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_kept",
                "Could not be kept",
                detail.clone(),
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, error_code, title, detail) = self.parts();
        let document = Document {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            detail: &detail,
            message: &detail,
            error_code,
        };
        let mut response = (status, Json(document)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if let Self::TooManyFailures { retry_after } = self {
            // Rounded up: a client that comes back on the second is not too early.
            let seconds = retry_after.as_secs() + 1;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
