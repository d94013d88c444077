//! What callers are answered: JSON, and where a call fails, `application/problem+json` (RFC 9457)
//! with the further members `message`, for people, and `error_code`, for programs. Nothing internal
//! is in them that an admin could not know anyway.

mod error_code;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::openapi::example::Example;
use utoipa::openapi::{self, Content, Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

pub(super) use self::error_code::ErrorCode;
use super::keyring::ChangeError;
use crate::lifecycle::registry::MakeError;
use crate::lifecycle::{CommandError, CreateError};

/// What a problem document says it is.
pub(super) const PROBLEM_KIND: &str = "application/problem+json";

/// An answer in JSON, with a newline behind it that keeps terminals tidy.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        json("application/json", &self.0)
    }
}

fn json(kind: &'static str, content: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(content).expect("answers are texts, numbers and dates");
    body.push(b'\n');
    ([(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}

/// What a call may be answered, by status.
pub(super) type Responses = BTreeMap<String, RefOr<openapi::Response>>;

/// The answers of a call that may fail with these.
pub(super) fn problems(codes: &[ErrorCode]) -> Responses {
    let mut responses = Responses::new();
    let of_status = |status| codes.iter().filter(move |code| code.status() == status);
    for status in codes.iter().map(|code| code.status()) {
        let meanings = of_status(status).map(|code| format!("`{code}`: {}", code.meaning()));
        let examples = of_status(status).map(|code| {
            let example = Document::of(*code, code.meaning());
            (code.to_string(), Example::builder().value(serde_json::to_value(example).ok()))
        });
        let content = Content::builder()
            .schema(Some(Ref::from_schema_name(Document::name())))
            .examples_from_iter(examples);
        let response = openapi::Response::builder()
            .description(meanings.collect::<Vec<_>>().join("\n\n"))
            .content(PROBLEM_KIND, content.build());
        responses.insert(status.as_str().to_owned(), response.build().into());
    }
    responses
}

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
    /// Something in the call can't be used, here or anywhere; names it and the fix.
    Invalid(String),
    /// Its body is larger than any call's needs to be.
    TooLarge,
    /// Its body is of no kind that is read.
    UnknownKind,
    /// It names a project that is not there.
    UnknownProject(String),
    /// What it says is fine by itself, and not together with the rest of the policy.
    Contradiction(String),
    /// The workspace is in no state for that, or of no kind.
    Conflict(String),
    /// What is wanted can't be made.
    Unmakeable(String),
    /// The configuration that was to be applied can't be used.
    BadConfiguration(String),
    /// It was tried and failed.
    Failed(String),
    /// Not now.
    Unavailable,
    /// What was to be changed could not be kept, and so is as it was.
    NotKept(String),
}

/// A call that failed.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// Always `about:blank`: what went wrong is in `error_code`.
    #[schema(format = "uri-reference", examples("about:blank"))]
    r#type: &'static str,
    /// The status in words.
    #[schema(examples("Not Found"))]
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, examples(404))]
    status: u16,
    /// What went wrong, for people: names what was wrong with the call, and the fix.
    #[schema(examples("there is no workspace \"alice\""))]
    detail: &'a str,
    /// The same as `detail`.
    #[schema(examples("there is no workspace \"alice\""))]
    message: &'a str,
    error_code: ErrorCode,
}

impl<'a> Document<'a> {
    fn of(code: ErrorCode, detail: &'a str) -> Self {
        let status = code.status();
        Self {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail,
            message: detail,
            error_code: code,
        }
    }
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

/// What a call fails with that asks an engine or a disk, and nothing else.
pub(super) struct Failure;

impl IntoResponses for Failure {
    fn responses() -> Responses {
        problems(&[ErrorCode::WorkspaceFailed])
    }
}

impl IntoResponses for CommandError {
    fn responses() -> Responses {
        problems(&[ErrorCode::Conflict, ErrorCode::WorkspaceFailed, ErrorCode::Unavailable])
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

impl IntoResponses for ChangeError {
    fn responses() -> Responses {
        problems(&[ErrorCode::Conflict, ErrorCode::NotKept])
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        let words = error.to_string();
        match error {
            CreateError::UnknownProject(_) => Self::UnknownProject(format!(
                "project_id: {words}; GET /api/v1/projects lists them"
            )),
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

impl IntoResponses for CreateError {
    fn responses() -> Responses {
        problems(&[
            ErrorCode::Forbidden,
            ErrorCode::Conflict,
            ErrorCode::UnknownProject,
            ErrorCode::CreationFailed,
            ErrorCode::WorkspaceFailed,
            ErrorCode::Unavailable,
        ])
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

    fn code(&self) -> ErrorCode {
        match self {
            Self::Unauthorized => ErrorCode::Unauthorized,
            Self::TooManyFailures { .. } => ErrorCode::TooManyFailures,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::UnknownCall => ErrorCode::NotFound,
            Self::NoWorkspaceHere => ErrorCode::NoWorkspace,
            Self::WrongMethod => ErrorCode::MethodNotAllowed,
            Self::UnknownWorkspace(_) | Self::Gone => ErrorCode::UnknownWorkspace,
            Self::UnknownToken(_) => ErrorCode::UnknownToken,
            Self::UnknownSender => ErrorCode::UnknownSender,
            Self::Invalid(_) => ErrorCode::InvalidRequest,
            Self::TooLarge => ErrorCode::TooLarge,
            Self::UnknownKind => ErrorCode::UnsupportedMediaType,
            Self::UnknownProject(_) => ErrorCode::UnknownProject,
            Self::Contradiction(_) => ErrorCode::Contradiction,
            Self::Conflict(_) => ErrorCode::Conflict,
            Self::Unmakeable(_) => ErrorCode::CreationFailed,
            Self::BadConfiguration(_) => ErrorCode::InvalidConfiguration,
            Self::Failed(_) => ErrorCode::WorkspaceFailed,
            Self::Unavailable => ErrorCode::Unavailable,
            Self::NotKept(_) => ErrorCode::NotKept,
        }
    }

    fn detail(&self) -> String {
        let fixed = match self {
            Self::Forbidden(detail)
            | Self::UnknownToken(detail)
            | Self::Invalid(detail)
            | Self::UnknownProject(detail)
            | Self::Contradiction(detail)
            | Self::Conflict(detail)
            | Self::Unmakeable(detail)
            | Self::BadConfiguration(detail)
            | Self::Failed(detail)
            | Self::NotKept(detail) => return detail.clone(),
            Self::UnknownWorkspace(id) => return format!("there is no workspace {id:?}"),
            Self::Unauthorized => "send a token as \"Authorization: Bearer <token>\"",
            Self::TooManyFailures { .. } => {
                "too many wrong tokens were sent; a right one is accepted at any time"
            }
            Self::UnknownCall => "there is no such call",
            Self::NoWorkspaceHere => {
                "there is no workspace at this address; its name may be misspelt, or it was removed"
            }
            Self::WrongMethod => "this call wants another method",
            Self::Gone => "the workspace is gone",
            Self::UnknownSender => {
                "this check-in comes from no workspace's address and has no workspace's token; \
                 use the URL in FROSTGATE_CHECK_IN_URL"
            }
            Self::TooLarge => "the body of this call is too large",
            Self::UnknownKind => {
                "the body is of a kind that is not read: send application/json, \
                 application/x-www-form-urlencoded or multipart/form-data"
            }
            Self::Unavailable => "the workspace takes no calls at the moment; try again",
        };
        fixed.to_owned()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code();
        let mut response = json(PROBLEM_KIND, &Document::of(code, &self.detail()));
        *response.status_mut() = code.status();
        if let Self::TooManyFailures { retry_after } = self {
            // Rounded up: a client that comes back on the second is not too early.
            let seconds = retry_after.as_secs() + 1;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
