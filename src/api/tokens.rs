//! The tokens themselves, for admins. What opens the API is told once, to whoever has it made.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;

use super::Context;
use super::caller::Caller;
use super::fields::Fields;
use super::keyring::{Listed, Made, Source};
use super::reply::Problem;
use crate::clock::rfc3339;
use crate::model::ProjectId;
use crate::token::{Scope, TokenName};

/// The fields of a new token; `projects[]` is how some clients write a list.
const FIELD_NAMES: [&str; 4] = ["name", "scope", "projects", "projects[]"];

/// A token as the API tells it.
#[derive(Debug, Serialize)]
pub(super) struct Representation {
    name: TokenName,
    /// `admin`, `read` or `projects`.
    scope: &'static str,
    /// The projects that it is limited to; `null`: it is not.
    projects: Option<BTreeSet<ProjectId>>,
    /// RFC 3339; `null` for one of the configuration.
    created_at: Option<String>,
    /// `file` (in the state directory), `config` or `api`.
    source: Source,
}

/// All tokens.
#[derive(Debug, Serialize)]
pub(super) struct List {
    items: Vec<Representation>,
}

/// A token that has just been made.
#[derive(Serialize)]
pub(super) struct Secret {
    #[serde(flatten)]
    of: Representation,
    /// What is to be presented. It is told here and never again.
    token: String,
}

/// What a token is to be.
#[derive(Debug, PartialEq, Eq)]
struct NewToken {
    name: TokenName,
    scope: Scope,
}

impl From<Listed> for Representation {
    fn from(listed: Listed) -> Self {
        Self {
            name: listed.name,
            scope: listed.scope.word(),
            projects: listed.scope.projects().cloned(),
            created_at: listed.created_at.map(rfc3339),
            source: listed.source,
        }
    }
}

impl From<Made> for Secret {
    fn from(Made { token, listed }: Made) -> Self {
        Self { of: listed.into(), token: token.text().to_owned() }
    }
}

/// `GET /api/v1/tokens`
pub(super) async fn list(State(context): State<Context>) -> Json<List> {
    let all = context.keyring.all().await;
    Json(List { items: all.into_iter().map(Representation::from).collect() })
}

/// `POST /api/v1/tokens`: 201 with the token.
pub(super) async fn add(
    State(context): State<Context>,
    caller: Caller,
    fields: Fields,
) -> Result<(StatusCode, Json<Secret>), Problem> {
    let NewToken { name, scope } = NewToken::read(&fields)?;
    let made = context.keyring.add(name, scope).await?;
    tracing::info!(by = %caller.name, "made the token {}", made.listed.name);
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// `DELETE /api/v1/tokens/{name}`: 204; it opens nothing any more.
pub(super) async fn revoke(
    State(context): State<Context>,
    caller: Caller,
    name: Name,
) -> Result<StatusCode, Problem> {
    let name = known_name(name)?;
    context.keyring.revoke(name.clone()).await?;
    tracing::info!(by = %caller.name, "revoked the token {name}");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/tokens/{name}/rotate`: another token of that name; the one before opens nothing
/// any more.
pub(super) async fn rotate(
    State(context): State<Context>,
    caller: Caller,
    name: Name,
) -> Result<Json<Secret>, Problem> {
    let made = context.keyring.rotate(known_name(name)?).await?;
    tracing::info!(by = %caller.name, "rotated the token {}", made.listed.name);
    Ok(Json(made.into()))
}

/// The name in a path, which may be nothing that a token could be called.
type Name = Result<Path<String>, PathRejection>;

fn known_name(name: Name) -> Result<TokenName, Problem> {
    let Path(name) = name.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
    TokenName::parse(&name).map_err(|_| {
        let shown: String = name.chars().take(100).collect();
        Problem::UnknownToken(format!("there is no token {shown:?}"))
    })
}

impl NewToken {
    fn read(fields: &Fields) -> Result<Self, Problem> {
        fields.only(FIELD_NAMES.into_iter())?;
        let name = fields.get("name").ok_or_else(|| {
            Problem::Invalid("the field \"name\" is missing: send what to call it".to_owned())
        })?;
        let name = TokenName::parse(name)
            .map_err(|invalid| Problem::Invalid(format!("name: {invalid}")))?;
        let projects = fields.list("projects")?;
        let projects = projects.iter().map(|project| ProjectId::parse(project));
        let projects: BTreeSet<_> = projects
            .collect::<Result<_, _>>()
            .map_err(|invalid| Problem::Invalid(format!("projects: {invalid}")))?;
        let scope = match (fields.get("scope"), projects.is_empty()) {
            (Some("admin"), true) => Some(Scope::Admin),
            (Some("read"), true) => Some(Scope::Read),
            (Some("projects") | None, false) => Some(Scope::Projects(projects)),
            _ => None,
        };
        let scope = scope.ok_or_else(|| {
            let wanted = "scope: send \"admin\" or \"read\", or instead of it \"projects\" with \
                          the names of one or more projects";
            Problem::Invalid(wanted.to_owned())
        })?;
        Ok(Self { name, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Option<Scope> {
        let pairs = [("name", "ci")].iter().chain(pairs);
        let fields = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        NewToken::read(&Fields(fields.collect())).ok().map(|new| new.scope)
    }

    #[test]
    fn a_scope_is_one_thing_and_never_more_than_was_asked_for() {
        let projects = ["a", "b"].map(|project| ProjectId::parse(project).unwrap());
        let both = Some(Scope::Projects(projects.into()));
        assert_eq!(read(&[("scope", "admin")]), Some(Scope::Admin));
        assert_eq!(read(&[("scope", "read")]), Some(Scope::Read));
        assert_eq!(read(&[("projects", "a,b")]), both);
        assert_eq!(read(&[("scope", "projects"), ("projects", "[\"b\",\"a\"]")]), both);
        assert_eq!(read(&[("projects", "a"), ("projects", "b")]), both);
        assert_eq!(read(&[("projects[]", "a"), ("projects[]", "b")]), both);
        let refused: [&[(&str, &str)]; 10] = [
            &[],
            &[("scope", "")],
            &[("scope", "root")],
            &[("scope", "projects")],
            &[("projects", "")],
            &[("projects", "[]")],
            &[("projects", "A")],
            &[("scope", "admin"), ("projects", "a")],
            &[("scope", "admin"), ("project", "a")],
            &[("scope", "read"), ("expires", "1")],
        ];
        for fields in refused {
            assert_eq!(read(fields), None, "{fields:?}");
        }
    }
}
