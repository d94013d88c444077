//! Addresses and ports that are others' after every start.

use std::time::Duration;

use frostgate::config::DockerAddress;
use frostgate::model::{FreezeMode, Phase, Tier};

use super::{Guest, IDLE, NEVER, Stage};
use crate::images::{Container, Engine, Network, engine, unique};
use crate::relay::Relay;

const ADDRESS: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";

/// A container that somebody else runs where a guest was.
fn squatter(engine: Engine, network: &Network, address: &str) -> Container {
    let name = format!("frostgate-{}", unique("squatter"));
    let container = engine.container(&name, &["--network", &network.name, "--ip", address]);
    engine.docker(&["start", &container.name]);
    container
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_whose_address_was_taken_meanwhile_is_found_at_its_new_one() {
    let Some(engine) = engine() else { return };
    let network = Network::new(engine);
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, IDLE, &["--network", &network.name]).await;
    let first = stage.boot(&guest).await;
    let address = stage.inspect(&guest, ADDRESS);
    stage.until_frozen(&guest, Tier::Stopped).await;
    let _squatter = squatter(engine, &network, &address);
    let second = stage.boot(&guest).await;
    assert_ne!(first, second);
    assert_ne!(stage.inspect(&guest, ADDRESS), address);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_frozen_is_not_taken_for_whoever_has_its_address_while_the_engine_is_away() {
    let Some(engine) = engine() else { return };
    let network = Network::new(engine);
    let mut relay = Relay::new(&unique("relay"));
    let socket = relay.path().to_str().unwrap().to_owned();
    let stage = Stage::start(engine, |config| config.docker.socket = Some(socket)).await;
    let guest = stage.guest(FreezeMode::Stop, IDLE, &["--network", &network.name]).await;
    stage.boot(&guest).await;
    let address = stage.inspect(&guest, ADDRESS);
    stage.until_frozen(&guest, Tier::Stopped).await;
    let _squatter = squatter(engine, &network, &address);
    let answers = || squatter_answers(&address);
    crate::support::until("the squatter answers", answers).await;
    relay.cut().await;
    let reply = stage.get(&guest, "/boot").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    stage.stop().await;
}

fn squatter_answers(address: &str) -> bool {
    let endpoint = format!("{address}:80").parse().unwrap();
    std::net::TcpStream::connect_timeout(&endpoint, Duration::from_millis(200)).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_published_port_that_changes_is_never_a_bad_gateway() {
    never_a_bad_gateway(DockerAddress::Published, &["--publish", "127.0.0.1::80"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_own_address_that_changes_is_never_a_bad_gateway() {
    never_a_bad_gateway(DockerAddress::Container, &[]).await;
}

/// Stops it outside and by the gateway, in turns, and asks without a break.
async fn never_a_bad_gateway(address: DockerAddress, arguments: &[&str]) {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |config| {
        config.docker.address = address;
        config.policy.stop_hold_off = Duration::ZERO;
    })
    .await;
    // An application that listens late: until then the published port accepts and hangs up.
    let slow = [arguments, &["--env", "START_DELAY_MS=400"]].concat();
    let guest = stage.guest(FreezeMode::Stop, NEVER, &slow).await;
    let mut last = stage.boot(&guest).await;
    for round in 0..3 {
        stop_it(&stage, &guest, round % 2 == 0).await;
        for requests in 0..20 {
            let reply = match requests % 2 {
                0 => stage.get(&guest, "/boot").await,
                _ => stage.post(&guest, "/boot", b"x").await,
            };
            assert_eq!(reply.status, 200, "{reply:?}");
            if requests == 0 {
                assert_ne!(reply.text(), last);
                last = reply.text();
            }
            assert_eq!(reply.text(), last);
        }
    }
    stage.stop().await;
}

async fn stop_it(stage: &Stage, guest: &Guest, outside: bool) {
    if outside {
        stage.docker(&["stop", &guest.container.name]);
    } else {
        let reply = stage.gateway.call("PUT", &format!("/workspaces/{}/stop", guest.id)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    stage.until(guest, Phase::Frozen).await;
}
