//! How a container of ours is made: a blueprint becomes the body of the engine's `create`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{
    ContainerCreateBody, HostConfig, IpamConfig, Mount, MountType, NetworkInspect, PortBinding,
};

use super::labels;
use super::names::{ImageName, NetworkName};
use crate::model::{self, Blueprint, Image, MountSource, Protocol, WorkspaceId};

/// A blueprint for this driver, with its names parsed.
pub(super) struct Recipe<'a> {
    pub(super) blueprint: &'a Blueprint,
    pub(super) image: &'a Image,
    pub(super) name: ImageName,
    /// The network that it joins; `None`: the engine's default.
    pub(super) network: Option<NetworkName>,
}

/// What has to be asked of the engine before the body can be written.
pub(super) struct Surroundings<'a> {
    /// The address by which the container reaches this machine, if there is one.
    pub(super) gateway: Option<IpAddr>,
    /// The container's ports that are published on this machine: `80/tcp`.
    pub(super) published: BTreeSet<String>,
    /// Whose it is; see [`labels::claim`].
    pub(super) scope: &'a str,
}

/// The body of the `create` call. It names no restart policy: who ends stays down until it is woken.
pub(super) fn body(recipe: &Recipe<'_>, surroundings: &Surroundings<'_>) -> ContainerCreateBody {
    let Recipe { blueprint, image, .. } = recipe;
    let published = &surroundings.published;
    let exposed = (!published.is_empty()).then(|| published.iter().cloned().collect());
    let bindings = published.iter().map(|port| (port.clone(), Some(vec![loopback()])));
    let environment = environment(blueprint, surroundings.gateway);
    let mounts = image.mounts.iter().map(|mount| bind(mount, &blueprint.id)).collect();
    let memory = blueprint.spec.memory.map(in_range);
    ContainerCreateBody {
        image: Some(recipe.name.as_str().to_owned()),
        cmd: (!image.command.is_empty()).then(|| image.command.clone()),
        env: Some(environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels(recipe, surroundings.scope)),
        exposed_ports: exposed,
        host_config: Some(HostConfig {
            network_mode: recipe.network.as_ref().map(|network| network.as_str().to_owned()),
            port_bindings: (!published.is_empty()).then(|| bindings.collect()),
            mounts: (!image.mounts.is_empty()).then_some(mounts),
            memory,
            // Without this it could swap as much again.
            memory_swap: memory,
            nano_cpus: image.nano_cpus.map(in_range),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
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
    environment.extend(blueprint.environment());
    environment
}

/// Not one of the engine's older "binds", which make a missing directory, as root.
fn bind(mount: &model::Mount, id: &WorkspaceId) -> Mount {
    let (typ, source) = match mount.source(id) {
        MountSource::Directory(path) => (MountType::BIND, path),
        MountSource::Volume(name) => (MountType::VOLUME, name),
    };
    Mount {
        typ: Some(typ),
        source: Some(source),
        target: Some(mount.target().to_owned()),
        read_only: Some(mount.read_only()),
        ..Mount::default()
    }
}

/// The engine counts in signed numbers.
fn in_range(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Everything by which the container is known again, even by a Frostgate that lost its store.
fn labels(recipe: &Recipe<'_>, scope: &str) -> labels::Labels {
    let spec = &recipe.blueprint.spec;
    let network = recipe.network.as_ref().filter(|network| !network.is_shared());
    let mut labels = labels::ours(&recipe.blueprint.id, scope);
    let optional = [
        (labels::PORT, spec.port.map(|port| port.to_string())),
        (labels::HOST, (!spec.hosts.is_empty()).then(|| spec.hosts.join(","))),
        (labels::READY_PATH, spec.ready_path.clone()),
        (labels::PROTOCOL, (spec.protocol != Protocol::Http1).then(|| spec.protocol.to_string())),
        (labels::MEMORY, spec.memory.map(|bytes| bytes.to_string())),
        (labels::NETWORK, network.map(|network| network.as_str().to_owned())),
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
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::{CheckInAccess, Mount, Runs, Spec};

    fn blueprint(image: Image) -> Blueprint {
        Blueprint {
            id: WorkspaceId::parse("alice").unwrap(),
            spec: Arc::new(Spec {
                port: Some(8080),
                environment: BTreeMap::from([("PORT".to_owned(), "9".to_owned())]),
                hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
                ready_path: Some("/healthz".to_owned()),
                protocol: Protocol::H2c,
                ..Spec::new(Runs::Image(image))
            }),
            check_in: CheckInAccess { port: 80, token: "t".to_owned() },
        }
    }

    fn written(
        blueprint: &Blueprint,
        network: Option<&str>,
        surroundings: Surroundings<'_>,
    ) -> Value {
        let Runs::Image(image) = &blueprint.spec.runs else { panic!("no image: {blueprint:?}") };
        let recipe = Recipe {
            blueprint,
            image,
            name: ImageName::parse(&image.name).unwrap(),
            network: network.and_then(NetworkName::parse),
        };
        serde_json::to_value(body(&recipe, &surroundings)).unwrap()
    }

    fn surroundings(published: &[&str]) -> Surroundings<'static> {
        Surroundings {
            gateway: Some(IpAddr::from([172, 17, 0, 1])),
            published: published.iter().map(|&port| port.to_owned()).collect(),
            scope: "mine",
        }
    }

    #[test]
    fn the_workspaces_own_environment_wins() {
        let body = written(&blueprint(Image::new("app:1")), None, surroundings(&[]));
        let environment = json!([
            "FROSTGATE_CHECK_IN_URL=http://172.17.0.1:80/v1/check-in?token=t",
            "FROSTGATE_WORKSPACE=alice",
            "PORT=9",
        ]);
        assert_eq!(body["Env"], environment);
        assert_eq!(body["Cmd"], Value::Null);
        assert_eq!(body["HostConfig"], json!({}));
    }

    #[test]
    fn everything_that_it_is_made_of_is_told() {
        let mounts = ["/srv/{id}:/home", "cache:/var/cache:ro"];
        let mut blueprint = blueprint(Image {
            command: vec!["serve".to_owned()],
            mounts: mounts.iter().map(|text| Mount::parse(text).unwrap()).collect(),
            nano_cpus: Some(1_500_000_000),
            ..Image::new("app:1")
        });
        Arc::make_mut(&mut blueprint.spec).memory = Some(64 << 20);
        Arc::make_mut(&mut blueprint.spec)
            .environment
            .insert("NAME".to_owned(), "it is {id}".to_owned());
        let body = written(&blueprint, Some("back"), surroundings(&[]));
        assert_eq!(body["Cmd"], json!(["serve"]));
        assert!(body["Env"].as_array().unwrap().contains(&json!("NAME=it is alice")));
        let host_config = json!({
            "NetworkMode": "back",
            "Memory": 67_108_864,
            "MemorySwap": 67_108_864,
            "NanoCpus": 1_500_000_000,
            "Mounts": [
                { "Type": "bind", "Source": "/srv/alice", "Target": "/home", "ReadOnly": false },
                { "Type": "volume", "Source": "cache", "Target": "/var/cache", "ReadOnly": true },
            ],
        });
        assert_eq!(body["HostConfig"], host_config);
    }

    #[test]
    fn it_is_labelled_so_that_it_is_known_again() {
        let mut blueprint = blueprint(Image::new("app:1"));
        Arc::make_mut(&mut blueprint.spec).memory = Some(64 << 20);
        let labels = written(&blueprint, Some("back"), surroundings(&[]))["Labels"].clone();
        let labels: labels::Labels = serde_json::from_value(labels).unwrap();
        let reading = labels::read(&labels);
        assert_eq!(reading.warnings, Vec::<String>::new());
        assert_eq!((reading.spec.port, reading.spec.memory), (Some(8080), Some(64 << 20)));
        assert_eq!(reading.spec.hosts, ["a.example", "b.example"]);
        assert_eq!(reading.spec.ready_path.as_deref(), Some("/healthz"));
        assert_eq!(reading.spec.protocol, Protocol::H2c);
        assert_eq!(reading.spec.runs, Runs::Discovered { network: Some("back".to_owned()) });
        let id = WorkspaceId::parse("alice").unwrap();
        assert_eq!(labels::claim(&labels, "x", "mine"), labels::Claim::Workspace(id));
    }

    #[test]
    fn ports_are_published_on_loopback_only() {
        let ports = surroundings(&["22/tcp", "8080/tcp"]);
        let body = written(&blueprint(Image::new("app:1")), None, ports);
        let loopback = json!([{ "HostIp": "127.0.0.1", "HostPort": "" }]);
        let bindings = json!({ "22/tcp": loopback, "8080/tcp": loopback });
        assert_eq!(body["HostConfig"]["PortBindings"], bindings);
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
