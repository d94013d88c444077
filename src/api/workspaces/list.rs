//! The list of workspaces, a page at a time.

use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use super::representation::{self, Representation};
use crate::api::caller::Caller;
use crate::api::fields::Fields;
use crate::api::reply::{Json, Problem};
use crate::api::{Context, openapi};
use crate::lifecycle::Workspace;
use crate::model::{Phase, WorkspaceId};

/// Workspaces on a page, unless the call says.
const LIMIT: usize = 10;
/// Most workspaces on a page.
const LIMIT_MAX: usize = 100;

/// A page of workspaces, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkspaceList)]
pub(in crate::api) struct List {
    items: Vec<Representation>,
    paging: Paging,
}

#[derive(Debug, Serialize, ToSchema)]
struct Paging {
    /// The `page_token` of the next page; `null`: this is the last one.
    next_page_token: Option<WorkspaceId>,
}

/// Which workspaces are wanted.
#[derive(Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Those of that project alone.
    #[param(example = "notebook")]
    project_id: Option<String>,
    /// Those in one of these states alone, by code or name; `states` is the same.
    #[param(rename = "states[]", schema_with = States::schema, required = false)]
    states: States,
    /// How many at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 10)]
    limit: Limit,
    /// The `next_page_token` of the page before.
    #[param(schema_with = PageToken::schema, required = false)]
    page_token: PageToken,
}

/// Empty: any.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
struct States(Vec<Phase>);

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Limit(usize);

/// The last id of the page before; `None`: there was none.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct PageToken(Option<WorkspaceId>);

/// List workspaces, a page at a time.
///
/// Pages stay whole while workspaces come and go: each goes on after the last id of the one before.
#[utoipa::path(
    get,
    path = "/workspaces",
    operation_id = "listWorkspaces",
    tag = "workspaces",
    params(Wanted),
    responses((status = 200, description = "A page of those that the token may see", body = List))
)]
pub(in crate::api) async fn list(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<List>, Problem> {
    let wanted = Wanted::read(Fields::of_query(query.as_deref())?)?;
    let seen = context.registry.all().into_iter().filter(|one| caller.may_see(one));
    let mut matching = seen.filter(|one| wanted.matches(one));
    let page: Vec<_> = matching.by_ref().take(wanted.limit.0).collect();
    let next = page.last().filter(|_| matching.next().is_some());
    let paging = Paging { next_page_token: next.map(|last| last.id().clone()) };
    let items = page.iter().map(|workspace| Representation::of(workspace, &context)).collect();
    Ok(Json(List { items, paging }))
}

impl Wanted {
    fn read(mut query: Fields) -> Result<Self, Problem> {
        Ok(Self {
            project_id: query.take("project_id")?,
            states: query.take("states")?.unwrap_or_default(),
            limit: query.take("limit")?.unwrap_or_default(),
            page_token: query.take("page_token")?.unwrap_or_default(),
        })
    }

    fn matches(&self, workspace: &Workspace) -> bool {
        self.page_token.0.as_ref().is_none_or(|last| workspace.id() > last)
            && self.project_id.as_deref().is_none_or(|id| workspace.project() == Some(id))
            && (self.states.0.is_empty() || self.states.0.contains(&workspace.view().phase))
    }
}

impl TryFrom<Value> for States {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let items = if let Value::Array(items) = value { items } else { vec![value] };
        let phase = |item: Value| {
            item.as_str().and_then(representation::phase_named).ok_or_else(|| {
                format!(
                    "{item} is no state: send states[]=1 (starting), 2 (running), 3 (stopping), \
                     4 (stopped), 5 (removing) or 7 (failed)"
                )
            })
        };
        items.into_iter().map(phase).collect::<Result<_, _>>().map(Self)
    }
}

impl States {
    fn schema() -> Array {
        let code =
            ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(7));
        let names = representation::state_names();
        let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        ArrayBuilder::new().items(OneOfBuilder::new().item(code).item(name)).build()
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT)
    }
}

impl TryFrom<String> for Limit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let wrong = || format!("{text:?} is no limit: send a number from 1 to {LIMIT_MAX}");
        limit.map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for PageToken {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let wrong = |_| "send the next_page_token of the page before as it is";
        WorkspaceId::parse(&text).map(|last| Self(Some(last))).map_err(wrong)
    }
}

impl PageToken {
    fn schema() -> Object {
        let pattern = format!("^({})?$", openapi::LABEL);
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wanted, Problem> {
        Wanted::read(Fields::of_query(Some(query))?)
    }

    #[test]
    fn states_are_codes_or_names() {
        let both = vec![Phase::Starting, Phase::Running];
        assert_eq!(read("states[]=1&states[]=2").unwrap().states.0, both);
        assert_eq!(read("states%5B%5D=starting&states=running").unwrap().states.0, both);
        assert_eq!(read("states[]=frozen").unwrap().states.0, [Phase::Frozen]);
        assert!(read("states[]=0").is_err() && read("states[]=").is_err());
    }

    #[test]
    fn a_limit_is_kept_and_a_token_goes_on_after_its_id() {
        assert_eq!(read("").unwrap().limit, Limit(LIMIT));
        assert_eq!(read("limit=100").unwrap().limit, Limit(100));
        for bad in ["0", "101", "-1", "x", "1.5", "1&limit=2"] {
            assert!(read(&format!("limit={bad}")).is_err(), "{bad}");
        }
        let id = WorkspaceId::parse("alice").unwrap();
        assert_eq!(read("page_token=alice").unwrap().page_token, PageToken(Some(id)));
        assert_eq!(read("page_token=").unwrap().page_token, PageToken(None));
        assert!(read("page_token=%00").is_err() && read("page_token=AAAA").is_err());
    }
}
