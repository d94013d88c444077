//! From a spec to a process: program, environment, log, and the shell line that puts it in place.
//!
//! Both things that a child should do between fork and exec (join its cgroup, begin a session)
//! are done by small programs that then become the workspace's own: to run code of ours there would
//! need `unsafe`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Access, OFlags};

use super::freezer::Cgroup;

/// A log that has grown over this is set aside at the next start; one older log is kept.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// All that a workspace inherits. Frostgate's own environment may hold secrets.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TERM", "TZ"];

/// Where programs are looked for if nobody says.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Joins the cgroup and becomes the program, in one process: its children can't be born outside.
const JOIN_AND_BECOME: &str = r#"echo $$ > "$0" && exec "$@""#;

/// Everything about a process that is about to be.
pub(super) struct Launch<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// Where it runs.
    pub(super) directory: &'a Path,
    /// All of its environment.
    pub(super) environment: BTreeMap<OsString, OsString>,
    /// Where its output goes.
    pub(super) log: &'a Path,
    /// Where it is kept.
    pub(super) cgroup: Option<&'a Cgroup>,
}

impl Launch<'_> {
    /// Spawns it as the leader of a process group of its own. An error is in words for the
    /// operator.
    pub(super) fn spawn(&self) -> Result<Child, String> {
        let (name, arguments) = self.argv.split_first().ok_or("its command is empty")?;
        if !self.directory.is_dir() {
            return Err(format!("no such directory {:?}", self.directory));
        }
        let path = self.environment.get(OsStr::new("PATH"));
        let path = path.map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
        let program = resolve(name, self.directory, path)?;
        let log = open_log(self.log).map_err(|error| format!("its log {:?}: {error}", self.log))?;
        let log_twin = log.try_clone().map_err(|error| error.to_string())?;

        let mut command = self.command(&program);
        command
            .args(arguments)
            .current_dir(self.directory)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_twin);
        command.spawn().map_err(|error| format!("could not execute {program:?}: {error}"))
    }

    fn command(&self, program: &Path) -> Command {
        if let Some(cgroup) = self.cgroup {
            let mut command = Command::new("/bin/sh");
            command.process_group(0).args(["-c", JOIN_AND_BECOME]);
            command.arg(cgroup.procs_path()).arg(program);
            return command;
        }
        // Without a freezer a workspace is paused by SIGSTOP. If Frostgate then died, the kernel
        // would hang up and continue every stopped group of its session (POSIX, orphaned process
        // groups), so each workspace gets a session; `setsid` makes it a group leader as well.
        if let Ok(setsid) = resolve("setsid", Path::new("/"), OsStr::new(DEFAULT_PATH)) {
            let mut command = Command::new(setsid);
            command.arg(program);
            return command;
        }
        let mut command = Command::new(program);
        command.process_group(0);
        command
    }
}

/// The environment of a workspace: what is inherited, then its own, then what that can't
/// overrule.
pub(super) fn environment(
    own: BTreeMap<String, String>,
    ours: impl IntoIterator<Item = (&'static str, String)>,
) -> BTreeMap<OsString, OsString> {
    let inherited =
        INHERITED.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let mut all: BTreeMap<OsString, OsString> = inherited.collect();
    all.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    all.extend(own.into_iter().map(|(name, value)| (name.into(), value.into())));
    all.extend(ours.into_iter().map(|(name, value)| (name.into(), value.into())));
    all
}

/// Finds the program as a shell in `directory` would. Done beforehand because otherwise the
/// shell would be the only one to learn that there is no such program.
fn resolve(name: &str, directory: &Path, path: &OsStr) -> Result<PathBuf, String> {
    let is_program =
        |file: &PathBuf| file.is_file() && rustix::fs::access(file, Access::EXEC_OK).is_ok();
    if name.contains('/') {
        let file = directory.join(name);
        return match is_program(&file) {
            true => Ok(file),
            false if file.exists() => Err(format!("{file:?} is not an executable program")),
            false => Err(format!("no such program {file:?}")),
        };
    }
    std::env::split_paths(path)
        .map(|place| directory.join(place).join(name))
        .find(is_program)
        .ok_or_else(|| format!("no such program {name:?} in PATH {path:?}"))
}

/// Never through a symbolic link, which a workspace could have put there.
fn open_log(path: &Path) -> io::Result<File> {
    let too_long = |found: &fs::Metadata| found.len() > LOG_BYTES_MAX;
    if fs::symlink_metadata(path).is_ok_and(|found| too_long(&found)) {
        fs::rename(path, path.with_extension("1"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_a_shell_would_and_its_absence_is_said() {
        let path = OsStr::new("/nowhere:/bin");
        let found = |name| resolve(name, Path::new("/"), path);
        assert_eq!(found("sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("/bin/sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("bin/sh"), Ok(PathBuf::from("/bin/sh")));
        for missing in ["no-such-thing", "/bin/no-such-thing", "./no-such-thing"] {
            let error = found(missing).unwrap_err();
            assert!(error.contains("no such program"), "{error}");
        }
        let error = found("/etc/passwd").unwrap_err();
        assert!(error.contains("not an executable program"), "{error}");
    }

    #[test]
    fn the_spec_overrules_what_is_inherited_and_we_overrule_the_spec() {
        let spec = [("HOME", "/h"), ("PORT", "1"), ("MINE", "m")];
        let spec = spec.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let all = environment(spec, [("PORT", "2".to_owned())]);
        let value = |name: &str| all.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!(value("HOME"), Some("/h"));
        assert_eq!(value("PORT"), Some("2"));
        assert_eq!(value("MINE"), Some("m"));
        assert!(value("PATH").is_some());
        assert_eq!(value("CARGO_MANIFEST_DIR"), None, "inherited from the test runner");
    }

    #[test]
    fn a_long_log_is_set_aside_and_a_link_is_not_followed() {
        let name = format!("frostgate-log-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let log = directory.join("log");
        open_log(&log).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        assert_eq!(open_log(&log).unwrap().metadata().unwrap().len(), 0);
        assert!(directory.join("log.1").exists());
        fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink("/dev/null", &log).unwrap();
        assert!(open_log(&log).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
