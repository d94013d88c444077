//! Whether what Frostgate must remember can be kept.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Finding;
use crate::cli::workspace::size;

const CHECK: &str = "state directory";
/// Free space below which it is time to make some, and below which records can't be kept for long.
const SPACE_LOW: u64 = 256 << 20;
const SPACE_MIN: u64 = 16 << 20;
/// Files that can still be made, below which the same is true.
const FILES_MIN: u64 = 1_000;

const ELSEWHERE: &str = "name a directory on a disk of this machine in state_dir";

/// What there is to say of it.
pub(super) fn check(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(there) if !there.is_dir() => {
            vec![Finding::problem(CHECK, format!("{shown} is no directory"), ELSEWHERE)]
        }
        Ok(there) => {
            let mut findings = vec![writable(path), space(path)];
            if there.permissions().mode() & 0o077 != 0 {
                let detail = format!("{shown} can be entered by others; tokens are in there");
                findings.push(Finding::warning(CHECK, detail, format!("chmod 700 {shown}")));
            }
            findings
        }
        Err(error) if error.kind() == ErrorKind::NotFound => vec![to_be_made(path)],
        Err(error) => {
            let fix = "ask as the user that serves, or as root";
            vec![Finding::problem(CHECK, format!("{shown}: {error}"), fix)]
        }
    }
}

/// By trying, because permissions and read-only disks are not all that may be in the way.
fn writable(path: &Path) -> Finding {
    let trial = path.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::write(&trial, "x");
    drop(fs::remove_file(&trial));
    match tried {
        Ok(()) => Finding::ok(CHECK, format!("{} can be written to", path.display())),
        Err(error) => {
            let detail = format!("{} can't be written to: {error}", path.display());
            let fix = "give it to the user that serves, or ask as that user";
            Finding::problem(CHECK, detail, fix)
        }
    }
}

/// The first start makes it, if its nearest parent allows that.
fn to_be_made(path: &Path) -> Finding {
    let nearest = path.ancestors().skip(1).find(|parent| parent.exists());
    let nearest = nearest.filter(|nearest| *nearest != Path::new("")).unwrap_or(Path::new("."));
    let shown = path.display();
    let may = rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK);
    match may {
        Ok(()) if nearest.is_dir() => {
            Finding::ok(CHECK, format!("{shown} is not there yet; the first start makes it"))
        }
        _ => {
            let detail = format!(
                "{shown} is not there, and this user can't make it in {}",
                nearest.display()
            );
            let fix = format!("make it and give it to the user that serves, or {ELSEWHERE}");
            Finding::problem(CHECK, detail, fix)
        }
    }
}

fn space(path: &Path) -> Finding {
    match rustix::fs::statvfs(path) {
        // Some file systems have any number of files, and say that they have none.
        Ok(disk) => judged(
            disk.f_bavail.saturating_mul(disk.f_frsize),
            (disk.f_files > 0).then_some(disk.f_favail),
        ),
        Err(error) => {
            let detail = format!("what is left of its disk can't be told: {error}");
            Finding::warning(CHECK, detail, ELSEWHERE)
        }
    }
}

fn judged(bytes: u64, files: Option<u64>) -> Finding {
    let fix = "free some space on the disk of state_dir, or name another directory there";
    if let Some(files) = files.filter(|files| *files < FILES_MIN) {
        let detail = format!("its disk has room for {files} files");
        return Finding::problem(CHECK, detail, fix);
    }
    let detail = format!("{} are free on its disk", size(bytes));
    match bytes {
        0..SPACE_MIN => Finding::problem(CHECK, detail, fix),
        SPACE_MIN..SPACE_LOW => Finding::warning(CHECK, detail, fix),
        _ => Finding::ok(CHECK, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_told_of() {
        let rows = [
            (1 << 40, None, Status::Ok),
            (1 << 40, Some(1_000_000), Status::Ok),
            (100 << 20, Some(1_000_000), Status::Warning),
            (1 << 20, None, Status::Problem),
            (1 << 40, Some(10), Status::Problem),
        ];
        for (bytes, files, status) in rows {
            let finding = judged(bytes, files);
            assert_eq!(finding.status, status, "{finding:?}");
            assert_eq!(finding.fix.is_none(), status == Status::Ok, "{finding:?}");
        }
    }
}
