//! What containers of ours are made of, and that an attempt that fails leaves nothing behind.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use frostgate::driver::docker::Docker;
use frostgate::driver::{Driver, DriverError, Status};
use frostgate::model::{Blueprint, Image, Mount, Pull, Runs};
use tokio::time::timeout;

use super::{GRACE, blueprint_of, boot, driver, isolated, request, status, until};
use crate::images::{Engine, engine, unique};
use crate::registry::Registry;

const OUT_OF_MEMORY: &str = "exited with code 137 (out of memory)";
const OOM_ATTEMPTS: usize = 5;

/// A directory of the engine's machine, which is this one.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("frostgate-{}", unique("mount")));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn mount(&self, rest: &str) -> Mount {
        Mount::parse(&format!("{}{rest}", self.0.display())).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A volume's name, and what removes it in the end.
struct Volume {
    engine: Engine,
    name: String,
}

impl Volume {
    fn new(engine: Engine) -> Self {
        Self { engine, name: format!("frostgate-{}", unique("volume")) }
    }

    fn exists(&self) -> bool {
        self.engine.tries(&["volume", "inspect", &self.name])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.engine.tries(&["volume", "rm", &self.name]);
    }
}

async fn run(docker: &Docker, blueprint: &Blueprint) -> SocketAddr {
    docker.create(blueprint).await.unwrap();
    docker.start(blueprint).await.unwrap();
    let endpoint = docker.inspect(&blueprint.id).await.unwrap().endpoint.unwrap();
    boot(endpoint).await;
    endpoint
}

fn body(endpoint: SocketAddr, method: &str, target: &str) -> String {
    let answer = request(endpoint, method, target).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn refusal(docker: &Docker, blueprint: &Blueprint) -> String {
    match docker.create(blueprint).await {
        Err(DriverError::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_who_takes_more_memory_is_killed_and_said_to_be() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let image = Image { nano_cpus: Some(250_000_000), ..Image::new(engine.image()) };
    let (mut blueprint, container) = blueprint_of(image);
    Arc::make_mut(&mut blueprint.spec).memory = Some(64 << 20);
    let endpoint = run(&docker, &blueprint).await;
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} \
                  {{.HostConfig.RestartPolicy.Name}}";
    let limits = engine.docker(&["inspect", "--format", format, &container.name]);
    assert_eq!(limits.trim_end_matches(" no"), "67108864 67108864 250000000");
    assert_eq!(body(endpoint, "GET", "/allocate?mib=16"), "allocated");
    // The engine hears of the end and of its reason by two events, and where the end comes first it
    // never puts them together.
    let mut exits = Vec::new();
    while exits.len() < OOM_ATTEMPTS && !exits.contains(&OUT_OF_MEMORY.to_owned()) {
        let endpoint = run(&docker, &blueprint).await;
        let answer = request(endpoint, "GET", "/allocate?mib=128").unwrap_or_default();
        assert!(!answer.contains("allocated"), "{answer}");
        let ended = async || {
            let sighting = docker.inspect(&blueprint.id).await.unwrap();
            (sighting.status == Status::Stopped).then_some(sighting.exit)
        };
        exits.extend(until("it is killed", ended).await);
    }
    assert_eq!(exits.last().map(String::as_str), Some(OUT_OF_MEMORY), "{exits:?}");
    assert!(exits.iter().all(|exit| OUT_OF_MEMORY.starts_with(exit)), "{exits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_workspace_has_its_own_directory_and_volume_and_they_outlive_it() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (homes, shared) = (Directory::new(), Directory::new());
    std::fs::write(shared.0.join("notice"), "for all").unwrap();
    let mut image = Image::new(engine.image());
    let (mut blueprint, _container) = blueprint_of(image.clone());
    let id = blueprint.id.clone();
    let volume = Volume { engine, name: format!("cache-{id}") };
    image.mounts = vec![
        homes.mount("/{id}:/home"),
        shared.mount(":/shared:ro"),
        Mount::parse("cache-{id}:/cache").unwrap(),
    ];
    Arc::make_mut(&mut blueprint.spec).runs = Runs::Image(image);
    let own = homes.0.join(id.as_str());
    std::fs::create_dir(&own).unwrap();
    let endpoint = run(&docker, &blueprint).await;
    assert_eq!(body(endpoint, "POST", "/write?path=/home/note"), "written");
    assert!(own.join("note").exists());
    assert_eq!(body(endpoint, "GET", "/read?path=/shared/notice"), "for all");
    let denied = body(endpoint, "POST", "/write?path=/shared/note");
    assert!(denied.contains("Read-only"), "{denied}");
    assert_eq!(body(endpoint, "POST", "/write?path=/cache/note"), "written");
    docker.remove(&id).await.unwrap();
    assert!(own.join("note").exists() && volume.exists());
    // The next of that id finds all of it.
    let endpoint = run(&docker, &blueprint).await;
    assert_eq!(body(endpoint, "GET", "/read?path=/cache/note"), "");
    docker.remove(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_refused_leaves_no_volume_behind() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (fresh, kept) = (Volume::new(engine), Volume::new(engine));
    engine.docker(&["volume", "create", &kept.name]);
    // The engine makes the volumes before it sees that both want the same place.
    let mounts = [&fresh, &kept].map(|volume| format!("{}:/data", volume.name));
    let mounts = mounts.iter().map(|text| Mount::parse(text).unwrap()).collect();
    let (blueprint, made) = isolated(Image { mounts, ..Image::new(engine.image()) });
    let reason = refusal(&docker, &blueprint).await;
    assert!(reason.contains("Duplicate mount point"), "{reason}");
    assert!(!fresh.exists() && kept.exists());
    assert!(made.leaves_nothing(engine));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_there_is_not_made_but_asked_for() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let homes = Directory::new();
    let mounts = vec![homes.mount("/{id}:/home")];
    let (blueprint, made) = isolated(Image { mounts, ..Image::new(engine.image()) });
    let own = homes.0.join(blueprint.id.as_str());
    let reason = refusal(&docker, &blueprint).await;
    assert!(reason.contains(&format!("there is no {}", own.display())), "{reason}");
    assert!(!own.exists());
    assert!(made.leaves_nothing(engine));
    // With it the next attempt succeeds.
    std::fs::create_dir(&own).unwrap();
    docker.create(&blueprint).await.unwrap();
    docker.remove(&blueprint.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_can_not_be_pulled_is_told_with_the_reason() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    // Nothing listens there.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let name = format!("{closed}/frostgate/missing:1");
    for pull in [Pull::Missing, Pull::Always] {
        let (blueprint, made) = isolated(Image { pull, ..Image::new(&name) });
        let reason = refusal(&docker, &blueprint).await;
        assert!(reason.contains(&format!("image {name} could not be pulled")), "{reason}");
        assert!(reason.contains("connection refused"), "{reason}");
        assert!(reason.contains(&format!("`docker pull {name}`")), "{reason}");
        assert!(made.leaves_nothing(engine));
    }
    // One that is here is pulled again only where that is wanted.
    let name = format!("{closed}/frostgate/here:1");
    engine.docker(&["tag", &engine.image(), &name]);
    for (pull, made) in [(Pull::Missing, true), (Pull::Never, true), (Pull::Always, false)] {
        let (blueprint, _container) = blueprint_of(Image { pull, ..Image::new(&name) });
        assert_eq!(docker.create(&blueprint).await.is_ok(), made, "{pull:?}");
    }
    engine.docker(&["rmi", &name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_when_nobody_waits_and_all_who_want_the_image_share_it() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let registry = Registry::start(engine, "shared").await;
    registry.hold();
    let given_up = blueprint_of(Image::new(&registry.image));
    let waited = timeout(Duration::from_millis(300), docker.create(&given_up.0)).await;
    assert!(waited.is_err(), "{waited:?}");
    let (first, _one) = blueprint_of(Image::new(&registry.image));
    let (second, _other) = blueprint_of(Image::new(&registry.image));
    let attempts = async { tokio::join!(docker.create(&first), docker.create(&second)) };
    let release = async {
        until("the layer is asked for", async || registry.is_asked_for_its_layer()).await;
        registry.release();
    };
    let ((one, other), ()) = tokio::join!(attempts, release);
    one.unwrap();
    other.unwrap();
    assert_eq!(registry.pulls(), 1);
    // One that is here is not asked for again, unless that is wanted.
    docker.create(&given_up.0).await.unwrap();
    assert_eq!(registry.pulls(), 1);
    let image = Image { pull: Pull::Always, ..Image::new(&registry.image) };
    let (afresh, _container) = blueprint_of(image);
    run(&docker, &afresh).await;
    assert_eq!(registry.pulls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_described_in_the_engines_terms() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    // Port 80 is the image's own; 22 is what lets people in by SSH.
    let image = engine.image_with_ssh();
    let ports = Image { publish_ports: true, ..Image::new(&image) };
    let (mut blueprint, container) = blueprint_of(ports);
    Arc::make_mut(&mut blueprint.spec).port = None;
    assert_eq!(docker.describe(&blueprint.id).await.unwrap(), None);
    let endpoint = run(&docker, &blueprint).await;
    assert_eq!(endpoint.port(), 80);
    let running = docker.describe(&blueprint.id).await.unwrap().unwrap();
    let id = engine.docker(&["inspect", "--format", "{{.Id}}", &container.name]);
    assert_eq!(running.container_id, id);
    assert_eq!(running.name, format!("/{}", container.name));
    assert_eq!(running.image, image);
    let app = running.app_port.unwrap();
    assert_ne!(Some(app), running.ssh_port);
    let format =
        "{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}";
    let published = engine.docker(&["inspect", "--format", format, &container.name]);
    let expected = [running.ssh_port.unwrap(), app].map(|port| format!("127.0.0.1:{port}"));
    assert_eq!(published.split_whitespace().collect::<Vec<_>>(), expected);
    let direct = SocketAddr::from((Ipv4Addr::LOCALHOST, app));
    assert_eq!(boot(direct).await, boot(endpoint).await);
    docker.stop(&blueprint.id, GRACE).await.unwrap();
    let stopped = docker.describe(&blueprint.id).await.unwrap().unwrap();
    assert_eq!((stopped.ssh_port, stopped.app_port), (None, None));
    assert_eq!(stopped.container_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_images_are_listed_by_name() {
    let Some(engine) = engine() else { return };
    let (image, tag) = (engine.image(), format!("localhost/frostgate-{}:2", unique("tag")));
    engine.docker(&["tag", &image, &tag]);
    let images = driver().images().await.unwrap();
    engine.docker(&["rmi", &tag]);
    assert!(images.contains(&image) && images.contains(&tag), "{images:?}");
    assert!(images.is_sorted() && images.iter().all(|name| !name.contains('<')), "{images:?}");
    assert!(!driver().images().await.unwrap().contains(&tag));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_leaves_nothing_once_it_is_removed() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let command = vec!["/no-such-program".to_owned()];
    let (blueprint, made) = isolated(Image { command, ..Image::new(engine.image()) });
    docker.create(&blueprint).await.unwrap();
    docker.start(&blueprint).await.unwrap_err();
    assert_eq!(status(&docker, &blueprint.id).await, Status::Stopped);
    docker.remove(&blueprint.id).await.unwrap();
    assert!(made.leaves_nothing(engine));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_leaves_no_network_behind() {
    let Some(engine) = engine() else { return };
    let docker = driver();
    let (blueprint, made) = isolated(Image::new(engine.image()));
    let stranger = engine.container(made.name(), &[]);
    let reason = refusal(&docker, &blueprint).await;
    assert!(reason.contains("not ours"), "{reason}");
    assert!(!engine.tries(&["network", "inspect", &stranger.name]));
}
