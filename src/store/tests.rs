//! What every store promises, asked of each that there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use super::*;
use crate::model::{
    ConnectionActivity, FreezeMode, FrozenStorage, Image, Mount, ProjectId, Protocol, Pull, Runs,
};

/// A directory that goes with the test.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("frostgate-store-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    pub(super) fn open(&self) -> Sqlite {
        Sqlite::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A moment in this year, so that no retention has ended.
pub(super) fn date(milliseconds: u64) -> SystemTime {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    UNIX_EPOCH + Duration::from_secs(today * 86_400) + Duration::from_millis(milliseconds)
}

pub(super) fn id(text: &str) -> WorkspaceId {
    WorkspaceId::parse(text).unwrap()
}

/// A record with nothing in it that may be absent.
pub(super) fn bare(name: &str) -> Record {
    Record {
        id: id(name),
        origin: Origin::Discovered,
        driver: "docker".to_owned(),
        project: None,
        spec: None,
        policy: PolicyOverrides::default(),
        created_at: date(1),
        state: RecordState {
            phase: Phase::Running,
            tier: None,
            since: date(2),
            last_active: None,
            reported_activity: false,
            intent: None,
            stopped_by_admin_at: None,
            kept_until: None,
            memory_saved: None,
            failure: None,
        },
    }
}

/// A record with everything.
pub(super) fn full(name: &str) -> Record {
    let time = |milliseconds| Some(Duration::from_millis(milliseconds));
    Record {
        origin: Origin::Api,
        project: Some("a project's name, with ünicode".to_owned()),
        spec: Some(Arc::new(Spec {
            runs: Runs::Image(Image {
                command: vec!["sh".to_owned(), "-c".to_owned(), "echo \"'\0\n".to_owned()],
                network: Some("lan".to_owned()),
                isolate: true,
                mounts: vec![Mount::parse("/srv/{id}:/home:ro").unwrap()],
                nano_cpus: Some(u64::MAX),
                pull: Pull::Always,
                publish_ports: true,
                ..Image::new("registry.example/a:1")
            }),
            port: Some(8080),
            memory: Some(1 << 30),
            environment: BTreeMap::from([("KEY".to_owned(), "a=b\n".to_owned())]),
            hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
            ready_path: Some("/ready".to_owned()),
            protocol: Protocol::H2c,
        })),
        policy: PolicyOverrides {
            inactivity_timeout: time(1),
            initial_timeout: time(0),
            freeze_mode: Some(FreezeMode::Pause),
            check_in_ttl: time(3),
            hold_max: time(4),
            page_after: Some(Duration::ZERO),
            no_wake: crate::model::NoWakeOverrides {
                paths: Some(vec!["/x".to_owned()]),
                clients: Some(vec!["10.0.0.0/8".parse().unwrap()]),
                ..Default::default()
            },
            start_timeout: time(5),
            stop_grace: time(6),
            drain_grace: time(u64::MAX),
            stop_hold_off: time(10),
            connection_activity: Some(ConnectionActivity::Traffic),
            idle_bytes: Some(11),
            monitoring: Some(false),
            stop_after: time(7),
            storage: Some(FrozenStorage::Limited(Duration::from_millis(8))),
            max_storage_time: time(9),
        },
        state: RecordState {
            phase: Phase::Frozen,
            tier: Some(Tier::Paused),
            since: date(3),
            last_active: Some(date(4)),
            reported_activity: true,
            intent: Some(Intent::Unpause),
            stopped_by_admin_at: Some(date(5)),
            kept_until: Some(date(6)),
            memory_saved: Some(7),
            failure: Some("it's \"broken\"; DROP TABLE workspace".to_owned()),
        },
        ..bare(name)
    }
}

pub(super) fn line(number: u64) -> JournalEntry {
    JournalEntry {
        at: date(number),
        phase: Phase::Running,
        tier: None,
        reason: number.to_string(),
        took: None,
    }
}

/// Every kind of thing that a column can hold, one record each.
fn variations() -> Vec<Record> {
    use Phase::{Failed, Freezing, Frozen, Removed, Removing, Running, Starting};
    let mut all = vec![bare("bare"), full("full")];
    for phase in [Starting, Running, Freezing, Frozen, Removing, Removed, Failed] {
        let mut record = bare(&format!("phase-{phase}"));
        record.state.phase = phase;
        all.push(record);
    }
    use Intent::{Create, Pause, Remove, Start, Stop, Unpause};
    for (number, intent) in [Create, Start, Pause, Unpause, Stop, Remove].into_iter().enumerate() {
        let mut record = bare(&format!("intent-{number}"));
        record.state.intent = Some(intent);
        all.push(record);
    }
    let mut stopped = bare("stopped");
    stopped.origin = Origin::Config;
    stopped.created_at = UNIX_EPOCH - Duration::from_millis(1_500);
    stopped.state.tier = Some(Tier::Stopped);
    stopped.policy.freeze_mode = Some(FreezeMode::Stop);
    all.push(stopped);
    let kinds = [
        Runs::Command { argv: vec!["true".to_owned()], directory: Some(PathBuf::from("/a b")) },
        Runs::Command { argv: Vec::new(), directory: None },
        Runs::Discovered { network: None },
        Runs::Upstream("[::1]:80".to_owned()),
    ];
    for (number, runs) in kinds.into_iter().enumerate() {
        let mut record = full(&format!("runs-{number}"));
        record.spec = record.spec.map(|spec| Arc::new(Spec { runs, ..(*spec).clone() }));
        all.push(record);
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

async fn with_each_store(test: impl AsyncFn(&dyn Store)) {
    println!("in memory");
    test(&Memory::new()).await;
    println!("in a file");
    let scratch = Scratch::new();
    test(&scratch.open()).await;
}

#[tokio::test]
async fn records_are_loaded_as_they_were_put() {
    with_each_store(async |store| {
        let records = variations();
        for record in &records {
            store.put(record.clone()).await.unwrap();
        }
        assert_eq!(store.load().await.unwrap(), records);

        let replaced = Record { id: id("full"), ..bare("bare") };
        store.put(replaced.clone()).await.unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.len(), records.len());
        assert!(loaded.contains(&replaced));
    })
    .await;
}

#[tokio::test]
async fn a_transition_replaces_the_state_and_nothing_else() {
    with_each_store(async |store| {
        store.put(bare("a")).await.unwrap();
        store.put(bare("b")).await.unwrap();
        let state = full("a").state;
        let entry = JournalEntry {
            at: date(7),
            phase: Phase::Frozen,
            tier: Some(Tier::Stopped),
            reason: "idle for 15m".to_owned(),
            took: Some(Duration::from_millis(420)),
        };
        store.transition(&id("a"), state.clone(), Some(entry.clone())).await.unwrap();
        let expected = Record { state, ..bare("a") };
        assert_eq!(store.load().await.unwrap(), [expected, bare("b")]);
        assert_eq!(store.journal(&id("a"), 10).await.unwrap(), [entry]);
        assert_eq!(store.journal(&id("b"), 10).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_transition_of_what_is_not_there_is_refused_and_leaves_no_line() {
    with_each_store(async |store| {
        let result = store.transition(&id("a"), bare("a").state, Some(line(1))).await;
        assert_eq!(result, Err(StoreError::Unknown { id: id("a") }));
        assert_eq!(store.journal(&id("a"), 10).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn the_journal_keeps_the_last_lines_of_each_workspace_and_outlives_the_record() {
    with_each_store(async |store| {
        store.put(bare("a")).await.unwrap();
        store.put(bare("b")).await.unwrap();
        store.transition(&id("b"), bare("b").state, Some(line(0))).await.unwrap();
        let written = JOURNAL_LINES_MAX as u64 + 7;
        for number in 0..written {
            store.transition(&id("a"), bare("a").state, Some(line(number))).await.unwrap();
        }
        store.delete(&id("a")).await.unwrap();
        store.delete(&id("a")).await.unwrap();
        assert_eq!(store.load().await.unwrap(), [bare("b")]);

        let kept = store.journal(&id("a"), usize::MAX).await.unwrap();
        let expected: Vec<_> = (7..written).rev().map(line).collect();
        assert_eq!(kept, expected);
        assert_eq!(store.journal(&id("a"), 3).await.unwrap(), expected[..3]);
        assert_eq!(store.journal(&id("b"), 3).await.unwrap(), [line(0)]);
    })
    .await;
}

#[tokio::test]
async fn the_history_is_kept_for_its_time_and_replaced_moment_by_moment() {
    with_each_store(async |store| {
        let moment = |at, running| Moment { at, running, frozen: 2, memory_saved: 3 };
        let old = date(0) - HISTORY_AGE_MAX;
        store.note_moment(moment(old, 9)).await.unwrap();
        assert_eq!(store.history(UNIX_EPOCH).await.unwrap(), [moment(old, 9)]);
        for (at, running) in [(1, 1), (2, 2), (2, 3)] {
            store.note_moment(moment(date(at), running)).await.unwrap();
        }
        assert_eq!(
            store.history(UNIX_EPOCH).await.unwrap(),
            [moment(date(1), 1), moment(date(2), 3)]
        );
        assert_eq!(store.history(date(2)).await.unwrap(), [moment(date(2), 3)]);
    })
    .await;
}

#[tokio::test]
async fn wakes_are_told_from_the_journals_of_all_workspaces() {
    with_each_store(async |store| {
        let took = |milliseconds| Some(Duration::from_millis(milliseconds));
        let lines = [
            ("a", 1, Phase::Running, took(10)),
            ("b", 2, Phase::Running, took(20)),
            ("a", 3, Phase::Frozen, took(30)),
            ("b", 4, Phase::Failed, None),
            ("a", 5, Phase::Running, None),
            ("b", 6, Phase::Running, took(40)),
        ];
        for (name, at, phase, took) in lines {
            store.put(bare(name)).await.unwrap();
            let entry = JournalEntry { phase, took, ..line(at) };
            store.transition(&id(name), bare(name).state, Some(entry)).await.unwrap();
        }
        let ready = |milliseconds| Wake::Ready(Duration::from_millis(milliseconds));
        assert_eq!(store.wakes(date(2)).await.unwrap(), [ready(40), Wake::Failed, ready(20)]);
    })
    .await;
}

#[tokio::test]
async fn tokens_are_kept_replaced_and_forgotten() {
    with_each_store(async |store| {
        let token = |name: &str, scope, byte| TokenRecord {
            name: TokenName::parse(name).unwrap(),
            hash: TokenHash::from_bytes([byte; 32]),
            scope,
            created_at: date(1),
        };
        let projects = ["a", "b"].map(|project| ProjectId::parse(project).unwrap());
        let projects = Scope::Projects(projects.into());
        let all = [
            token("admin", Scope::Admin, 0),
            token("projects", projects, 255),
            token("read", Scope::Read, 7),
        ];
        for token in &all {
            store.put_token(token.clone()).await.unwrap();
        }
        assert_eq!(store.tokens().await.unwrap(), all);

        let rotated = token("read", Scope::Read, 8);
        store.put_token(rotated.clone()).await.unwrap();
        assert_eq!(store.delete_token(&all[0].name).await, Ok(true));
        assert_eq!(store.delete_token(&all[0].name).await, Ok(false));
        assert_eq!(store.tokens().await.unwrap(), [all[1].clone(), rotated]);
    })
    .await;
}

#[tokio::test]
async fn the_store_in_memory_fails_when_it_is_told_to() {
    let store = Memory::new();
    store.fail_with(Some(StoreError::Full));
    assert_eq!(store.put(bare("a")).await, Err(StoreError::Full));
    store.fail_with(None);
    assert_eq!(store.load().await, Ok(Vec::new()));
}
