//! A new program takes over from an old one, and nobody who uses them notices, also if either of them
//! is killed in the middle.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::admin_stop::GOING_AWAY;
use crate::fixture;
use crate::support::{Client, Load, Origin, PATIENCE, Program, Setup, get, ok};
use crate::websocket::{SWITCH, UPGRADE};

/// An upstream, and a local process that is idle after a second.
async fn program(origin: &Origin) -> Program {
    let configuration = format!(
        "workers = 2\ndrain_grace = \"6s\"\n[docker]\nenable = false\n\
         [workspaces.alice]\nupstream = \"{}\"\n\
         [workspaces.bob]\ncommand = [{:?}]\ninactivity_timeout = \"1s\"\n\
         environment = {{ START_DELAY_MS = \"300\" }}\n",
        origin.address,
        fixture::binary()
    );
    Program::run(Setup { configuration, log: "info", ..Setup::default() }).await
}

async fn origin() -> Origin {
    Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.path() == "/ws" {
                connection.send(SWITCH).await;
                connection.until_gone().await;
                return;
            }
            connection.send(ok(request.path())).await;
        }
    })
    .await
}

async fn until_logged(program: &Program, words: &str, times: usize) {
    let deadline = Instant::now() + PATIENCE;
    while program.log().matches(words).count() < times {
        assert!(Instant::now() < deadline, "{words:?} is not in {}", program.log());
        sleep(Duration::from_millis(2)).await;
    }
}

async fn boot(program: &Program) -> String {
    let reply = get(program.public, "bob.localhost", "/boot").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", program.log());
    reply.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_program_takes_over_under_load_and_no_request_is_lost() {
    let origin = origin().await;
    let mut old = program(&origin).await;
    let mut tunnel = Client::connect(old.public).await;
    tunnel.send(UPGRADE).await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 101"));
    let load = Load::on(old.public, "alice.localhost", "/x", true);
    load.go_on(100).await;
    // Inside by way of the old one, for longer than the new one would leave it alone.
    let mut slow = Client::connect(old.public).await;
    let woken = boot(&old).await;
    slow.send("GET /wait?ms=4000 HTTP/1.1\r\nHost: bob.localhost\r\n\r\n").await;
    let new = old.taken_over().await;
    assert_eq!((new.public, new.admin), (old.public, old.admin));
    load.go_on(100).await;
    let reply = timeout(PATIENCE, slow.reply()).await.unwrap();
    assert_eq!((reply.status, reply.complete), (200, true), "{reply:?}\n{}", new.log());
    assert_eq!(boot(&new).await, woken, "it was frozen under somebody: {}", new.log());
    assert_eq!(tunnel.rest(PATIENCE).await.unwrap(), GOING_AWAY);
    assert_eq!(old.ended(PATIENCE).await, Some(0), "{}", new.log());
    load.go_on(100).await;
    // Now nobody is inside any more.
    new.until("bob", "frozen").await;
    assert_ne!(boot(&new).await, woken);
    // And so on.
    let next = new.taken_over().await;
    load.go_on(100).await;
    assert_eq!(load.end().await, [""; 0], "{}", next.log());
    assert!(!next.log().contains("panic"), "{}", next.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_a_wake_are_served_by_one_run() {
    let origin = origin().await;
    let old = program(&origin).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let public = old.public;
        waiting.push(tokio::spawn(async move { get(public, "bob.localhost", "/boot").await }));
    }
    old.until("bob", "starting").await;
    let new = old.beside();
    until_logged(&old, "another Frostgate takes over", 1).await;
    for _ in 0..5 {
        let public = old.public;
        waiting.push(tokio::spawn(async move { get(public, "bob.localhost", "/boot").await }));
        sleep(Duration::from_millis(100)).await;
    }
    let mut boots = Vec::new();
    for one in waiting {
        let reply = timeout(PATIENCE, one).await.unwrap().unwrap();
        assert_eq!(reply.status, 200, "{reply:?}\n{}", old.log());
        boots.push(reply.text());
    }
    assert_eq!(boots.len(), 10);
    boots.dedup();
    assert_eq!(boots.len(), 1, "it was started more than once: {}", old.log());
    drop(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_one_that_is_killed_on_its_way_leaves_everything_to_the_old_one() {
    let origin = origin().await;
    let old = program(&origin).await;
    let load = Load::on(old.public, "alice.localhost", "/x", true);
    load.go_on(50).await;
    let mut new = old.beside();
    until_logged(&old, "another Frostgate takes over", 1).await;
    new.kill();
    until_logged(&old, "the other Frostgate came to nothing", 1).await;
    load.go_on(100).await;
    // One that is killed when it has everything, short of serving.
    let mut fake =
        BufReader::new(UnixStream::connect(old.state_dir().join("frostgate.sock")).await.unwrap());
    let mut said = String::new();
    fake.write_all(b"frostgate handover 1\ngo\n").await.unwrap();
    while !said.ends_with("yours\n") {
        let read = timeout(PATIENCE, fake.read_line(&mut said)).await.unwrap().unwrap();
        assert!(read > 0, "{said}\n{}", old.log());
    }
    drop(fake);
    until_logged(&old, "the other Frostgate came to nothing", 2).await;
    load.go_on(100).await;
    assert_eq!(boot(&old).await.len(), boot(&old).await.len());
    assert_eq!(old.phase("bob").await, "running");
    // It can be taken over from as ever.
    let mut old = old;
    let new = old.taken_over().await;
    load.go_on(100).await;
    assert_eq!(load.end().await, [""; 0], "{}", new.log());
    assert_eq!(old.ended(PATIENCE).await, Some(0), "{}", new.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_one_that_is_killed_on_its_way_leaves_everything_to_the_new_one() {
    let origin = origin().await;
    let mut old = program(&origin).await;
    let woken = boot(&old).await;
    let said_before = old.log().len();
    let mut new = old.beside();
    until_logged(&old, "another Frostgate takes over", 1).await;
    // It accepts no more, soon; these wait in the queues of sockets that outlive it.
    sleep(Duration::from_millis(600)).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(old.public).await;
        client.send("GET /x HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
        waiting.push(client);
    }
    old.kill();
    new.serves(said_before).await;
    for mut client in waiting {
        let reply = timeout(PATIENCE, client.reply()).await.unwrap();
        assert_eq!(reply.text(), "/x", "{}", new.log());
    }
    assert_eq!(boot(&new).await, woken);
    assert!(new.log().contains("going on without it"), "{}", new.log());
}
