//! `kill -9` of the real program, in front of a container, at the worst moments.

use std::time::Duration;

use frostgate::model::FreezeMode;
use tokio::time::{Instant, sleep, timeout};

use super::{Guest, NEVER, labels};
use crate::events::Events;
use crate::images::{Container, Engine, engine, unique};
use crate::support::{Client, PATIENCE, Program, Setup, get, navigate};

/// The program, with the containers of that scope, and more if need be.
async fn start(scope: &str, more: &str) -> Program {
    let configuration =
        format!("workers = 1\n[docker]\nenable = true\nscope = \"{scope}\"\n{more}");
    Program::run(Setup { configuration, ..Setup::default() }).await
}

fn guest(engine: Engine, scope: &str, idle: Duration, arguments: &[&str]) -> Guest {
    let id = unique("survivor");
    let labels = labels(scope, &id, FreezeMode::Stop, idle);
    let mut whole: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    whole.extend(arguments);
    let container = engine.container(&format!("frostgate-{id}"), &whole);
    Guest { id, container }
}

fn inspect(engine: Engine, guest: &Guest, format: &str) -> String {
    engine.docker(&["inspect", "--format", format, &guest.container.name])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_was_active_before_a_crash_is_not_frozen_early_after_it() {
    let Some(engine) = engine() else { return };
    let idle = Duration::from_secs(2);
    let scope = unique("scope");
    let guest = guest(engine, &scope, idle, &[]);
    let program = start(&scope, "").await;
    program.until(&guest.id, "frozen").await;
    let first = program.get(&guest.id, "/boot").await;
    assert_eq!(first.status, 200, "{first:?}");
    sleep(idle * 3 / 4).await;
    let program = program.kill_and_start().await;
    program.until(&guest.id, "running").await;
    let adopted = Instant::now();
    assert_eq!(inspect(engine, &guest, "{{.State.Status}}"), "running");
    program.until(&guest.id, "frozen").await;
    // It was seen a little after it happened.
    super::assert_on_time(adopted.elapsed(), idle - idle / 20);
    let second = program.get(&guest.id, "/boot").await;
    assert_eq!(second.status, 200, "{second:?}");
    let program = program.kill_and_start().await;
    program.until(&guest.id, "running").await;
    assert_eq!(program.get(&guest.id, "/boot").await.body, second.body, "it was started anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_during_a_stop_leaves_one_that_is_thawed_by_whoever_opens_it() {
    let Some(engine) = engine() else { return };
    let scope = unique("scope");
    let guest = guest(engine, &scope, NEVER, &["--env", "DYING_MS=1000"]);
    let program = start(&scope, "").await;
    program.until(&guest.id, "frozen").await;
    let first = program.get(&guest.id, "/boot").await;
    assert_eq!(first.status, 200, "{first:?}");
    let stop = format!("PUT /workspaces/{}/stop?wait=false", guest.id);
    assert_eq!(program.call(&stop, "").await.status, 202);
    program.until(&guest.id, "freezing").await;
    // The engine has been told once the workspace says that it is dying.
    let address = inspect(engine, &guest, "{{.NetworkSettings.IPAddress}}");
    let endpoint = format!("{address}:80").parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while get(endpoint, "x", "/boot").await.status != 500 {
        assert!(Instant::now() < deadline, "it was never told to end");
    }
    let program = program.kill_and_start().await;
    // Until it has ended, the engine calls it running. That it was being stopped is on record.
    let second = navigate(program.public, &format!("{}.localhost", guest.id), "/boot").await;
    assert_eq!(second.status, 200, "{second:?}\n{}", program.log());
    assert_ne!(first.body, second.body);
    assert_eq!(inspect(engine, &guest, "{{.State.Status}}"), "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_during_a_step_down_lets_nobody_into_what_is_ending() {
    let Some(engine) = engine() else { return };
    let scope = unique("scope");
    let dying = ["--env", "DYING_MS=1000", "--label", "frostgate.freeze=pause"];
    let guest = guest(engine, &scope, Duration::from_millis(300), &dying);
    let program = start(&scope, "[policy]\nstop_after = \"300ms\"\n").await;
    program.until(&guest.id, "frozen").await;
    let first = program.get(&guest.id, "/boot").await;
    assert_eq!(first.status, 200, "{first:?}");
    // It is told to end once it says that it is dying; paused it says nothing.
    let address = inspect(engine, &guest, "{{.NetworkSettings.IPAddress}}");
    let endpoint = format!("{address}:80").parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = timeout(Duration::from_millis(100), get(endpoint, "x", "/boot")).await;
        if asked.is_ok_and(|reply| reply.status == 500) {
            break;
        }
        assert!(Instant::now() < deadline, "it was never stopped:\n{}", program.log());
    }
    let program = program.kill_and_start().await;
    let second = program.get(&guest.id, "/boot").await;
    assert_eq!(second.status, 200, "{second:?}\n{}", program.log());
    assert_ne!(first.body, second.body, "a dying run answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_during_a_start_leaves_one_container_that_is_adopted() {
    let Some(engine) = engine() else { return };
    let scope = unique("scope");
    let id = unique("made");
    let guest = Guest { container: Container { name: format!("frostgate-{id}") }, id };
    let workspace = format!(
        "[workspaces.{}]\nimage = \"{}\"\nport = 80\n\
         environment = {{ START_DELAY_MS = \"1500\" }}\n",
        guest.id,
        engine.image()
    );
    let events = Events::listen(engine);
    let program = start(&scope, &workspace).await;
    let mut held = Client::connect(program.public).await;
    held.send(format!("GET /boot HTTP/1.1\r\nHost: {}.localhost\r\n\r\n", guest.id)).await;
    let label = format!("label=frostgate.id={}", guest.id);
    let list = ["ps", "--all", "--quiet", "--filter", &label, "--filter"];
    let deadline = Instant::now() + PATIENCE;
    while engine.docker(&[&list[..], &["status=running"]].concat()).is_empty() {
        assert!(Instant::now() < deadline, "it was never started:\n{}", program.log());
    }
    let program = program.kill_and_start().await;
    let reply = program.get(&guest.id, "/boot").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", program.log());
    let all = engine.docker(&list[..5]);
    assert_eq!(all.lines().count(), 1, "{all}");
    assert_eq!(events.moments(&guest.container.name, "start").len(), 1);
    assert!(held.is_hung_up_on(Duration::from_secs(1)).await);
}
