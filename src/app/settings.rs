//! The configuration in the terms of each module: its options.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::response::IntoResponse;
use http::StatusCode;

use crate::api::{self, CHECK_IN_PATH, Looker, Peer};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::dashboard::{self, Board, Door, Viewer};
use crate::driver::Driver;
use crate::lifecycle::check_in::CheckInKey;
use crate::lifecycle::create::{self, Creator};
use crate::lifecycle::registry::Newcomer;
use crate::lifecycle::slots::Capacity;
use crate::lifecycle::{self, Registry};
use crate::listen;
use crate::model::{Policy, PolicyOverrides, PublicUrl, WorkspaceId};
use crate::proxy::{self, Redirect};
use crate::secrets::{self, SecretError};
use crate::store::Origin;
use crate::token::Scope;

use super::drivers::Drivers;
use super::reload::Parts;
use super::sockets::Addresses;

/// Where end users find workspaces, as far as we can tell: HTTPS where we speak it.
pub(super) fn public_url(config: &Config, addresses: &Addresses) -> PublicUrl {
    let (secure, all) = match addresses.tls.as_slice() {
        [] => (false, addresses.public.as_slice()),
        tls => (true, tls),
    };
    let port = all.first().map_or(PublicUrl::usual_port(secure), SocketAddr::port);
    let ours = PublicUrl { secure, domain: config.routing.domain.clone(), port };
    config.routing.public_url.clone().unwrap_or(ours)
}

pub(super) fn lifecycle_options(
    config: &Config,
    addresses: &Addresses,
) -> anyhow::Result<lifecycle::Options> {
    let key_file = config.state_dir.join("check-in.key");
    let key = secrets::read_or_make(&key_file, |random| secrets::hex(&random))?;
    let key = secrets::from_hex(&key).ok_or(SecretError::Damaged { path: key_file })?;
    Ok(lifecycle::Options {
        domain: config.routing.domain.clone(),
        limits: limits(config),
        memory_assumed: config.limits.memory_assumed,
        check_in_key: CheckInKey::new(&key),
        public_port: addresses.public.first().map_or(0, SocketAddr::port),
        clock: Clock::MACHINE,
    })
}

pub(super) fn limits(config: &Config) -> lifecycle::Limits {
    lifecycle::Limits {
        held_max: config.limits.held_max,
        held_per_workspace_max: config.limits.held_per_workspace_max,
        capacity: Capacity {
            slots: Some(config.limits.slots).filter(|slots| *slots > 0),
            memory: Some(config.limits.memory_budget).filter(|bytes| *bytes > 0),
        },
        memory_low: Some(config.limits.memory_low).filter(|bytes| *bytes > 0),
        starts_max: config.limits.starts_max,
    }
}

pub(super) fn listen_options(config: &Config, parts: &Parts) -> listen::Options {
    let clients_count = config.listen.connections_per_client_max > 0;
    listen::Options {
        first_byte_timeout: config.listen.first_byte_timeout,
        handshake_timeout: config.listen.handshake_timeout,
        header_timeout: config.listen.header_timeout,
        send_timeout: config.listen.send_timeout,
        proxy_protocol: config.listen.proxy_protocol.clone(),
        clients: clients_count.then(|| parts.clients.clone()),
    }
}

pub(super) fn proxy_options(
    config: &Config,
    public_url: &PublicUrl,
    parts: &Parts,
) -> proxy::Options {
    let redirect = Redirect {
        port: public_url.port,
        domain: config.routing.domain.clone(),
        // Workspaces report by plain HTTP, to an address that no certificate is for.
        except: CHECK_IN_PATH,
    };
    proxy::Options {
        paths: config.routing.paths,
        admin_host: config.routing.admin_host.clone(),
        trusted_proxies: config.routing.trusted_proxies.clone(),
        redirect: config.tls.redirect.then_some(redirect),
        hsts: config.tls.hsts,
        connect_timeout: config.upstream.connect_timeout,
        response_timeout: config.upstream.response_timeout,
        body_timeout: config.listen.body_timeout,
        body_rate_min: config.listen.body_rate_min,
        requests_per_workspace_max: config.limits.requests_per_workspace_max,
        idle_per_workspace_max: config.upstream.idle_per_workspace_max,
        pseudonym: parts.pseudonym.clone(),
        access_log: parts.access_log.log(),
        draining: parts.draining.clone(),
        waiting_page: parts.page.clone(),
    }
}

/// Names at which browsers find the API and the dashboard.
pub(super) fn hosts(config: &Config, public_url: &PublicUrl) -> Vec<String> {
    let ours = [Some(&public_url.domain), config.routing.admin_host.as_ref()];
    ours.into_iter().flatten().chain(&config.api.hosts).cloned().collect()
}

/// What the dashboard shows, and to whom: to those whom the API lets look.
pub(super) fn dashboard_options(context: &api::Context, board: Arc<Board>) -> dashboard::Options {
    let guarded = context.clone();
    let door: Door = Arc::new(move |mut head: http::request::Parts| {
        let context = guarded.clone();
        Box::pin(async move {
            // Who serves a request says where it came from.
            let peer = head.extensions.get::<Peer>().copied();
            let peer = peer.ok_or_else(|| StatusCode::FORBIDDEN.into_response())?;
            api::look(&context, peer, &mut head).await.map(|looker| viewer(&looker))
        })
    });
    let public_url = context.public_url.clone();
    dashboard::Options { board, door, public_url, draining: context.draining.clone() }
}

fn viewer(looker: &Looker) -> Viewer {
    let projects = looker.scope().projects();
    Viewer {
        name: looker.name().to_owned(),
        scope: looker.scope().word(),
        may_change: *looker.scope() != Scope::Read,
        projects: projects.map(|own| own.iter().map(|id| id.as_str().to_owned()).collect()),
    }
}

/// A name that no other Frostgate has.
pub(super) fn pseudonym() -> anyhow::Result<String> {
    Ok(format!("frostgate-{:08x}", seed()? >> 32))
}

/// A number that no other thread has.
pub(super) fn seed() -> anyhow::Result<u64> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).context("the system has no random bytes")?;
    Ok(u64::from_ne_bytes(seed))
}

/// The policy of workspaces that are created by calls.
pub(super) fn created_policy(config: &Config) -> Arc<Policy> {
    Arc::new(Policy { storage: config.api.storage, ..config.policy.clone() })
}

pub(super) fn creator(config: &Config, registry: &Arc<Registry>, drivers: &Drivers) -> Creator {
    let options = create::Options {
        projects: config.projects.clone(),
        policy: created_policy(config),
        inline_specs: config.api.inline_specs,
    };
    Creator::new(registry.clone(), drivers.all().collect(), options)
}

/// A workspace of the configuration, as the registry takes it.
pub(super) fn newcomer(
    id: &WorkspaceId,
    workspace: &config::Workspace,
    policy: &Arc<Policy>,
    driver: Arc<dyn Driver>,
) -> Newcomer {
    Newcomer {
        id: id.clone(),
        spec: workspace.spec.clone(),
        policy: workspace.policy.applied_to(policy),
        own_policy: PolicyOverrides::default(),
        driver,
        origin: Origin::Config,
        project: workspace.project.clone(),
    }
}
