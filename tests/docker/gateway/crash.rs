//! `kill -9` of the real program, in front of a container, at the worst moments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use frostgate::model::FreezeMode;
use tokio::time::{Instant, sleep, timeout};

use super::{Guest, NEVER, labels};
use crate::images::{Container, Engine, engine, unique};
use crate::support::{self, Client, PATIENCE, Reply, get, navigate};

/// The program, as an operator runs it. Killed when the test ends.
struct Program {
    child: Child,
    state_dir: PathBuf,
    public: SocketAddr,
    admin: SocketAddr,
    remove_state: bool,
}

impl Program {
    async fn start(state_dir: PathBuf, configuration: &str) -> Self {
        let (public, admin) = (free_address(), free_address());
        std::fs::create_dir_all(&state_dir).unwrap();
        let file = state_dir.join("frostgate.toml");
        let whole = format!(
            "state_dir = {state_dir:?}\n\
             [listen]\npublic = [\"{public}\"]\nadmin = \"{admin}\"\nworkers = 1\n{configuration}"
        );
        std::fs::write(&file, whole).unwrap();
        let log =
            std::fs::File::options().create(true).append(true).open(state_dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_frostgate"))
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let program = Self { child, state_dir, public, admin, remove_state: true };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(admin).is_err() {
            assert!(Instant::now() < deadline, "{}", program.log());
            sleep(Duration::from_millis(2)).await;
        }
        program
    }

    /// As `kill -9` does; the same configuration starts it again.
    async fn kill_and_start(mut self, configuration: &str) -> Self {
        self.kill();
        self.remove_state = false;
        let state_dir = std::mem::take(&mut self.state_dir);
        Self::start(state_dir, configuration).await
    }

    fn kill(&mut self) {
        // SIGKILL on Unix.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.state_dir.join("log")).unwrap_or_default()
    }

    async fn get(&self, guest: &Guest, path: &str) -> Reply {
        get(self.public, &format!("{}.localhost", guest.id), path).await
    }

    async fn call(&self, method: &str, path: &str) -> Reply {
        let token = std::fs::read_to_string(self.state_dir.join("token")).unwrap();
        let mut client = Client::connect(self.admin).await;
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: 0\r\n\r\n",
                token.trim()
            ))
            .await;
        client.reply().await
    }

    async fn phase(&self, guest: &Guest) -> String {
        let reply = self.call("GET", &format!("/workspaces/{}", guest.id)).await;
        match reply.status {
            200 => reply.json()["phase"].as_str().unwrap().to_owned(),
            _ => "unknown".to_owned(),
        }
    }

    async fn until(&self, guest: &Guest, phase: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.phase(guest).await != phase {
            assert!(Instant::now() < deadline, "never {phase}:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if self.remove_state {
            drop(std::fs::remove_dir_all(&self.state_dir));
        }
    }
}

/// The system has just given it away, and gives others out first.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn configuration(scope: &str) -> String {
    format!("[docker]\nenable = true\nscope = \"{scope}\"\n")
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
    let configuration = configuration(&scope);
    let guest = guest(engine, &scope, idle, &[]);
    let program = Program::start(support::unique_state_dir(), &configuration).await;
    program.until(&guest, "frozen").await;
    let first = program.get(&guest, "/boot").await;
    assert_eq!(first.status, 200, "{first:?}");
    sleep(idle * 3 / 4).await;
    let program = program.kill_and_start(&configuration).await;
    program.until(&guest, "running").await;
    let adopted = Instant::now();
    assert_eq!(inspect(engine, &guest, "{{.State.Status}}"), "running");
    program.until(&guest, "frozen").await;
    // It was seen a little after it happened.
    super::assert_on_time(adopted.elapsed(), idle - idle / 20);
    let second = program.get(&guest, "/boot").await;
    assert_eq!(second.status, 200, "{second:?}");
    let program = program.kill_and_start(&configuration).await;
    program.until(&guest, "running").await;
    assert_eq!(program.get(&guest, "/boot").await.body, second.body, "it was started anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_during_a_stop_leaves_one_that_is_thawed_by_whoever_opens_it() {
    let Some(engine) = engine() else { return };
    let scope = unique("scope");
    let configuration = configuration(&scope);
    let guest = guest(engine, &scope, NEVER, &["--env", "DYING_MS=1000"]);
    let program = Program::start(support::unique_state_dir(), &configuration).await;
    program.until(&guest, "frozen").await;
    let first = program.get(&guest, "/boot").await;
    assert_eq!(first.status, 200, "{first:?}");
    let stop = format!("/workspaces/{}/stop?wait=false", guest.id);
    assert_eq!(program.call("PUT", &stop).await.status, 202);
    program.until(&guest, "freezing").await;
    // The engine has been told once the workspace says that it is dying.
    let address = inspect(engine, &guest, "{{.NetworkSettings.IPAddress}}");
    let endpoint = format!("{address}:80").parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while get(endpoint, "x", "/boot").await.status != 500 {
        assert!(Instant::now() < deadline, "it was never told to end");
    }
    let program = program.kill_and_start(&configuration).await;
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
    let configuration = format!("{}[policy]\nstop_after = \"300ms\"\n", configuration(&scope));
    let dying = ["--env", "DYING_MS=1000", "--label", "frostgate.freeze=pause"];
    let guest = guest(engine, &scope, Duration::from_millis(300), &dying);
    let program = Program::start(support::unique_state_dir(), &configuration).await;
    program.until(&guest, "frozen").await;
    let first = program.get(&guest, "/boot").await;
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
    let program = program.kill_and_start(&configuration).await;
    let second = program.get(&guest, "/boot").await;
    assert_eq!(second.status, 200, "{second:?}\n{}", program.log());
    assert_ne!(first.body, second.body, "a dying run answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_during_a_start_leaves_one_container_that_is_adopted() {
    let Some(engine) = engine() else { return };
    let scope = unique("scope");
    let id = unique("made");
    let guest = Guest { container: Container { name: format!("frostgate-{id}") }, id };
    let configuration = format!(
        "{}[workspaces.{}]\nimage = \"{}\"\nport = 80\n\
         environment = {{ START_DELAY_MS = \"1500\" }}\n",
        configuration(&scope),
        guest.id,
        engine.image()
    );
    let began = SystemTime::now();
    let program = Program::start(support::unique_state_dir(), &configuration).await;
    let mut held = Client::connect(program.public).await;
    held.send(format!("GET /boot HTTP/1.1\r\nHost: {}.localhost\r\n\r\n", guest.id)).await;
    let label = format!("label=frostgate.id={}", guest.id);
    let list = ["ps", "--all", "--quiet", "--filter", &label, "--filter"];
    let deadline = Instant::now() + PATIENCE;
    while engine.docker(&[&list[..], &["status=running"]].concat()).is_empty() {
        assert!(Instant::now() < deadline, "it was never started:\n{}", program.log());
    }
    let program = program.kill_and_start(&configuration).await;
    let reply = program.get(&guest, "/boot").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", program.log());
    let all = engine.docker(&list[..5]);
    assert_eq!(all.lines().count(), 1, "{all}");
    assert_eq!(engine.count_events(&guest.container.name, "start", began), 1);
    assert!(held.is_hung_up_on(Duration::from_secs(1)).await);
}
