use serde_json::{Value, json};

use super::*;

fn container(value: Value) -> ContainerInspectResponse {
    serde_json::from_value(value).unwrap()
}

fn running(config: Value, settings: Value) -> ContainerInspectResponse {
    container(json!({
        "State": { "Status": "running", "Pid": 42, "StartedAt": "2026-01-01T00:00:00.5Z" },
        "Config": config,
        "NetworkSettings": settings,
    }))
}

fn by_container(inspected: &ContainerInspectResponse, network: Option<&str>) -> Seen {
    seen(inspected, Address::Container, network.and_then(NetworkName::parse).as_ref())
}

#[test]
fn every_state_of_the_engine_has_one_meaning() {
    let rows = [
        ("created", Status::Stopped, None),
        ("restarting", Status::Stopped, Some("exited with code 7")),
        ("exited", Status::Stopped, Some("exited with code 7")),
        ("dead", Status::Stopped, Some("exited with code 7")),
        ("removing", Status::Missing, None),
    ];
    for (state, status, exit) in rows {
        let inspected = container(json!({ "State": { "Status": state, "ExitCode": 7 } }));
        let sighting = Sighting::down(status, exit.map(str::to_owned));
        assert_eq!(by_container(&inspected, None), Seen { sighting, warning: None }, "{state}");
    }
    let up = |state| by_container(&container(json!({ "State": { "Status": state } })), None);
    assert_eq!(up("running").sighting.status, Status::Running);
    assert_eq!(up("paused").sighting.status, Status::Paused);
}

#[test]
fn an_exit_tells_of_memory_and_of_the_engines_words() {
    let inspected = container(json!({ "State": {
        "Status": "exited", "ExitCode": 137, "OOMKilled": true, "Error": "boom"
    } }));
    let exit = by_container(&inspected, None).sighting.exit;
    assert_eq!(exit.as_deref(), Some("exited with code 137 (out of memory): boom"));
}

#[test]
fn the_network_is_the_labelled_then_the_preferred_then_the_first_by_name() {
    let networks = json!({ "Networks": {
        "zebra": { "IPAddress": "10.0.3.2" },
        "back": { "IPAddress": "10.0.2.2", "GlobalIPv6Address": "fd00::2" },
        "a-down": { "IPAddress": "" },
    } });
    let plain =
        running(json!({ "ExposedPorts": { "80/tcp": {}, "53/udp": {} } }), networks.clone());
    let endpoint = |inspected, network| {
        by_container(inspected, network).sighting.endpoint.map(|address| address.to_string())
    };
    assert_eq!(endpoint(&plain, None).as_deref(), Some("10.0.2.2:80"));
    assert_eq!(endpoint(&plain, Some("zebra")).as_deref(), Some("10.0.3.2:80"));
    assert_eq!(endpoint(&plain, Some("elsewhere")).as_deref(), Some("10.0.2.2:80"));
    let config =
        |network| json!({ "Labels": { "frostgate.port": "81", "frostgate.network": network } });
    let labelled = running(config("back"), networks.clone());
    assert_eq!(endpoint(&labelled, Some("zebra")).as_deref(), Some("10.0.2.2:81"));
    let astray = by_container(&running(config("gone"), networks), Some("zebra"));
    assert_eq!(astray.sighting.endpoint, None);
    let warning = astray.warning.unwrap();
    assert!(warning.contains("\"gone\"") && warning.contains("back, zebra"), "{warning}");
    let addresses: Vec<String> =
        by_container(&plain, None).sighting.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["10.0.2.2", "fd00::2", "10.0.3.2"]);
}

#[test]
fn a_port_that_can_not_be_known_is_a_warning() {
    let networks = json!({ "Networks": { "bridge": { "IPAddress": "10.0.0.2" } } });
    for (exposed, words) in [
        (json!({}), "no port"),
        (json!({ "53/udp": {} }), "no port"),
        (json!({ "80/tcp": {}, "81/tcp": {} }), "80, 81"),
    ] {
        let seen =
            by_container(&running(json!({ "ExposedPorts": exposed }), networks.clone()), None);
        assert_eq!(seen.sighting.endpoint, None);
        assert_eq!(seen.sighting.status, Status::Running);
        let warning = seen.warning.unwrap();
        assert!(warning.contains(words) && warning.contains("frostgate.port"), "{warning}");
    }
}

#[test]
fn a_published_port_is_dialled_on_this_machine() {
    let published = |bindings: Value| {
        let config = json!({ "ExposedPorts": { "80/tcp": {} } });
        let inspected = running(config, json!({ "Ports": { "80/tcp": bindings } }));
        let seen = seen(&inspected, Address::Published, None);
        seen.sighting.endpoint.map(|address| address.to_string())
    };
    let binding = |host: &str| json!({ "HostIp": host, "HostPort": "32768" });
    assert_eq!(published(json!([binding("127.0.0.1")])).as_deref(), Some("127.0.0.1:32768"));
    let both = json!([binding("::"), binding("0.0.0.0")]);
    assert_eq!(published(both).as_deref(), Some("127.0.0.1:32768"));
    assert_eq!(published(json!([binding("::")])).as_deref(), Some("[::1]:32768"));
    assert_eq!(published(Value::Null), None);
}

#[test]
fn the_hosts_network_is_this_machine() {
    let mut inspected = running(
        json!({ "Labels": { "frostgate.port": "8080" } }),
        json!({ "Networks": { "host": { "IPAddress": "" } } }),
    );
    inspected.host_config = serde_json::from_value(json!({ "NetworkMode": "host" })).unwrap();
    let seen = by_container(&inspected, None);
    assert_eq!(seen.sighting.endpoint, Some("127.0.0.1:8080".parse().unwrap()));
    assert!(seen.sighting.addresses.is_empty());
}

#[test]
fn a_run_is_named_by_its_start_and_process() {
    let inspected = running(json!({}), json!({}));
    assert_eq!(
        by_container(&inspected, None).sighting.run.as_deref(),
        Some("2026-01-01T00:00:00.5Z/42")
    );
}

#[test]
fn health_none_is_no_health() {
    let health = |status: &str| {
        let state = json!({ "Status": "running", "Health": { "Status": status } });
        by_container(&container(json!({ "State": state })), None).sighting.health
    };
    assert_eq!(health("none"), None);
    assert_eq!(health("starting"), Some(Health::Starting));
    assert_eq!(health("healthy"), Some(Health::Healthy));
    assert_eq!(health("unhealthy"), Some(Health::Unhealthy));
}
