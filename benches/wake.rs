//! What a wake costs over the bare engine call: both, side by side, interleaved in one run.
//!
//! `cargo bench --bench wake [-- ROUNDS]`. Prints p50 and p95 in milliseconds. The bare figure of a
//! stopped container is the engine's `start` plus the time until the application answers, asked
//! in a tight loop; that of a paused one is the engine's `unpause`.

#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on should say where")]
#![expect(dead_code, unused_imports, reason = "the tests' support has more than it needs")]

#[path = "../tests/fixture/mod.rs"]
mod fixture;
#[path = "../tests/docker/images.rs"]
mod images;
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use bollard::Docker;
use frostgate::config::DockerUse;
use frostgate::model::{FreezeMode, Phase};
use support::{Gateway, get, process, until};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ROUNDS: usize = 25;
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::main]
async fn main() {
    let rounds = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(ROUNDS);
    println!("{rounds} rounds each; milliseconds");
    println!("{:<44}{:>10}{:>10}", "", "p50", "p95");
    processes(rounds).await;
    if let Some(engine) = images::engine() {
        containers(engine, rounds).await;
    }
}

async fn processes(rounds: usize) {
    let gateway = Gateway::start(|config| {
        config.policy.stop_hold_off = Duration::ZERO;
        process(config, "stopped", FreezeMode::Stop, NEVER, &[]);
        process(config, "paused", FreezeMode::Pause, NEVER, &[]);
    })
    .await;
    let (mut bare, mut stopped, mut paused) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.push(bare_process().await);
        stopped.push(through_the_gate(&gateway, "stopped").await);
        paused.push(through_the_gate(&gateway, "paused").await);
    }
    let stopped_bare = report("process: spawned, until it answers", bare);
    let woken = report("process: request to a stopped one", stopped);
    println!("{:<44}{:>10.1}", "    added at p50", woken - stopped_bare);
    report("process: request to a paused one", paused);
    gateway.stop().await;
}

async fn bare_process() -> Duration {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let mut child = Command::new(fixture::binary())
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until_it_answers(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let took = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

async fn containers(engine: images::Engine, rounds: usize) {
    let labelled = |name: &str, mode: &str| {
        let freeze = format!("frostgate.freeze={mode}");
        let name = images::unique(name);
        engine.container(&name, &["--label", "frostgate.enable=true", "--label", &freeze])
    };
    let bare = engine.container(&images::unique("bare"), &[]);
    let (stopped, paused) = (labelled("stopped", "stop"), labelled("paused", "pause"));
    let gateway = Gateway::start(|config| {
        config.docker.enable = DockerUse::Always;
        config.policy.stop_hold_off = Duration::ZERO;
    })
    .await;
    until("the containers are found", || {
        let registry = gateway.app().registry();
        [&stopped, &paused].iter().all(|one| registry.get(&one.name).is_some())
    })
    .await;
    let docker = Docker::connect_with_defaults().unwrap();
    let (mut starts, mut unpauses) = (Vec::new(), Vec::new());
    let (mut from_stop, mut from_pause) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        starts.push(bare_start(&docker, &bare.name).await);
        from_stop.push(through_the_gate(&gateway, &stopped.name).await);
        unpauses.push(bare_unpause(&docker, &bare.name).await);
        from_pause.push(through_the_gate(&gateway, &paused.name).await);
    }
    let bare = report("docker: start, until it answers", starts);
    let woken = report("docker: request to a stopped one", from_stop);
    println!("{:<44}{:>10.1}", "    added at p50", woken - bare);
    let bare = report("docker: unpause", unpauses);
    let woken = report("docker: request to a paused one", from_pause);
    println!("{:<44}{:>10.1}", "    added at p50", woken - bare);
    gateway.stop().await;
}

async fn bare_start(docker: &Docker, name: &str) -> Duration {
    docker.kill_container(name, None).await.ok();
    while docker.inspect_container(name, None).await.unwrap().state.unwrap().running == Some(true) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    docker.start_container(name, None).await.unwrap();
    let settings = docker.inspect_container(name, None).await.unwrap().network_settings.unwrap();
    let address = settings.networks.unwrap()["bridge"].ip_address.clone().unwrap();
    until_it_answers(format!("{address}:80").parse().unwrap()).await;
    begun.elapsed()
}

async fn bare_unpause(docker: &Docker, name: &str) -> Duration {
    docker.pause_container(name).await.unwrap();
    let begun = Instant::now();
    docker.unpause_container(name).await.unwrap();
    begun.elapsed()
}

async fn through_the_gate(gateway: &Gateway, id: &str) -> Duration {
    let workspace = gateway.workspace(id);
    workspace.stop().await.unwrap();
    assert_eq!(workspace.view().phase, Phase::Frozen);
    let begun = Instant::now();
    let reply = gateway.get(id, "/boot").await;
    assert_eq!(reply.status, 200);
    begun.elapsed()
}

async fn until_it_answers(address: SocketAddr) {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            drop(stream);
            if get(address, "bare", "/boot").await.status == 200 {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Prints p50 and p95 and returns the p50, in milliseconds.
fn report(what: &str, mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    let at = |share: usize| samples[(samples.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{what:<44}{:>10.1}{:>10.1}", at(50), at(95));
    at(50)
}
