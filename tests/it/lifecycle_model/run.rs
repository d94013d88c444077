//! One run: what happens is drawn, calm and storm by turns, and looked at after every step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frostgate::driver::Found;
use frostgate::driver::fake::{Action, Failure, Fake};
use frostgate::lifecycle::create::{Order, Template};
use frostgate::lifecycle::{CommandError, Lease, Notice, Visit, Workspace};
use frostgate::model::{FreezeMode, FrozenStorage, Policy, PolicyOverrides, WorkspaceId};
use frostgate::store::{Memory, StoreError};
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, advance, sleep, timeout};

use super::dice::Dice;
use super::one::{One, Origin};
use super::reference::{Reference, UPSET, Wish};
use super::world::{Life, Model, PROJECT, Setup, spec};

const CONFIGURED: [&str; 2] = ["conf-a", "conf-b"];
const DISCOVERED: [&str; 2] = ["disc-a", "disc-b"];
const CREATED: [&str; 3] = ["made-a", "made-b", "made-c"];
const EPISODES: usize = 4;
const STEPS: usize = 14;
const ACTIONS: [Action; 7] = [
    Action::Create,
    Action::Start,
    Action::Stop,
    Action::Pause,
    Action::Unpause,
    Action::Remove,
    Action::Inspect,
];

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Visit,
    Crowd,
    GiveUp,
    Leave,
    AllLeave,
    CheckIn,
    Stop,
    Resume,
    Remove,
    Create,
    Suspect,
    HangUp,
    Policy,
    Outside,
    Rumour,
    Resync,
    Latency,
    Failure,
    Away,
    Deaf,
    Back,
    CarryOn,
    EventDelay,
    Health,
    StoreLatency,
    StoreFailure,
    Jump,
    Crash,
    Restart,
}

const CALM: [(usize, Deed); 14] = [
    (20, Deed::Visit),
    (3, Deed::Crowd),
    (3, Deed::GiveUp),
    (8, Deed::Leave),
    (2, Deed::AllLeave),
    (6, Deed::CheckIn),
    (4, Deed::Stop),
    (4, Deed::Resume),
    (1, Deed::Remove),
    (5, Deed::Create),
    (1, Deed::Suspect),
    (2, Deed::HangUp),
    (5, Deed::Policy),
    (2, Deed::Rumour),
];

const STORM: [(usize, Deed); 29] = [
    (20, Deed::Visit),
    (3, Deed::Crowd),
    (3, Deed::GiveUp),
    (6, Deed::Leave),
    (2, Deed::AllLeave),
    (4, Deed::CheckIn),
    (5, Deed::Stop),
    (4, Deed::Resume),
    (2, Deed::Remove),
    (6, Deed::Create),
    (2, Deed::Suspect),
    (3, Deed::HangUp),
    (3, Deed::Policy),
    (12, Deed::Outside),
    (2, Deed::Rumour),
    (1, Deed::Resync),
    (5, Deed::Latency),
    (9, Deed::Failure),
    (2, Deed::Away),
    (2, Deed::Deaf),
    (3, Deed::Back),
    (2, Deed::CarryOn),
    (2, Deed::EventDelay),
    (3, Deed::Health),
    (2, Deed::StoreLatency),
    (1, Deed::StoreFailure),
    (2, Deed::Jump),
    (2, Deed::Crash),
    (1, Deed::Restart),
];

/// See the module's head.
pub(super) struct Run {
    dice: Dice,
    fake: Fake,
    memory: Arc<Memory>,
    setup: Setup,
    model: Model,
    life: Option<Life>,
    /// Requests and calls of admins; they end with the life that they came to.
    clients: JoinSet<()>,
    visitors: BTreeMap<u64, AbortHandle>,
    calls: Vec<AbortHandle>,
}

/// A request, from its coming to its end, however it ends.
struct Visitor {
    model: Model,
    id: WorkspaceId,
    number: u64,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.model.lock().leaves(&self.id, self.number);
    }
}

async fn visit(
    workspace: Arc<Workspace>,
    visitor: Visitor,
    stay: Duration,
    mut endings: broadcast::Receiver<Notice>,
    stubborn: bool,
) {
    visitor.model.lock().comes(&visitor.id, visitor.number);
    let entered = workspace.enter(Visit::Navigation).await;
    match entered {
        Ok(lease) => {
            let generation = lease.generation();
            visitor.model.lock().granted(&visitor.id, visitor.number, generation);
            tokio::select! {
                () = sleep(stay) => {}
                () = ended(&lease, &mut endings, stubborn) => {}
            }
            drop(lease);
        }
        Err(refusal) => visitor.model.lock().refused(&visitor.id, visitor.number, &refusal),
    }
}

/// Its connection is closed, as the proxy does it; or broke with the run, if that is noticed.
async fn ended(lease: &Lease, endings: &mut broadcast::Receiver<Notice>, stubborn: bool) {
    if lease.workspace().is_severed(lease.generation()) {
        return;
    }
    while let Ok(notice) = endings.recv().await {
        let Notice::Ended(ending) = notice else { continue };
        let concerned =
            ending.serial == lease.workspace().serial() && lease.generation() <= ending.generation;
        if concerned && (ending.sever || !stubborn) {
            return;
        }
    }
}

/// An admin's call, from its begin to its end, however it ends.
struct Call {
    model: Model,
    number: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.model.lock().hangs_up(self.number);
    }
}

fn id(text: &str) -> WorkspaceId {
    WorkspaceId::parse(text).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Run {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let policy = Policy {
            inactivity_timeout: Some(dice.pick(&[seconds(5), seconds(30), seconds(120)])),
            initial_timeout: dice.pick(&[Duration::ZERO, Duration::ZERO, seconds(20)]),
            freeze_mode: dice.pick(&[FreezeMode::Stop, FreezeMode::Pause]),
            stop_grace: dice.pick(&[seconds(1), seconds(10)]),
            drain_grace: dice.pick(&[seconds(1), seconds(10)]),
            start_timeout: dice.pick(&[seconds(6), seconds(60)]),
            ..Policy::default()
        };
        let slots = dice.pick(&[None, None, Some(1), Some(2), Some(3)]);
        let held_per_workspace_max = dice.pick(&[3, 100]);
        let configured = CONFIGURED.iter().map(|name| (id(name), overrides(&mut dice))).collect();
        let project = PolicyOverrides {
            storage: dice.pick(&[
                None,
                Some(FrozenStorage::None),
                Some(FrozenStorage::Limited(seconds(90))),
            ]),
            ..PolicyOverrides::default()
        };
        let (fake, memory) = (Fake::new(), Arc::new(Memory::new()));
        let mut reference = Reference::new(fake.clone(), memory.clone(), slots);
        reference.held_per_workspace_max = held_per_workspace_max;
        let setup = Setup { slots, held_per_workspace_max, policy, configured, project };
        Self {
            dice,
            fake,
            memory,
            setup,
            model: Model::new(reference),
            life: None,
            clients: JoinSet::new(),
            visitors: BTreeMap::new(),
            calls: Vec::new(),
        }
    }

    fn populate(&mut self) {
        let now = Instant::now();
        let mut found = Vec::new();
        for (id, own) in self.setup.configured.clone() {
            let policy = own.over(&self.setup.policy);
            self.know(id, One::new(Origin::Configured, policy, now));
        }
        for name in DISCOVERED {
            let (id, policy) = (id(name), overrides(&mut self.dice));
            let one = One::new(Origin::Discovered, policy.over(&self.setup.policy), now);
            self.know(id.clone(), one);
            match self.dice.roll(3) {
                0 => {}
                1 => self.fake.start_outside(&id),
                _ => {
                    self.fake.start_outside(&id);
                    self.fake.stop_outside(&id);
                }
            }
            found.push(Found { is_ours: false, id, spec: spec(), policy, warnings: Vec::new() });
        }
        for name in CREATED {
            self.know(id(name), One::new(Origin::Created, self.setup.policy.clone(), now));
        }
        self.fake.set_found(found);
    }

    fn know(&self, id: WorkspaceId, one: One) {
        self.fake.set_endpoint(&id, None);
        self.fake.set_healthy_after(&id, Duration::ZERO);
        self.model.lock().all.insert(id, one);
    }

    /// Returns what was seen, or what should not have been.
    pub(super) async fn play(mut self) -> Outcome {
        self.populate();
        self.begin().await;
        for episode in 0..EPISODES {
            let calm = episode % 2 == 0;
            if calm {
                self.heal().await;
            }
            for _ in 0..STEPS {
                for _ in 0..1 + self.dice.roll(3) {
                    let deed = self.dice.weigh(if calm { &CALM } else { &STORM });
                    self.act(deed).await;
                    if self.dice.one_in(3) {
                        yield_now().await;
                    }
                }
                self.pass(calm).await;
                if self.has_failed() {
                    return self.outcome();
                }
            }
        }
        self.heal().await;
        self.end().await;
        self.outcome()
    }

    fn has_failed(&self) -> bool {
        !self.model.lock().violations.is_empty()
    }

    fn outcome(&self) -> Outcome {
        let reference = self.model.lock();
        Outcome {
            violations: reference.violations.clone(),
            trace: reference.trace(),
            counts: reference.counts.clone(),
        }
    }

    async fn begin(&mut self) {
        let Self { setup, model, fake, memory, .. } = self;
        self.life = Some(Life::begin(setup, model, fake, memory).await);
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("only a restart is without a life")
    }

    fn workspace(&mut self) -> Option<Arc<Workspace>> {
        let all = self.life().registry.all();
        if all.is_empty() { None } else { Some(self.dice.pick(&all)) }
    }

    /// Time passes: a moment, a while, or exactly until something is due.
    async fn pass(&mut self, calm: bool) {
        let due = self.due();
        let wait = match self.dice.roll(12) {
            0..=2 => Duration::from_millis(1),
            3..=4 => self.dice.millis(1_000),
            5..=6 => self.dice.millis(10_000),
            7 => self.dice.millis(90_000),
            8 if calm => self.dice.millis(600_000),
            _ if due.is_empty() => Duration::from_millis(10),
            _ => {
                let now = Instant::now();
                let due = self.dice.pick(&due).saturating_duration_since(now);
                let tick = Duration::from_millis(1);
                self.dice.pick(&[due, due + tick, due.saturating_sub(tick)])
            }
        };
        sleep(wait.min(seconds(900))).await;
        // A sleep of its own, after which everything of that moment is over.
        if self.dice.roll(4) > 0 {
            sleep(Duration::from_millis(1)).await;
            self.check();
        }
    }

    fn check(&self) {
        self.model.lock().check(&self.life().registry);
    }

    /// Moments at which something should happen by itself.
    fn due(&self) -> Vec<Instant> {
        let now = Instant::now();
        let all = self.life().registry.all();
        let views = all.iter().map(|workspace| workspace.view());
        let due = views.flat_map(|view| [view.freeze_at, view.remove_at]);
        due.flatten().filter(|at| *at > now).collect()
    }

    /// All goes well from now on; returns when it has for long enough.
    async fn heal(&mut self) {
        for action in ACTIONS {
            let latency = self.dice.pick(&[0, 1, 40, 300]);
            self.fake.set_latency(action, Duration::from_millis(latency));
        }
        self.fake.fail_no_more();
        self.fake.carry_on_after(None);
        self.fake.set_event_delay(Duration::ZERO);
        for name in CONFIGURED.iter().chain(&DISCOVERED).chain(&CREATED) {
            let delay = self.dice.pick(&[0, 0, 400, 2_500]);
            self.fake.set_healthy_after(&id(name), Duration::from_millis(delay));
        }
        self.memory.fail_with(None);
        self.memory.set_latency(Duration::from_millis(self.dice.pick(&[0, 0, 5])));
        self.fake.come_back();
        {
            let mut reference = self.model.lock();
            reference.store_fails = false;
            reference.store_is_slow = false;
            let now = Instant::now();
            reference.all.values_mut().for_each(|one| one.upset_until = now);
            reference.upset_all("all goes well from now on".to_owned());
        }
        sleep(UPSET + seconds(100)).await;
        self.model.lock().check_settled(&self.life().registry);
    }

    async fn end(&mut self) {
        self.clients.shutdown().await;
        self.visitors.clear();
        sleep(seconds(1)).await;
        let registry = self.life().registry.clone();
        for workspace in registry.all() {
            let view = workspace.view();
            let mut reference = self.model.lock();
            let empty = view.inside == 0 && view.held == 0 && view.tunnels == 0;
            reference
                .demand(empty, || format!("{}: somebody is still in: {view:?}", workspace.id()));
        }
        for workspace in registry.all() {
            let id = workspace.id();
            let call = self.model.lock().asks(id, Wish::Remove);
            let removed = timeout(seconds(60), workspace.remove()).await;
            // It may have been too old in that moment.
            let done = matches!(removed, Ok(Ok(()) | Err(CommandError::Gone)));
            let mut reference = self.model.lock();
            reference.demand(done, || format!("{id}: is not removed: {removed:?}"));
            reference.answered(call, &Ok(()));
        }
        let slots = registry.slots();
        let free = slots.is_none_or(|(all, free)| all == free);
        self.model.lock().demand(free, || format!("slots are taken for ever: {slots:?}"));
        let weak = Arc::downgrade(&registry);
        drop(registry);
        if let Some(life) = self.life.take() {
            life.stop().await;
        }
        sleep(seconds(1)).await;
        let mut reference = self.model.lock();
        reference.demand(weak.upgrade().is_none(), || "the registry is held for ever".to_owned());
        // The one that watches the fake's events is left.
        let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        reference.demand(left <= 1, || format!("{left} tasks are left"));
    }
}

/// What came of a run.
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) trace: String,
    pub(super) counts: BTreeMap<String, usize>,
}

/// What a workspace or a call sets for itself.
fn overrides(dice: &mut Dice) -> PolicyOverrides {
    let zero = Duration::ZERO;
    let mut overrides = PolicyOverrides::default();
    for _ in 0..1 + dice.roll(3) {
        match dice.roll(14) {
            0 | 1 => {
                let timeout =
                    dice.pick(&[zero, seconds(2), seconds(10), seconds(60), seconds(300)]);
                overrides.inactivity_timeout = Some(timeout);
            }
            2 => overrides.initial_timeout = Some(dice.pick(&[zero, seconds(15), seconds(100)])),
            3 | 4 => {
                let mode = dice.pick(&[FreezeMode::Stop, FreezeMode::Pause]);
                overrides.freeze_mode = Some(mode);
            }
            5 => overrides.check_in_ttl = Some(dice.pick(&[zero, seconds(7), seconds(50)])),
            6 => overrides.hold_max = Some(dice.pick(&[seconds(5), seconds(60)])),
            7 => overrides.monitoring = Some(dice.roll(3) > 0),
            8 | 9 => overrides.stop_after = Some(dice.pick(&[zero, seconds(20), seconds(100)])),
            10 | 11 => {
                overrides.storage = Some(dice.pick(&[
                    FrozenStorage::None,
                    FrozenStorage::Limited(seconds(60)),
                    FrozenStorage::Limited(seconds(1_000)),
                    FrozenStorage::Unlimited,
                ]));
            }
            12 => {
                let age = dice.pick(&[zero, seconds(400), seconds(3_000)]);
                overrides.max_storage_time = Some(age);
            }
            _ => overrides.drain_grace = Some(dice.pick(&[seconds(1), seconds(10)])),
        }
    }
    overrides
}

impl Run {
    async fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Visit => self.visit(1),
            Deed::Crowd => {
                let crowd = 2 + self.dice.roll(4);
                self.visit(crowd);
            }
            Deed::GiveUp => self.leave(1),
            Deed::Leave => self.leave(1),
            Deed::AllLeave => self.leave(usize::MAX),
            Deed::CheckIn => self.check_in().await,
            Deed::Stop => self.ask(Wish::Stop),
            Deed::Resume => self.ask(Wish::Resume),
            Deed::Remove => self.ask(Wish::Remove),
            Deed::Suspect => self.ask(Wish::Suspect),
            Deed::Create => self.create(),
            Deed::HangUp => self.hang_up(),
            Deed::Policy => self.change_policy(),
            Deed::Crash | Deed::Restart => self.restart(deed == Deed::Crash).await,
            Deed::Jump => {
                let jump = self.dice.millis(120_000);
                self.model.lock().upset_all(format!("the clock jumps by {jump:?}"));
                advance(jump).await;
                self.model.lock().jumped_at = Some(Instant::now());
            }
            deed => self.disturb(deed),
        }
    }

    fn visit(&mut self, crowd: usize) {
        let Some(workspace) = self.workspace() else { return };
        for _ in 0..crowd {
            let number = self.model.lock().next();
            let id = workspace.id().clone();
            let visitor = Visitor { model: self.model.clone(), id, number };
            let stay = self.dice.pick(&[0, 10, 1_000, 20_000, 200_000]);
            let stay = Duration::from_millis(stay);
            let endings = self.life().registry.notices();
            let stubborn = self.dice.one_in(2);
            let visit = visit(workspace.clone(), visitor, stay, endings, stubborn);
            self.visitors.insert(number, self.clients.spawn(visit));
        }
    }

    fn leave(&mut self, how_many: usize) {
        self.visitors.retain(|_, visitor| !visitor.is_finished());
        for _ in 0..how_many.min(self.visitors.len()) {
            let all = Vec::from_iter(self.visitors.keys().copied());
            let number = self.dice.pick(&all);
            if let Some(visitor) = self.visitors.remove(&number) {
                visitor.abort();
            }
        }
    }

    async fn check_in(&mut self) {
        let Some(workspace) = self.workspace() else { return };
        let active = self.dice.roll(3) > 0;
        let asked = Instant::now();
        let answer = timeout(seconds(5), workspace.check_in(active)).await;
        let view = workspace.view();
        let mut reference = self.model.lock();
        match answer {
            Ok(answer) => reference.reported(workspace.id(), active, asked, &answer, &view),
            Err(_) => {
                reference.demand(false, || format!("{}: takes no reports", workspace.id()));
            }
        }
    }

    fn ask(&mut self, wish: Wish) {
        let Some(workspace) = self.workspace() else { return };
        let model = self.model.clone();
        let call = async move {
            let number = model.lock().asks(workspace.id(), wish);
            let call = Call { model, number };
            let answer = match wish {
                Wish::Stop => workspace.stop().await,
                Wish::Resume => workspace.resume().await,
                Wish::Remove => workspace.remove().await,
                Wish::Suspect => workspace.suspect().await,
                Wish::Create => return,
            };
            call.model.lock().answered(number, &answer);
        };
        self.calls.push(self.clients.spawn(call));
    }

    fn create(&mut self) {
        let id = id(self.dice.pick(&CREATED));
        let registered = self.life().registry.get(id.as_str()).is_some();
        if registered || self.model.lock().all[&id].creating {
            return;
        }
        let own = overrides(&mut self.dice);
        let policy = self.policy_of_created(&own);
        let order = Order {
            id: Some(id.clone()),
            from: Template::Project(PROJECT.to_owned()),
            policy: own,
        };
        let (model, creator) = (self.model.clone(), self.life().creator.clone());
        // From here on nobody else is to take the id.
        let number = model.lock().creates(&id, policy);
        let call = Call { model, number };
        let call = async move {
            call.model.lock().begins_creation(number);
            let made = creator.create(order).await.map(drop).map_err(|error| error.to_string());
            let made = match &made {
                Ok(()) => Ok(()),
                Err(error) => Err(error.as_str()),
            };
            call.model.lock().created(number, made);
        };
        self.calls.push(self.clients.spawn(call));
    }

    /// DESIGN §4: the call's word, then the project's, then the default; and its example.
    fn policy_of_created(&self, own: &PolicyOverrides) -> Policy {
        let base = self.setup.project.over(&self.setup.policy);
        let mut policy = own.over(&base);
        if let (None, Some(FrozenStorage::Limited(limit))) = (own.inactivity_timeout, own.storage) {
            let usual = base.inactivity_timeout.unwrap_or(limit);
            policy.inactivity_timeout = Some(usual.min(limit));
        }
        policy
    }

    fn hang_up(&mut self) {
        self.calls.retain(|call| !call.is_finished());
        if !self.calls.is_empty() {
            self.dice.pick(&self.calls).abort();
        }
    }

    fn change_policy(&mut self) {
        let Some(workspace) = self.workspace() else { return };
        let id = workspace.id().clone();
        let changes = overrides(&mut self.dice);
        let mut reference = self.model.lock();
        reference.look();
        reference.look_up(&id);
        let one = reference.one(&id);
        let changing = one.doubtful.iter().any(|(_, until)| until.is_none());
        if changing || one.phase.is_none() {
            return;
        }
        let (policy, incarnation) = (changes.over(&one.policy), one.incarnation);
        reference.changes_policy(&id, policy);
        drop(reference);
        let model = self.model.clone();
        self.clients.spawn(async move {
            let answer = workspace.change_policy(changes).await;
            model.lock().changed_policy(&id, incarnation, &answer);
        });
    }

    fn disturb(&mut self, deed: Deed) {
        let Some(workspace) = self.workspace() else { return };
        let id = workspace.id().clone();
        let upset_all = |words: String| self.model.lock().upset_all(words);
        match deed {
            Deed::Outside => self.outside(id),
            Deed::Rumour => self.fake.changed(&id),
            Deed::Resync => {
                upset_all("resync".to_owned());
                self.fake.resync();
            }
            Deed::Latency => {
                let action = self.dice.pick(&ACTIONS);
                let latency = Duration::from_millis(self.dice.pick(&[0, 20, 700, 4_000, 20_000]));
                self.model.lock().note(format!("{action:?} takes {latency:?} from now on"));
                self.fake.set_latency(action, latency);
            }
            Deed::Failure => self.fail(&id),
            Deed::Away => {
                let failure = self.dice.pick(&[Failure::Unreachable, Failure::Hang]);
                self.model.lock().upset_all(format!("the engine goes away: {failure:?}"));
                self.model.lock().upset_until += seconds(100_000);
                self.fake.go_away(failure);
            }
            Deed::Deaf => {
                upset_all("events are lost".to_owned());
                self.model.lock().upset_until += seconds(100_000);
                self.fake.lose_events();
            }
            Deed::Back => {
                {
                    let mut reference = self.model.lock();
                    reference.upset_until = Instant::now();
                    reference.upset_all("the engine is back".to_owned());
                }
                self.fake.come_back();
            }
            Deed::CarryOn => {
                let delay = self.dice.pick(&[None, Some(Duration::ZERO), Some(seconds(2))]);
                self.fake.carry_on_after(delay);
            }
            Deed::EventDelay => {
                let delay = Duration::from_millis(self.dice.pick(&[0, 5, 500, 3_000]));
                self.fake.set_event_delay(delay);
            }
            Deed::Health => {
                let delay = self.dice.pick(&[0, 800, 5_000, 100_000]);
                self.model.lock().upset(&id, format!("is healthy {delay} ms after a start"));
                self.model.lock().one(&id).upset_until += seconds(100_000);
                self.fake.set_healthy_after(&id, Duration::from_millis(delay));
            }
            Deed::StoreLatency => {
                let latency = Duration::from_millis(self.dice.pick(&[0, 5, 60, 400]));
                self.model.lock().note(format!("the store takes {latency:?}"));
                self.model.lock().store_is_slow |= latency > Duration::from_millis(100);
                self.memory.set_latency(latency);
            }
            Deed::StoreFailure => {
                let failure = self.dice.pick(&[None, Some(StoreError::Full)]);
                let mut reference = self.model.lock();
                reference.note(format!("the store fails: {failure:?}"));
                if failure.is_some() {
                    reference.store_fails = true;
                    reference.all.values_mut().for_each(|one| one.journal_lost = true);
                }
                self.memory.fail_with(failure);
            }
            _ => unreachable!("{deed:?} is no disturbance"),
        }
    }

    fn outside(&mut self, known: WorkspaceId) {
        let id = if self.dice.one_in(4) { id(self.dice.pick(&DISCOVERED)) } else { known };
        let (words, act): (_, fn(&Fake, &WorkspaceId)) = self.dice.pick(&[
            ("dies", Fake::die as fn(&Fake, &WorkspaceId)),
            ("is stopped outside", Fake::stop_outside),
            ("is started outside", Fake::start_outside),
            ("is paused outside", Fake::pause_outside),
            ("is unpaused outside", Fake::unpause_outside),
            ("is removed outside", Fake::remove_outside),
        ]);
        {
            let mut reference = self.model.lock();
            reference.upset(&id, words.to_owned());
            reference.one(&id).removed_outside |= words == "is removed outside";
        }
        act(&self.fake, &id);
        if words == "dies" && self.dice.one_in(2) {
            self.fake.start_outside(&id); // as by a restart policy
        }
    }

    fn fail(&mut self, id: &WorkspaceId) {
        let action = self.dice.pick(&ACTIONS);
        let carried_out = self.dice.one_in(2);
        let limit = seconds(self.dice.pick(&[1, 30]));
        let failure = match self.dice.roll(5) {
            0 | 1 => Failure::Refuse("the engine is not well".to_owned()),
            2 => Failure::Interrupt { carried_out },
            3 => Failure::Hang,
            _ => Failure::TimeOut { limit, carried_out },
        };
        self.model.lock().note(format!("{id}: the next {action:?} does this: {failure:?}"));
        self.fake.fail_next(id, action, failure);
    }

    async fn restart(&mut self, crash: bool) {
        self.model.lock().upset_all(format!("the program ends; in a crash: {crash}"));
        self.memory.fail_with(None);
        let Some(life) = self.life.take() else { return };
        if crash {
            self.clients.abort_all();
            life.crash().await;
        } else {
            self.clients.shutdown().await;
            life.stop().await;
        }
        self.clients.shutdown().await;
        self.visitors.clear();
        self.calls.clear();
        self.model.lock().life_ended(crash);
        if self.dice.one_in(2) {
            let id = id(self.dice.pick(&["conf-a", "disc-a", "disc-b"]));
            self.outside(id);
        }
        let down = self.dice.pick(&[0, 10, 3_000, 60_000]);
        sleep(Duration::from_millis(down)).await;
        self.model.lock().note("the program begins".to_owned());
        self.begin().await;
    }
}
