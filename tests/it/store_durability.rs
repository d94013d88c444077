//! What the store has acknowledged is there after a sudden death, and after a full disk.
//!
//! The test runs itself as a child, which changes records as fast as it can and prints every
//! change once it was acknowledged, and kills it in the middle of that.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use frostgate::model::{Phase, PolicyOverrides, WorkspaceId};
use frostgate::store::{JournalEntry, Origin, Record, RecordState, Sqlite, Store, StoreError};
use rusqlite::Connection;
use tokio::task::JoinSet;

const ROUNDS: u32 = 20;
const WRITERS: u32 = 8;
/// Names the state directory to the child.
const DIRECTORY: &str = "FROSTGATE_TEST_STORE";
/// Stands before what the child has to say, among what the test harness prints.
const SAYS: &str = "child: ";

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn this_test(name: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    vec![exe, format!("store_durability::{name}"), "--exact".to_owned(), "--nocapture".to_owned()]
}

fn run(command: &[String], directory: &Path) -> Child {
    Command::new(&command[0])
        .args(&command[1..])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the child said, up to its end. A line that it died in the middle of does not count.
fn says(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    std::iter::from_fn(move || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line.ends_with('\n').then_some(line)
    })
    .filter_map(|line| Some(line.trim_end().split_once(SAYS)?.1.to_owned()))
}

fn child_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

fn id(writer: u32) -> WorkspaceId {
    WorkspaceId::parse(&format!("w{writer}")).unwrap()
}

/// A record that says which change made it.
fn record(writer: u32, change: u64) -> Record {
    Record {
        id: id(writer),
        origin: Origin::Api,
        driver: "fake".to_owned(),
        project: None,
        spec: None,
        policy: PolicyOverrides::default(),
        created_at: SystemTime::now(),
        state: RecordState {
            phase: Phase::Running,
            tier: None,
            since: SystemTime::now(),
            last_active: None,
            reported_activity: false,
            intent: None,
            stopped_by_admin_at: None,
            kept_until: None,
            memory_saved: None,
            failure: Some(change.to_string()),
        },
    }
}

fn line(change: u64) -> JournalEntry {
    JournalEntry {
        at: SystemTime::now(),
        phase: Phase::Running,
        tier: None,
        reason: change.to_string(),
        took: None,
    }
}

async fn stored(store: &Sqlite) -> BTreeMap<WorkspaceId, u64> {
    let number = |record: &Record| record.state.failure.as_ref().unwrap().parse().unwrap();
    let records = store.load().await.unwrap();
    records.iter().map(|record| (record.id.clone(), number(record))).collect()
}

fn assert_sound(directory: &Path) {
    let connection = Connection::open(directory.join("frostgate.db")).unwrap();
    let verdict: String =
        connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let scratch = Scratch::new("frostgate-store-kill");
    let mut acknowledged: BTreeMap<WorkspaceId, u64> = BTreeMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let mut child = run(&this_test("a_child_that_is_killed"), &scratch.0);
        let mut lines = says(&mut child);
        let mut changes = vec![lines.next().expect("the child has begun")];
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let life = Duration::from_micros(u16::from_le_bytes(random).into()) * 4;
        // The moment is what is tested; nothing is waited for.
        tokio::time::sleep(life).await;
        child.kill().unwrap();
        child.wait().unwrap();
        changes.extend(lines);
        total += changes.len();
        for change in &changes {
            let (writer, change) = change.split_once(' ').unwrap();
            let writer = WorkspaceId::parse(writer).unwrap();
            acknowledged.insert(writer, change.parse().unwrap());
        }

        assert_sound(&scratch.0);
        let store = Sqlite::open(&scratch.0).unwrap();
        let stored = stored(&store).await;
        for (writer, last) in &acknowledged {
            let there = stored.get(writer).copied().unwrap_or_default();
            // One more may have been on its way.
            let possible = *last..=*last + 1;
            assert!(possible.contains(&there), "round {round}, {writer}: {there}, not {last}");
            // An even writer's changes are puts, which leave no line.
            if let Some(newest) = store.journal(writer, 1).await.unwrap().first() {
                assert_eq!(newest.reason, there.to_string(), "round {round}, {writer}");
            }
            // What was on its way and has arrived is where the next child goes on.
            assert!(there > 0);
        }
        acknowledged = stored;
    }
    println!("{ROUNDS} kills, {total} acknowledged changes, none lost");
    assert_eq!(acknowledged.len(), WRITERS as usize);
}

/// Not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_killed() {
    let Some(directory) = child_directory() else { return };
    let store = Arc::new(Sqlite::open(&directory).unwrap());
    let before = stored(&store).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let first = before.get(&id(writer)).map_or(0, |last| last + 1);
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for change in first.. {
                let record = record(writer, change);
                if change == 0 || writer.is_multiple_of(2) {
                    store.put(record).await.unwrap();
                } else {
                    store.transition(&record.id, record.state, Some(line(change))).await.unwrap();
                }
                if change > 0 {
                    println!("{SAYS}{} {change}", id(writer));
                }
            }
        });
    }
    writers.join_all().await;
}

#[test]
fn a_disk_that_is_full_loses_nothing_and_works_again_when_it_is_not() {
    let scratch = Scratch::new("frostgate-store-full");
    // A file system of 1 MiB, in a mount namespace that ends with the child.
    let mount = r#"mount -t tmpfs -o size=1m frostgate "$0" && exec "$@""#;
    let mut command: Vec<String> =
        ["unshare", "--mount", "sh", "-c", mount].map(str::to_owned).to_vec();
    command.push(scratch.0.to_str().unwrap().to_owned());
    command.extend(this_test("a_child_with_a_small_disk"));
    let mut child = run(&command, &scratch.0);
    let said: Vec<String> = says(&mut child).collect();
    let status = child.wait().unwrap();
    if said.is_empty() {
        return println!("SKIPPED: a small file system can't be mounted here");
    }
    assert!(status.success(), "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("done"), "{said:?}");
    println!("{said:?}");
}

/// Not a test by itself.
#[tokio::test]
async fn a_child_with_a_small_disk() {
    let Some(directory) = child_directory() else { return };
    println!("\n{SAYS}mounted");
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![0; 256 * 1024]).unwrap();
    let store = Sqlite::open(&directory).unwrap();
    let mut kept: u32 = 0;
    let error = loop {
        match store.put(record(kept, 0)).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    println!("{SAYS}{kept} records, then: {error}");
    assert_eq!(error, StoreError::Full);
    assert_eq!(store.put(record(kept, 0)).await, Err(StoreError::Full));
    assert_eq!(store.load().await.unwrap().len(), kept as usize);
    fs::remove_file(ballast).unwrap();
    store.put(record(kept, 0)).await.unwrap();
    drop(store);
    assert_sound(&directory);
    let store = Sqlite::open(&directory).unwrap();
    assert_eq!(store.load().await.unwrap().len(), kept as usize + 1);
    println!("{SAYS}done");
}
