//! The examples whose activity Frostgate can't see from outside: their own entry points, with our own
//! program as the reporter, and what stands in for theirs. Nobody comes by the gateway; what keeps
//! them awake goes past it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{FreezeMode, Image, Phase, PolicyOverrides, Runs, Spec};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::check_in::reachable;
use super::{Guest, Stage};
use crate::fixture;
use crate::images::{Container, Engine, SHELL, engine, unique};
use crate::support::{self, PATIENCE, skipped};

/// Longer than the reporter needs to look, on a machine that is busy too.
const IDLE: Duration = Duration::from_secs(4);

/// An image that goes with the test.
struct OwnImage {
    engine: Engine,
    name: String,
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        self.engine.tries(&["rmi", "--force", &self.name]);
    }
}

/// The program and all that it is linked against, by the paths that they have here.
fn program() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_frostgate"));
        // Without what is for debuggers, which is most of it, where that can be taken away.
        let small = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}", std::process::id()));
        let stripped = Command::new("strip").arg("-o").arg(&small).arg(built).status();
        let smaller = stripped.is_ok_and(|status| status.success());
        let content = fs::read(if smaller { &small } else { built }).unwrap();
        drop(fs::remove_file(&small));
        let mut files = vec![("usr/local/bin/frostgate".to_owned(), content)];
        for library in libraries(Command::new("ldd").arg(built).output().unwrap()) {
            let name = library.to_str().unwrap().trim_start_matches('/').to_owned();
            files.push((name, fs::read(&library).unwrap()));
        }
        files
    })
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(output: Output) -> Vec<PathBuf> {
    let text = String::from_utf8(output.stdout).unwrap();
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

/// What stands in for a program: it listens on that port.
fn stand_in(name: &str, port: u16) -> (String, Vec<u8>) {
    let script = format!("#!/bin/sh\nPORT={port} exec /workspace\n");
    (name.to_owned(), script.into_bytes())
}

/// An image with the example's own entry point.
fn image(
    engine: Engine,
    example: &str,
    changes: &[&str],
    others: Vec<(String, Vec<u8>)>,
) -> OwnImage {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
    let entry_point = fs::read_to_string(directory.join("entrypoint.sh")).unwrap();
    // As often as a test wants to know.
    let often = entry_point.replace("--interval 30s", "--interval 1s");
    assert_ne!(often, entry_point, "the reporter of {example} says how often it reports");
    let shell = fs::read(SHELL).unwrap();
    let mut files = vec![
        ("workspace".to_owned(), fs::read(fixture::binary()).unwrap()),
        ("bin/sh".to_owned(), shell.clone()),
        ("bin/busybox".to_owned(), shell),
        ("entrypoint.sh".to_owned(), often.into_bytes()),
    ];
    files.extend(program().iter().cloned());
    files.extend(others);
    let name = format!("localhost/frostgate-{}", unique(example));
    let path = "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin";
    let entry_point = r#"ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]"#;
    engine.import(&name, &[&[path, entry_point], changes].concat(), &files);
    OwnImage { engine, name }
}

/// A gateway with one workspace of that image, which it makes itself.
async fn stage(engine: Engine, image: &OwnImage, port: u16, idle: Duration) -> (Stage, Guest) {
    let id = unique("example");
    let container = Container { name: format!("frostgate-{id}") };
    let runs = Runs::Image(Image::new(image.name.clone()));
    let spec = Spec { port: Some(port), ..Spec::new(runs) };
    let policy = PolicyOverrides { inactivity_timeout: Some(idle), ..PolicyOverrides::default() };
    let configure = |config: &mut Config| {
        reachable(config);
        support::add(config, &id, spec, policy);
    };
    let stage = Stage::start(engine, configure).await;
    (stage, Guest { id, container })
}

impl Stage {
    /// Does something that is seen from inside alone, until it has been reported: whoever comes just
    /// when it is frozen comes again.
    async fn until_reported<T>(&self, guest: &Guest, begin: impl AsyncFn() -> Option<T>) -> T {
        for _ in 0..10 {
            // Not by a request: the gateway would keep the connection, and that is one too.
            let resume = format!("/api/v1/workspaces/{}/resume", guest.id);
            let woken = self.gateway.call("PUT", &resume).await;
            assert_eq!(woken.status, 200, "{woken:?}: {}", self.logs(guest));
            let Some(begun) = begin().await else { continue };
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && self.gateway.phase(&guest.id) == Phase::Running {
                if self.reports_activity(guest) {
                    return begun;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("it is never reported: {}", self.logs(guest));
    }

    /// Asserts that it stays awake for twice as long as an idle one would.
    async fn stays_awake(&self, guest: &Guest, idle: Duration) {
        let until = Instant::now() + idle * 2;
        while Instant::now() < until {
            let phase = self.gateway.phase(&guest.id);
            assert_eq!(phase, Phase::Running, "{}", self.logs(guest));
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn address(&self, guest: &Guest, port: u16) -> Option<SocketAddr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address: IpAddr = self.inspect(guest, format).parse().ok()?;
        Some(SocketAddr::new(address, port))
    }

    fn logs(&self, guest: &Guest) -> String {
        let output = Command::new("docker").args(["logs", &guest.container.name]).output().unwrap();
        let [out, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        format!("{out}{error}")
    }
}

fn has_shell() -> bool {
    let has = Path::new(SHELL).exists();
    if !has {
        skipped(&format!("there is no {SHELL}; the package busybox-static has it"));
    }
    has
}

/// One whose connections go past the gateway, as a session does.
async fn is_kept_awake_by_a_connection(stage: Stage, guest: Guest, port: u16) {
    let visitor = stage
        .until_reported(&guest, async || {
            TcpStream::connect(stage.address(&guest, port)?).await.ok()
        })
        .await;
    stage.stays_awake(&guest, IDLE).await;
    drop(visitor);
    stage.until(&guest, Phase::Frozen).await;
    let logs = stage.logs(&guest);
    assert!(logs.contains("active: 1 "), "{logs}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_ssh_box_is_awake_while_somebody_is_logged_in() {
    let Some(engine) = engine() else { return };
    if !has_shell() {
        return;
    }
    let keys = ("usr/bin/ssh-keygen".to_owned(), b"#!/bin/sh\n".to_vec());
    let image = image(engine, "ssh-box", &[], vec![stand_in("usr/sbin/sshd", 22), keys]);
    let (stage, guest) = stage(engine, &image, 22, IDLE).await;
    is_kept_awake_by_a_connection(stage, guest, 22).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_is_awake_while_somebody_is_connected() {
    let Some(engine) = engine() else { return };
    if !has_shell() {
        return;
    }
    // Its health check connects as well, from inside.
    let check = r#"HEALTHCHECK --interval=1s --timeout=2s CMD ["/workspace", "probe"]"#;
    let changes = ["ENV PORT=5432", check];
    let server = stand_in("usr/local/bin/docker-entrypoint.sh", 5432);
    let image = image(engine, "postgresql", &changes, vec![server]);
    let (stage, guest) = stage(engine, &image, 5432, IDLE).await;
    is_kept_awake_by_a_connection(stage, guest, 5432).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_notebook_is_awake_while_it_computes() {
    let Some(engine) = engine() else { return };
    if !has_shell() {
        return;
    }
    let image =
        image(engine, "jupyter", &[], vec![stand_in("usr/local/bin/start-notebook.py", 8888)]);
    let (stage, guest) = stage(engine, &image, 8888, IDLE).await;
    let name = guest.container.name.as_str();
    let cell = "while [ ! -e /done ]; do true; done";
    stage
        .until_reported(&guest, async || {
            engine.tries(&["exec", "--detach", name, "/bin/sh", "-c", cell]).then_some(())
        })
        .await;
    stage.stays_awake(&guest, IDLE).await;
    engine.docker(&["exec", name, "/bin/sh", "-c", ": > /done"]);
    stage.until(&guest, Phase::Frozen).await;
    assert!(stage.logs(&guest).contains("% of a core"), "{}", stage.logs(&guest));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_that_somebody_else_made_reports_by_its_default_gateway() {
    let Some(engine) = engine() else { return };
    if !has_shell() {
        return;
    }
    let stage = Stage::start(engine, reachable).await;
    let port = stage.gateway.public().port();
    let script = format!(
        "frostgate check-in --watch --port 7000 --interval 1s --gateway-port {port} &\n\
         PORT=7000 exec /workspace\n"
    );
    let script = ("run.sh".to_owned(), script.into_bytes());
    let image = image(engine, "ssh-box", &[], vec![script]);
    let arguments = ["--label", "frostgate.port=7000", "--entrypoint", "/bin/sh"];
    let command = format!("{} /run.sh", image.name);
    let guest = stage.guest_of(&command, FreezeMode::Pause, IDLE, &arguments).await;
    is_kept_awake_by_a_connection(stage, guest, 7000).await;
}
