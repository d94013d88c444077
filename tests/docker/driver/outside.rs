//! What others do: containers that they made and labelled, and stopped, moved or removed since.

use std::time::{Duration, Instant};

use frostgate::driver::docker::{Docker, Options};
use frostgate::driver::{Driver, DriverError, DriverEvent, Found, Status};
use frostgate::model::{FreezeMode, Runs, WorkspaceId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{GRACE, boot, driver, id, status, until};
use crate::images::{Container, Engine, Network, engine, unique};
use crate::relay::Relay;

/// A labelled container that is not started.
fn labelled(engine: Engine, id: &str, labels: &[&str]) -> Container {
    let mut arguments = vec!["--label", "frostgate.enable=true"];
    arguments.extend(labels.iter().flat_map(|label| ["--label", *label]));
    engine.container(&format!("frostgate-{id}"), &arguments)
}

async fn found(docker: &Docker, id: &WorkspaceId) -> Option<Found> {
    docker.list().await.unwrap().into_iter().find(|found| found.id == *id)
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_containers_are_found_even_when_they_are_stopped() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let name = unique("found");
    let label = format!("frostgate.id={name}");
    let _container = labelled(
        engine,
        &name,
        &[
            &label,
            "frostgate.port=80",
            "frostgate.host=a.example,b.example",
            "frostgate.inactivity-timeout=1m30s",
            "frostgate.freeze=pause",
            "frostgate.ready-path=/boot",
        ],
    );
    let _unlabelled = engine.container(&format!("frostgate-{}", unique("other")), &[]);
    let found = found(&docker, &id(&name)).await.unwrap();
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(found.spec.runs, Runs::Discovered { network: None });
    assert_eq!(found.spec.port, Some(80));
    assert_eq!(found.spec.hosts, ["a.example", "b.example"]);
    assert_eq!(found.spec.ready_path.as_deref(), Some("/boot"));
    assert_eq!(found.policy.inactivity_timeout, Some(Duration::from_secs(90)));
    assert_eq!(found.policy.freeze_mode, Some(FreezeMode::Pause));
    assert!(
        docker.list().await.unwrap().iter().all(|found| !found.id.as_str().contains("-other-"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_can_not_be_used_are_warnings() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    // The id comes from the container's name where no label says another one.
    let name = unique("warned");
    let labels = ["frostgate.idle-timeout=5m", "frostgate.freeze=melt", "frostgate.port=80"];
    let container = labelled(engine, &name, &labels);
    let found = found(&docker, &id(&container.name)).await.unwrap();
    let warnings = found.warnings.join("\n");
    assert_eq!(found.warnings.len(), 2, "{warnings}");
    assert!(warnings.contains("frostgate.inactivity-timeout"), "{warnings}");
    assert!(warnings.contains("\"melt\" is not stop or pause"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_containers_with_one_id_the_older_keeps_it() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let name = unique("twice");
    let label = format!("frostgate.id={name}");
    let older = labelled(engine, &format!("{name}-older"), &[&label, "frostgate.port=80"]);
    // The engine lists whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let younger = labelled(engine, &format!("{name}-younger"), &[&label, "frostgate.port=81"]);
    let claimed = found(&docker, &id(&name)).await.unwrap();
    assert_eq!(claimed.spec.port, Some(80));
    assert!(claimed.warnings[0].contains(&younger.name), "{:?}", claimed.warnings);
    // Once the older is gone, the calls find the younger by themselves.
    drop(older);
    engine.docker(&["start", &younger.name]);
    let endpoint = docker.inspect(&id(&name)).await.unwrap().endpoint.unwrap();
    assert_eq!(endpoint.port(), 81);
    docker.stop(&id(&name), GRACE).await.unwrap();
    assert_eq!(status(&docker, &id(&name)).await, Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_made_anew_is_found_again() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let name = unique("anew");
    let label = format!("frostgate.id={name}");
    let first = labelled(engine, &name, &[&label]);
    assert_eq!(status(&docker, &id(&name)).await, Status::Stopped);
    drop(first);
    assert_eq!(status(&docker, &id(&name)).await, Status::Missing);
    let second = labelled(engine, &name, &[&label]);
    engine.docker(&["start", &second.name]);
    assert_eq!(status(&docker, &id(&name)).await, Status::Running);
    docker.pause(&id(&name)).await.unwrap();
    drop(second);
    let _third = labelled(engine, &name, &[&label]);
    docker.stop(&id(&name), GRACE).await.unwrap();
    assert_eq!(status(&docker, &id(&name)).await, Status::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_changes_across_a_restart_is_seen() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let network = Network::new(engine);
    let name = unique("moves");
    let label = format!("frostgate.id={name}");
    let arguments = ["--network", &network.name, "--label", "frostgate.enable=true"];
    let arguments = [&arguments[..], &["--label", &label]].concat();
    let mover = engine.container(&format!("frostgate-{name}"), &arguments);
    engine.docker(&["start", &mover.name]);
    let before = docker.inspect(&id(&name)).await.unwrap();
    let first_boot = boot(before.endpoint.unwrap()).await;
    docker.stop(&id(&name), GRACE).await.unwrap();
    // Somebody else takes the address meanwhile.
    let other = format!("frostgate-{}", unique("squatter"));
    let other = engine.container(&other, &["--network", &network.name]);
    engine.docker(&["start", &other.name]);
    engine.docker(&["start", &mover.name]);
    let after = docker.inspect(&id(&name)).await.unwrap();
    assert_ne!(after.endpoint, before.endpoint);
    assert_ne!(after.run, before.run);
    assert_ne!(boot(after.endpoint.unwrap()).await, first_boot);
    drop((mover, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_outside_arrives_as_events() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (sender, mut events) = mpsc::channel(64);
    docker.watch(sender).await.unwrap();
    assert_eq!(events.recv().await, Some(DriverEvent::Resync));
    let name = unique("events");
    let label = format!("frostgate.id={name}");
    let container = labelled(engine, &name, &[&label]);
    let expected = DriverEvent::Changed(id(&name));
    let steps: [(&[&str], Status); 7] = [
        (&["inspect"], Status::Stopped),
        (&["start"], Status::Running),
        (&["pause"], Status::Paused),
        (&["unpause"], Status::Running),
        (&["kill"], Status::Stopped),
        (&["start"], Status::Running),
        (&["stop", "--time", "1"], Status::Stopped),
    ];
    for (step, outcome) in steps {
        let arguments = [step, &[container.name.as_str()]].concat();
        engine.docker(&arguments);
        // Whoever looks after each event sees the outcome in the end.
        timeout(Duration::from_secs(10), async {
            loop {
                if events.recv().await.unwrap() == expected
                    && status(&docker, &id(&name)).await == outcome
                {
                    break;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no event led to {outcome:?} after {step:?}"));
    }
    drop(container);
    until("the removal is seen", async || {
        let event = timeout(Duration::from_secs(5), events.recv()).await.ok()??;
        let missing = status(&docker, &id(&name)).await == Status::Missing;
        (event == expected && missing).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_joined_while_it_runs_is_seen() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let network = Network::new(engine);
    let name = unique("joins");
    let label = format!("frostgate.id={name}");
    let container = labelled(engine, &name, &[&label]);
    engine.docker(&["start", &container.name]);
    let (sender, mut events) = mpsc::channel(64);
    docker.watch(sender).await.unwrap();
    let addresses = async || docker.inspect(&id(&name)).await.unwrap().addresses;
    assert_eq!(addresses().await.len(), 1);
    engine.docker(&["network", "connect", &network.name, &container.name]);
    let changed = DriverEvent::Changed(id(&name));
    let heard =
        async { while events.recv().await.unwrap() != changed || addresses().await.len() != 2 {} };
    timeout(Duration::from_secs(10), heard).await.expect("an event");
    drop(container);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_engine_is_noticed_and_its_return_is_a_resync() {
    let Some(engine) = engine() else { return };
    let mut relay = Relay::new(&unique("relay"));
    let socket = Some(relay.path().to_str().unwrap().to_owned());
    let docker = Docker::connect(Options { socket, ..Options::default() }).unwrap();
    let (sender, mut events) = mpsc::channel(64);
    docker.watch(sender).await.unwrap();
    assert_eq!(events.recv().await, Some(DriverEvent::Resync));
    let name = unique("relay");
    let label = format!("frostgate.id={name}");
    let container = labelled(engine, &name, &[&label]);
    let changed = DriverEvent::Changed(id(&name));
    while events.recv().await.unwrap() != changed {}
    relay.cut().await;
    let lost = docker.inspect(&id(&name)).await;
    assert!(matches!(lost, Err(DriverError::Unreachable { .. })), "{lost:?}");
    let lost = docker.stop(&id(&name), GRACE).await;
    assert!(matches!(lost, Err(DriverError::Unreachable { .. })), "{lost:?}");
    // What happens meanwhile is not heard, and seen after the return.
    engine.docker(&["start", &container.name]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    relay.restore();
    let restored = Instant::now();
    let resynced = async { while events.recv().await.unwrap() != DriverEvent::Resync {} };
    timeout(Duration::from_secs(10), resynced).await.expect("a resync");
    assert!(restored.elapsed() < Duration::from_secs(3), "{:?}", restored.elapsed());
    assert_eq!(status(&docker, &id(&name)).await, Status::Running);
    engine.docker(&["pause", &container.name]);
    let heard = async {
        while events.recv().await.unwrap() != changed
            || status(&docker, &id(&name)).await != Status::Paused
        {}
    };
    timeout(Duration::from_secs(10), heard).await.expect("events flow again");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_ends_when_nobody_listens() {
    let socket = Some("/nonexistent/frostgate-test.sock".to_owned());
    let docker = Docker::connect(Options { socket, ..Options::default() }).unwrap();
    let (sender, events) = mpsc::channel(1);
    docker.watch(sender.clone()).await.unwrap();
    drop(events);
    // The task's own sender is gone as soon as it has ended.
    until("the task ends", async || (sender.strong_count() == 1).then_some(())).await;
}
