//! How a container of ours is made: a blueprint becomes the body of the engine's `create`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{ContainerCreateBody, HostConfig, IpamConfig, NetworkInspect, PortBinding};

use super::Address;
use super::labels;
use super::names::{ImageName, NetworkName};
use crate::model::{Blueprint, Spec};

/// A blueprint for this driver, with its names parsed.
pub(super) struct Recipe<'a> {
    pub(super) blueprint: &'a Blueprint,
    pub(super) image: ImageName,
    pub(super) command: &'a [String],
    pub(super) network: Option<NetworkName>,
}

/// What has to be asked of the engine before the body can be written.
pub(super) struct Surroundings<'a> {
    /// The address by which the container reaches this machine, if there is one.
    pub(super) gateway: Option<IpAddr>,
    /// How it will be dialled.
    pub(super) address: Address,
    /// Whose it is; see [`labels::claim`].
    pub(super) scope: &'a str,
    /// The port it listens on, where that is known.
    pub(super) port: Option<u16>,
}

/// The body of the `create` call.
pub(super) fn body(recipe: &Recipe<'_>, surroundings: &Surroundings<'_>) -> ContainerCreateBody {
    let spec = &recipe.blueprint.spec;
    let published = match (surroundings.address, surroundings.port) {
        (Address::Published, Some(port)) => Some(format!("{port}/tcp")),
        (Address::Published, None) | (Address::Container, _) => None,
    };
    let environment = environment(recipe.blueprint, surroundings.gateway);
    let command = (!recipe.command.is_empty()).then(|| recipe.command.to_vec());
    let network = recipe.network.as_ref().map(|network| network.as_str().to_owned());
    ContainerCreateBody {
        image: Some(recipe.image.as_str().to_owned()),
        cmd: command,
        env: Some(environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels(recipe, spec, surroundings.scope)),
        exposed_ports: published.clone().map(|port| vec![port]),
        host_config: Some(HostConfig {
            network_mode: network,
            port_bindings: published.map(|port| HashMap::from([(port, Some(vec![loopback()]))])),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Networks without an address of the container's own, from which this machine has no gateway.
pub(super) fn is_shared(network: &str) -> bool {
    matches!(network, "host" | "none")
}

/// The address of this machine in a network: as the engine says, or else the first one of the
/// subnet, which is what the engine takes where a subnet was given without a gateway.
pub(super) fn gateway(network: &NetworkInspect) -> Option<IpAddr> {
    let ranges: &[IpamConfig] = network.ipam.as_ref()?.config.as_deref()?;
    let told = |range: &IpamConfig| {
        // Swarm-style networks write it with its prefix length.
        let text = range.gateway.as_deref()?;
        text.split('/').next()?.parse::<IpAddr>().ok()
    };
    let computed = |range: &IpamConfig| {
        let (base, _) = range.subnet.as_deref()?.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        Some(IpAddr::from(Ipv4Addr::from(base.checked_add(1)?)))
    };
    let all = || ranges.iter().filter_map(told);
    all()
        .find(IpAddr::is_ipv4)
        .or_else(|| ranges.iter().find_map(computed))
        .or_else(|| all().next())
}

/// What Frostgate sets, with the workspace's own environment on top.
fn environment(blueprint: &Blueprint, gateway: Option<IpAddr>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    environment.insert("FROSTGATE_WORKSPACE".to_owned(), blueprint.id.to_string());
    if let Some(port) = blueprint.spec.port {
        environment.insert("PORT".to_owned(), port.to_string());
    }
    if let Some(host) = gateway {
        environment.insert("FROSTGATE_CHECK_IN_URL".to_owned(), blueprint.check_in.url(host));
    }
    environment.extend(blueprint.spec.environment.clone());
    environment
}

/// Everything by which the container is known again, even by a Frostgate that lost its store.
fn labels(recipe: &Recipe<'_>, spec: &Spec, scope: &str) -> labels::Labels {
    let mut labels = HashMap::from([
        (labels::ID.to_owned(), recipe.blueprint.id.to_string()),
        (labels::ENABLE.to_owned(), "true".to_owned()),
        (labels::MANAGED.to_owned(), "true".to_owned()),
    ]);
    let optional = [
        (labels::PORT, spec.port.map(|port| port.to_string())),
        (labels::HOST, (!spec.hosts.is_empty()).then(|| spec.hosts.join(","))),
        (labels::READY_PATH, spec.ready_path.clone()),
        (labels::SCOPE, (!scope.is_empty()).then(|| scope.to_owned())),
    ];
    for (label, value) in optional {
        labels.extend(value.map(|value| (label.to_owned(), value)));
    }
    labels
}

/// A free port of this machine, another one at every start, that other machines can't reach.
fn loopback() -> PortBinding {
    PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: Some(String::new()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{CheckInAccess, Runs, WorkspaceId};

    fn blueprint() -> Blueprint {
        Blueprint {
            id: WorkspaceId::parse("alice").unwrap(),
            spec: Spec {
                runs: Runs::Upstream("unused".to_owned()),
                port: Some(8080),
                environment: BTreeMap::from([("PORT".to_owned(), "9".to_owned())]),
                hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
                ready_path: Some("/healthz".to_owned()),
            },
            check_in: CheckInAccess { port: 80, token: "t".to_owned() },
        }
    }

    fn written(network: Option<&str>, address: Address, gateway: Option<IpAddr>) -> Value {
        let blueprint = blueprint();
        let recipe = Recipe {
            blueprint: &blueprint,
            image: ImageName::parse("app:1").unwrap(),
            command: &[],
            network: network.and_then(NetworkName::parse),
        };
        let surroundings = Surroundings { gateway, address, scope: "mine", port: Some(8080) };
        serde_json::to_value(body(&recipe, &surroundings)).unwrap()
    }

    #[test]
    fn the_workspaces_own_environment_wins() {
        let body = written(None, Address::Container, Some(IpAddr::from([172, 17, 0, 1])));
        let environment = json!([
            "FROSTGATE_CHECK_IN_URL=http://172.17.0.1:80/v1/check-in?token=t",
            "FROSTGATE_WORKSPACE=alice",
            "PORT=9",
        ]);
        assert_eq!(body["Env"], environment);
        assert_eq!(body["Cmd"], Value::Null);
        assert_eq!(body["HostConfig"]["NetworkMode"], Value::Null);
    }

    #[test]
    fn it_is_labelled_so_that_it_is_known_again() {
        let labels = written(None, Address::Container, None)["Labels"].clone();
        let labels: labels::Labels = serde_json::from_value(labels).unwrap();
        let reading = labels::read(&labels);
        assert_eq!(reading.warnings, Vec::<String>::new());
        assert_eq!(reading.spec.port, Some(8080));
        assert_eq!(reading.spec.hosts, ["a.example", "b.example"]);
        assert_eq!(reading.spec.ready_path.as_deref(), Some("/healthz"));
        let id = WorkspaceId::parse("alice").unwrap();
        assert_eq!(labels::claim(&labels, "x", "mine"), labels::Claim::Workspace(id));
    }

    #[test]
    fn a_published_port_is_on_loopback_only() {
        let body = written(Some("back"), Address::Published, None);
        let bindings = json!({ "8080/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] });
        assert_eq!(body["HostConfig"]["PortBindings"], bindings);
        assert_eq!(body["HostConfig"]["NetworkMode"], "back");
    }

    #[test]
    fn the_gateway_is_told_or_computed() {
        let gateway = |ranges: Value| {
            let network = json!({ "IPAM": { "Config": ranges } });
            gateway(&serde_json::from_value(network).unwrap()).map(|ip| ip.to_string())
        };
        let told = json!([
            { "Subnet": "fd00::/64", "Gateway": "fd00::1" },
            { "Subnet": "172.17.0.0/16", "Gateway": "172.17.0.9/16" },
        ]);
        assert_eq!(gateway(told).as_deref(), Some("172.17.0.9"));
        let computed = gateway(json!([{ "Subnet": "10.9.8.0/24" }]));
        assert_eq!(computed.as_deref(), Some("10.9.8.1"));
        let six = json!([{ "Subnet": "fd00::/64", "Gateway": "fd00::1" }]);
        assert_eq!(gateway(six).as_deref(), Some("fd00::1"));
        assert_eq!(gateway(json!([])), None);
    }
}
