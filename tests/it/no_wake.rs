//! What wakes nobody: refused while its workspace does not run, and served as everything is while it
//! does.

use std::net::Ipv4Addr;
use std::sync::Arc;

use frostgate::model::{FreezeMode, NoWakeOverrides, Phase, WorkspaceId};

use crate::support::{Client, Gateway, PATIENCE, Reply, process};

const HOST: &str = "Host: alice.localhost\r\n";
/// Of a block that is for documentation.
const MONITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

async fn gateway(own: NoWakeOverrides) -> Gateway {
    Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
        config.routing.trusted_proxies = vec!["127.0.0.2/32".parse().unwrap()];
        config.policy.no_wake.methods = vec!["HEAD".to_owned()];
        config.policy.no_wake.user_agents = vec!["UptimeRobot".to_owned()];
        config.policy.no_wake.clients =
            vec!["127.0.0.9/32".parse().unwrap(), "203.0.113.0/24".parse().unwrap()];
        let id = WorkspaceId::parse("alice").unwrap();
        let alice = config.workspaces.get_mut(&id).unwrap();
        Arc::make_mut(&mut alice.policy).no_wake = own;
    })
    .await
}

async fn ask(gateway: &Gateway, from: Ipv4Addr, request: &str) -> Reply {
    let mut client = Client::connect_from(from, gateway.public()).await;
    client.send(format!("{request}{HOST}\r\n")).await;
    client.reply().await
}

fn assert_refused(gateway: &Gateway, reply: &Reply, what: &str) {
    assert_eq!(reply.status, 503, "{what}: {reply:?}");
    assert!(reply.header("retry-after").is_some(), "{what}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"), "{what}");
    assert_eq!(gateway.phase("alice"), Phase::Frozen, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_refused_while_the_workspace_is_frozen_and_served_while_it_runs() {
    let gateway = gateway(NoWakeOverrides::default()).await;
    let covered = [
        (Ipv4Addr::LOCALHOST, "GET /favicon.ico HTTP/1.1\r\nAccept: image/png\r\n"),
        (Ipv4Addr::LOCALHOST, "GET /robots.txt?x=y HTTP/1.1\r\n"),
        // What looks like a person who opens a page is covered as well.
        (Ipv4Addr::LOCALHOST, "GET /robots.txt HTTP/1.1\r\nSec-Fetch-Mode: navigate\r\n"),
        (Ipv4Addr::LOCALHOST, "GET /boot HTTP/1.1\r\nUser-Agent: Mozilla (uptimerobot/2.0)\r\n"),
        (MONITOR, "GET /boot HTTP/1.1\r\n"),
        // Who is behind a trusted proxy.
        (Ipv4Addr::new(127, 0, 0, 2), "GET /boot HTTP/1.1\r\nX-Forwarded-For: 203.0.113.7\r\n"),
    ];
    for (from, request) in covered {
        assert_refused(&gateway, &ask(&gateway, from, request).await, request);
    }
    let mut head = Client::connect(gateway.public()).await;
    head.send(format!("HEAD /boot HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(head.head().await.starts_with("HTTP/1.1 503"));
    let by_path = crate::support::get(gateway.public(), "localhost", "/w/alice/robots.txt").await;
    assert_refused(&gateway, &by_path, "by path");

    // Nobody believes it of one who is not trusted.
    let claims = "GET /boot HTTP/1.1\r\nX-Forwarded-For: 203.0.113.7\r\n";
    let woken = ask(&gateway, Ipv4Addr::LOCALHOST, claims).await;
    assert_eq!(woken.status, 200, "{woken:?}");
    for (from, request) in covered {
        let left = gateway.workspace("alice").view().last_left;
        let served = ask(&gateway, from, request).await;
        assert_ne!(served.status, 503, "{request}: {served:?}");
        gateway.until_empty("alice", request).await;
        assert!(gateway.workspace("alice").view().last_left > left, "{request} is activity");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_has_its_own_rules() {
    let own = NoWakeOverrides {
        paths: Some(vec!["/health/*".to_owned()]),
        user_agents: Some(vec![]),
        ..NoWakeOverrides::default()
    };
    let gateway = gateway(own).await;
    let health = "GET /health/live HTTP/1.1\r\n";
    assert_refused(&gateway, &ask(&gateway, Ipv4Addr::LOCALHOST, health).await, health);
    let still = "GET /boot HTTP/1.1\r\n";
    assert_refused(&gateway, &ask(&gateway, MONITOR, still).await, "clients are as before");
    let robot = "GET /boot HTTP/1.1\r\nUser-Agent: UptimeRobot\r\n";
    assert_eq!(ask(&gateway, Ipv4Addr::LOCALHOST, robot).await.status, 200);
    gateway.stop().await;
}
