//! A changed configuration is applied while everything goes on, and a wrong one not at all.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::fixture;
use crate::support::{Client, Load, Origin, PATIENCE, Program, Setup, get, ok};
use crate::websocket::{SWITCH, UPGRADE};

const BASE: &str = "workers = 2\n[docker]\nenable = false\n";

async fn run(configuration: &str) -> Program {
    let configuration = format!("{BASE}{configuration}");
    Program::run(Setup { configuration, log: "info", ..Setup::default() }).await
}

fn upstream(id: &str, origin: &Origin) -> String {
    format!("[workspaces.{id}]\nupstream = \"{}\"\n", origin.address)
}

/// What the call answered.
async fn reload(program: &mut Program, configuration: &str) -> Value {
    program.configure(&format!("{BASE}{configuration}"));
    let reply = program.call("POST /api/v1/reload", "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

async fn status(program: &Program, host: &str) -> u16 {
    get(program.public, host, "/").await.status
}

/// How the configuration is, as everybody may know.
async fn health(program: &Program) -> (String, String) {
    let told = get(program.admin, "a", "/readyz?verbose&verbose=&verbose=1").await.json();
    let check = told["checks"].as_array().unwrap().iter();
    let check = check.into_iter().find(|check| check["name"] == "configuration").unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("status"), text("detail"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_can_be_changed_is_and_nobody_notices() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.path() == "/ws" {
                connection.send(SWITCH).await;
                while let Some(byte) = connection.bytes(1).await {
                    connection.send(byte).await;
                }
                return;
            }
            let (host, path) = (request.header("host").unwrap(), request.path());
            connection.send(ok(&format!("{host}{path}"))).await;
        }
    })
    .await;
    let second = Origin::answering(|_| ok("second")).await;
    let alice = format!("{}hosts = [\"alice.example\"]\n", upstream("alice", &origin));
    let mut program = run(&format!("{alice}{}", upstream("carol", &origin))).await;
    let mut kept = Client::connect(program.public).await;
    let mut tunnel = Client::connect(program.public).await;
    tunnel.send(UPGRADE).await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 101"));
    let load = Load::on(program.public, "alice.example", "/", true);
    load.go_on(50).await;
    assert_eq!(status(&program, "carol.localhost").await, 200);

    let hash = "7c4a8d09ca3762af61e59520943dc26494f8941b1234567890abcdef12345678";
    let told = reload(
        &mut program,
        &format!(
            "[routing]\ndomain = \"example.net\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
             [limits]\nslots = 7\nheld_max = 2000\n[policy]\nhold_max = \"30s\"\n\
             [tokens.monitor]\nhash = \"sha256:{hash}\"\nscope = \"read\"\n\
             [projects.notes]\ncommand = [\"true\"]\n\
             {alice}inactivity_timeout = \"3m\"\n{}",
            upstream("bob", &second)
        ),
    )
    .await;
    let changed = told["changed"].as_array().unwrap();
    for line in [
        "routing.domain: \"localhost\" -> \"example.net\"",
        "limits.slots: 0 -> 7",
        "workspaces.bob: added",
        "workspaces.carol: removed",
        "tokens.monitor: added",
        "projects.notes: added",
    ] {
        assert!(changed.contains(&json!(line)), "{line} is not in {changed:#?}");
    }
    assert_eq!(told["needs_restart"], json!([]));
    for (host, expected) in [
        ("alice.example.net", 200),
        ("alice.example", 200),
        ("bob.example.net", 200),
        ("alice.localhost", 404),
        ("carol.localhost", 404),
        ("carol.example.net", 404),
    ] {
        assert_eq!(status(&program, host).await, expected, "{host}");
    }
    let api = async |path: &str| program.call(&format!("GET {path}"), "").await.json();
    let alice_is = api("/api/v1/workspaces/alice").await;
    assert_eq!(alice_is["policy"]["hold_max"], 0.5, "{alice_is}");
    assert_eq!(api("/api/v1/stats").await["workspace_slots"]["all"], 7);
    assert_eq!(api("/api/v1/projects").await["items"][0]["id"], "notes");
    assert_eq!(program.call("GET /api/v1/workspaces/carol", "").await.status, 404);
    assert!(api("/api/v1/tokens").await.to_string().contains("monitor"));
    assert_eq!(health(&program).await, ("ok".to_owned(), "in force".to_owned()));

    // Whom we trust counts on connections that were there before.
    kept.send("GET / HTTP/1.1\r\nHost: alice.example\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n").await;
    assert_eq!(kept.reply().await.status, 200);
    let requests = origin.received();
    let believed = |value: &str| value.starts_with("192.0.2.7");
    assert!(requests.iter().any(|one| one.header("x-forwarded-for").is_some_and(believed)));
    // And what is open stays open.
    tunnel.send("x").await;
    assert_eq!(tunnel.bytes(1).await, b"x");
    load.go_on(50).await;

    // An upstream that is elsewhere now.
    let moved = alice.replace(&origin.address.to_string(), &second.address.to_string());
    reload(&mut program, &moved).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while get(program.public, "alice.example", "/").await.text() != "second" {
        assert!(tokio::time::Instant::now() < deadline, "it is still where it was");
    }
    assert_eq!(load.end().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_one_is_refused_as_a_whole_and_every_mistake_is_named() {
    let origin = Origin::answering(|_| ok("fine")).await;
    let alice = upstream("alice", &origin);
    let mut program = run(&alice).await;
    let wrong = "[limits]\nslots = \"many\"\n[policy]\nhold_mx = 3\n[workspaces.bob]\n";
    program.configure(&format!("{BASE}{wrong}"));
    let refused = program.call("POST /api/v1/reload", "").await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(refused.json()["error_code"], "invalid_configuration");
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    for part in ["slots", "hold_mx", "bob", "frostgate.toml"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let (status_now, detail) = health(&program).await;
    assert_eq!(status_now, "degraded", "{detail}");
    assert!(program.log().contains("the configuration before stays in force"));
    assert_eq!(status(&program, "alice.localhost").await, 200);
    // What can't be run here is a mistake too.
    program.configure(&format!("{BASE}{alice}[workspaces.bob]\nimage = \"nginx\"\n"));
    let refused = program.call("POST /api/v1/reload", "").await;
    assert!(refused.text().contains("docker driver"), "{refused:?}");

    program.configure(&format!("{BASE}{alice}{}", upstream("bob", &origin)));
    program.signal(Signal::HUP);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while status(&program, "bob.localhost").await != 200 {
        assert!(tokio::time::Instant::now() < deadline, "{}", program.log());
    }
    assert_eq!(health(&program).await.0, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_named_and_the_rest_is_applied() {
    let origin = Origin::answering(|_| ok("fine")).await;
    let alice = upstream("alice", &origin);
    let mut program = run(&alice).await;
    let text = format!("{BASE}{alice}{}", upstream("bob", &origin));
    program.configure(&text.replace("workers = 2", "workers = 3\nconnections_max = 77"));
    let home = program.directory().join("home");
    std::fs::create_dir(&home).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_frostgate"))
        .args(["reload", "--url", &format!("http://{}", program.admin), "--config"])
        .arg(program.file())
        .env_clear()
        .env("HOME", &home)
        .stdin(Stdio::null())
        .output();
    let said = tokio::time::timeout(PATIENCE, command).await.unwrap().unwrap();
    let told = String::from_utf8(said.stdout).unwrap();
    let expected = "changed:\n  workspaces.bob: added\nneeds a restart:\n  \
                    listen.connections_max: 10000 -> 77\n  listen.workers: 2 -> 3\n";
    assert_eq!(told, expected, "{:?}", String::from_utf8(said.stderr));
    assert_eq!(status(&program, "bob.localhost").await, 200);
    let (status_now, detail) = health(&program).await;
    assert_eq!(
        (status_now.as_str(), detail.contains("2 that need")),
        ("degraded", true),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_configured_is_stopped_and_goes_on_when_it_is_again() {
    let binary = fixture::binary();
    let alice = format!("[workspaces.alice]\ncommand = [{binary:?}]\n");
    let mut program = run(&alice).await;
    let first = program.get("alice", "/boot").await;
    assert_eq!(first.status, 200);
    assert_eq!(program.call("PATCH /workspaces/alice", "{\"hold_max\": \"9s\"}").await.status, 200);
    let shown = program.call("GET /workspaces/alice", "").await.json();
    let directory = program.state_dir().join("process/alice");
    assert!(directory.exists(), "{directory:?}");

    reload(&mut program, "").await;
    assert_eq!(status(&program, "alice.localhost").await, 404);
    // The next reload waits until it is stopped.
    reload(&mut program, &format!("{alice}environment = {{ A = \"1\" }}\n")).await;
    let back = program.call("GET /workspaces/alice", "").await.json();
    assert_eq!(back["created_at"], shown["created_at"]);
    assert_eq!(back["policy"]["hold_max"], 0.15, "{back}");
    assert_eq!(back["phase"], "frozen", "{back}");
    let again = program.get("alice", "/boot").await;
    assert_eq!(again.status, 200);
    assert_ne!(again.body, first.body, "it was never stopped");

    // A changed command counts from the next start on.
    reload(&mut program, &format!("{alice}environment = {{ START_DELAY_MS = \"1\" }}\n")).await;
    assert_eq!(program.get("alice", "/boot").await.body, again.body, "it was started anew");
    // Another driver takes it over.
    let origin = Origin::answering(|_| ok("an upstream")).await;
    reload(&mut program, &upstream("alice", &origin)).await;
    assert_eq!(program.get("alice", "/boot").await.text(), "an upstream");
}
