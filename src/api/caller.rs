//! Who calls, as their token says, and what that lets them do and see.
//!
//! `auth` makes the one [`Caller`] of a call. A handler gets it by asking for it, and finds no
//! workspace without it.

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;

use super::reply::Problem;
use super::{Context, Peer, auth};
use crate::lifecycle::create::Template;
use crate::lifecycle::{CreateError, Workspace};
use crate::token::{Scope, TokenName};

/// What a call does, which says whose token may make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It looks. Every token may, at what it may see.
    Look,
    /// It changes workspaces: those of the token's projects, or with `admin` all.
    Change,
    /// It changes who may call: `admin` alone.
    Govern,
}

/// Whoever presented a token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The token's name.
    pub(super) name: TokenName,
    pub(super) scope: Scope,
}

impl Caller {
    /// Whoever could read the admin's token, and needs not.
    pub(super) fn local_admin() -> Self {
        Self { name: TokenName::of_state_dir(), scope: Scope::Admin }
    }

    /// Lets a call through that the token is good for.
    pub(super) fn check(&self, need: Need) -> Result<(), Problem> {
        let wanted = match (need, &self.scope) {
            (_, Scope::Admin)
            | (Need::Look, Scope::Read | Scope::Projects(_))
            | (Need::Change, Scope::Projects(_)) => return Ok(()),
            (Need::Change, Scope::Read) => "\"admin\", or \"projects\" with the workspace's own",
            (Need::Govern, Scope::Read | Scope::Projects(_)) => "\"admin\"",
        };
        Err(self.refusal(wanted))
    }

    /// Says which scope it would have taken.
    pub(super) fn refusal(&self, wanted: &str) -> Problem {
        Problem::Forbidden(format!(
            "this call needs a token of the scope {wanted}; the token {:?} has the scope {:?}",
            self.name.as_str(),
            self.scope.word()
        ))
    }

    /// Whether a workspace is there, as far as the caller is concerned.
    pub(super) fn may_see(&self, workspace: &Workspace) -> bool {
        match &self.scope {
            Scope::Admin | Scope::Read => true,
            Scope::Projects(_) => workspace.project().is_some_and(|project| self.may_use(project)),
        }
    }

    /// Lets a creation through that makes what the caller may see.
    pub(super) fn check_template(&self, template: &Template) -> Result<(), Problem> {
        match template {
            Template::Project(id) if self.may_use(id) => Ok(()),
            Template::Project(id) => Err(CreateError::UnknownProject(id.clone()).into()),
            // It would be of no project, and so not theirs.
            Template::Spec(_) if self.scope.projects().is_some() => Err(self.refusal("\"admin\"")),
            Template::Spec(_) => Ok(()),
        }
    }

    /// Whether a project is there, as far as the caller is concerned.
    pub(super) fn may_use(&self, project: &str) -> bool {
        self.scope.projects().is_none_or(|own| own.contains(project))
    }
}

/// Somebody who may look, for what is beside the calls.
#[derive(Debug, Clone)]
pub struct Looker(Caller);

impl Looker {
    /// What their token is called.
    pub fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// What it may do.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }
}

/// Who made a request, if they may look; or what they are to be answered.
pub async fn look(context: &Context, peer: Peer, parts: &mut Parts) -> Result<Looker, Response> {
    auth::identify(context, Need::Look, peer, parts).await.map(Looker)
}

/// Refused where `auth` has not been, so that no call is open because it was forgotten.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or(Problem::Unauthorized)
    }
}
