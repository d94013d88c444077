//! Workspaces that report their own activity, from where they run.

use std::net::{IpAddr, SocketAddr};

use frostgate::config::Config;
use frostgate::model::{FreezeMode, Image, Phase, Runs, Spec, Tier};
use tokio::time::sleep;

use super::{Guest, IDLE, NEVER, Stage};
use crate::images::{Container, Network, engine, unique};
use crate::support::{self, Client, get, until};

/// So that containers reach it by their default gateway.
pub(super) fn reachable(config: &mut Config) {
    config.listen.public = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
}

impl Stage {
    /// Has a guest report by its default gateway; the status it got.
    pub(super) async fn reports(&self, guest: &Guest, active: u32) -> String {
        let port = self.gateway.public().port();
        let path = format!("/check-in-gateway?active={active}&port={port}");
        let reply = self.post(guest, &path, b"").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text()
    }

    pub(super) fn reports_activity(&self, guest: &Guest) -> bool {
        self.gateway.workspace(&guest.id).view().reports_activity
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_report_by_the_default_gateway_keeps_it_awake_until_it_reports_nothing() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, reachable).await;
    for mode in super::MODES {
        let guest = stage.guest(mode, IDLE, &[]).await;
        assert_eq!(stage.reports(&guest, 2).await, "200");
        assert!(stage.reports_activity(&guest));
        sleep(IDLE * 3).await;
        assert_eq!(stage.gateway.phase(&guest.id), Phase::Running);
        assert_eq!(stage.reports(&guest, 0).await, "200");
        stage.until(&guest, Phase::Frozen).await;
        // A start clears what was reported before it.
        assert_eq!(stage.reports(&guest, 1).await, "200");
        stage.docker(&["restart", "--time", "5", &guest.container.name]);
        until("the report is forgotten", || !stage.reports_activity(&guest)).await;
        stage.until(&guest, Phase::Frozen).await;
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_of_ours_reports_by_its_url_and_nobody_else_by_a_wrong_one() {
    let Some(engine) = engine() else { return };
    let id = unique("reporter");
    let container = Container { name: format!("frostgate-{id}") };
    let image = engine.image();
    let stage = Stage::start(engine, |config| {
        reachable(config);
        let spec = Spec { port: Some(80), ..Spec::new(Runs::Image(Image::new(image))) };
        support::add(config, &id, spec, frostgate::model::PolicyOverrides::default());
    })
    .await;
    let guest = Guest { id, container };
    let reply = stage.post(&guest, "/check-in?active=1", b"").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "200"));
    assert!(stage.reports_activity(&guest));
    let environment = stage.inspect(&guest, "{{range .Config.Env}}{{println .}}{{end}}");
    let token = environment
        .lines()
        .find_map(|line| line.strip_prefix("FROSTGATE_CHECK_IN_URL=")?.split_once("token="))
        .unwrap()
        .1;
    let port = stage.gateway.public().port();
    let rows = [
        (format!("?token={token}&active=0"), 200),
        (format!("?token={token}"), 400),
        (format!("?token={token}&active="), 400),
        (format!("?token={token}x&active=1"), 404),
        // This machine is no workspace.
        ("?active=1".to_owned(), 404),
    ];
    for (query, status) in rows {
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
        client
            .send(format!(
                "POST /v1/check-in{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{}: {reply:?}", query.replace(token, "…"));
    }
    assert!(!stage.reports_activity(&guest));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_that_is_no_workspace_is_not_known() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, reachable).await;
    let name = format!("frostgate-{}", unique("stranger"));
    let stranger = engine.container(&name, &[]);
    engine.docker(&["start", &stranger.name]);
    let address = "{{.NetworkSettings.IPAddress}}";
    let address: IpAddr =
        engine.docker(&["inspect", "--format", address, &stranger.name]).parse().unwrap();
    let endpoint = SocketAddr::new(address, 80);
    until("it listens", || std::net::TcpStream::connect(endpoint).is_ok()).await;
    let port = stage.gateway.public().port();
    let mut client = Client::connect(endpoint).await;
    client
        .send(format!(
            "POST /check-in-gateway?active=1&port={port} HTTP/1.1\r\nHost: x\r\n\
             Content-Length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(client.reply().await.text(), "404");
    assert_eq!(get(endpoint, "x", "/boot").await.status, 200);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_that_another_has_taken_is_the_others() {
    let Some(engine) = engine() else { return };
    let network = Network::new(engine);
    let stage = Stage::start(engine, reachable).await;
    let network_arguments = ["--network", network.name.as_str()];
    let first = stage.guest(FreezeMode::Stop, IDLE, &network_arguments).await;
    assert_eq!(stage.reports(&first, 0).await, "200");
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = stage.inspect(&first, address);
    stage.until_frozen(&first, Tier::Stopped).await;
    let fixed = [&network_arguments[..], &["--ip", &address]].concat();
    let second = stage.guest(FreezeMode::Stop, NEVER, &fixed).await;
    assert_eq!(stage.reports(&second, 1).await, "200");
    assert!(stage.reports_activity(&second));
    // The first has another address now, and reports for itself.
    assert_eq!(stage.reports(&first, 3).await, "200");
    assert!(stage.reports_activity(&first));
    assert_eq!(stage.reports(&second, 0).await, "200");
    assert!(stage.reports_activity(&first) && !stage.reports_activity(&second));
    stage.stop().await;
}
