//! The program itself, as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{Client, Origin, PATIENCE, Reply, unique_state_dir};
use crate::fixture;

pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) directory: PathBuf,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Program {
    /// Starts it in front of that upstream, after what the shell is to do first.
    pub(crate) async fn start(origin: &Origin, first: &str) -> Self {
        Self::start_with(origin, first, "").await
    }

    /// The same, with more in its configuration.
    pub(crate) async fn start_with(origin: &Origin, first: &str, more: &str) -> Self {
        let alice = format!("upstream = \"{}\"\n{more}", origin.address);
        Self::start_in(configured(&alice), first).await
    }

    /// Starts it in front of a local process, with more in its configuration.
    pub(crate) async fn start_before_a_process(more: &str) -> Self {
        let alice = format!("command = [{:?}]\n{more}", fixture::binary());
        Self::start_in(configured(&alice), "").await
    }

    /// Ends it as `kill -9` does, and starts it again.
    pub(crate) async fn kill_and_start(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let directory = std::mem::take(&mut self.directory);
        Self::start_in(directory, "").await
    }

    async fn start_in(directory: PathBuf, first: &str) -> Self {
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let output = std::fs::File::create(directory.join("output")).unwrap();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{first} exec \"$0\" serve --config \"$1\""))
            .arg(env!("CARGO_BIN_EXE_frostgate"))
            .arg(directory.join("frostgate.toml"))
            .env("FROSTGATE_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program = Self { child, directory, public: nowhere, admin: nowhere };
        let deadline = Instant::now() + PATIENCE;
        while program.public.port() == 0 {
            let ended = program.child.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "it serves not: {}", program.log());
            sleep(Duration::from_millis(5)).await;
            program.read_addresses();
        }
        program
    }

    fn read_addresses(&mut self) {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let serving = lines
            .filter(|line: &serde_json::Value| line["public"].is_string())
            .find(|line| line["message"].as_str().is_some_and(|text| text.starts_with("serving")));
        if let Some(line) = serving {
            self.admin = line["admin"].as_str().unwrap().parse().unwrap();
            self.public =
                line["public"].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.directory.join("output")).unwrap()
    }

    pub(crate) fn token(&self) -> String {
        let file = self.directory.join("state/token");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// A call of the admin API.
    pub(crate) async fn call(&self, line: &str) -> Reply {
        let mut client = Client::connect(self.admin).await;
        let fields = format!("Authorization: Bearer {}\r\nContent-Length: 0\r\n", self.token());
        client.send(format!("{line} HTTP/1.1\r\nHost: admin\r\n{fields}\r\n")).await;
        client.reply().await
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// How it ended, within the limit.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

/// A directory with a configuration that serves this workspace.
fn configured(alice: &str) -> PathBuf {
    let directory = unique_state_dir();
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "state_dir = {:?}\n[listen]\npublic = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
         workers = 2\ndrain_grace = \"5s\"\n[docker]\nenable = false\n\
         [workspaces.alice]\n{alice}",
        directory.join("state"),
    );
    std::fs::write(directory.join("frostgate.toml"), text).unwrap();
    directory
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
