//! Limits and deadlines: nobody waits for ever, and no client keeps the others out.

use std::time::Duration;

use frostgate::model::FreezeMode;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, Gateway, Origin, PATIENCE, get, ok, process, until, upstream};

const HOST: &str = "Host: alice.localhost\r\n";
const DEADLINE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_slow_clients_are_let_go() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.first_byte_timeout = DEADLINE;
        config.listen.header_timeout = DEADLINE;
    })
    .await;
    let beginnings = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        "G",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: alice.local",
        "\r\n\r\n",
    ];
    for (address, name) in [(gateway.public(), "public"), (gateway.admin(), "admin")] {
        for beginning in beginnings {
            let mut client = Client::connect(address).await;
            let began = Instant::now();
            client.send(beginning).await;
            assert!(client.is_hung_up_on(PATIENCE).await, "{beginning:?} on {name}");
            let waited = began.elapsed();
            assert!(waited < DEADLINE * 5, "{beginning:?} on {name} after {waited:?}");
        }
    }
    // A byte now and then makes a head no longer.
    let mut client = Client::connect(gateway.public()).await;
    let began = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy".bytes() {
        if client.stream.write_all(&[byte]).await.is_err() || began.elapsed() > PATIENCE {
            break;
        }
        sleep(Duration::from_millis(30)).await;
    }
    assert!(client.is_hung_up_on(DEADLINE).await);
    // One that idles between two requests.
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(client.reply().await.status, 200);
    assert!(client.is_hung_up_on(DEADLINE * 5).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_never_answers_is_a_504() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.until_gone().await;
        }
    })
    .await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.upstream.response_timeout = DEADLINE;
    })
    .await;
    let began = Instant::now();
    let reply = gateway.get("alice", "/").await;
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(began.elapsed() >= DEADLINE && began.elapsed() < DEADLINE * 5, "{:?}", began.elapsed());
    assert_eq!(origin.received().len(), 1, "a request that timed out was repeated");
    gateway.until_empty("alice", "a 504").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_is_gone_is_a_502_in_time() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.upstream.connect_timeout = DEADLINE;
        config.policy.start_timeout = DEADLINE;
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    drop(origin);
    let began = Instant::now();
    let reply = gateway.get("alice", "/").await;
    assert!(matches!(reply.status, 502..=504), "{reply:?}");
    assert!(began.elapsed() < DEADLINE * 10, "{:?}", began.elapsed());
    gateway.until_empty("alice", "a 502").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_are_held_at_a_gate_and_at_all_gates() {
    let gateway = Gateway::start(|config| {
        for id in ["alice", "bob"] {
            process(config, id, FreezeMode::Stop, PATIENCE, &[("START_DELAY_MS", "800")]);
        }
        config.limits.held_per_workspace_max = 5;
        config.limits.held_max = 8;
    })
    .await;
    let mut held = JoinSet::new();
    for (id, places) in [("alice", 5), ("bob", 3)] {
        let host = format!("{id}.localhost");
        for _ in 0..places {
            let (address, host) = (gateway.public(), host.clone());
            held.spawn(async move { get(address, &host, "/").await });
        }
        until("all are held", || gateway.workspace(id).view().held == places).await;
        let began = Instant::now();
        let reply = gateway.get(id, "/").await;
        assert_eq!(reply.status, 503, "{id}: {reply:?}");
        assert!(reply.header("retry-after").is_some());
        assert!(began.elapsed() < DEADLINE, "it was held first: {:?}", began.elapsed());
    }
    let mut answered = 0;
    while let Some(reply) = held.join_next().await {
        assert_eq!(reply.unwrap().status, 200);
        answered += 1;
    }
    assert_eq!(answered, 8);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_waits_for_a_place() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.workers = 1;
        config.listen.connections_max = 4;
    })
    .await;
    let mut first = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
        first.push(client);
    }
    let mut fifth = Client::connect(gateway.public()).await;
    fifth.send(format!("GET /5 HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(timeout(DEADLINE, fifth.head()).await.is_err(), "it was served beyond the limit");
    first.pop();
    assert_eq!(fifth.reply().await.text(), "/5");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_goes_on_has_all_the_time_it_takes() {
    let origin = Origin::answering(|request| ok(&request.body.len().to_string())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.upstream.response_timeout = DEADLINE;
        config.listen.header_timeout = DEADLINE;
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\n")).await;
    for _ in 0..10 {
        sleep(DEADLINE / 2).await;
        client.send("x").await;
    }
    assert_eq!(client.reply().await.text(), "10");
    // One that stalls does not.
    client.send(format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\nx")).await;
    let began = Instant::now();
    let reply = client.reply().await;
    assert!(matches!(reply.status, 408 | 504), "{reply:?}");
    assert!(began.elapsed() < DEADLINE * 5);
    gateway.until_empty("alice", "a stalled upload").await;
    gateway.stop().await;
}
