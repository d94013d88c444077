//! The process driver with real processes, under both freezers.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use frostgate::driver::process::{Freezer, OpenError, Options, Process};
use frostgate::driver::{Driver, DriverError, DriverEvent, Sighting, Status};
use frostgate::model::{Blueprint, CheckInAccess, Runs, Spec, WorkspaceId};
use rustix::process::{Pid, Signal};
use tokio::sync::mpsc;

/// How long a condition may take to come true before the test has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);

/// Makes a file longer for ever, in a shell's child, so that a whole group is at work.
const GROW: &str = "(while :; do printf . >> grown; done) & wait";

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A state directory and a mark, whose processes are killed when the test is over, however it ends.
struct Place {
    root: PathBuf,
    freezer: Freezer,
    mark: String,
}

impl Place {
    fn new(freezer: Freezer) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("frostgate-test-process-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(&mark);
        fs::create_dir_all(&root).unwrap();
        Self { root, freezer, mark }
    }

    fn open(&self) -> Process {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Process, OpenError> {
        Process::open(Options {
            state_dir: self.state_dir(),
            address: IpAddr::from(Ipv4Addr::LOCALHOST),
            freezer: self.freezer,
        })
    }

    fn state_dir(&self) -> PathBuf {
        self.root.join("process")
    }

    fn files(&self) -> PathBuf {
        self.state_dir().join("w/files")
    }

    /// A workspace `w` that runs a shell script; every process of it carries the mark.
    fn shell(&self, script: &str) -> Blueprint {
        self.command(&["sh", "-c", script])
    }

    fn command(&self, argv: &[&str]) -> Blueprint {
        Blueprint {
            id: WorkspaceId::parse("w").unwrap(),
            spec: Arc::new(Spec {
                environment: BTreeMap::from([("MARK".to_owned(), self.mark.clone())]),
                ..Spec::new(Runs::Command {
                    argv: argv.iter().map(|&word| word.to_owned()).collect(),
                    directory: None,
                })
            }),
            check_in: CheckInAccess { port: 8080, token: "check-in-token".to_owned() },
        }
    }

    fn record_path(&self) -> PathBuf {
        self.state_dir().join("w/run.json")
    }

    fn record(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.record_path()).unwrap()).unwrap()
    }

    /// Changes one field of the record.
    fn forge(&self, field: &str, value: serde_json::Value) {
        let mut record = self.record();
        record[field] = value;
        fs::write(self.record_path(), record.to_string()).unwrap();
    }

    /// Where the workspace's processes are kept, if the record names a cgroup.
    fn cgroup(&self) -> Option<PathBuf> {
        let record = fs::read(self.record_path()).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        Some(PathBuf::from(record["cgroup"]["path"].as_str()?))
    }

    /// Every living process that carries the mark.
    fn living(&self) -> Vec<i32> {
        let wanted = format!("MARK={}", self.mark);
        let bears_mark = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == wanted.as_bytes()) && state(*pid) != Some('Z')
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(bears_mark).collect()
    }

    #[track_caller]
    fn assert_nobody_lives(&self) {
        assert_eq!(self.living(), Vec::<i32>::new());
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.files().join(file)).unwrap_or_default()
    }

    async fn until_written(&self, file: &str) -> String {
        until(file, || !self.read(file).trim().is_empty()).await;
        self.read(file).trim().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let cgroup = self.cgroup();
        if let Some(path) = &cgroup {
            // What a failed test left frozen could not be killed.
            let _ = fs::write(path.join("freezer.state"), "THAWED");
            let _ = fs::write(path.join("cgroup.freeze"), "0");
        }
        // Several looks: in the middle of an exec a process has no environment to be known by.
        for _ in 0..5 {
            for pid in self.living().into_iter().filter_map(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(path) = cgroup {
            let _ = fs::remove_dir(&path);
            let _ = path.parent().map(fs::remove_dir);
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: still not so after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn look(driver: &Process, plan: &Blueprint) -> Sighting {
    driver.inspect(&plan.id).await.unwrap()
}

async fn until_status(driver: &Process, plan: &Blueprint, status: Status) {
    let begun = Instant::now();
    loop {
        let seen = look(driver, plan).await;
        if seen.status == status {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still {seen:?}, not {status:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Both freezers, or one and a word aloud where this machine has no cgroup freezer for us.
fn freezers() -> Vec<Freezer> {
    let place = Place::new(Freezer::Cgroup);
    match place.try_open() {
        Ok(_) => vec![Freezer::Cgroup, Freezer::Signal],
        Err(error) => {
            eprintln!("SKIPPED: the cgroup freezer: {error}");
            vec![Freezer::Signal]
        }
    }
}

#[tokio::test]
async fn every_call_may_be_repeated() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell("exec sleep 1000"));
        assert_eq!(driver.freezer(), freezer);
        assert_eq!(look(&driver, &plan).await.status, Status::Missing);
        driver.stop(&plan.id, GRACE).await.unwrap();
        driver.create(&plan).await.unwrap();
        driver.create(&plan).await.unwrap();
        assert_eq!(look(&driver, &plan).await.status, Status::Stopped);

        driver.start(&plan).await.unwrap();
        let first = look(&driver, &plan).await;
        assert_eq!(first.status, Status::Running);
        assert!(first.endpoint.is_some() && first.run.is_some());
        driver.start(&plan).await.unwrap();
        assert_eq!(look(&driver, &plan).await, first, "a second start starts nothing");

        driver.pause(&plan.id).await.unwrap();
        driver.pause(&plan.id).await.unwrap();
        let paused = look(&driver, &plan).await;
        assert_eq!((paused.status, paused.run), (Status::Paused, first.run.clone()));
        driver.unpause(&plan.id).await.unwrap();
        driver.unpause(&plan.id).await.unwrap();
        until_status(&driver, &plan, Status::Running).await;
        until("one is there", || place.living().len() == 1).await;

        driver.stop(&plan.id, GRACE).await.unwrap();
        driver.stop(&plan.id, GRACE).await.unwrap();
        let stopped = look(&driver, &plan).await;
        assert_eq!(stopped.status, Status::Stopped);
        assert_eq!(stopped.exit.as_deref(), Some("killed by signal 15"));
        place.assert_nobody_lives();
        assert!(driver.pause(&plan.id).await.is_err());

        driver.start(&plan).await.unwrap();
        assert_ne!(look(&driver, &plan).await.run, first.run, "every start is a new run");
        driver.remove(&plan.id).await.unwrap();
        driver.remove(&plan.id).await.unwrap();
        assert_eq!(look(&driver, &plan).await.status, Status::Missing);
        place.assert_nobody_lives();
    }
}

#[tokio::test]
async fn who_ignores_term_is_killed_after_the_grace_with_all_grandchildren() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let stubborn = "trap '' TERM; (sleep 1000 & sleep 1001 & wait) & echo up > up; \
                        while :; do sleep 1000; done";
        let (driver, plan) = (place.open(), place.shell(stubborn));
        driver.start(&plan).await.unwrap();
        place.until_written("up").await;
        until("everybody is there", || place.living().len() == 5).await;
        let (begun, grace) = (Instant::now(), Duration::from_millis(300));
        driver.stop(&plan.id, grace).await.unwrap();
        assert!(begun.elapsed() >= grace && begun.elapsed() < GRACE, "{:?}", begun.elapsed());
        place.assert_nobody_lives();
        let exit = look(&driver, &plan).await.exit;
        assert_eq!(exit.as_deref(), Some("killed by signal 9"));
    }
}

#[tokio::test]
async fn who_ends_on_term_is_not_waited_for() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let polite = "trap 'echo bye > bye; exit 7' TERM; echo up > up; \
                      while :; do sleep 0.01; done";
        let (driver, plan) = (place.open(), place.shell(polite));
        driver.start(&plan).await.unwrap();
        place.until_written("up").await;
        let begun = Instant::now();
        driver.stop(&plan.id, PATIENCE).await.unwrap();
        assert!(begun.elapsed() < GRACE, "{:?}", begun.elapsed());
        assert_eq!(place.read("bye"), "bye\n");
        let exit = look(&driver, &plan).await.exit;
        assert_eq!(exit.as_deref(), Some("exited with code 7"));
    }
}

#[tokio::test]
async fn a_member_gets_its_grace_even_if_the_leader_is_quicker() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let slow_child = "(trap 'sleep 0.3; echo saved > saved; exit' TERM; echo up > up; \
                          while :; do sleep 0.01; done) & exec sleep 1000";
        let (driver, plan) = (place.open(), place.shell(slow_child));
        driver.start(&plan).await.unwrap();
        place.until_written("up").await;
        driver.stop(&plan.id, PATIENCE).await.unwrap();
        assert_eq!(place.read("saved"), "saved\n");
        place.assert_nobody_lives();
    }
}

#[tokio::test]
async fn a_paused_group_stands_still_and_goes_on_where_it_was() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell(GROW));
        driver.start(&plan).await.unwrap();
        place.until_written("grown").await;
        driver.pause(&plan.id).await.unwrap();
        assert_eq!(look(&driver, &plan).await.status, Status::Paused);
        let length = place.read("grown").len();
        for _ in 0..50 {
            assert_eq!(place.read("grown").len(), length);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        driver.unpause(&plan.id).await.unwrap();
        until("it goes on", || place.read("grown").len() > length).await;
        driver.pause(&plan.id).await.unwrap();
        driver.stop(&plan.id, GRACE).await.unwrap();
        place.assert_nobody_lives();
    }
}

#[tokio::test]
async fn a_pause_right_after_the_start_holds() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell(GROW));
        for _ in 0..10 {
            driver.start(&plan).await.unwrap();
            driver.pause(&plan.id).await.unwrap();
            assert_eq!(look(&driver, &plan).await.status, Status::Paused);
            let length = place.read("grown").len();
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert_eq!(place.read("grown").len(), length, "{freezer:?}");
            driver.stop(&plan.id, GRACE).await.unwrap();
        }
        place.assert_nobody_lives();
    }
}

#[tokio::test]
async fn the_next_frostgate_adopts_what_runs_and_what_is_paused() {
    for freezer in freezers() {
        for paused in [false, true] {
            let place = Place::new(freezer);
            let (driver, plan) = (place.open(), place.shell("exec sleep 1000"));
            driver.start(&plan).await.unwrap();
            if paused {
                driver.pause(&plan.id).await.unwrap();
            }
            let before = look(&driver, &plan).await;
            drop(driver);

            let driver = place.open();
            assert_eq!(look(&driver, &plan).await, before);
            if paused {
                driver.unpause(&plan.id).await.unwrap();
            }
            let (sender, mut events) = mpsc::channel(8);
            driver.watch(sender).await.unwrap();
            assert_eq!(events.recv().await, Some(DriverEvent::Resync));
            kill(leader(&before));
            let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap();
            assert_eq!(event, Some(DriverEvent::Changed(plan.id.clone())));
            assert_eq!(look(&driver, &plan).await.status, Status::Stopped);
        }
    }
}

#[tokio::test]
async fn an_adopted_workspace_is_stopped_with_all_that_belongs_to_it() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell("sleep 1000 & sleep 1001 & wait"));
        driver.start(&plan).await.unwrap();
        until("everybody is there", || place.living().len() == 3).await;
        drop(driver);
        let driver = place.open();
        driver.stop(&plan.id, GRACE).await.unwrap();
        place.assert_nobody_lives();
    }
}

#[tokio::test]
async fn a_recycled_pid_is_not_adopted() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell("exec sleep 1000"));
        driver.start(&plan).await.unwrap();
        driver.stop(&plan.id, GRACE).await.unwrap();
        drop(driver);
        let bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut bystander = KilledAtTheEnd(bystander);
        let pid = bystander.0.id();

        place.forge("stage", serde_json::json!({"running": {"pid": pid, "start_time": 1}}));

        let driver = place.open();
        assert_eq!(look(&driver, &plan).await.status, Status::Stopped);
        driver.start(&plan).await.unwrap();
        let run = look(&driver, &plan).await.run.unwrap();
        assert!(!run.starts_with(&format!("{pid}:")), "{run}");
        driver.remove(&plan.id).await.unwrap();
        assert!(bystander.0.try_wait().unwrap().is_none(), "the bystander was hit");
    }
}

#[tokio::test]
async fn a_run_of_an_earlier_boot_is_not_adopted() {
    let place = Place::new(Freezer::Signal);
    let (driver, plan) = (place.open(), place.shell("exec sleep 1000"));
    driver.start(&plan).await.unwrap();
    drop(driver);
    place.forge("boot_id", serde_json::json!("an-earlier-boot"));
    let driver = place.open();
    let seen = look(&driver, &plan).await;
    assert_eq!(seen.status, Status::Stopped);
    assert_eq!(seen.exit.as_deref(), Some("ended when the machine did"));
}

#[tokio::test]
async fn an_orphan_of_a_crash_before_the_record_is_found_by_its_token() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let daemon = "(setsid sleep 1000 &); echo up > up; exec sleep 1001";
        let (driver, plan) = (place.open(), place.shell(daemon));
        driver.start(&plan).await.unwrap();
        place.until_written("up").await;
        drop(driver);
        until("both are there", || place.living().len() == 2).await;
        // As the record stands between the intent and the outcome.
        place.forge("stage", serde_json::json!("intended"));

        let driver = place.open();
        until("the orphans are gone", || place.living().is_empty()).await;
        driver.start(&plan).await.unwrap();
        assert_eq!(look(&driver, &plan).await.status, Status::Running);
        driver.remove(&plan.id).await.unwrap();
    }
}

#[tokio::test]
async fn the_rest_of_a_group_whose_leader_died_unseen_is_killed() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell("sleep 1000 & wait"));
        driver.start(&plan).await.unwrap();
        until("everybody is there", || place.living().len() == 2).await;
        let seen = look(&driver, &plan).await;
        drop(driver);
        kill(leader(&seen));
        let driver = place.open();
        until("the rest is gone", || place.living().is_empty()).await;
        until_status(&driver, &plan, Status::Stopped).await;
    }
}

#[tokio::test]
async fn when_the_leader_exits_the_rest_is_killed_and_the_end_is_told() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let leaves = "sleep 1000 & (setsid sleep 1001 &); echo up > up; exit 3";
        let (driver, plan) = (place.open(), place.shell(leaves));
        let (sender, mut events) = mpsc::channel(1);
        driver.watch(sender).await.unwrap();
        assert_eq!(events.recv().await, Some(DriverEvent::Resync));
        driver.start(&plan).await.unwrap();
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap();
        assert_eq!(event, Some(DriverEvent::Changed(plan.id.clone())));
        assert_eq!(place.read("up"), "up\n");
        place.assert_nobody_lives();
        let seen = look(&driver, &plan).await;
        assert_eq!(seen.status, Status::Stopped);
        assert_eq!(seen.exit.as_deref(), Some("exited with code 3"));
        drop(driver);
        let remembered = look(&place.open(), &plan).await;
        assert_eq!(remembered.exit.as_deref(), Some("exited with code 3"));
    }
}

#[tokio::test]
async fn remove_leaves_nothing_and_follows_no_link() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let kept = place.root.join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let script = format!(
            "ln -s {} link; (setsid sleep 1000 &); sleep 1001 & \
                              echo up > up; wait",
            kept.display()
        );
        let (driver, plan) = (place.open(), place.shell(&script));
        driver.start(&plan).await.unwrap();
        place.until_written("up").await;
        let cgroup = place.cgroup();
        assert_eq!(cgroup.is_some(), freezer == Freezer::Cgroup);
        driver.remove(&plan.id).await.unwrap();
        place.assert_nobody_lives();
        assert!(!place.state_dir().join("w").exists());
        assert!(cgroup.is_none_or(|path| !path.exists()));
        assert!(kept.join("file").exists());
    }
}

#[tokio::test]
async fn a_directory_that_the_spec_names_is_used_and_not_deleted() {
    let place = Place::new(Freezer::Signal);
    let named = place.root.join("named");
    fs::create_dir(&named).unwrap();
    let (driver, mut plan) = (place.open(), place.shell("echo up > up; exec sleep 1000"));
    if let Runs::Command { directory, .. } = &mut Arc::make_mut(&mut plan.spec).runs {
        *directory = Some(named.clone());
    }
    driver.start(&plan).await.unwrap();
    until("it has written there", || named.join("up").exists()).await;
    driver.remove(&plan.id).await.unwrap();
    assert!(named.join("up").exists());
}

#[tokio::test]
async fn the_environment_is_what_was_promised_and_nothing_leaks() {
    let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // The test runner sets CARGO_MANIFEST_DIR, which stands for a secret of ours.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    for freezer in freezers() {
        let place = Place::new(freezer);
        let script = "env > env.new; ls -l /proc/self/fd > fds; mv env.new env; exec sleep 1000";
        let (driver, mut plan) = (place.open(), place.shell(script));
        Arc::make_mut(&mut plan.spec).environment.insert("OWN".to_owned(), "/srv/{id}".to_owned());
        driver.start(&plan).await.unwrap();
        let environment = place.until_written("env").await;
        let value = |name: &str| {
            let prefix = format!("{name}=");
            environment.lines().find_map(|line| line.strip_prefix(&prefix))
        };
        let port = look(&driver, &plan).await.endpoint.unwrap().port();
        assert_eq!(value("PORT"), Some(port.to_string().as_str()));
        assert_eq!(value("FROSTGATE_WORKSPACE"), Some("w"));
        let url = "http://127.0.0.1:8080/v1/check-in?token=check-in-token";
        assert_eq!(value("FROSTGATE_CHECK_IN_URL"), Some(url));
        assert_eq!(value("MARK"), Some(place.mark.as_str()));
        assert_eq!(value("OWN"), Some("/srv/w"));
        assert!(value("PATH").is_some());
        assert_eq!(value("CARGO_MANIFEST_DIR"), None);
        // Three, and the directory that `ls` reads. Nor is our listener passed on.
        let fds = place.read("fds");
        let descriptors = fds.lines().filter(|line| line.contains(" -> ")).count();
        assert_eq!(descriptors, 4 + passed_on_by_our_parent(), "{fds}");
        assert!(!fds.contains("socket:"), "{fds}");
        driver.remove(&plan.id).await.unwrap();
    }
}

#[tokio::test]
async fn a_fixed_port_is_passed_on_and_output_goes_to_the_log() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let script = "echo port $PORT; echo oops >&2; exec sleep 1000";
        let (driver, mut plan) = (place.open(), place.shell(script));
        Arc::make_mut(&mut plan.spec).port = Some(4242);
        let log = place.state_dir().join("w/log");
        for starts in 1..=2 {
            driver.start(&plan).await.unwrap();
            let whole = "port 4242\noops\n".repeat(starts);
            until("the log", || fs::read_to_string(&log).unwrap() == whole).await;
            assert_eq!(look(&driver, &plan).await.endpoint.unwrap().port(), 4242);
            driver.stop(&plan.id, GRACE).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_start_that_can_not_be_says_why() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let driver = place.open();
        let (nothing, missing) = (place.command(&[]), place.command(&["no-such-program-here"]));
        let mut elsewhere = place.shell("true");
        if let Runs::Command { directory, .. } = &mut Arc::make_mut(&mut elsewhere.spec).runs {
            *directory = Some(place.root.join("nowhere"));
        }
        for (plan, words) in [
            (nothing, "its command is empty"),
            (missing, "no such program \"no-such-program-here\""),
            (elsewhere, "no such directory"),
        ] {
            let error = driver.start(&plan).await.unwrap_err();
            assert!(matches!(error, DriverError::Refused { action: "start", .. }));
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(look(&driver, &plan).await.status, Status::Stopped);
        }
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_on_can_be_made_again() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let stubborn = "trap '' TERM; echo up > up; while :; do sleep 1000; done";
        let (driver, plan) = (place.open(), place.shell(stubborn));
        for patience in [0, 1, 2, 5] {
            let patience = Duration::from_millis(patience);
            let _ = tokio::time::timeout(patience, driver.start(&plan)).await;
            driver.start(&plan).await.unwrap();
            place.until_written("up").await;
            let stop = driver.stop(&plan.id, PATIENCE);
            assert!(tokio::time::timeout(patience, stop).await.is_err());
            driver.stop(&plan.id, Duration::from_millis(20)).await.unwrap();
            place.assert_nobody_lives();
            assert_eq!(look(&driver, &plan).await.status, Status::Stopped);
            fs::remove_file(place.files().join("up")).unwrap();
        }
    }
}

/// Not a test: another Frostgate, in a process of its own, for those tests that kill it. Pauses
/// its workspace once and waits, or starts, pauses, thaws and stops it without end.
#[tokio::test]
#[ignore = "run by the tests that kill it"]
async fn the_frostgate_that_is_killed() {
    let variable = |name| std::env::var(name).ok();
    let (Some(root), Some(mark)) = (variable("VICTIM_ROOT"), variable("VICTIM_MARK")) else {
        return;
    };
    let freezer = match variable("VICTIM_FREEZER").as_deref() {
        Some("Cgroup") => Freezer::Cgroup,
        _ => Freezer::Signal,
    };
    let root = PathBuf::from(root);
    // Cleaned up by whoever kills us.
    let place = std::mem::ManuallyDrop::new(Place { root, freezer, mark });
    let (driver, plan) = (place.open(), place.shell("sleep 1000 & wait"));
    loop {
        driver.start(&plan).await.unwrap();
        driver.pause(&plan.id).await.unwrap();
        fs::write(place.root.join("paused"), "once").unwrap();
        if variable("VICTIM_WAITS").is_some() {
            std::future::pending::<()>().await;
        }
        driver.unpause(&plan.id).await.unwrap();
        driver.stop(&plan.id, GRACE).await.unwrap();
    }
}

fn victim(place: &Place) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["process_driver::the_frostgate_that_is_killed", "--exact", "--ignored"])
        .env("VICTIM_ROOT", &place.root)
        .env("VICTIM_MARK", &place.mark)
        .env("VICTIM_FREEZER", format!("{:?}", place.freezer))
        .stdout(std::process::Stdio::null());
    command
}

#[tokio::test]
async fn a_paused_workspace_outlives_a_frostgate_that_is_killed() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let mut frostgate = victim(&place);
        let mut frostgate = KilledAtTheEnd(frostgate.env("VICTIM_WAITS", "1").spawn().unwrap());
        until("it is paused", || place.root.join("paused").exists()).await;
        frostgate.0.kill().unwrap();
        frostgate.0.wait().unwrap();
        let (driver, plan) = (place.open(), place.shell("exit 1"));
        for _ in 0..25 {
            // The kernel would hang up and continue a stopped group of the dead one's session.
            assert_eq!(look(&driver, &plan).await.status, Status::Paused, "{freezer:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        driver.unpause(&plan.id).await.unwrap();
        until_status(&driver, &plan, Status::Running).await;
        driver.remove(&plan.id).await.unwrap();
        place.assert_nobody_lives();
    }
}

#[tokio::test]
async fn no_moment_of_a_sudden_death_leaves_an_orphan_or_a_lie() {
    for freezer in freezers() {
        for milliseconds in (0..60).step_by(3) {
            let place = Place::new(freezer);
            let mut frostgate = KilledAtTheEnd(victim(&place).spawn().unwrap());
            until("it is at work", || place.root.join("paused").exists()).await;
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            frostgate.0.kill().unwrap();
            frostgate.0.wait().unwrap();

            let (driver, plan) = (place.open(), place.shell("exec sleep 1000"));
            if look(&driver, &plan).await.status == Status::Stopped {
                until("the remains are gone", || place.living().is_empty()).await;
            }
            driver.start(&plan).await.unwrap();
            until_status(&driver, &plan, Status::Running).await;
            driver.remove(&plan.id).await.unwrap();
            place.assert_nobody_lives();
        }
    }
}

#[tokio::test]
async fn a_look_is_cheap() {
    for freezer in freezers() {
        let place = Place::new(freezer);
        let (driver, plan) = (place.open(), place.shell("exec sleep 1000"));
        driver.start(&plan).await.unwrap();
        let mut fastest = Duration::MAX;
        for _ in 0..1000 {
            let begun = Instant::now();
            look(&driver, &plan).await;
            fastest = fastest.min(begun.elapsed());
        }
        eprintln!("{freezer:?}: a look takes {fastest:?}");
        assert!(fastest < Duration::from_micros(100), "{fastest:?}");
        driver.remove(&plan.id).await.unwrap();
    }
}

/// Whoever runs the tests may have passed open descriptors on to us, meant to be passed on.
fn passed_on_by_our_parent() -> usize {
    let close_on_exec = 0o2_000_000;
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let is_passed_on = |entry: &fs::DirEntry| {
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags =
            flags.map_or(close_on_exec, |text| i32::from_str_radix(text.trim(), 8).unwrap());
        number > 2 && flags & close_on_exec == 0
    };
    entries.filter(is_passed_on).count()
}

/// A process of the test's own.
struct KilledAtTheEnd(std::process::Child);

impl Drop for KilledAtTheEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The pid of the first process, by which a run is named.
fn leader(seen: &Sighting) -> i32 {
    let run = seen.run.as_ref().unwrap();
    run.split(':').next().unwrap().parse().unwrap()
}

fn kill(pid: i32) {
    let pid = Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}
