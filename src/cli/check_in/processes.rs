//! The processes that can be seen from here, as `/proc` has them: in a container, those of the
//! container.

use std::fs;

use crate::model::fits;

/// What the shell has in its command line that started a reporter.
const OURSELVES: &str = "check-in";

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// The command line, words apart by spaces; empty of a dead one, and of the kernel's own.
    command: String,
    /// How long the first word is.
    program: usize,
    /// What it has used of the processor, its dead children included, in ticks.
    pub(super) ticks: u64,
}

/// All but this one.
pub(super) fn others() -> Vec<Process> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Those that end meanwhile are not there.
    pids.filter(|pid| *pid != own).filter_map(Process::read).collect()
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Self::of(&command, ticks(&stat)?))
    }

    fn of(command: &[u8], ticks: u64) -> Self {
        let end = command.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let words = command[..end].split(|byte| *byte == 0);
        let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
        Self { program: words[0].len(), command: words.join(" "), ticks }
    }

    /// Whether its program's name, or its whole command line, is the pattern.
    pub(super) fn is(&self, pattern: &str) -> bool {
        if self.command.is_empty() || self.command.contains(OURSELVES) {
            return false;
        }
        let program = &self.command[..self.program];
        let name = program.rsplit('/').next().unwrap_or(program);
        [name, &self.command].iter().any(|text| fits(pattern.as_bytes(), text.as_bytes()))
    }
}

/// The fields 14 to 17 of `stat`: in user mode and in the kernel, its own and its dead children's.
fn ticks(stat: &[u8]) -> Option<u64> {
    // The name before may have spaces and parentheses.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let fields = rest.split_ascii_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_the_program_or_of_the_whole_command_line() {
        let process = Process::of(b"/usr/bin/python3\0/srv/train.py\0--fast\0", 0);
        for pattern in ["python3", "python*", "*train.py*", "/usr/bin/python3 * --fast"] {
            assert!(process.is(pattern), "{pattern}");
        }
        for pattern in ["python", "train.py", "*slow", ""] {
            assert!(!process.is(pattern), "{pattern}");
        }
        let shell = Process::of(b"sh\0-c\0frostgate check-in --watch --process '*train.py*'\0", 0);
        assert!(!shell.is("*train.py*"));
        assert!(!Process::of(b"", 0).is("*"), "a dead one");
        assert!(Process::of(b"postgres: alice idle\0\0\0", 0).is("postgres: *"));
    }

    #[test]
    fn what_it_has_used_is_its_own_and_its_childrens() {
        let stat = b"7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks(b"7 (a"), None);
        assert!(others().iter().all(|other| !other.command.is_empty() || other.program == 0));
    }
}
