//! The processes of one run: who belongs to it, and signals that hit them and nobody else.
//!
//! With a cgroup, whoever is in it belongs to the run. Without, it is whoever is in the leader's
//! process group, or carries the run's token in its environment: the second finds daemons that
//! went to a session of their own. Signals go through pidfds that were checked against the start
//! time, so a recycled pid is never hit; whole groups are signalled only while the group's number is
//! certain to be ours.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::freezer::{Cgroup, FREEZE_LIMIT, Steps};
use super::port::PortLease;
use super::proc_fs;
use super::record::Record;
use crate::driver::Consumption;

/// How many processes are waited for at a time, each of which costs a descriptor. The rest is found
/// by the next look.
const WAITED_FOR_MAX: usize = 64;

/// One run of a workspace, from its spawn until nothing of it is left.
pub(super) struct Run {
    /// Its first process; `None` for the remains of a run whose leader is gone.
    pub(super) leader: Option<Leader>,
    /// Whose pid is the number of its process group, dead or alive. `None`: it was never known.
    pub(super) group: Option<Identity>,
    /// Its token, and its cgroup if it has one.
    pub(super) record: Record,
    /// What it was told to listen on.
    pub(super) port: PortLease,
    /// The task that waits for its end.
    pub(super) watcher: OnceLock<AbortHandle>,
}

/// A process, named so that nobody else can be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) pid: Pid,
    pub(super) start_time: u64,
}

impl Identity {
    /// `None`: it is gone. The order matters: had the pid changed hands before the pidfd was
    /// opened, the start time that is read afterwards would differ.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let pidfd = match rustix::process::pidfd_open(self.pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = proc_fs::stat(self.pid);
        let same = stat.is_some_and(|stat| stat.start_time == self.start_time);
        Ok(same.then_some(pidfd))
    }
}

/// The first process of a run.
pub(super) struct Leader {
    identity: Identity,
    pidfd: OwnedFd,
}

impl Leader {
    /// `None`: it is dead, or the pid means somebody else by now.
    pub(super) fn find(identity: Identity) -> io::Result<Option<Self>> {
        let leader = identity.open()?.map(|pidfd| Self { identity, pidfd });
        Ok(leader.filter(|leader| !leader.is_dead()))
    }

    /// Our own child: until it is buried its pid can't mean anybody else.
    pub(super) fn of_child(child: &Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        let stat = proc_fs::stat(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            identity: Identity { pid, start_time: stat.start_time },
            pidfd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    fn is_dead(&self) -> bool {
        has_ended(&self.pidfd)
    }

    /// Returns when it is dead, a zombie or gone.
    pub(super) async fn gone(&self) -> io::Result<()> {
        gone(self.pidfd.try_clone()?).await
    }

    /// How it ended, in words; buries it if it is our child. `None` while it lives.
    pub(super) fn bury(&self) -> Option<String> {
        self.ask_for_end(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// How it ended, without burying it.
    pub(super) fn end(&self) -> Option<String> {
        self.ask_for_end(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
    }

    fn ask_for_end(&self, options: WaitIdOptions) -> Option<String> {
        match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(None) => None,
            Ok(Some(status)) => Some(in_words(status.exit_status(), status.terminating_signal())),
            // Not our child, but an earlier Frostgate's: its code went to whoever inherited it.
            Err(_) => self.is_dead().then(|| in_words(None, None)),
        }
    }
}

/// How a process ended, in the words of the log.
fn in_words(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "exited with an unknown code".to_owned(),
    }
}

/// Whether the processes of a run run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motion {
    Running,
    Paused,
    Dead,
}

impl Run {
    /// How its leader is right now: two small files of the kernel's.
    pub(super) fn motion(&self) -> Motion {
        let Some(leader) = &self.leader else {
            return Motion::Dead;
        };
        let Identity { pid, start_time } = leader.identity;
        let stat = proc_fs::stat(pid).filter(|stat| stat.start_time == start_time);
        let Some(stat) = stat.filter(|stat| !stat.is_dead()) else {
            return Motion::Dead;
        };
        let frozen = |cgroup: &Cgroup| cgroup.is_meant_to_freeze().unwrap_or(false);
        if stat.is_stopped() || self.record.cgroup.as_ref().is_some_and(frozen) {
            Motion::Paused
        } else {
            Motion::Running
        }
    }

    /// Stops its threads; returns when none runs. On failure they are let go again.
    pub(super) async fn pause(self: &Arc<Self>) -> io::Result<()> {
        match &self.record.cgroup {
            Some(cgroup) => {
                self.leader_joined(cgroup).await?;
                cgroup.freeze().await
            }
            None => {
                let outcome = self.stop_every_thread().await;
                if outcome.is_err() {
                    let _ = self.unpause().await;
                }
                outcome
            }
        }
    }

    /// Lets its threads run again, whoever stopped them.
    pub(super) async fn unpause(self: &Arc<Self>) -> io::Result<()> {
        if let Some(cgroup) = &self.record.cgroup {
            cgroup.thaw()?;
            if self.motion() != Motion::Paused {
                return Ok(()); // nobody sent SIGSTOP, and it may keep stopped jobs of its own
            }
        }
        let run = Arc::clone(self);
        off_the_runtime(move || match run.record.cgroup {
            Some(_) => continue_stopped(&run.members()),
            // To everybody, because it also takes back a SIGSTOP that has not arrived yet.
            None => run.send(Signal::CONT, &mut HashSet::new()).map(drop),
        })
        .await?
    }

    /// Takes back a pause by signals that its caller did not live to see through. The cgroup
    /// freezer needs no such thing: it remembers what it was asked.
    pub(super) fn undo_half_a_pause(&self) {
        if self.record.cgroup.is_none() && self.motion() == Motion::Running {
            self.signal_group(Signal::CONT);
        }
    }

    /// A freeze right after the spawn could come before the leader has joined the cgroup.
    async fn leader_joined(&self, cgroup: &Cgroup) -> io::Result<()> {
        let deadline = Instant::now() + FREEZE_LIMIT;
        let mut steps = Steps::default();
        let leader = self.leader.as_ref().ok_or(io::ErrorKind::NotFound)?;
        while !cgroup.pids().contains(&leader.identity.pid) {
            if leader.is_dead() {
                return Err(io::Error::other("it has just ended"));
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            steps.next().await;
        }
        Ok(())
    }

    /// One look is not enough: a child may be born behind the back of a look whose parent is
    /// stopped a moment later. Once a whole look meets nobody but who was stopped before it
    /// began, nobody is left who could give birth.
    async fn stop_every_thread(self: &Arc<Self>) -> io::Result<()> {
        let deadline = Instant::now() + FREEZE_LIMIT;
        let mut steps = Steps::default();
        let mut stopped_before = HashSet::new();
        loop {
            let run = Arc::clone(self);
            let look = off_the_runtime(move || {
                run.signal_group(Signal::STOP);
                let members = run.send(Signal::STOP, &mut stopped_before.clone())?;
                let all_were_stopped = members.iter().all(|one| stopped_before.contains(one));
                let is_stopped = |one: &Identity| proc_fs::every_thread_is_stopped(one.pid);
                let stopped = members.into_iter().filter(is_stopped).collect();
                io::Result::Ok((all_were_stopped, stopped))
            });
            let (all_were_stopped, stopped) = look.await??;
            if all_were_stopped {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stopped_before = stopped;
            steps.next().await;
        }
    }

    /// Asks every member to end, and whoever they give birth to meanwhile. `false`: some were
    /// still there at the deadline. A paused run is let go, or it could not hear.
    pub(super) async fn terminate(self: &Arc<Self>, deadline: Instant) -> io::Result<bool> {
        let mut asked = HashSet::new();
        loop {
            let run = Arc::clone(self);
            let asking = off_the_runtime(move || {
                let members = run.send(Signal::TERM, &mut asked)?;
                run.thaw();
                continue_stopped(&members)?;
                io::Result::Ok((members, asked))
            });
            let (members, all_asked) = asking.await??;
            asked = all_asked;
            if members.is_empty() {
                return Ok(true);
            }
            if !all_gone(members, deadline).await? {
                return Ok(false);
            }
        }
    }

    /// Kills every member, and whoever they give birth to meanwhile. `false`: some were still
    /// there at the deadline, held by the kernel.
    pub(super) async fn kill(self: &Arc<Self>, deadline: Instant) -> io::Result<bool> {
        loop {
            let run = Arc::clone(self);
            let members = off_the_runtime(move || {
                if let Some(cgroup) = &run.record.cgroup {
                    cgroup.kill();
                }
                run.signal_group(Signal::KILL);
                let members = run.send(Signal::KILL, &mut HashSet::new());
                run.thaw(); // in version 1 the frozen don't even hear KILL
                members
            })
            .await??;
            if members.is_empty() {
                return Ok(true);
            }
            if !all_gone(members, deadline).await? {
                return Ok(false);
            }
        }
    }

    /// What its members use together; `None`: nobody of it lives.
    pub(super) async fn consumption(self: &Arc<Self>) -> io::Result<Option<Consumption>> {
        let run = Arc::clone(self);
        off_the_runtime(move || {
            let members = run.members();
            let used = members.iter().filter_map(|member| proc_fs::consumption(member.pid));
            used.reduce(|all, one| Consumption {
                memory_bytes: all.memory_bytes + one.memory_bytes,
                cpu_time: all.cpu_time + one.cpu_time,
            })
        })
        .await
    }

    fn thaw(&self) {
        if let Some(cgroup) = &self.record.cgroup {
            let _ = cgroup.thaw(); // fails where the cgroup is gone, and then nobody is frozen
        }
    }

    /// To the whole group in one step, so that nobody can fork out of the way.
    fn signal_group(&self, signal: Signal) {
        if let Some(group) = self.group
            && self.group_is_ours(group)
        {
            let _ = rustix::process::kill_process_group(group.pid, signal);
        }
    }

    /// While a process group lives, its number is not given to a new process; so the number is
    /// ours unless a process bears it that is not our leader.
    fn group_is_ours(&self, group: Identity) -> bool {
        proc_fs::stat(group.pid).is_none_or(|stat| stat.start_time == group.start_time)
    }

    /// Signals every living member that is not in `done` yet, and returns all who live.
    fn send(&self, signal: Signal, done: &mut HashSet<Identity>) -> io::Result<Vec<Identity>> {
        let members = self.members();
        for member in &members {
            if done.insert(*member)
                && let Some(pidfd) = member.open()?
            {
                let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
            }
        }
        Ok(members)
    }

    /// Everybody alive who belongs to the run.
    fn members(&self) -> Vec<Identity> {
        let mut pids = match &self.record.cgroup {
            Some(cgroup) if self.group.is_some() => cgroup.pids(),
            // Of an orphan it isn't known whether it has joined its cgroup yet.
            Some(cgroup) => {
                let mut pids = self.members_by_group_and_token();
                pids.extend(cgroup.pids());
                pids
            }
            None => self.members_by_group_and_token(),
        };
        if let Some(leader) = &self.leader
            && !leader.is_dead()
            && !pids.contains(&leader.identity.pid)
        {
            pids.push(leader.identity.pid); // it has not joined its cgroup yet
        }
        let living = |pid| {
            let stat = proc_fs::stat(pid).filter(|stat| !stat.is_dead())?;
            Some(Identity { pid, start_time: stat.start_time })
        };
        pids.into_iter().filter_map(living).collect()
    }

    fn members_by_group_and_token(&self) -> Vec<Pid> {
        let group = self.group.filter(|group| self.group_is_ours(*group));
        let group = group.map(|group| group.pid.as_raw_pid());
        // Nobody is older than the leader, which spares us most of the machine.
        let oldest = self.group.map_or(0, |leader| leader.start_time);
        let mark = self.record.mark();
        let belongs = |pid: &Pid| {
            let stat = proc_fs::stat(*pid).filter(|stat| !stat.is_dead() && !stat.is_kernel);
            stat.is_some_and(|stat| {
                Some(stat.group) == group
                    || stat.start_time >= oldest && proc_fs::has_variable(*pid, &mark)
            })
        };
        proc_fs::every_pid().filter(belongs).collect()
    }
}

/// SIGCONT to those of `members` that SIGSTOP holds.
fn continue_stopped(members: &[Identity]) -> io::Result<()> {
    for member in members {
        if proc_fs::stat(member.pid).is_some_and(|stat| stat.is_stopped())
            && let Some(pidfd) = member.open()?
        {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::CONT);
        }
    }
    Ok(())
}

/// Reading all of `/proc` takes a few milliseconds that the runtime's threads have better use for.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)
}

/// `false`: one is still alive at the deadline.
async fn all_gone(members: Vec<Identity>, deadline: Instant) -> io::Result<bool> {
    for member in members.into_iter().take(WAITED_FOR_MAX) {
        let Some(pidfd) = member.open()? else {
            continue;
        };
        match timeout_at(deadline, gone(pidfd)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// A pidfd becomes readable when its process has ended.
#[expect(
    deprecated,
    reason = "its successor is an unsafe fn, for types whose descriptor may change under tokio's \
              feet; an OwnedFd keeps the one it has until it is dropped"
)]
async fn gone(pidfd: OwnedFd) -> io::Result<()> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    let _ready = pidfd.readable().await?;
    Ok(())
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut looked_at = [PollFd::new(pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut looked_at, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(in_words(Some(3), None), "exited with code 3");
        assert_eq!(in_words(None, Some(9)), "killed by signal 9");
        assert_eq!(in_words(None, None), "exited with an unknown code");
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "`bury` waits for it")]
    async fn a_dead_child_is_told_once_it_is_dead_and_a_recycled_pid_is_nobody() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let leader = Leader::of_child(&child).unwrap();
        let identity = leader.identity();
        let recycled = Identity { start_time: identity.start_time + 1, ..identity };
        assert!(Leader::find(identity).unwrap().is_some());
        assert!(Leader::find(recycled).unwrap().is_none());
        assert_eq!(leader.end(), None);
        child.kill().unwrap();
        leader.gone().await.unwrap();
        assert_eq!(leader.end().as_deref(), Some("killed by signal 9"));
        assert_eq!(leader.bury().as_deref(), Some("killed by signal 9"));
        assert!(Leader::find(identity).unwrap().is_none());
    }
}
