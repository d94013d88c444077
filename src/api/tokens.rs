//! The tokens themselves, for admins. What opens the API is told once, to whoever has it made.

use std::collections::BTreeSet;

use axum::extract::{FromRequestParts, Path, State};
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use super::caller::Caller;
use super::date::Date;
use super::fields::Fields;
use super::keyring::{ChangeError, Listed, Made, Source};
use super::reply::{ErrorCode, Json, Problem, Responses, problems};
use super::{Context, openapi};
use crate::model::ProjectId;
use crate::token::{Scope, TokenName};

/// A token, without what is to be presented.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub(super) struct Representation {
    name: TokenName,
    /// `admin`, `read` or `projects`.
    #[schema(examples("read"))]
    scope: &'static str,
    /// The projects that it is limited to; `null`: it is not.
    projects: Option<BTreeSet<ProjectId>>,
    /// `null` for one of the configuration.
    created_at: Option<Date>,
    /// Where it is kept: in a `file` in the state directory, in the configuration, or by the API.
    source: Source,
}

/// All tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenList)]
pub(super) struct List {
    items: Vec<Representation>,
}

/// A token that has just been made.
#[derive(Serialize, ToSchema)]
#[schema(as = NewTokenSecret)]
pub(super) struct Secret {
    #[serde(flatten)]
    of: Representation,
    /// What is to be presented. It is told here and never again.
    #[schema(examples("frostgate_8MD-nb4cRnxzpA4iL1dzzB5sSeKmxBUd5JrkP8O4mFE"))]
    token: String,
}

/// A token to be made: for every workspace, with the scope `admin` or `read`; or for the workspaces of
/// some projects.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: TokenName,
    scope: Option<ScopeWord>,
    projects: Option<Projects>,
}

/// What a token may do: everything, look, or everything with the workspaces of its projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = Scope)]
#[serde(rename_all = "lowercase")]
enum ScopeWord {
    Admin,
    Read,
    Projects,
}

/// The names of one or more projects.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
struct Projects(BTreeSet<ProjectId>);

impl From<Listed> for Representation {
    fn from(listed: Listed) -> Self {
        Self {
            name: listed.name,
            scope: listed.scope.word(),
            projects: listed.scope.projects().cloned(),
            created_at: listed.created_at.map(Date::from),
            source: listed.source,
        }
    }
}

impl From<Made> for Secret {
    fn from(Made { token, listed }: Made) -> Self {
        Self { of: listed.into(), token: token.text().to_owned() }
    }
}

/// List the tokens.
#[utoipa::path(
    get,
    path = "/tokens",
    operation_id = "listTokens",
    tag = "tokens",
    responses((status = 200, description = "All of them", body = List))
)]
pub(super) async fn list(State(context): State<Context>) -> Json<List> {
    let all = context.keyring.all().await;
    Json(List { items: all.into_iter().map(Representation::from).collect() })
}

/// Make a token.
#[utoipa::path(
    post,
    path = "/tokens",
    operation_id = "createToken",
    tag = "tokens",
    request_body = NewToken,
    responses((status = 201, description = "The token, this once", body = Secret), ChangeError)
)]
pub(super) async fn add(
    State(context): State<Context>,
    caller: Caller,
    fields: Fields,
) -> Result<(StatusCode, Json<Secret>), Problem> {
    let new = NewToken::read(fields)?;
    let scope = new.scope()?;
    let made = context.keyring.add(new.name, scope).await?;
    tracing::info!(by = %caller.name, "made the token {}", made.listed.name);
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Revoke a token: it opens nothing any more.
#[utoipa::path(
    delete,
    path = "/tokens/{name}",
    operation_id = "deleteToken",
    tag = "tokens",
    params(Name),
    responses((status = 204, description = "It is revoked"), Name, ChangeError)
)]
pub(super) async fn revoke(
    State(context): State<Context>,
    caller: Caller,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    context.keyring.revoke(name.clone()).await?;
    tracing::info!(by = %caller.name, "revoked the token {name}");
    Ok(StatusCode::NO_CONTENT)
}

/// Replace a token by another of that name.
///
/// The one before opens nothing any more.
#[utoipa::path(
    post,
    path = "/tokens/{name}/rotate",
    operation_id = "rotateToken",
    tag = "tokens",
    params(Name),
    responses((status = 200, description = "The token, this once", body = Secret), Name, ChangeError)
)]
pub(super) async fn rotate(
    State(context): State<Context>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Secret>, Problem> {
    let made = context.keyring.rotate(name).await?;
    tracing::info!(by = %caller.name, "rotated the token {}", made.listed.name);
    Ok(Json(made.into()))
}

/// The name in a path. What no token can be called is the name of none.
pub(super) struct Name(TokenName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection| Problem::Invalid(rejection.body_text()))?;
        TokenName::parse(&name).map(Self).map_err(|_| {
            let shown: String = name.chars().take(100).collect();
            Problem::UnknownToken(format!("there is no token {shown:?}"))
        })
    }
}

impl IntoParams for Name {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![openapi::in_path("name", "What the token is called.", "ci")]
    }
}

impl IntoResponses for Name {
    fn responses() -> Responses {
        problems(&[ErrorCode::UnknownToken])
    }
}

impl NewToken {
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        let new = Self {
            name: fields.take("name")?.ok_or_else(|| {
                Problem::Invalid("the field \"name\" is missing: send what to call it".to_owned())
            })?,
            scope: fields.take("scope")?,
            projects: fields.take_nested("projects")?,
        };
        fields.end()?;
        Ok(new)
    }

    /// What it may do: one thing, and never more than was asked for.
    fn scope(&self) -> Result<Scope, Problem> {
        match (self.scope, &self.projects) {
            (Some(ScopeWord::Admin), None) => Ok(Scope::Admin),
            (Some(ScopeWord::Read), None) => Ok(Scope::Read),
            (Some(ScopeWord::Projects) | None, Some(Projects(projects))) => {
                Ok(Scope::Projects(projects.clone()))
            }
            (Some(ScopeWord::Admin | ScopeWord::Read), Some(_))
            | (Some(ScopeWord::Projects) | None, None) => {
                let wanted = "scope: send \"admin\" or \"read\", or instead of it \"projects\" \
                              with the names of one or more projects";
                Err(Problem::Invalid(wanted.to_owned()))
            }
        }
    }
}

/// What the schema of a new token can't say in types.
pub(super) fn rule() -> Value {
    json!({
        "oneOf": [
            {
                "required": ["scope"],
                "properties": { "scope": { "enum": ["admin", "read"] }, "projects": false },
            },
            { "required": ["projects"], "properties": { "scope": { "const": "projects" } } },
        ],
    })
}

impl TryFrom<Value> for Projects {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let names = match value {
            Value::String(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
            value => Vec::<String>::deserialize(value).map_err(|error| error.to_string())?,
        };
        let projects = names.iter().map(|name| ProjectId::parse(name)).collect();
        let projects: BTreeSet<_> = Result::map_err(projects, |invalid| invalid.to_string())?;
        if projects.is_empty() {
            return Err("the list is empty: name one project or more".to_owned());
        }
        Ok(Self(projects))
    }
}

impl PartialSchema for Projects {
    fn schema() -> RefOr<Schema> {
        let several = format!("^{label}( *, *{label})*$", label = openapi::LABEL);
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(several));
        OneOfBuilder::new()
            .item(ArrayBuilder::new().items(ProjectId::schema()).min_items(Some(1)))
            .item(text.description(Some("The same with commas between.")).examples(["notebook"]))
            .description(Some("The names of one or more projects."))
            .into()
    }
}

impl ToSchema for Projects {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::tests::fields;

    async fn read(body: &str) -> Option<Scope> {
        let body = format!("name=ci{body}");
        let fields = fields("application/x-www-form-urlencoded", &body).await.ok()?;
        NewToken::read(fields).ok()?.scope().ok()
    }

    #[tokio::test]
    async fn a_scope_is_one_thing_and_never_more_than_was_asked_for() {
        let projects = ["a", "b"].map(|project| ProjectId::parse(project).unwrap());
        let both = Some(Scope::Projects(projects.into()));
        assert_eq!(read("&scope=admin").await, Some(Scope::Admin));
        assert_eq!(read("&scope=read").await, Some(Scope::Read));
        assert_eq!(read("&projects=a,b").await, both);
        assert_eq!(read("&scope=projects&projects=[\"b\",\"a\"]").await, both);
        assert_eq!(read("&projects=a&projects=b").await, both);
        assert_eq!(read("&projects[]=a&projects[]=b").await, both);
        for refused in [
            "",
            "&scope=",
            "&scope=root",
            "&scope=projects",
            "&projects=",
            "&projects=[]",
            "&projects=A",
            "&scope=admin&projects=a",
            "&scope=admin&project=a",
            "&scope=read&expires=1",
        ] {
            assert_eq!(read(refused).await, None, "{refused}");
        }
    }
}
