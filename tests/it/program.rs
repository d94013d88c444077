//! The program itself, as a process: out of descriptors, asked to end, and what it writes to its
//! log.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::admin_stop::GOING_AWAY;
use crate::fixture;
use crate::support::{Client, Load, Origin, PATIENCE, Program, Setup, get, ok, until};
use crate::websocket::{SWITCH, UPGRADE};

const HOST: &str = "Host: alice.localhost\r\n";

/// The program in front of a local process, with more in its configuration.
async fn before_a_process(more: &str) -> Program {
    let configuration = format!(
        "workers = 2\n[docker]\nenable = false\n[workspaces.alice]\ncommand = [{:?}]\n{more}",
        fixture::binary()
    );
    Program::run(Setup { configuration, log: "debug", ..Setup::default() }).await
}

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
async fn no_request_that_was_accepted_is_lost_when_it_ends_under_load() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let mut program = Program::start(&origin, "export FROSTGATE_LOG=info;").await;
    let load = Load::on(program.public, "alice.localhost", "/x", false);
    load.go_on(200).await;
    program.terminate();
    assert_eq!(program.ended(PATIENCE).await, Some(0));
    assert_eq!(load.end().await, [""; 0], "{}", program.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.until_gone().await;
        }
    })
    .await;
    let mut program = Program::start(&origin, "export FROSTGATE_LISTEN__DRAIN_GRACE=1h;").await;
    let mut client = Client::connect(program.public).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    until("it is inside", || !origin.received().is_empty()).await;
    program.terminate();
    let deadline = Instant::now() + PATIENCE;
    while !program.log().contains("stopping: requests may finish") {
        assert!(Instant::now() < deadline, "{}", program.log());
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!program.has_ended());
    program.terminate();
    assert_eq!(program.ended(PATIENCE).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlives_the_grace_is_ended_as_an_admins_stop_ends_it() {
    let origin = Origin::start(|mut connection| async move {
        let Some(request) = connection.request().await else { return };
        match request.path() {
            "/ws" => {
                connection.send(SWITCH).await;
                connection.until_gone().await;
            }
            "/events" => {
                let kind = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked";
                connection.send(format!("HTTP/1.1 200 OK\r\n{kind}\r\n\r\n2\r\n:\n\r\n")).await;
                connection.until_gone().await;
            }
            _ => connection.until_gone().await,
        }
    })
    .await;
    let mut program = Program::start(&origin, "export FROSTGATE_LISTEN__DRAIN_GRACE=300ms;").await;
    let mut clients = Vec::new();
    for request in [UPGRADE, "GET /events HTTP/1.1\r\n", "GET /silent HTTP/1.1\r\n"] {
        let mut client = Client::connect(program.public).await;
        client.send(request).await;
        if request != UPGRADE {
            client.send(format!("{HOST}\r\n")).await;
        }
        clients.push(client);
    }
    until("all are inside", || origin.received().len() == 3).await;
    assert!(clients[0].head().await.starts_with("HTTP/1.1 101"));
    program.terminate();
    assert_eq!(clients[0].rest(PATIENCE).await.unwrap(), GOING_AWAY);
    let events = clients[1].reply().await;
    assert_eq!((events.text().as_str(), events.complete), (":\n", true), "{events:?}");
    let silent = clients[2].reply().await;
    assert_eq!((silent.status, silent.complete), (503, true), "{silent:?}");
    assert_eq!(program.ended(PATIENCE).await, Some(0));
    assert!(program.log().contains("stopped"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_listens_on_the_sockets_of_a_service_manager() {
    // The shell stands in for it: the program's standard input becomes its descriptor 3.
    let socket = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let address = socket.local_addr().unwrap();
    let origin = Origin::answering(|request| ok(request.path())).await;
    let started_as = async |name: &str| {
        let listens = format!("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}");
        let configuration = format!(
            "[docker]\nenable = false\n[workspaces.alice]\nupstream = \"{}\"\n",
            origin.address
        );
        let first = format!("exec 3<&0 </dev/null; export {listens};");
        let input = Some(socket.clone());
        Program::run(Setup { configuration, first, input, log: "info", ..Setup::default() }).await
    };
    let mut program = started_as("public").await;
    assert_eq!(program.public, address);
    assert_eq!(get(address, "alice.localhost", "/a").await.text(), "/a");
    program.terminate();
    // Who comes while nobody serves waits for the next one.
    assert_eq!(program.ended(PATIENCE).await, Some(0));
    let mut early = Client::connect(address).await;
    early.send(format!("GET /early HTTP/1.1\r\n{HOST}\r\n")).await;
    let program = started_as("public").await;
    assert_eq!(timeout(PATIENCE, early.reply()).await.unwrap().text(), "/early");
    drop(program);
    let program = started_as("admin").await;
    assert_eq!(program.admin, address);
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
async fn an_admins_stop_holds_open_pages_off_after_a_kill_too() {
    let program = before_a_process("").await;
    let ask = async |program: &Program, mode: &str| {
        let mut client = Client::connect(program.public).await;
        client.send(format!("GET /boot HTTP/1.1\r\n{HOST}Sec-Fetch-Mode: {mode}\r\n\r\n")).await;
        client.reply().await
    };
    assert_eq!(ask(&program, "cors").await.status, 200);
    let stopped = program.call("PUT /workspaces/alice/stop", "").await;
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert_eq!(ask(&program, "cors").await.status, 503);

    let program = program.kill_and_start().await;
    for _ in 0..5 {
        let refused = ask(&program, "cors").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    let shown = program.call("GET /workspaces/alice", "").await.json();
    assert_eq!(shown["phase"], "frozen");
    let until = |reply: &serde_json::Value| -> jiff::Timestamp {
        reply["hold_off_until"].as_str().unwrap().parse().unwrap()
    };
    let moved = until(&shown).duration_since(until(&stopped.json())).abs();
    assert!(moved < jiff::SignedDuration::from_secs(1), "the restart moved its end by {moved:?}");
    let woken = ask(&program, "navigate").await;
    assert_eq!(woken.status, 200, "{woken:?}");
    // What ended it is remembered as well.
    let program = program.kill_and_start().await;
    assert_eq!(ask(&program, "cors").await.body, woken.body);
    assert_eq!(program.call("DELETE /workspaces/alice", "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_step_down_lets_nobody_into_what_is_ending() {
    let workspace = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let program = before_a_process(&format!(
        "port = {}\nfreeze_mode = \"pause\"\ninactivity_timeout = \"300ms\"\nstop_after = \"300ms\"\n\
         environment = {{ DYING_MS = \"2000\" }}",
        workspace.port()
    ))
    .await;
    let boot = async |program: &Program| get(program.public, "alice.localhost", "/boot").await;
    let first = boot(&program).await;
    assert_eq!(first.status, 200, "{first:?}");
    program.until("alice", "frozen").await;
    // Paused it says nothing; then it is told to end, and says that it is dying.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = timeout(Duration::from_millis(100), get(workspace, "x", "/boot")).await;
        if asked.is_ok_and(|reply| reply.status == 500) {
            break;
        }
        assert!(Instant::now() < deadline, "it was never stopped: {}", program.log());
    }
    let program = program.kill_and_start().await;
    let second = boot(&program).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_ne!(first.body, second.body, "a dying run answered");
    assert_eq!(program.call("DELETE /workspaces/alice", "").await.status, 204);
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
