//! A workspace as the rest of the program holds it: a handle to enter it, to ask for something, and
//! to read how it is. Its life is led by its own task, in `actor.rs`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, broadcast, oneshot};
use tokio::time::{Instant, timeout};

use super::deadlines::Deadlines;
use super::feed::{Feed, What};
use super::gate::{Entry, Gate, Refusal, Visit};
use super::jobs;
use super::lease::{Held, HeldAmongAll, Lease};
use super::machine::{self, Census, CheckIn, Machine, Past};
use super::mailbox::{Answer, Command, CommandError, Mailbox};
use super::onlookers::Onlookers;
use super::records::{self, Records, Remembered};
use super::registry::Newcomer;
use super::slots::Slots;
use super::usage::{Usage, Usages};
use super::{Change, Notice};
use crate::driver::{Description, Driver, DriverError, Logs};
use crate::metrics::Metrics;
use crate::model::{
    Blueprint, CheckInAccess, Phase, Policy, PolicyOverrides, ProjectId, Protocol, Spec, Tier,
    WorkspaceId,
};
use crate::store::{JournalEntry, Origin, Record, RecordState, StoreError};

/// How long a workspace's stop may be put off to learn what that saves: next to nothing.
const NOTE_MEMORY_MAX: Duration = Duration::from_millis(20);
/// How long a runtime may take to describe a workspace.
const DESCRIBE_MAX: Duration = Duration::from_secs(10);

/// No number of bytes.
const UNKNOWN: u64 = u64::MAX;

/// What all workspaces share.
pub(super) struct Shared {
    pub(super) epoch: Instant,
    pub(super) deadlines: Deadlines,
    /// One permit for each start that may be under way.
    pub(super) starts: Semaphore,
    pub(super) slots: Arc<Slots>,
    /// What a workspace counts for that does not say how much memory it may take.
    pub(super) memory_assumed: u64,
    /// Requests held at all gates.
    pub(super) held: AtomicUsize,
    pub(super) held_max: AtomicUsize,
    pub(super) held_per_workspace_max: AtomicUsize,
    /// Onlookers of all workspaces.
    pub(super) onlookers: AtomicU32,
    pub(super) records: Arc<Records>,
    pub(super) usages: Usages,
    pub(super) metrics: Arc<Metrics>,
    /// Held while a policy is changed.
    pub(super) policy_changes: tokio::sync::Mutex<()>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) feed: Arc<Feed>,
    pub(super) notices: broadcast::Sender<Notice>,
}

impl Shared {
    /// `moment` on the gates' clock: microseconds since the registry was made.
    pub(super) fn tick(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn moment(&self, tick: u64) -> Instant {
        self.epoch + Duration::from_micros(tick)
    }
}

/// See the module's head.
pub struct Workspace {
    /// Tells it from every other workspace that this process has known, also one of the same id.
    serial: u64,
    id: WorkspaceId,
    blueprint: RwLock<Arc<Blueprint>>,
    policy: RwLock<Arc<Policy>>,
    /// The policy that it has where it sets nothing for itself.
    base_policy: RwLock<Arc<Policy>>,
    /// What it sets for itself, or was changed to by calls.
    changed_policy: Mutex<Option<Box<PolicyOverrides>>>,
    created_at: SystemTime,
    /// When it was active last before this program began, if that is known.
    active_before: Option<Instant>,
    origin: Origin,
    project: Option<ProjectId>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) gate: Gate,
    /// Written by the task alone; read by whoever wants to know how it is.
    pub(super) machine: Mutex<Machine>,
    place: Mutex<Place>,
    /// Whether what listens there speaks HTTP/2. Beside it, for whoever sends a request to ask.
    speaks_h2c: AtomicBool,
    pub(super) mailbox: Mailbox,
    /// Tells a wake under way that something may have changed.
    pub(super) nudge: Notify,
    pub(super) tunnels: AtomicU32,
    /// When the last of those ended that count, in the gate's own words.
    pub(super) last_tunnel: AtomicU64,
    /// Those who look at a waiting page.
    pub(super) onlookers: Onlookers,
    /// The last generation whose connections were closed by an admin's stop or a removal.
    severed: AtomicU32,
    /// Where it may check in from.
    addresses: Mutex<Vec<IpAddr>>,
    /// Bytes of memory that it used right before it was stopped; [`UNKNOWN`]: nobody knows.
    memory_saved: AtomicU64,
    /// The run that was up for all of `start_timeout` and never became ready.
    unready_run: Mutex<Option<String>>,
    pub(super) shared: Arc<Shared>,
}

/// Where the current generation listens.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    generation: u32,
    endpoint: Option<SocketAddr>,
}

/// How a workspace is, for people and programs that ask.
#[derive(Debug, Clone)]
pub struct View {
    /// Where it is in its life.
    pub phase: Phase,
    /// On which tier it is frozen.
    pub tier: Option<Tier>,
    /// When it entered its phase.
    pub since: Instant,
    /// Why it failed. For admins only.
    pub failure: Option<String>,
    /// Leases that live: those of requests, and of tunnels that are not quiet.
    pub inside: u32,
    /// All tunnels.
    pub tunnels: u32,
    /// Those of them that don't keep it awake by being open.
    pub quiet_tunnels: u32,
    /// Requests that wait at the gate.
    pub held: usize,
    /// How many workspaces wait for a slot before it; `None`: it doesn't wait for one.
    pub queue_position: Option<usize>,
    /// Whether it reports activity itself.
    pub reports_activity: bool,
    /// Until when only a navigation or a resume wakes it, because an admin stopped it.
    pub held_off_until: Option<Instant>,
    /// Until when an admin wants it awake.
    pub kept_until: Option<Instant>,
    /// Bytes of memory that are free because it is frozen; `None`: it isn't, or nobody knows.
    pub memory_saved: Option<u64>,
    /// What it reported last, since it was started.
    pub check_in: Option<CheckIn>,
    /// When the last request or tunnel ended, as far as is known.
    pub last_left: Option<Instant>,
    /// When it was active last, as far as is known.
    pub last_active: Option<Instant>,
    /// The end of the grace after its start, if it has one.
    pub initial_timeout_ends: Option<Instant>,
    /// When the rules look at it next, if nothing happens before.
    pub deadline: Option<Instant>,
    /// When it will be frozen if nothing happens.
    pub freeze_at: Option<Instant>,
    /// When it will be removed as things are.
    pub remove_at: Option<Instant>,
}

impl View {
    /// Requests inside.
    pub fn requests(&self) -> u32 {
        // The numbers are not of one moment.
        self.inside.saturating_sub(self.tunnels.saturating_sub(self.quiet_tunnels))
    }
}

impl Workspace {
    /// `remembered`: `None` if it is to be made.
    pub(super) fn new(
        serial: u64,
        newcomer: Newcomer,
        check_in: CheckInAccess,
        remembered: Option<Remembered>,
        shared: Arc<Shared>,
    ) -> Self {
        let Newcomer { id, spec, policy, own_policy, driver, origin, project } = newcomer;
        let blueprint = Blueprint { id: id.clone(), spec, check_in };
        let discovered = origin == Origin::Discovered;
        let nature = machine::Nature { can_freeze: driver.can_freeze(), discovered };
        let now = Instant::now();
        let is_new = remembered.is_none();
        let new = || Remembered { policy: own_policy, ..Remembered::default() };
        let remembered = remembered.unwrap_or_else(new);
        let created = records::ago(now, remembered.age);
        let current = remembered.policy.applied_to(&policy);
        let freeze_max = current.drain_grace + jobs::CALL_MAX + current.stop_grace;
        let past = match is_new {
            true => Past::New,
            false => remembered.past(freeze_max, now),
        };
        let kept_until = remembered.kept_for.map(|kept_for| now + kept_for);
        let machine = Machine::new(current.clone(), nature, created, past, now);
        let machine = machine.kept_awake_until(kept_until);
        let gate = Gate::new();
        if let Some(until) = machine.held_off_until() {
            gate.hold_off(shared.tick(until));
        }
        Self {
            serial,
            id,
            blueprint: RwLock::new(Arc::new(blueprint)),
            machine: Mutex::new(machine),
            policy: RwLock::new(current),
            base_policy: RwLock::new(policy),
            changed_policy: Mutex::new(unless_empty(remembered.policy)),
            created_at: shared.records.clock.date_of(created),
            active_before: remembered.active.map(|age| records::ago(now, age)),
            driver,
            origin,
            project,
            gate,
            place: Mutex::default(),
            speaks_h2c: AtomicBool::new(false),
            mailbox: Mailbox::default(),
            nudge: Notify::new(),
            tunnels: AtomicU32::new(0),
            last_tunnel: AtomicU64::new(0),
            onlookers: Onlookers::default(),
            severed: AtomicU32::new(0),
            addresses: Mutex::default(),
            memory_saved: remembered.memory_saved.unwrap_or(UNKNOWN).into(),
            unready_run: Mutex::default(),
            shared,
        }
    }

    /// Its id.
    pub fn id(&self) -> &WorkspaceId {
        &self.id
    }

    /// See the field.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// What it is made from, from its next start on.
    pub fn blueprint(&self) -> Arc<Blueprint> {
        self.blueprint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From its next start on it is made from another spec.
    pub(super) fn replace_spec(&self, spec: Arc<Spec>) {
        let mut blueprint = self.blueprint.write().unwrap_or_else(PoisonError::into_inner);
        *blueprint = Arc::new(Blueprint { spec, ..(**blueprint).clone() });
    }

    /// The policy that it has where it sets nothing for itself.
    pub fn base_policy(&self) -> Arc<Policy> {
        self.base_policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its policy.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes its policy, for good. Returns when that is stored and deadlines follow it, and is
    /// done even if nobody waits for that.
    pub async fn change_policy(self: &Arc<Self>, changes: PolicyOverrides) -> Answer {
        let workspace = self.clone();
        let changed = tokio::spawn(async move { workspace.keep_and_follow(&changes).await });
        changed.await.unwrap_or(Err(CommandError::Unavailable))
    }

    async fn keep_and_follow(&self, changes: &PolicyOverrides) -> Answer {
        // One after another, so that none is stored without the one before.
        let _turn = self.shared.policy_changes.lock().await;
        let changed = self.own_policy().and(changes);
        let stored = {
            // While this is held it can't be forgotten; afterwards nothing of it is stored.
            let machine = self.lock_machine();
            if machine.phase() == Phase::Removed || self.mailbox.is_closed() {
                return Err(CommandError::Gone);
            }
            let record = Record { policy: changed.clone(), ..self.record(&machine) };
            self.shared.records.keep(record)
        };
        stored.await.map_err(|error| CommandError::Failed(error.to_string()))?;
        *self.lock_changed_policy() = unless_empty(changed);
        let policy = Arc::new(changes.over(&self.policy()));
        self.ask(|answer| Command::Policy { policy, answer }).await
    }

    /// Puts what it sets for itself on top of another policy. Returns when deadlines follow that.
    pub async fn rebase_policy(&self, base: Arc<Policy>) -> Answer {
        let _turn = self.shared.policy_changes.lock().await;
        *self.base_policy.write().unwrap_or_else(PoisonError::into_inner) = base.clone();
        let policy = self.own_policy().applied_to(&base);
        self.ask(|answer| Command::Policy { policy, answer }).await
    }

    /// What it sets for itself, or was changed to.
    fn own_policy(&self) -> PolicyOverrides {
        self.lock_changed_policy().as_deref().cloned().unwrap_or_default()
    }

    fn lock_changed_policy(&self) -> MutexGuard<'_, Option<Box<PolicyOverrides>>> {
        self.changed_policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps that it is to be made. What a crash leaves of it before it is made is removed.
    pub(super) async fn keep_new(&self) -> Result<(), StoreError> {
        let stored = self.shared.records.keep(self.record(&self.lock_machine()));
        stored.await
    }

    /// What is to be remembered of it.
    pub(super) fn record(&self, machine: &Machine) -> Record {
        let mut record = self.shared.records.new_record(self.id(), self.driver.name(), self.origin);
        record.project = self.project().map(str::to_owned);
        record.spec = (self.origin == Origin::Api).then(|| self.blueprint().spec.clone());
        record.policy = self.own_policy();
        record.created_at = self.created_at;
        record.state = self.state(machine);
        record
    }

    /// How it is, as that is remembered.
    pub(super) fn state(&self, machine: &Machine) -> RecordState {
        let last_active = self.last_active(machine, self.census(), Instant::now());
        let memory_saved = self.memory_at_stop();
        RecordState { memory_saved, ..self.shared.records.state_of(machine, last_active) }
    }

    fn last_active(&self, machine: &Machine, census: Census, now: Instant) -> Option<Instant> {
        machine.last_active(census, now).or(self.active_before)
    }

    /// What its runtime calls it; `None`: it is no container, or there is none.
    pub async fn describe(&self) -> Result<Option<Description>, DriverError> {
        let described = timeout(DESCRIBE_MAX, self.driver.describe(self.id())).await;
        let (action, id, limit) = ("describe", self.id().clone(), DESCRIBE_MAX);
        described.unwrap_or(Err(DriverError::TimedOut { action, id, limit }))
    }

    /// What its processes wrote, the last `lines` lines of it, and what they write from now on if
    /// `follow` is set; `None`: nobody keeps that.
    pub async fn logs(&self, lines: usize, follow: bool) -> Result<Option<Logs>, DriverError> {
        let logs = timeout(DESCRIBE_MAX, self.driver.logs(self.id(), lines, follow)).await;
        let (action, id, limit) = ("read the logs of", self.id().clone(), DESCRIBE_MAX);
        logs.unwrap_or(Err(DriverError::TimedOut { action, id, limit }))
    }

    /// Tells those who follow what happens.
    pub(super) fn tell_of(&self, at: SystemTime, what: What) {
        self.shared.feed.tell(at, self.id().clone(), self.project.clone(), what);
    }

    /// The last lines of its journal, the newest first.
    pub async fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, CommandError> {
        let journal = self.shared.records.journal(self.id(), limit).await;
        journal.map_err(|error| CommandError::Failed(error.to_string()))
    }

    pub(super) fn replace_policy(&self, policy: Arc<Policy>) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Its driver's name.
    pub fn driver_name(&self) -> &'static str {
        self.driver.name()
    }

    /// The project that it was created from.
    pub fn project(&self) -> Option<&str> {
        self.project.as_ref().map(ProjectId::as_str)
    }

    /// When it was first known.
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }

    /// Whether a call created it.
    pub fn is_created(&self) -> bool {
        self.origin == Origin::Api
    }

    /// Whether the configuration has it.
    pub fn is_configured(&self) -> bool {
        self.origin == Origin::Config
    }

    /// Whether its driver found it.
    pub(super) fn is_discovered(&self) -> bool {
        self.origin == Origin::Discovered
    }

    /// Whether it can be frozen at all.
    pub fn can_freeze(&self) -> bool {
        self.driver.can_freeze()
    }

    /// A lease, if the gate is open.
    pub fn try_enter(self: &Arc<Self>) -> Option<Lease> {
        let generation = self.gate.try_enter()?;
        Some(Lease { workspace: self.clone(), generation })
    }

    /// How many leases there are.
    pub fn inside(&self) -> usize {
        self.gate.census().inside as usize
    }

    /// A lease; waits for it up to the policy's `hold_max`, and has the workspace woken if need
    /// be and the visit may wake it. Whoever drops the future gives up its place; the wake goes on.
    pub async fn enter(self: &Arc<Self>, visit: Visit) -> Result<Lease, Refusal> {
        if let Some(lease) = self.try_enter() {
            return Ok(lease);
        }
        let _among_all = HeldAmongAll::join(&self.shared)?;
        let now = self.shared.tick(Instant::now());
        let held_max = self.shared.held_per_workspace_max.load(Ordering::Relaxed);
        match self.gate.enter_or_sit(now, held_max, visit)? {
            Entry::Inside(generation) => Ok(Lease { workspace: self.clone(), generation }),
            Entry::Seat(seat) => {
                let held = Held { workspace: self, seat: Some(seat) };
                self.mailbox.ring();
                match timeout(self.policy().hold_max, held).await {
                    Ok(entered) => entered,
                    Err(_) => Err(Refusal::TimedOut),
                }
            }
        }
    }

    /// Where `generation` listens, if that is the current one.
    pub fn endpoint(&self, generation: u32) -> Option<SocketAddr> {
        let place = *self.place.lock().unwrap_or_else(PoisonError::into_inner);
        (place.generation == generation).then_some(place.endpoint).flatten()
    }

    /// What the current generation speaks.
    pub fn protocol(&self) -> Protocol {
        match self.speaks_h2c.load(Ordering::Relaxed) {
            true => Protocol::H2c,
            false => Protocol::Http1,
        }
    }

    /// From now on it speaks what its spec says.
    pub(super) fn follow_protocol(&self) {
        let speaks_h2c = self.blueprint().spec.protocol == Protocol::H2c;
        self.speaks_h2c.store(speaks_h2c, Ordering::Relaxed);
    }

    /// Whether the connections of `generation` were closed on purpose, so that to try again would
    /// undo an admin's stop.
    pub fn is_severed(&self, generation: u32) -> bool {
        generation <= self.severed.load(Ordering::Acquire)
    }

    /// From now on the connections of `generation` count as closed on purpose.
    pub(super) fn sever(&self, generation: u32) {
        self.severed.store(generation, Ordering::Release);
    }

    pub(super) fn current_endpoint(&self) -> Option<SocketAddr> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).endpoint
    }

    /// Opens the gate for a new generation at `endpoint`. The place is set before the gate opens,
    /// so that no lease can exist without an endpoint.
    pub(super) fn open(&self, endpoint: Option<SocketAddr>) -> usize {
        self.follow_protocol();
        let generation = {
            let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            *place = Place { generation: place.generation + 1, endpoint };
            place.generation
        };
        self.gate.open(generation)
    }

    /// Nothing of it listens any more. The generation stays, for the next one must be another.
    pub(super) fn vacate(&self) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).endpoint = None;
    }

    /// Freezes it for an admin: lets those inside finish for `drain_grace`, then closes what is
    /// left. Returns when it is frozen, at once if it is.
    pub async fn stop(&self) -> Answer {
        self.check_freezable()?;
        self.ask_for_good(Command::Stop).await
    }

    /// The same, but returns when it has begun.
    pub async fn begin_stop(&self) -> Answer {
        self.check_freezable()?;
        self.ask(Command::BeginStop).await
    }

    /// Wakes it. Returns when it is running, at once if it is.
    pub async fn resume(&self) -> Answer {
        self.ask_for_good(Command::Resume).await
    }

    /// The same, but returns when it has begun.
    pub async fn begin_resume(&self) -> Answer {
        self.ask(Command::BeginResume).await
    }

    /// Removes it and what it has. Returns when it is gone, and its name is free.
    pub async fn remove(&self) -> Answer {
        self.ask_for_good(Command::Remove).await
    }

    /// Asks at once; returns when it has been made, or could not be and is gone.
    pub(super) fn made(&self) -> impl Future<Output = Answer> + '_ {
        let (answer, answered) = oneshot::channel();
        let asked = self.mailbox.put(Command::Created(answer));
        async move {
            asked?;
            let answer = answered.await.unwrap_or(Err(CommandError::Gone));
            self.shared.records.flush().await;
            answer
        }
    }

    /// Keeps it awake until then, whether somebody is inside or not; `None`: no longer. Does not
    /// wake it; an admin's stop ends it. Returns when that is stored.
    pub async fn keep_awake_until(&self, until: Option<Instant>) -> Answer {
        self.check_freezable()?;
        self.ask_for_good(|answer| Command::Keep { until, answer }).await
    }

    /// The workspace's own report of its activity.
    pub async fn check_in(&self, active: bool) -> Answer {
        let is_news = self.lock_machine().reported_activity() != active;
        let command = |answer| Command::CheckIn { active, answer };
        match is_news {
            true => self.ask_for_good(command).await,
            false => self.ask(command).await,
        }
    }

    /// Says that it could not be reached although its gate is open. Returns when that was looked
    /// into: the gate is then shut, or open with a current endpoint.
    pub async fn suspect(&self) -> Answer {
        self.ask(Command::Suspect).await
    }

    /// Freezes it if nobody is inside, because others want its slot. Returns when that is decided.
    pub(super) async fn evict(&self) -> Answer {
        self.ask(Command::Evict).await
    }

    /// Stops it if it is paused, because its memory is wanted. Returns when that is done or can't be.
    pub(super) async fn step_down(&self) -> Answer {
        self.ask(Command::StepDown).await
    }

    /// Since when it is paused, if it could be stopped now.
    pub(super) fn paused_since(&self) -> Option<Instant> {
        self.lock_machine().paused_since()
    }

    /// The memory that it counts for, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.blueprint().spec.memory.unwrap_or(self.shared.memory_assumed)
    }

    /// Whether its slot may be taken from it.
    pub(super) fn evictable(&self) -> Option<machine::Evictable> {
        let census = self.census();
        self.lock_machine().evictable(census)
    }

    /// The driver says that something may have changed.
    pub fn changed(&self) {
        self.nudge.notify_one();
        self.mailbox.flag(|inbox| inbox.changed = true);
    }

    /// The driver has found its runtime, and nothing is known of what happened before.
    pub(super) fn resync(&self) {
        self.nudge.notify_one();
        self.mailbox.flag(|inbox| inbox.resync = true);
    }

    pub(super) fn deadline_passed(&self) {
        self.mailbox.flag(|inbox| inbox.deadline = true);
    }

    pub(super) fn note_unready(&self, run: Option<String>) {
        *self.unready_run.lock().unwrap_or_else(PoisonError::into_inner) = run;
    }

    pub(super) fn was_unready(&self, run: &Option<String>) -> bool {
        run.is_some() && *self.unready_run.lock().unwrap_or_else(PoisonError::into_inner) == *run
    }

    /// Another container has taken its place: this one ends.
    pub(super) fn replace(&self) {
        self.mailbox.flag(|inbox| inbox.replaced = true);
    }

    /// Nobody wants it any more: its task ends, and leaves what it has.
    pub(super) fn release(&self) {
        self.mailbox.flag(|inbox| inbox.released = true);
    }

    /// Sets where it may check in from; returns where it could before.
    pub(super) fn replace_addresses(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let mut current = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, addresses)
    }

    fn check_freezable(&self) -> Answer {
        if !self.can_freeze() {
            let why = format!("workspace {} can't be frozen: it is a fixed upstream", self.id());
            return Err(CommandError::Impossible(why));
        }
        Ok(())
    }

    /// What has come about is stored when it is answered, so that no crash takes it back.
    async fn ask_for_good(
        &self,
        command: impl FnOnce(oneshot::Sender<Answer>) -> Command,
    ) -> Answer {
        let answer = self.ask(command).await;
        self.shared.records.flush().await;
        answer
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Answer>) -> Command) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.mailbox.put(command(answer))?;
        answered.await.unwrap_or(Err(CommandError::Gone))
    }

    /// What it uses, as it was seen last; from now on for a while it is looked at often. `None`: it
    /// does not run, or was not looked at yet, or its runtime doesn't tell.
    pub fn usage(&self) -> Option<Usage> {
        self.shared.usages.last(self.serial)
    }

    /// Notes what it uses right now, because it is about to be stopped.
    pub(super) async fn note_memory(&self) {
        let used = timeout(NOTE_MEMORY_MAX, self.driver.consumption(self.id())).await;
        let used = used.ok().and_then(Result::ok).flatten().map(|used| used.memory_bytes);
        let used = used.or_else(|| self.shared.usages.forget(self.serial));
        self.memory_saved.store(used.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    fn memory_at_stop(&self) -> Option<u64> {
        Some(self.memory_saved.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    /// How it is right now.
    pub fn view(&self) -> View {
        let now = Instant::now();
        let census = self.census();
        let machine = self.lock_machine();
        View {
            phase: machine.phase(),
            tier: machine.tier(),
            since: machine.since(),
            failure: machine.failure().map(str::to_owned),
            inside: census.inside,
            tunnels: self.tunnels.load(Ordering::Relaxed),
            quiet_tunnels: census.quiet,
            held: self.gate.held(),
            queue_position: self.shared.slots.position(self.serial),
            reports_activity: machine.reports_activity(now),
            held_off_until: machine.held_off_until().filter(|until| *until > now),
            kept_until: machine.kept_until().filter(|until| *until > now),
            memory_saved: match machine.tier() {
                Some(Tier::Stopped) => self.memory_at_stop(),
                Some(Tier::Paused) => Some(0),
                None => None,
            },
            check_in: machine.check_in(),
            last_left: census.last_left,
            last_active: self.last_active(&machine, census, now),
            initial_timeout_ends: machine.initial_timeout_ends(),
            deadline: machine.deadline(census, now),
            freeze_at: machine.freeze_at(census),
            remove_at: machine.remove_at(),
        }
    }

    pub(super) fn census(&self) -> Census {
        let seen = self.gate.census();
        Census {
            inside: seen.inside,
            quiet: seen.quiet,
            held: self.gate.held() + usize::from(self.onlookers.want()),
            last_left: (seen.last_release > 0).then(|| self.shared.moment(seen.last_release)),
            last_was_tunnel: seen.last_release == self.last_tunnel.load(Ordering::Relaxed),
        }
    }

    /// Whether it is being woken, frozen or removed, or somebody waits for it.
    pub(super) fn is_under_way(&self) -> bool {
        let phase = self.lock_machine().phase();
        matches!(phase, Phase::Starting | Phase::Freezing | Phase::Removing) || self.gate.held() > 0
    }

    /// Whether nobody is inside, quiet or not. Of use while the gate is shut.
    pub(super) fn is_empty(&self) -> bool {
        let seen = self.gate.census();
        (seen.inside, seen.quiet) == (0, 0)
    }

    pub(super) fn lock_machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most workspaces set nothing for themselves, and there are many.
fn unless_empty(policy: PolicyOverrides) -> Option<Box<PolicyOverrides>> {
    (policy != PolicyOverrides::default()).then(|| Box::new(policy))
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workspace({}, {:?})", self.id(), self.gate)
    }
}
