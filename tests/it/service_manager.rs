//! The program under a service manager, which the test plays: what it is told, from the start over a
//! reload and a thread that hangs to the end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, Origin, PATIENCE, Program, Setup, get, ok, unique_state_dir};

const HOST: &str = "Host: alice.localhost\r\n";
const ALIVE: &str = "WATCHDOG=1";
/// Several times as long as it takes to hear that a program is alive, if it is.
const SILENCE: Duration = Duration::from_secs(2);

/// Listens at `NOTIFY_SOCKET`.
struct Manager {
    directory: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn listen() -> Self {
        let directory = unique_state_dir();
        std::fs::create_dir_all(&directory).unwrap();
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                all.lock().unwrap().push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
        });
        Self { directory, heard }
    }

    /// What the shell does before the program begins. A third of `watchdog` is how often it is told
    /// that the program is alive.
    fn introduces_itself(&self, watchdog: Duration) -> String {
        let socket = self.directory.join("notify");
        format!(
            "export NOTIFY_SOCKET={} WATCHDOG_USEC={} WATCHDOG_PID=$$;",
            socket.display(),
            watchdog.as_micros()
        )
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Everything but that the program is alive.
    fn news(&self) -> Vec<String> {
        self.heard().into_iter().filter(|message| message != ALIVE).collect()
    }

    fn beats(&self) -> usize {
        self.heard().iter().filter(|message| *message == ALIVE).count()
    }

    /// Waits until it has heard so many news, and returns the last.
    async fn hears(&self, number: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.news().len() < number {
            assert!(Instant::now() < deadline, "it hears only {:?}", self.news());
            sleep(Duration::from_millis(5)).await;
        }
        self.news()[number - 1].clone()
    }

    /// Waits until it hears once more that the program is alive.
    async fn hears_a_beat(&self) {
        let (before, deadline) = (self.beats(), Instant::now() + PATIENCE);
        while self.beats() == before {
            assert!(Instant::now() < deadline, "it hears no more that it is alive");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn configuration(origin: &Origin) -> String {
    format!(
        "workers = 2\ndrain_grace = \"5s\"\n[docker]\nenable = false\n\
         [workspaces.alice]\nupstream = \"{}\"\n",
        origin.address
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_told_of_the_start_of_a_reload_and_of_the_end() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let manager = Manager::listen();
    let first = manager.introduces_itself(Duration::from_millis(300));
    let configuration = configuration(&origin);
    let setup = Setup { configuration, first, log: "info", ..Setup::default() };
    let mut program = Program::run(setup.clone()).await;
    let ready = manager.hears(1).await;
    assert!(ready.starts_with("READY=1\nSTATUS=serving at 127.0.0.1:"), "{ready}");
    assert!(ready.ends_with("; workspaces: 1"), "{ready}");
    manager.hears_a_beat().await;
    manager.hears_a_beat().await;

    program.signal(Signal::HUP);
    let reloading = manager.hears(2).await;
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    let since: u64 = since.lines().next().unwrap().parse().unwrap();
    assert!(since > 0, "{reloading}");
    assert_eq!(manager.hears(3).await, ready);

    // It goes on serving by the one before, and says so.
    program.configure("[policy]\nhold_max = 0\n");
    program.signal(Signal::HUP);
    assert!(manager.hears(4).await.starts_with("RELOADING=1\n"));
    assert_eq!(manager.hears(5).await, "READY=1\nSTATUS=serving; a new configuration was refused");
    manager.hears_a_beat().await;

    program.terminate();
    let stopping = manager.hears(6).await;
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
    let most = stopping.split_once("EXTEND_TIMEOUT_USEC=").unwrap().1;
    let most = Duration::from_micros(most.parse().unwrap());
    assert!(most > Duration::from_secs(5), "the grace alone is 5 s: {most:?}");
    assert_eq!(program.ended(PATIENCE).await, Some(0));
    assert_eq!(manager.news().len(), 6, "{:?}", manager.news());
}

/// Whoever reads the program's log; when it is held up, whoever writes into the log is, in time.
struct LogReader(Pid);

impl LogReader {
    /// What the shell does for it.
    const FIRST: &str = "there=${1%/*}; mkfifo $there/pipe; cat $there/pipe >> $there/log & \
                         echo $! > $there/reader; exec 2> $there/pipe;";

    fn of(directory: &Path) -> Self {
        let pid = std::fs::read_to_string(directory.join("reader")).unwrap();
        Self(Pid::from_raw(pid.trim().parse().unwrap()).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).unwrap();
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        // It ends by itself with the program, unless it is held up.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_hangs_is_not_covered_up() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let manager = Manager::listen();
    let watchdog = manager.introduces_itself(Duration::from_millis(300));
    let first = format!("{watchdog} {}", LogReader::FIRST);
    let configuration = configuration(&origin);
    let setup = Setup { configuration, first, log: "trace", ..Setup::default() };
    let program = Program::run(setup).await;
    let reader = LogReader::of(program.directory());
    manager.hears_a_beat().await;

    // Requests go on until a thread can't get rid of its lines.
    reader.signal(Signal::STOP);
    let deadline = Instant::now() + PATIENCE * 3;
    let (mut beats, mut since) = (manager.beats(), Instant::now());
    while since.elapsed() < SILENCE {
        assert!(Instant::now() < deadline, "it says that it is alive, and hangs");
        let asked = async {
            let mut client = Client::connect(program.public).await;
            client.send(format!("GET /x HTTP/1.1\r\n{HOST}\r\n")).await;
            drop(client.reply().await);
        };
        drop(timeout(Duration::from_millis(100), asked).await);
        if manager.beats() != beats {
            (beats, since) = (manager.beats(), Instant::now());
        }
    }

    // When it is over, so is the silence.
    reader.signal(Signal::CONT);
    manager.hears_a_beat().await;
    assert_eq!(get(program.public, "alice.localhost", "/y").await.text(), "/y");
}
