//! The Docker driver against a real engine: its own calls, and what others do behind its back.

#[path = "driver/image.rs"]
mod image;
#[path = "driver/isolation.rs"]
mod isolation;
#[path = "driver/outside.rs"]
mod outside;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use frostgate::driver::docker::{Address, Docker, Options};
use frostgate::driver::{Driver, DriverError, Health, Sighting, Status};
use frostgate::model::{Blueprint, CheckInAccess, Image, Pull, Runs, Spec, WorkspaceId};

use crate::images::{Container, Engine, Network, engine, unique};

const GRACE: Duration = Duration::from_secs(5);

fn driver() -> Docker {
    Docker::connect(Options::default()).unwrap()
}

/// A blueprint with an id of its own, and what removes its container in the end.
fn blueprint(image: String) -> (Blueprint, Container) {
    blueprint_of(Image::new(image))
}

fn blueprint_of(image: Image) -> (Blueprint, Container) {
    let id = WorkspaceId::parse(&unique("driver")).unwrap();
    let container = Container { name: format!("frostgate-{id}") };
    let spec = Spec { port: Some(8080), ..Spec::new(Runs::Image(image)) };
    let check_in = CheckInAccess { port: 80, token: "secret".to_owned() };
    (Blueprint { id, spec: spec.into(), check_in }, container)
}

/// A blueprint of an isolated workspace, and what removes its container and network in the end.
fn isolated(image: Image) -> (Blueprint, Isolated) {
    let (blueprint, container) = blueprint_of(Image { isolate: true, ..image });
    (blueprint, Isolated(container))
}

struct Isolated(Container);

impl Isolated {
    /// The name of both.
    fn name(&self) -> &str {
        &self.0.name
    }

    fn leaves_nothing(&self, engine: Engine) -> bool {
        !engine.tries(&["container", "inspect", self.name()])
            && !engine.tries(&["network", "inspect", self.name()])
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        Engine.tries(&["rm", "--force", "--volumes", self.name()]);
        Engine.tries(&["network", "rm", self.name()]);
    }
}

fn id(name: &str) -> WorkspaceId {
    WorkspaceId::parse(name).unwrap()
}

/// Waits for a condition, at most 20 s.
async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One request on a connection of its own; the head and body of the answer.
fn request(endpoint: SocketAddr, method: &str, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&endpoint, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

async fn boot(endpoint: SocketAddr) -> String {
    until("the workspace answers", async || {
        let answer = request(endpoint, "GET", "/boot").ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
    })
    .await
}

async fn status(docker: &Docker, id: &WorkspaceId) -> Status {
    docker.inspect(id).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_works_and_may_be_repeated() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (blueprint, _container) = blueprint(engine.image());
    let id = &blueprint.id;
    assert_eq!(docker.inspect(id).await.unwrap(), Sighting::down(Status::Missing, None));
    for _ in 0..2 {
        docker.create(&blueprint).await.unwrap();
        assert_eq!(docker.inspect(id).await.unwrap(), Sighting::down(Status::Stopped, None));
    }
    for _ in 0..2 {
        docker.start(&blueprint).await.unwrap();
    }
    let running = docker.inspect(id).await.unwrap();
    assert_eq!(running.status, Status::Running);
    let endpoint = running.endpoint.unwrap();
    assert_eq!(endpoint.port(), 8080);
    assert_eq!(running.addresses, [endpoint.ip()]);
    let first = boot(endpoint).await;
    for _ in 0..2 {
        docker.pause(id).await.unwrap();
        let paused = docker.inspect(id).await.unwrap();
        assert_eq!(paused, Sighting { status: Status::Paused, ..running.clone() });
    }
    for _ in 0..2 {
        docker.unpause(id).await.unwrap();
        assert_eq!(docker.inspect(id).await.unwrap(), running);
    }
    assert_eq!(boot(endpoint).await, first);
    for _ in 0..2 {
        docker.stop(id, GRACE).await.unwrap();
        let stopped = docker.inspect(id).await.unwrap();
        let exit = Some("exited with code 0".to_owned());
        assert_eq!(stopped, Sighting::down(Status::Stopped, exit));
    }
    docker.start(&blueprint).await.unwrap();
    let again = docker.inspect(id).await.unwrap();
    assert_ne!(again.run, running.run);
    assert_ne!(boot(again.endpoint.unwrap()).await, first);
    for _ in 0..2 {
        docker.remove(id).await.unwrap();
        assert_eq!(docker.inspect(id).await.unwrap(), Sighting::down(Status::Missing, None));
    }
    docker.stop(id, GRACE).await.unwrap();
    assert!(matches!(docker.start(&blueprint).await, Err(DriverError::Refused { .. })));
    assert!(matches!(docker.pause(id).await, Err(DriverError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_workspace_can_be_started_stopped_and_removed() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (blueprint, _container) = blueprint(engine.image());
    let id = &blueprint.id;
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    docker.pause(id).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    assert_eq!(status(&docker, id).await, Status::Running);
    docker.pause(id).await.unwrap();
    docker.stop(id, GRACE).await.unwrap();
    assert_eq!(status(&docker, id).await, Status::Stopped);
    docker.start(&blueprint).await.unwrap();
    docker.pause(id).await.unwrap();
    docker.remove(id).await.unwrap();
    assert_eq!(status(&docker, id).await, Status::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_ignores_term_is_killed_after_its_grace() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (mut blueprint, _container) = blueprint(engine.image());
    Arc::make_mut(&mut blueprint.spec).environment.insert("IGNORE_TERM".to_owned(), "1".to_owned());
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    boot(docker.inspect(&blueprint.id).await.unwrap().endpoint.unwrap()).await;
    let began = Instant::now();
    docker.stop(&blueprint.id, Duration::from_millis(600)).await.unwrap();
    let took = began.elapsed();
    assert!((Duration::from_millis(600)..GRACE).contains(&took), "{took:?}");
    let exit = docker.inspect(&blueprint.id).await.unwrap().exit;
    assert_eq!(exit.as_deref(), Some("exited with code 137"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_removals_at_once_all_succeed() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (blueprint, _container) = blueprint(engine.image());
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    let removals = (0..8).map(|_| docker.remove(&blueprint.id));
    for removed in futures_util::future::join_all(removals).await {
        removed.unwrap();
    }
    assert_eq!(status(&docker, &blueprint.id).await, Status::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_finds_the_way_to_report_for_itself() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (mut blueprint, _container) = blueprint(engine.image());
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    blueprint.check_in.port = listener.local_addr().unwrap().port();
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    let sighting = docker.inspect(&blueprint.id).await.unwrap();
    let endpoint = sighting.endpoint.unwrap();
    boot(endpoint).await;
    let gateway = format!("/check-in-gateway?active=4&port={}", blueprint.check_in.port);
    let rows = [("/check-in?active=3", "active=3", "?token=secret"), (&gateway, "active=4", "")];
    for (target, body, query) in rows {
        let target = target.to_owned();
        let caller = std::thread::spawn(move || request(endpoint, "POST", &target).unwrap());
        let (mut report, peer) = listener.accept().unwrap();
        assert!(sighting.addresses.contains(&peer.ip()), "{peer}");
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        while !bytes[..length].ends_with(body.as_bytes()) {
            length += report.read(&mut bytes[length..]).unwrap();
        }
        let text = String::from_utf8_lossy(&bytes[..length]);
        assert!(text.starts_with(&format!("POST /v1/check-in{query} ")), "{text}");
        report.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        let answer = caller.join().unwrap();
        assert!(answer.ends_with("\r\n\r\n204"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_is_read_afresh_after_every_start() {
    let Some(engine) = engine() else { return };
    let options = Options { address: Address::Published, ..Options::default() };
    let docker = Docker::connect(options).unwrap();
    let (mut blueprint, _container) = blueprint(engine.image());
    // Without a port of its own, the image's one exposed port (80) is published.
    Arc::make_mut(&mut blueprint.spec).port = None;
    docker.create(&blueprint).await.unwrap();
    for _ in 0..2 {
        docker.start(&blueprint).await.unwrap();
        let endpoint = docker.inspect(&blueprint.id).await.unwrap().endpoint.unwrap();
        assert!(endpoint.ip().is_loopback() && endpoint.port() != 80, "{endpoint}");
        boot(endpoint).await;
        docker.stop(&blueprint.id, GRACE).await.unwrap();
        assert_eq!(docker.inspect(&blueprint.id).await.unwrap().endpoint, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_its_own_gives_address_and_gateway() {
    let Some(engine) = engine() else { return };
    let network = Network::new(engine);
    let options = Options { network: Some(network.name.clone()), ..Options::default() };
    let docker = Docker::connect(options).unwrap();
    let (blueprint, container) = blueprint(engine.image());
    docker.create(&blueprint).await.unwrap();
    let gateway = network.gateway.to_string();
    let format = "{{range .Config.Env}}{{println .}}{{end}}";
    let environment = engine.docker(&["inspect", "--format", format, &container.name]);
    let url = format!("FROSTGATE_CHECK_IN_URL=http://{gateway}:80/v1/check-in?token=secret");
    assert!(environment.lines().any(|line| line == url), "{environment}");
    // A second network, earlier in the alphabet: the preferred one is still dialled.
    engine.docker(&["network", "connect", "bridge", &container.name]);
    docker.start(&blueprint).await.unwrap();
    let sighting = docker.inspect(&blueprint.id).await.unwrap();
    assert_eq!(sighting.addresses.len(), 2);
    boot(sighting.endpoint.unwrap()).await;
    let prefix = gateway.rsplit_once('.').unwrap().0;
    assert!(sighting.endpoint.unwrap().to_string().starts_with(prefix), "{sighting:?}");
    docker.remove(&blueprint.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_made_is_refused_in_words_that_help() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let refusal = async |runs: Runs| {
        let (mut blueprint, _container) = blueprint(String::new());
        Arc::make_mut(&mut blueprint.spec).runs = runs;
        match docker.create(&blueprint).await {
            Err(DriverError::Refused { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let image = |name: &str, network: Option<&str>| {
        let network = network.map(str::to_owned);
        Runs::Image(Image { network, pull: Pull::Never, ..Image::new(name) })
    };
    let missing = "localhost/frostgate-test-missing:1";
    let reason = refusal(image(missing, None)).await;
    assert!(reason.contains(&format!("`docker pull {missing}` fetches it")), "{reason}");
    let reason = refusal(image(&engine.image(), Some("frostgate-test-nowhere"))).await;
    assert!(reason.contains("`docker network create frostgate-test-nowhere`"), "{reason}");
    let reason = refusal(image("../images/prune?x=", None)).await;
    assert!(reason.contains("not an image's name"), "{reason}");
    let reason = refusal(image(&engine.image(), Some("../x"))).await;
    assert!(reason.contains("not a network's name"), "{reason}");
    let reason = refusal(Runs::Discovered { network: None }).await;
    assert!(reason.contains("is gone"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_container_with_our_name_is_left_alone() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (blueprint, container) = blueprint(engine.image());
    let stranger = engine.container(&container.name, &[]);
    let refused = docker.create(&blueprint).await.unwrap_err().to_string();
    assert!(refused.contains("not ours"), "{refused}");
    docker.remove(&blueprint.id).await.unwrap();
    engine.docker(&["inspect", &stranger.name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_refused_with_the_engines_words() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let command = vec!["/no-such-program".to_owned()];
    let (blueprint, _container) = blueprint_of(Image { command, ..Image::new(engine.image()) });
    docker.create(&blueprint).await.unwrap();
    let refused = docker.start(&blueprint).await.unwrap_err().to_string();
    assert!(refused.contains("no-such-program"), "{refused}");
    let sighting = docker.inspect(&blueprint.id).await.unwrap();
    assert_eq!(sighting.status, Status::Stopped);
    assert!(sighting.exit.unwrap().contains("no-such-program"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_is_unreachable() {
    let socket = Some("/nonexistent/frostgate-test.sock".to_owned());
    let docker = Docker::connect(Options { socket, ..Options::default() }).unwrap();
    let began = Instant::now();
    let unreachable = docker.inspect(&id("x")).await.unwrap_err();
    assert!(matches!(unreachable, DriverError::Unreachable { .. }), "{unreachable}");
    assert!(unreachable.to_string().contains("/nonexistent/frostgate-test.sock"), "{unreachable}");
    assert!(matches!(docker.list().await, Err(DriverError::Unreachable { .. })));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_is_reported() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (mut blueprint, _container) = blueprint(engine.image_with_health_check());
    Arc::make_mut(&mut blueprint.spec)
        .environment
        .insert("START_DELAY_MS".to_owned(), "300".to_owned());
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap();
    let health = async || docker.inspect(&blueprint.id).await.unwrap().health;
    assert_eq!(health().await, Some(Health::Starting));
    until("it is healthy", async || (health().await == Some(Health::Healthy)).then_some(())).await;
}
