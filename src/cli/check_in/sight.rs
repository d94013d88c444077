//! What there is to see of a workspace's activity from inside of it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::connections::{self, Connection};
use super::processes;

/// What counts.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) ports: Vec<u16>,
    pub(super) ssh: Option<u16>,
    pub(super) except: Vec<IpNet>,
    pub(super) processes: Vec<String>,
    /// Percent of a core.
    pub(super) cpu: Option<f64>,
}

/// Looks.
pub(super) struct Sight {
    watched: Watched,
    use_of_processor: UseOfProcessor,
}

/// What was seen.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    connections: u32,
    sessions: u32,
    processes: u32,
    /// Percent of a core, where that is enough to count.
    cpu: Option<f64>,
}

impl Sight {
    /// `window`: the time over which the use of the processor counts.
    pub(super) fn new(watched: Watched, window: Duration) -> Self {
        let use_of_processor = UseOfProcessor { window, readings: VecDeque::new() };
        Self { watched, use_of_processor }
    }

    pub(super) fn look(&mut self, now: Instant) -> Seen {
        let Watched { ports, ssh, except, processes, cpu } = &self.watched;
        let mut seen = Seen::default();
        if !ports.is_empty() || ssh.is_some() {
            let counts = |one: &Connection| !except.iter().any(|net| net.contains(&one.peer));
            for connection in connections::established().into_iter().filter(counts) {
                let port = connection.local_port;
                seen.connections += u32::from(ports.contains(&port) && *ssh != Some(port));
                seen.sessions += u32::from(*ssh == Some(port));
            }
        }
        if !processes.is_empty() || cpu.is_some() {
            let others = processes::others();
            let is_meant =
                |one: &&processes::Process| processes.iter().any(|pattern| one.is(pattern));
            seen.processes = others.iter().filter(is_meant).count().try_into().unwrap_or(u32::MAX);
            let ticks = others.iter().map(|other| other.ticks).sum();
            let used = self.use_of_processor.read(ticks, now);
            seen.cpu = Some(used).filter(|used| cpu.is_some_and(|least| *used > least));
        }
        seen
    }
}

impl Seen {
    /// What is reported.
    pub(super) fn amount(&self) -> u32 {
        let Self { connections, sessions, processes, cpu } = self;
        let busy = u32::from(cpu.is_some());
        [*sessions, *processes, busy].into_iter().fold(*connections, u32::saturating_add)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |number: u32, one: &str, many: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{number} {many}")),
        };
        let kinds = [
            counted(self.connections, "connection", "connections"),
            counted(self.sessions, "SSH session", "SSH sessions"),
            counted(self.processes, "process", "processes"),
            self.cpu.map(|cpu| format!("{cpu:.0} % of a core")),
        ];
        let kinds: Vec<String> = kinds.into_iter().flatten().collect();
        match kinds.as_slice() {
            [] => f.write_str("idle"),
            kinds => write!(f, "active: {}", kinds.join(", ")),
        }
    }
}

/// How much of the processor was used, over a while that moves along.
#[derive(Debug)]
struct UseOfProcessor {
    window: Duration,
    /// The oldest first. One of them is older than the window, if there are any such.
    readings: VecDeque<(Instant, u64)>,
}

impl UseOfProcessor {
    /// Percent of a core over the window, or over what is known of it. A process that ends, and that
    /// nobody here waits for, takes what it has used along: such time is lost.
    fn read(&mut self, ticks: u64, now: Instant) -> f64 {
        self.readings.push_back((now, ticks));
        while let Some((second, _)) = self.readings.get(1)
            && now.saturating_duration_since(*second) >= self.window
        {
            self.readings.pop_front();
        }
        let Some((then, before)) = self.readings.front() else { return 0.0 };
        let passed = now.saturating_duration_since(*then).as_secs_f64();
        if passed == 0.0 {
            return 0.0;
        }
        let used = ticks.saturating_sub(*before) as f64;
        100.0 * used / rustix::param::clock_ticks_per_second() as f64 / passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_told_and_counted() {
        let seen = Seen { connections: 2, sessions: 1, processes: 0, cpu: Some(12.4) };
        assert_eq!(seen.to_string(), "active: 2 connections, 1 SSH session, 12 % of a core");
        assert_eq!((seen.amount(), Seen::default().amount()), (4, 0));
        assert_eq!(Seen::default().to_string(), "idle");
    }

    #[test]
    fn the_use_of_the_processor_is_that_of_the_last_while() {
        let window = Duration::from_secs(10);
        let mut use_of_processor = UseOfProcessor { window, readings: VecDeque::new() };
        let start = Instant::now();
        let second = rustix::param::clock_ticks_per_second();
        let mut at = |seconds: u64, ticks: u64| {
            use_of_processor.read(ticks, start + Duration::from_secs(seconds)).round()
        };
        assert_eq!(at(0, 500), 0.0);
        assert_eq!(at(1, 500 + second / 2), 50.0);
        assert_eq!(at(5, 500 + second / 2), 10.0);
        assert_eq!(at(10, 500 + second / 2), 5.0);
        assert_eq!(at(11, 500 + second / 2), 0.0);
        assert_eq!(at(12, 0), 0.0, "one with much behind it has ended");
    }
}
