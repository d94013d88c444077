//! What only shows when all values are known: addresses, host names and tokens that are claimed
//! twice, and limits that contradict each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::token::TokenName;

use super::Config;
use super::section::Findings;
use super::tree::Origin;

/// Notes every contradiction.
pub(super) fn whole(config: &Config, findings: &mut Findings) {
    addresses(config, findings);
    redirect(config, findings);
    limits(config, findings);
    tokens(config, findings);
    hosts(config, findings);
}

fn addresses(config: &Config, findings: &mut Findings) {
    let listen = &config.listen;
    let mut earlier: Vec<(&str, SocketAddr)> = Vec::new();
    let public = listen.public.iter().map(|address| ("public", *address));
    let tls = listen.tls.iter().map(|address| ("tls", *address));
    for (key, address) in public.chain(tls).chain([("admin", listen.admin)]) {
        let taken = earlier.iter().find(|(_, earlier)| overlap(*earlier, address));
        if let Some((by, other)) = taken.copied() {
            let text = if by == key {
                format!("{key:?} in [listen]: {address} is taken by another address of the list")
            } else {
                format!(
                    "{key:?} in [listen]: {address} is taken by the {by} address {other}; \
                     the two need different ports"
                )
            };
            let keys = [key, by].map(|key| format!("listen.{key}"));
            findings.add(&first_written(findings, &keys.each_ref().map(String::as_str)), text);
        }
        earlier.push((key, address));
    }
}

/// Whoever is redirected needs a place to go.
fn redirect(config: &Config, findings: &mut Findings) {
    let elsewhere = config.routing.public_url.as_ref().is_some_and(|url| url.secure);
    if config.tls.redirect && config.listen.tls.is_empty() && !elsewhere {
        let text = "\"redirect\" in [tls]: there is no HTTPS to redirect to; set \"tls\" in \
                    [listen], or \"public_url\" in [routing] where a proxy in front speaks it";
        findings.add(&findings.origin("tls.redirect"), text.to_owned());
    }
}

/// Whether both can't be bound at once. IPv6 sockets take IPv6 only, so that `0.0.0.0` and `[::]`
/// live side by side; port 0 is a free one every time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn limits(config: &Config, findings: &mut Findings) {
    let limits = &config.limits;
    if limits.held_per_workspace_max > limits.held_max {
        let text = format!(
            "\"held_per_workspace_max\" in [limits]: {} is more than \"held_max\", which is {}",
            limits.held_per_workspace_max, limits.held_max
        );
        let keys = ["limits.held_per_workspace_max", "limits.held_max"];
        findings.add(&first_written(findings, &keys), text);
    }
}

/// One token is one thing: with two scopes it would be a matter of luck which one counts.
fn tokens(config: &Config, findings: &mut Findings) {
    let mut owners: BTreeMap<[u8; 32], &TokenName> = BTreeMap::new();
    for (name, grant) in &config.tokens {
        if let Some(owner) = owners.insert(grant.hash.bytes(), name) {
            let text = format!("\"hash\" in [tokens.{name}]: token \"{owner}\" has the same");
            findings.add(&findings.origin(&format!("tokens.{name}.hash")), text);
        }
    }
}

/// Every host name leads to one place: a workspace's own hosts, `{id}.{domain}`, the API.
fn hosts(config: &Config, findings: &mut Findings) {
    let domain = &config.routing.domain;
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for id in config.workspaces.keys() {
        owners.insert(format!("{id}.{domain}"), format!("workspace \"{id}\""));
    }
    if let Some(host) = &config.routing.admin_host {
        let api = "the API (\"admin_host\" in [routing])".to_owned();
        if let Some(owner) = owners.insert(host.clone(), api) {
            let text = format!("\"admin_host\" in [routing]: {host:?} leads to {owner} already");
            findings.add(&findings.origin("routing.admin_host"), text);
        }
    }
    for (id, workspace) in &config.workspaces {
        let origin = findings.origin(&format!("workspaces.{id}.hosts"));
        for host in &workspace.spec.hosts {
            let owner = owners.insert(host.clone(), format!("workspace \"{id}\""));
            if let Some(owner) = owner {
                let text =
                    format!("\"hosts\" in [workspaces.{id}]: {host:?} leads to {owner} already");
                findings.add(&origin, text);
            }
        }
    }
}

/// The place of the first of `keys` that somebody wrote; the others are defaults.
fn first_written(findings: &Findings, keys: &[&str]) -> Origin {
    keys.iter()
        .map(|key| findings.origin(key))
        .find(|origin| *origin != Origin::Default)
        .unwrap_or(Origin::Default)
}
