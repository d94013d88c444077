//! From what the engine says of a container to what the lifecycle wants to know.
//!
//! Pure: nothing is asked here and nothing is remembered, so the same answer always reads the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, EndpointSettings,
    HealthStatusEnum,
};

use super::names::NetworkName;
use super::{Address, labels};
use crate::driver::{Description, Health, Sighting, Status};

/// Many images let people in by SSH as well. It is not what their visitors come for.
const SSH: u16 = 22;

/// A sighting, and why it has no endpoint although the container runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sighting: Sighting,
    pub(super) warning: Option<String>,
}

/// Reads an inspected container.
pub(super) fn seen(
    container: &ContainerInspectResponse,
    address: Address,
    preferred: Option<&NetworkName>,
) -> Seen {
    let Some(state) = &container.state else {
        return Seen { sighting: Sighting::down(Status::Missing, None), warning: None };
    };
    let status = status(state);
    if !matches!(status, Status::Running | Status::Paused) {
        let sighting = Sighting::down(status, exit(state));
        return Seen { sighting, warning: None };
    }
    let (endpoint, warning) = match endpoint(container, address, preferred) {
        Ok(endpoint) => (Some(endpoint), None),
        Err(reason) => (None, Some(reason)),
    };
    let started_at = state.started_at.as_deref().unwrap_or_default();
    let sighting = Sighting {
        status,
        run: Some(format!("{started_at}/{}", state.pid.unwrap_or_default())),
        endpoint,
        addresses: networks(container).flat_map(|(_, network)| addresses(network)).collect(),
        health: health(state),
        exit: None,
    };
    Seen { sighting, warning }
}

/// Its first process, as the engine's machine numbers it; `None`: it has none.
pub(super) fn pid(container: &ContainerInspectResponse) -> Option<u32> {
    let pid = container.state.as_ref()?.pid?;
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// Whether it runs. A container that waits to be restarted doesn't; one that is being removed is as
/// good as gone.
pub(super) fn status(state: &ContainerState) -> Status {
    use ContainerStateStatusEnum as Engine;
    match state.status {
        Some(Engine::RUNNING | Engine::STOPPING) => Status::Running,
        Some(Engine::PAUSED) => Status::Paused,
        Some(Engine::REMOVING) => Status::Missing,
        Some(
            Engine::EMPTY | Engine::CREATED | Engine::RESTARTING | Engine::EXITED | Engine::DEAD,
        )
        | None => Status::Stopped,
    }
}

/// The labelled port, else the one exposed TCP port, else why there is none.
pub(super) fn port(container: &ContainerInspectResponse) -> Result<u16, String> {
    let config = container.config.as_ref();
    if let Some(port) = config.and_then(|config| labels::port(config.labels.as_ref()?)) {
        return Ok(port);
    }
    let exposed = config.and_then(|config| config.exposed_ports.as_deref()).unwrap_or_default();
    only_tcp_port(exposed)
        .map_err(|reason| format!("{reason}; say which one with the label {}", labels::PORT))
}

/// What the engine calls it. Its ports are published while it runs.
pub(super) fn description(container: &ContainerInspectResponse) -> Description {
    let host_port = |port| published(container, port).map(|address| address.port());
    Description {
        container_id: container.id.clone().unwrap_or_default(),
        name: container.name.clone().unwrap_or_default(),
        image: container
            .config
            .as_ref()
            .and_then(|config| config.image.clone())
            .unwrap_or_default(),
        ssh_port: host_port(SSH),
        app_port: port(container).ok().and_then(host_port),
    }
}

/// The one port of `80/tcp`, `53/udp`, … that speaks TCP, beside the one of SSH.
pub(super) fn only_tcp_port(exposed: &[String]) -> Result<u16, String> {
    let mut ports: Vec<u16> = exposed
        .iter()
        .filter_map(|text| match text.split_once('/') {
            Some((port, "tcp")) => port.parse().ok(),
            Some(_) => None,
            None => text.parse().ok(),
        })
        .collect();
    ports.sort_unstable();
    match ports[..] {
        [port] | [SSH, port] => Ok(port),
        [] => Err("no port is exposed".to_owned()),
        _ => Err(format!("several ports are exposed ({})", joined(&ports))),
    }
}

fn exit(state: &ContainerState) -> Option<String> {
    use ContainerStateStatusEnum as Engine;
    let error = state.error.as_deref().unwrap_or_default().trim();
    let ended = matches!(state.status, Some(Engine::EXITED | Engine::DEAD | Engine::RESTARTING));
    if !ended && error.is_empty() {
        return None;
    }
    let mut words = format!("exited with code {}", state.exit_code.unwrap_or_default());
    if state.oom_killed == Some(true) {
        words.push_str(" (out of memory)");
    }
    if !error.is_empty() {
        words.push_str(": ");
        words.extend(error.chars().take(300));
    }
    Some(words)
}

fn health(state: &ContainerState) -> Option<Health> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

fn endpoint(
    container: &ContainerInspectResponse,
    address: Address,
    preferred: Option<&NetworkName>,
) -> Result<SocketAddr, String> {
    let port = port(container)?;
    let host_config = container.host_config.as_ref();
    let mode = host_config.and_then(|config| config.network_mode.as_deref());
    if mode == Some("host") {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    match address {
        Address::Container => {
            let own = container_address(container, preferred)?;
            Ok(SocketAddr::new(own, port))
        }
        Address::Published => published(container, port)
            .ok_or_else(|| format!("port {port} is not published on this machine")),
    }
}

/// The address in the labelled network, else in the preferred one, else in the first by name.
fn container_address(
    container: &ContainerInspectResponse,
    preferred: Option<&NetworkName>,
) -> Result<IpAddr, String> {
    let own: Vec<(&str, IpAddr)> = networks(container)
        .filter_map(|(name, network)| Some((name, addresses(network).next()?)))
        .collect();
    let within = |wanted: &str| own.iter().find(|(name, _)| *name == wanted).map(|(_, ip)| *ip);
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    if let Some(wanted) = labels.and_then(|labels| labels.get(labels::NETWORK)) {
        // Nobody labels a container with a network to have it dialled through another one.
        let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
        let wanted = wanted.trim();
        return within(wanted).ok_or_else(|| {
            let wanted: String = wanted.chars().take(60).collect();
            format!("it has no address in network {wanted:?}, only in: {}", joined(&names))
        });
    }
    preferred
        .and_then(|network| within(network.as_str()))
        .or_else(|| own.first().map(|(_, ip)| *ip))
        .ok_or_else(|| "it has no address in any network".to_owned())
}

fn published(container: &ContainerInspectResponse, port: u16) -> Option<SocketAddr> {
    let ports = container.network_settings.as_ref()?.ports.as_ref()?;
    let bindings = ports.get(&format!("{port}/tcp"))?.as_ref()?;
    let mut published: Vec<SocketAddr> = bindings
        .iter()
        .filter_map(|binding| {
            let host_port = binding.host_port.as_deref()?.parse().ok()?;
            let host = match binding.host_ip.as_deref() {
                None | Some("" | "0.0.0.0") => Ipv4Addr::LOCALHOST.into(),
                Some("::") => Ipv6Addr::LOCALHOST.into(),
                Some(host) => host.parse().ok()?,
            };
            Some(SocketAddr::new(host, host_port))
        })
        .collect();
    published.sort_unstable();
    published.first().copied()
}

/// Its networks by name: the engine tells them in random order.
fn networks(
    container: &ContainerInspectResponse,
) -> impl Iterator<Item = (&str, &EndpointSettings)> {
    let settings = container.network_settings.as_ref();
    let mut networks: Vec<_> = settings
        .and_then(|settings| settings.networks.as_ref())
        .into_iter()
        .flatten()
        .map(|(name, network)| (name.as_str(), network))
        .collect();
    networks.sort_unstable_by_key(|(name, _)| *name);
    networks.into_iter()
}

fn addresses(network: &EndpointSettings) -> impl Iterator<Item = IpAddr> {
    [&network.ip_address, &network.global_ipv6_address]
        .into_iter()
        .filter_map(|text| text.as_deref()?.parse().ok())
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
