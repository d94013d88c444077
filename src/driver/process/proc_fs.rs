//! What `/proc` says of a process.
//!
//! A pid alone names nobody: it is handed out again after its owner has died. A pid *and* the tick
//! at which it started name one process for as long as the machine runs, so the two go together
//! everywhere.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;

use crate::driver::Consumption;

/// In the middle of `execve`, between two programs, a process has no environment yet; a daemon would
/// be missed that is just being born. It is looked at again every millisecond, this often.
const EXEC_TRIES_MAX: u32 = 100;

/// Among the flags in field 9: a thread of the kernel's, which never has an environment.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The part of `/proc/<pid>/stat` that we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, … (proc_pid_stat(5), field 3).
    pub(super) state: u8,
    /// Its process group.
    pub(super) group: i32,
    /// Whether it belongs to the kernel (field 9).
    pub(super) is_kernel: bool,
    /// Whether its environment has no place in memory yet (field 51 is zero).
    is_in_exec: bool,
    /// Ticks from boot to its start (field 22).
    pub(super) start_time: u64,
}

impl Stat {
    /// A zombie holds its pid and nothing else: no memory, no port, no thread.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Stopped by SIGSTOP or one of its like.
    pub(super) fn is_stopped(&self) -> bool {
        self.state == b'T'
    }
}

/// `None`: there is no such process.
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
}

/// The program's name, in parentheses, may hold spaces and parentheses itself; what follows the
/// last `)` is safe to split.
fn parse_stat(line: &[u8]) -> Option<Stat> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?; // field 3
    let group = fields.nth(1)?.parse().ok()?; // field 5
    let flags: u32 = fields.nth(3)?.parse().ok()?; // field 9
    let start_time = fields.nth(12)?.parse().ok()?; // field 22
    let is_in_exec = fields.nth(28) == Some("0"); // field 51
    Some(Stat { state, group, is_kernel: flags & KERNEL_THREAD != 0, is_in_exec, start_time })
}

/// What a process uses; `None`: there is no such process. Memory that it shares with others is
/// divided among them.
pub(super) fn consumption(pid: Pid) -> Option<Consumption> {
    let line = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let ticks = cpu_ticks(&line)?;
    let cpu_time = Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
    let memory_bytes = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_pid()))
        .ok()
        .and_then(|rollup| proportional(&rollup))
        .or_else(|| resident(pid))?;
    Some(Consumption { memory_bytes, cpu_time })
}

/// Its own and its buried children's, in user mode and in the kernel (fields 14 to 17).
fn cpu_ticks(line: &[u8]) -> Option<u64> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
    let fields = rest.split_ascii_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

/// Where the kernel doesn't tell more.
fn resident(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_pid())).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Whether no thread of the process can run: every one is stopped or dead. The state of a process
/// is that of its first thread; the others follow a moment later.
pub(super) fn every_thread_is_stopped(pid: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) else {
        return true;
    };
    threads.flatten().all(|thread| {
        fs::read(thread.path().join("stat"))
            .ok()
            .and_then(|line| parse_stat(&line))
            .is_none_or(|stat| stat.is_stopped() || stat.is_dead())
    })
}

/// Every process of the machine that we can see.
pub(super) fn every_pid() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Whether the process was started with the variable `assignment`, e.g. `NAME=value`. Processes of
/// other users say no: their environment can't be read. Blocks while the process is in `execve`,
/// up to [`EXEC_TRIES_MAX`] ms.
pub(super) fn has_variable(pid: Pid, assignment: &str) -> bool {
    let mut seen_without = false;
    for _ in 0..EXEC_TRIES_MAX {
        match environment(pid) {
            None => return false,
            Some(block) if !block.is_empty() => return holds(&block, assignment),
            Some(_) => {}
        }
        match stat(pid) {
            Some(stat) if stat.is_in_exec && !stat.is_dead() => {
                std::thread::sleep(Duration::from_millis(1));
            }
            // It has none, or came to it between our two questions: then the next look tells.
            Some(_) if !seen_without => seen_without = true,
            Some(_) | None => return false,
        }
    }
    false
}

fn environment(pid: Pid) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).ok()
}

fn holds(block: &[u8], assignment: &str) -> bool {
    block.split(|byte| *byte == 0).any(|variable| variable == assignment.as_bytes())
}

/// Differs after every boot of the machine, so that ticks and pids of an earlier one mean nothing.
pub(super) fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a ) R 1 (b) S 7 41 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.group, stat.start_time), (b'S', 41, 98765));
        assert!(!stat.is_dead() && !stat.is_stopped() && !stat.is_kernel);
    }

    #[test]
    fn nonsense_is_no_process() {
        for line in [&b""[..], b"42", b"42 (x)", b"42 (x) S 1 2 3", b"42 (x) S 1 y"] {
            assert_eq!(parse_stat(line), None);
        }
    }

    #[test]
    fn this_process_is_alive_and_keeps_its_start_time() {
        let me = rustix::process::getpid();
        let (first, second) = (stat(me).unwrap(), stat(me).unwrap());
        assert!(!first.is_dead() && !first.is_in_exec);
        assert_eq!(first.start_time, second.start_time);
        assert!(every_pid().any(|pid| pid == me));
    }

    #[test]
    fn what_this_process_uses_is_told() {
        let line = b"42 (a ) R 1 (b) S 7 41 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2\n";
        assert_eq!(cpu_ticks(line), Some(5 + 6 + 7 + 8));
        assert_eq!(proportional("Rss: 9 kB\nPss:       12 kB\nPss_Anon: 3 kB\n"), Some(12_288));
        let me = rustix::process::getpid();
        let used = consumption(me).unwrap();
        assert!(used.memory_bytes > 1_000_000, "{used:?}");
        assert!(resident(me).unwrap() > 1_000_000);
    }

    #[test]
    fn a_variable_is_matched_as_a_whole() {
        let block = b"A=1\0FROSTGATE_RUN=abc\0B=2\0";
        assert!(holds(block, "FROSTGATE_RUN=abc"));
        assert!(!holds(block, "FROSTGATE_RUN=ab"));
        assert!(!holds(block, "ROSTGATE_RUN=abc"));
    }
}
