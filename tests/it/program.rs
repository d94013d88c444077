//! The program itself, as a process: out of descriptors, asked to end, and what it writes to its
//! log.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, Origin, PATIENCE, Program, get, ok};
use crate::websocket::{SWITCH, UPGRADE};

const HOST: &str = "Host: alice.localhost\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_being_out_of_descriptors() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let mut program = Program::start(&origin, "ulimit -n 64;").await;
    let mut old = Client::connect(program.public).await;
    old.send(format!("GET /old HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(old.reply().await.text(), "/old");
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(program.public).await.unwrap());
    }
    let is_exhausted = || program.log().contains("can't accept connections");
    let deadline = Instant::now() + PATIENCE;
    while !is_exhausted() {
        assert!(Instant::now() < deadline, "it has descriptors left");
        sleep(Duration::from_millis(10)).await;
    }
    // Who is in is served on.
    for _ in 0..10 {
        old.send(format!("GET /old HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(old.reply().await.text(), "/old");
    }
    let complaints = program.log().matches("can't accept connections").count();
    assert!(complaints <= 4, "{complaints} complaints about the same");
    drop(crowd);
    for _ in 0..10 {
        let reply =
            timeout(PATIENCE, get(program.public, "alice.localhost", "/new")).await.unwrap();
        assert_eq!(reply.text(), "/new");
    }
    assert!(!program.has_ended());
    program.terminate();
    assert_eq!(program.ended(PATIENCE).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_after_the_requests_that_are_under_way() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.path() == "/slow" {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
                sleep(Duration::from_millis(700)).await;
                connection.send("half").await;
            } else {
                connection.send(ok(request.path())).await;
            }
        }
    })
    .await;
    let mut program = Program::start(&origin, "").await;
    let mut idle = Client::connect(program.public).await;
    idle.send(format!("GET /idle HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(idle.reply().await.text(), "/idle");
    let mut slow = Client::connect(program.public).await;
    slow.send(format!("GET /slow HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(slow.head().await.starts_with("HTTP/1.1 200"));
    program.terminate();
    assert!(idle.is_hung_up_on(Duration::from_millis(500)).await, "an idle connection stays");
    // Each worker closes its own listener.
    let deadline = Instant::now() + Duration::from_millis(500);
    while TcpStream::connect(program.public).await.is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(slow.bytes(8).await, b"halfhalf");
    assert!(slow.is_hung_up_on(PATIENCE).await);
    assert_eq!(program.ended(Duration::from_secs(3)).await, Some(0));
    assert!(program.log().contains("stopped"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_its_log() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let program = Program::start(&origin, "").await;
    let state = program.directory().join("state");
    let token = program.token();
    let key = std::fs::read_to_string(state.join("check-in.key")).unwrap().trim().to_owned();
    let calls = [
        format!("GET /workspaces HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"),
        format!("GET /workspaces HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x{token}\r\n\r\n"),
        format!("POST /v1/check-in?token=alice.{token}&active=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /?access_token={token} HTTP/1.1\r\n{HOST}Cookie: a={token}\r\n\r\n"),
        format!("GET /{token} HTTP/1.1\r\nHost: {token}.localhost\r\n\r\n"),
        format!("GET /{token}\0 HTTP/1.1\r\n{HOST}\r\n"),
    ];
    for address in [program.public, program.admin] {
        for call in &calls {
            let mut client = Client::connect(address).await;
            client.send(call).await;
            assert_ne!(client.reply().await.status, 0);
        }
    }
    let log = program.log();
    assert!(log.contains("alice starting"), "{log}");
    let leaks: Vec<_> =
        log.lines().filter(|line| line.contains(&token) || line.contains(&key)).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_tunnels_cost_little() {
    const TUNNELS: usize = 500;
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.send(SWITCH).await;
            connection.until_gone().await;
        }
    })
    .await;
    let program = Program::start(&origin, "").await;
    let mut clients = Vec::new();
    let mut before = 0;
    for number in 0..TUNNELS {
        // What is allocated once is allocated by the first few.
        if number == 20 {
            before = program.memory();
        }
        let mut client = Client::connect(program.public).await;
        client.send(UPGRADE).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101"));
        clients.push(client);
    }
    let each = program.memory().saturating_sub(before) / (TUNNELS - 20);
    println!("{each} bytes for an idle tunnel");
    assert!(each < 24_000, "{each} bytes for a tunnel that nobody uses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_nothing_cost_a_bounded_amount() {
    const CLIENTS: usize = 50;
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
            let block = vec![b'x'; 100_000];
            while connection.send(&block).await {}
        }
    })
    .await;
    let program = Program::start(&origin, "").await;
    let before = program.memory();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(program.public).await;
        client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        clients.push(client);
    }
    let (mut last, mut now) = (0, program.memory());
    while now != last {
        sleep(Duration::from_millis(300)).await;
        (last, now) = (now, program.memory());
    }
    let each = now.saturating_sub(before) / CLIENTS;
    println!("{each} bytes for a client that reads nothing");
    // hyper's two buffers, of about 400 KB each.
    assert!(each < 1_500_000, "{each} bytes for a client that reads nothing");
}
