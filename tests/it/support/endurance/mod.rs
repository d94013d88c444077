//! `kill -9` under load, again and again: random calls and visits by several clients, and after
//! every start a look at whether all is true that was promised.

mod client;
mod ledger;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::{Dice, PATIENCE, Program, Setup};
use client::Caller;
use ledger::{Fate, Kind, Ledger};

const CLIENTS: u64 = 4;
/// Ports that the system doesn't give away by itself, so that one can be used again and again.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// What runs the workspaces, and what it says of them.
pub(crate) trait World: Clone + Send + Sync + 'static {
    /// Where the program has to listen for its workspaces to reach it.
    const HOST: Ipv4Addr;
    /// How long the clients are let go on, at most.
    const LIFE_MAX: Duration;

    /// The tables of the configuration, a project `app` among them.
    fn configuration(&self, prefix: &str) -> String;

    /// What there is of every workspace whose id begins with `prefix`.
    fn remains(&self, prefix: &str, state_dir: &Path) -> BTreeMap<String, Remains>;
}

/// What there is of a workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Processes, or containers, that run.
    pub(crate) running: usize,
    /// The same, paused.
    pub(crate) paused: usize,
    /// Whatever else is there: a directory, a container that does not run.
    pub(crate) others: usize,
}

/// So many gateways side by side, each of which is killed so many times.
pub(crate) async fn endure_in_lanes<W: World>(world: &W, lanes: u32, rounds: u32) {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    let mut sieges = JoinSet::new();
    for lane in 0..lanes {
        let prefix = format!("{}{lane}x", common_prefix());
        sieges.spawn(endure(world.clone(), prefix, seed.wrapping_add(lane.into()), rounds));
    }
    let ledgers = sieges.join_all().await;
    let sum = |count: fn(&Ledger) -> u32| ledgers.iter().map(count).sum::<u32>();
    let (changes, served) = (sum(|ledger| ledger.changes), sum(|ledger| ledger.served));
    let (workspaces, turned_away) = (
        sum(|ledger| u32::try_from(ledger.entries.len()).unwrap()),
        sum(|ledger| ledger.turned_away),
    );
    println!(
        "{} kills among {workspaces} workspaces, {changes} changes to them, and {served} visits; \
         {turned_away} more were put off",
        lanes * rounds
    );
    assert!(changes > lanes * rounds && served > lanes * rounds, "hardly anything was done");
}

/// How all ids begin, and no others on this machine.
pub(crate) fn common_prefix() -> String {
    format!("e{}x", std::process::id())
}

/// So many kills of one gateway, whose workspaces' ids begin with `prefix`.
async fn endure<W: World>(world: W, prefix: String, seed: u64, rounds: u32) -> Ledger {
    let _seed = SaidOnPanic(format!("failing seed: {seed} ({prefix})"));
    let mut dice = Dice(seed);
    let setup = Setup {
        public: vec![free_address(W::HOST, &mut dice)],
        configuration: world.configuration(&prefix),
        ..Setup::default()
    };
    let program = Program::run(setup).await;
    let ledger = Arc::default();
    let mut siege = Siege { world, prefix, program, dice, ledger };
    for _ in 0..rounds {
        siege.load_and_kill().await;
        siege.program = siege.program.kill_and_start().await;
        siege.look().await;
    }
    siege.end().await
}

struct SaidOnPanic(String);

impl Drop for SaidOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

fn free_address(host: Ipv4Addr, dice: &mut Dice) -> SocketAddr {
    let ports = std::iter::from_fn(|| Some(PORTS.start + dice.roll(PORTS.end - PORTS.start)));
    let mut addresses =
        ports.map(|port| SocketAddr::new(host.into(), u16::try_from(port).unwrap())).take(1_000);
    addresses.find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

struct Siege<W> {
    world: W,
    prefix: String,
    program: Program,
    dice: Dice,
    ledger: Arc<Mutex<Ledger>>,
}

impl<W: World> Siege<W> {
    /// Lets clients do what they like until the program is killed among them.
    async fn load_and_kill(&mut self) {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let caller = Caller {
                name: format!("{}{number}", self.prefix),
                public: self.program.public,
                admin: self.program.admin,
                token: self.program.token(),
                dice: Dice(self.dice.roll(u64::MAX)),
                ledger: Arc::clone(&self.ledger),
            };
            clients.spawn(caller.run());
        }
        let life = u64::try_from(W::LIFE_MAX.as_micros()).unwrap();
        let ends_at = Instant::now() + Duration::from_micros(self.dice.roll(life));
        while Instant::now() < ends_at && clients.len() as u64 == CLIENTS {
            // The moment is what is tested; nothing is waited for.
            sleep(ends_at.saturating_duration_since(Instant::now()).min(W::LIFE_MAX / 10)).await;
            self.assert_nobody_is_double(&self.remains().await);
        }
        self.program.kill();
        clients.join_all().await;
    }

    /// What is promised is true at once; what was cut off is finished soon.
    async fn look(&mut self) {
        let listed = self.listed().await;
        for (id, entry) in &self.ledger().entries {
            match listed.get(id) {
                None => assert!(!entry.must_live(), "{id} is lost: {entry:?}\n{}", self.log_of(id)),
                Some(told) => {
                    let is_going = told["phase"] == "removing";
                    // One that went by itself was waited for by nobody, and goes once more.
                    let may_be_there = entry.may_live() || is_going && entry.kind == Kind::Fleeting;
                    assert!(may_be_there, "{id} is back: {told}\n{}", self.log_of(id));
                    if is_going {
                        continue;
                    }
                    let hold = told["policy"]["hold_max"].as_u64().unwrap();
                    assert!(entry.holds.contains(&hold), "{id}: {entry:?}, not {told}");
                }
            }
        }
        self.until_at_rest().await;
        let listed = self.listed().await;
        self.assert_reports(&listed);
        self.learn(&listed);
        self.visit().await;
        let log = self.log();
        let errors: Vec<_> =
            log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
        assert!(errors.is_empty() && !log.contains("panicked"), "{errors:#?}");
    }

    /// Who is active by its own word is so after a crash.
    fn assert_reports(&self, listed: &BTreeMap<String, Value>) {
        let ledger = self.ledger();
        let known = ledger.entries.iter().filter(|(_, entry)| entry.must_live());
        for (id, entry) in known.filter(|(_, entry)| entry.reports.len() == 1) {
            let told = &listed[id];
            let reports = told["reports_activity"].as_bool().unwrap();
            assert!(entry.reports.contains(&reports), "{entry:?}, not {told}\n{}", self.log_of(id));
        }
    }

    async fn until_at_rest(&self) {
        let deadline = Instant::now() + PATIENCE * 3;
        loop {
            let problems = self.problems().await;
            if problems.is_empty() {
                return;
            }
            let logs: String = problems.keys().map(|id| self.log_of(id)).collect();
            assert!(Instant::now() < deadline, "{problems:#?}\n{logs}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where what we say, what there is and what the journal says differ.
    async fn problems(&self) -> BTreeMap<String, String> {
        let listed = self.listed().await;
        let remains = self.remains().await;
        self.assert_nobody_is_double(&remains);
        let mut problems = BTreeMap::new();
        for (id, what) in &remains {
            if !listed.contains_key(id) {
                problems.insert(id.clone(), format!("it is gone, and there is {what:?}"));
            }
        }
        for (id, told) in &listed {
            let what = remains.get(id).copied().unwrap_or_default();
            let phase = told["phase"].as_str().unwrap();
            let right = match (phase, told["tier"].as_str()) {
                ("running", None) => (what.running, what.paused) == (1, 0),
                ("frozen", Some("stopped")) => (what.running, what.paused) == (0, 0),
                ("frozen", Some("paused")) => (what.running, what.paused) == (0, 1),
                _ => false,
            };
            let problem = match right && what != Remains::default() {
                true => self.journal_problem(id).await,
                false => Some(format!("there is {what:?}, yet we say {told}")),
            };
            problems.extend(problem.map(|problem| (id.clone(), problem)));
        }
        problems
    }

    async fn journal_problem(&self, id: &str) -> Option<String> {
        let reply = self.program.call(&format!("GET /workspaces/{id}/activity"), "").await;
        if reply.status != 200 {
            return None;
        }
        let told = reply.json();
        let lines = told["journal"].as_array().unwrap();
        let phases: Vec<&str> = lines.iter().map(|line| line["phase"].as_str().unwrap()).collect();
        if told["workspace"]["phase"].as_str() != phases.first().copied() {
            return Some(format!("its journal says something else: {told}"));
        }
        // After a crash it begins again as frozen or starting, from wherever it was.
        let follows = |newer: &str, older: &str| match newer {
            "running" => older == "starting",
            "freezing" => matches!(older, "running" | "failed"),
            "failed" => matches!(older, "starting" | "removing"),
            "starting" | "frozen" | "removing" => true,
            _ => false,
        };
        let wrong = phases.windows(2).find(|pair| !follows(pair[0], pair[1]));
        wrong.map(|pair| format!("{pair:?} in {told}"))
    }

    /// What nobody knew, because nobody was answered, is known now.
    fn learn(&self, listed: &BTreeMap<String, Value>) {
        for (id, entry) in &mut self.ledger().entries {
            entry.fate = match (listed.contains_key(id), entry.fate) {
                (true, _) => Fate::Lives,
                (false, Fate::Lives) => {
                    assert_eq!(entry.kind, Kind::Fleeting, "{id} is lost: {}", self.log_of(id));
                    Fate::Gone
                }
                (false, _) => Fate::Gone,
            };
            if let Some(told) = listed.get(id) {
                entry.holds = [told["policy"]["hold_max"].as_u64().unwrap()].into();
                entry.reports = [told["reports_activity"].as_bool().unwrap()].into();
            }
            if entry.stopping {
                entry.stopping = false;
                entry.stops += 1;
            }
        }
    }

    /// Some of those that must be there, and all whose run is known: it is the same.
    async fn visit(&mut self) {
        let living = self.ledger().entries.clone();
        for (id, entry) in living.iter().filter(|(_, entry)| entry.must_live()) {
            if entry.boot.is_none() && self.dice.roll(2) == 0 {
                continue;
            }
            let deadline = Instant::now() + PATIENCE;
            loop {
                let reply = self.program.get(id, "/boot").await;
                if reply.status == 200 {
                    self.ledger().saw(id, &reply.text(), entry.stops);
                    break;
                }
                assert!(Instant::now() < deadline, "{id}: {reply:?}\n{}", self.log_of(id));
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Removes all; nothing is left then.
    async fn end(mut self) -> Ledger {
        for id in self.listed().await.keys() {
            let reply = self.program.call(&format!("DELETE /workspaces/{id}"), "").await;
            assert!(matches!(reply.status, 204 | 404), "{id}: {reply:?}");
        }
        assert_eq!(self.remains().await, BTreeMap::new());
        self.program.terminate();
        assert_eq!(self.program.ended(PATIENCE).await, Some(0), "{}", self.log());
        std::mem::take(&mut *self.ledger())
    }

    /// Every workspace as the API tells it.
    async fn listed(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        let mut token = String::new();
        loop {
            let line = format!("GET /workspaces?limit=100&page_token={token}");
            let page = self.program.call(&line, "").await.json();
            for told in page["items"].as_array().unwrap() {
                all.insert(told["id"].as_str().unwrap().to_owned(), told.clone());
            }
            match page["paging"]["next_page_token"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return all,
            }
        }
    }

    async fn remains(&self) -> BTreeMap<String, Remains> {
        let (world, prefix) = (self.world.clone(), self.prefix.clone());
        let state_dir = self.program.state_dir();
        spawn_blocking(move || world.remains(&prefix, &state_dir)).await.unwrap()
    }

    fn assert_nobody_is_double(&self, remains: &BTreeMap<String, Remains>) {
        for (id, what) in remains {
            assert!(
                what.running + what.paused <= 1,
                "{id} is there twice: {what:?}\n{}",
                self.log_of(id)
            );
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> String {
        self.program.log()
    }

    /// What it has logged of one workspace.
    fn log_of(&self, id: &str) -> String {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(id) || line.contains("serving"));
        lines.map(|line| format!("{line}\n")).collect()
    }
}
