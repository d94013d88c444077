//! The list of workspaces, a page at a time.

use axum::Json;
use axum::extract::{RawQuery, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::representation::{Representation, phase_named};
use crate::api::Context;
use crate::api::caller::Caller;
use crate::api::fields::Fields;
use crate::api::reply::Problem;
use crate::lifecycle::Workspace;
use crate::model::{Phase, WorkspaceId};

/// Workspaces on a page, unless the call says.
const LIMIT: usize = 10;
/// Most workspaces on a page.
const LIMIT_MAX: usize = 100;

/// A page of workspaces, in the order of their ids.
#[derive(Debug, Serialize)]
pub(in crate::api) struct List {
    items: Vec<Representation>,
    paging: Paging,
}

#[derive(Debug, Serialize)]
struct Paging {
    /// The `page_token` of the next page; `null`: this is the last one.
    next_page_token: Option<String>,
}

/// Which workspaces are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    project: Option<String>,
    /// Empty: any.
    phases: Vec<Phase>,
    limit: usize,
    /// Those with a greater id.
    after: Option<WorkspaceId>,
}

/// `GET /api/v1/workspaces`. Pages stay whole while workspaces come and go: each goes on after the
/// last id of the one before.
pub(in crate::api) async fn list(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<List>, Problem> {
    let wanted = Wanted::read(&Fields::of_query(query.as_deref())?)?;
    let seen = context.registry.all().into_iter().filter(|one| caller.may_see(one));
    let mut matching = seen.filter(|one| wanted.matches(one));
    let page: Vec<_> = matching.by_ref().take(wanted.limit).collect();
    let next = page.last().filter(|_| matching.next().is_some());
    let paging = Paging { next_page_token: next.map(|last| page_token(last.id())) };
    let items = page.iter().map(|workspace| Representation::of(workspace, &context)).collect();
    Ok(Json(List { items, paging }))
}

impl Wanted {
    fn read(query: &Fields) -> Result<Self, Problem> {
        let states = query.all("states[]").chain(query.all("states"));
        let phases = states.map(|text| {
            phase_named(text).ok_or_else(|| {
                Problem::Invalid(format!(
                    "states[] is {text:?}: send 1 (starting), 2 (running), 3 (stopping), \
                     4 (stopped), 5 (removing) or 7 (failed)"
                ))
            })
        });
        Ok(Self {
            project: query.get("project_id").map(str::to_owned),
            phases: phases.collect::<Result<_, _>>()?,
            limit: limit(query.get("limit"))?,
            after: query
                .get("page_token")
                .filter(|text| !text.is_empty())
                .map(after)
                .transpose()?,
        })
    }

    fn matches(&self, workspace: &Workspace) -> bool {
        self.after.as_ref().is_none_or(|after| workspace.id() > after)
            && self.project.as_ref().is_none_or(|id| workspace.project() == Some(id))
            && (self.phases.is_empty() || self.phases.contains(&workspace.view().phase))
    }
}

fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::Invalid(format!("limit is {text:?}: send a number from 1 to {LIMIT_MAX}"))
    })
}

fn page_token(last: &WorkspaceId) -> String {
    URL_SAFE_NO_PAD.encode(last.as_str())
}

fn after(token: &str) -> Result<WorkspaceId, Problem> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let id = text.and_then(|text| WorkspaceId::parse(&text).ok());
    id.ok_or_else(|| {
        let fix = "send the next_page_token of the page before as it is";
        Problem::Invalid(format!("page_token can't be read: {fix}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wanted, Problem> {
        Wanted::read(&Fields::of_query(Some(query))?)
    }

    #[test]
    fn states_are_codes_or_names() {
        let both = vec![Phase::Starting, Phase::Running];
        assert_eq!(read("states[]=1&states[]=2").unwrap().phases, both);
        assert_eq!(read("states%5B%5D=starting&states=running").unwrap().phases, both);
        assert_eq!(read("states[]=frozen").unwrap().phases, [Phase::Frozen]);
        assert!(read("states[]=0").is_err() && read("states[]=").is_err());
    }

    #[test]
    fn a_limit_is_kept_and_a_token_goes_on_after_its_id() {
        assert_eq!(read("").unwrap().limit, LIMIT);
        assert_eq!(read("limit=100").unwrap().limit, 100);
        for bad in ["0", "101", "-1", "x", "1.5"] {
            assert!(read(&format!("limit={bad}")).is_err(), "{bad}");
        }
        let id = WorkspaceId::parse("alice").unwrap();
        assert_eq!(read(&format!("page_token={}", page_token(&id))).unwrap().after, Some(id));
        assert!(read("page_token=%00").is_err() && read("page_token=AAAA").is_err());
    }
}
