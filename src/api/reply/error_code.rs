//! What went wrong, in words for programs. The values stay what they are.

use std::fmt;

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ErrorCode {
    InvalidRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    NoWorkspace,
    UnknownWorkspace,
    UnknownToken,
    UnknownSender,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    UnsupportedMediaType,
    UnknownProject,
    Contradiction,
    CreationFailed,
    InvalidConfiguration,
    TooManyFailures,
    WorkspaceFailed,
    Unavailable,
    NotKept,
}

impl ErrorCode {
    /// The status that it comes with, and what it means.
    const fn entry(self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidRequest => (
                StatusCode::BAD_REQUEST,
                "The call can't be read, or a value in it is none that is accepted; `message` names \
                 it and what to send instead.",
            ),
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "No token was sent, or one that opens nothing.")
            }
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "The token, or the configuration, does not allow this; `message` says what would.",
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such call."),
            Self::NoWorkspace => (
                StatusCode::NOT_FOUND,
                "The public listener was asked for an address that is no workspace's.",
            ),
            Self::UnknownWorkspace => (
                StatusCode::NOT_FOUND,
                "There is no such workspace, or none that the token may see; it may have gone just now.",
            ),
            Self::UnknownToken => (StatusCode::NOT_FOUND, "There is no token of that name."),
            Self::UnknownSender => (
                StatusCode::NOT_FOUND,
                "A check-in comes from no workspace's address and has no workspace's token.",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "The call wants another method; the header `Allow` names those that there are.",
            ),
            Self::Conflict => (
                StatusCode::CONFLICT,
                "It is not possible as things are: the name is taken, the workspace can't be \
                 frozen, or the token is kept elsewhere.",
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 64 KiB."),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is neither JSON nor a form.")
            }
            Self::UnknownProject => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The call names a project that is not there, or that the token may not use.",
            ),
            Self::Contradiction => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "Each value is right, but not beside the others of the workspace's policy.",
            ),
            Self::CreationFailed => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The workspace can't be made; `message` says why, and nothing is left of it.",
            ),
            Self::InvalidConfiguration => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The configuration can't be used, and the one before stays in force; `message` \
                 names every mistake.",
            ),
            Self::TooManyFailures => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong tokens came from this address. A right one is accepted at any \
                 time; the header `Retry-After` says when a wrong one is looked at again.",
            ),
            Self::WorkspaceFailed => (
                StatusCode::BAD_GATEWAY,
                "It was tried, and the workspace, or what runs it, failed.",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The workspace takes no calls at the moment; try again.",
            ),
            Self::NotKept => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The change could not be written to the disk, and so was not made.",
            ),
        }
    }

    /// The status that it comes with.
    pub(in crate::api) fn status(self) -> StatusCode {
        self.entry().0
    }

    /// What it means.
    pub(in crate::api) fn meaning(self) -> &'static str {
        self.entry().1
    }
}

/// Its word.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;
    use utoipa::openapi::{RefOr, Schema};

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/error-codes.md");

    /// Those that the API's description has, which are all.
    fn all() -> Vec<ErrorCode> {
        let RefOr::T(Schema::Object(described)) = ErrorCode::schema() else { panic!("no object") };
        let words = described.enum_values.unwrap().into_iter();
        words.map(|word| serde_json::from_value(word).unwrap()).collect()
    }

    fn page() -> String {
        let mut page = "\
# Error codes

A call of the API that fails is answered with `application/problem+json` (RFC 9457): `status` and
`title` repeat the status of the answer, `type` is `about:blank`, `detail` and `message` say to people
what was wrong and what to do, and `error_code` is one of the words below, for programs. The words
stay what they are; new ones may come.

| `error_code` | status | meaning |
|---|---|---|
"
        .to_owned();
        for code in all() {
            let (status, meaning) = code.entry();
            page.push_str(&format!("| <a id=\"{code}\"></a>`{code}` | {status} | {meaning} |\n"));
        }
        page
    }

    #[test]
    fn the_reference_has_every_error_code() {
        if std::env::var_os("FROSTGATE_BLESS").is_some() {
            std::fs::write(PAGE, page()).unwrap();
        }
        let stored = std::fs::read_to_string(PAGE).unwrap_or_default();
        assert_eq!(stored, page(), "run FROSTGATE_BLESS=1 cargo test reference");
    }
}
