//! Whether this machine's clock can be believed: deadlines survive restarts as dates, and
//! certificates have them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Finding;
use crate::clock::{Clock, rfc3339};
use crate::driver::docker::About;

const CHECK: &str = "clock";
/// Nobody can have built this before: 2026-01-01.
const BUILT_AFTER: Duration = Duration::from_secs(1_767_225_600);
/// Clocks that are kept right differ by less.
const DIFFERENCE_MAX: Duration = Duration::from_secs(5);

const FIX: &str = "have it kept right, as by `timedatectl set-ntp true`";

pub(super) fn check(state_dir: &Path, engine: Option<About>) -> Vec<Finding> {
    let now = Clock::MACHINE.now();
    let mut findings = vec![against_the_past(now, last_written(state_dir))];
    findings.extend(engine.and_then(|engine| against_the_engine(now, &engine)));
    findings
}

/// When anything in the state directory was last written, as far as it can be read.
fn last_written(state_dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(state_dir).ok()?.flatten();
    entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

fn against_the_past(now: SystemTime, written: Option<SystemTime>) -> Finding {
    let shown = rfc3339(now);
    if now < SystemTime::UNIX_EPOCH + BUILT_AFTER {
        let detail = format!("it shows {shown}, when Frostgate was not there yet");
        return Finding::problem(CHECK, detail, FIX);
    }
    match written {
        Some(written) if now + DIFFERENCE_MAX < written => {
            let written = rfc3339(written);
            let detail = format!("it shows {shown}, but the state directory is from {written}");
            Finding::problem(CHECK, detail, FIX)
        }
        _ => Finding::ok(CHECK, format!("it shows {shown}")),
    }
}

fn against_the_engine(now: SystemTime, engine: &About) -> Option<Finding> {
    let theirs = engine.clock?;
    let apart = now.duration_since(theirs).or_else(|_| theirs.duration_since(now)).ok()?;
    (apart > DIFFERENCE_MAX).then(|| {
        let detail = format!("{} is {} s apart from it", engine.place, apart.as_secs());
        let fix = "have both clocks kept right; restart the virtual machine that the engine runs \
                   in, if it does";
        Finding::warning(CHECK, detail, fix)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_clock_that_stands_before_what_has_happened_is_wrong() {
        let second = Duration::from_secs(1);
        let now = SystemTime::UNIX_EPOCH + BUILT_AFTER + 1_000 * second;
        let rows = [
            (now, None, Status::Ok),
            (now, Some(now - second), Status::Ok),
            (now, Some(now + second), Status::Ok),
            (now, Some(now + 60 * second), Status::Problem),
            (now - 2_000 * second, None, Status::Problem),
        ];
        for (now, written, status) in rows {
            assert_eq!(against_the_past(now, written).status, status, "{now:?} {written:?}");
        }
        let engine = |clock| About {
            place: "the engine".to_owned(),
            version: String::new(),
            api_version: String::new(),
            cgroup_version: String::new(),
            clock,
        };
        for (theirs, differs) in
            [(now - 2 * second, false), (now - 60 * second, true), (now + 60 * second, true)]
        {
            let finding = against_the_engine(now, &engine(Some(theirs)));
            assert_eq!(finding.is_some(), differs, "{finding:?}");
        }
        assert!(against_the_engine(now, &engine(None)).is_none());
    }
}
