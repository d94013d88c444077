//! The engine as an operator has it: the `docker` command, our test image, and containers that are
//! removed again whatever happens.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fixture;
use crate::support::skipped;

const REPOSITORY: &str = "localhost/frostgate-test-workspace";
/// Two empty blocks end a tar archive.
const ARCHIVE_END: [u8; 1024] = [0; 1024];
/// A static one, as Debian's package `busybox-static` installs it.
pub(crate) const SHELL: &str = "/bin/busybox";

/// An engine that answers.
#[derive(Clone, Copy)]
pub(crate) struct Engine;

/// The engine, if one answers; otherwise the test is skipped, aloud.
pub(crate) fn engine() -> Option<Engine> {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    let answers = ANSWERS.get_or_init(|| {
        let version = command(&["version", "--format", "{{.Server.Version}}"]).output();
        version.is_ok_and(|output| output.status.success())
    });
    if *answers {
        return Some(Engine);
    }
    let place = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "/var/run/docker.sock".to_owned());
    missing(&format!("no Docker Engine answers at {place}"));
    None
}

/// Says why a test does nothing, if it may.
fn missing(why: &str) {
    let required = std::env::var("FROSTGATE_REQUIRE_DOCKER").as_deref() == Ok("1");
    assert!(!required, "{why}, and FROSTGATE_REQUIRE_DOCKER=1");
    skipped(why);
}

impl Engine {
    /// Runs `docker` and returns what it printed.
    pub(crate) fn docker(self, arguments: &[&str]) -> String {
        let output = command(arguments).output().expect("docker runs");
        succeeded(arguments, output)
    }

    /// Runs `docker` where it may fail, and says whether it didn't.
    pub(crate) fn tries(self, arguments: &[&str]) -> bool {
        command(arguments).output().is_ok_and(|output| output.status.success())
    }

    /// The test workspace's image; it exposes port 80.
    pub(crate) fn image(self) -> String {
        self.imported("", &[], &[])
    }

    /// The same with a shell, if this machine has one to put into it.
    pub(crate) fn image_with_shell(self) -> Option<String> {
        if !Path::new(SHELL).exists() {
            missing(&format!("there is no {SHELL}; the package busybox-static has it"));
            return None;
        }
        Some(self.imported("-shell", &[], &[SHELL]))
    }

    /// The same with a health check, every second.
    pub(crate) fn image_with_health_check(self) -> String {
        let check = r#"HEALTHCHECK --interval=1s --timeout=2s CMD ["/workspace", "probe"]"#;
        self.imported("-health", &[check], &[])
    }

    /// The same with the port of SSH exposed as well; nobody listens there.
    pub(crate) fn image_with_ssh(self) -> String {
        self.imported("-ssh", &["EXPOSE 22"], &[])
    }

    /// A container made from the outside; `docker create`'s arguments stand before the image.
    pub(crate) fn container(self, name: &str, arguments: &[&str]) -> Container {
        self.container_of(&self.image(), name, arguments)
    }

    /// The same from another image, perhaps with a command after its name.
    pub(crate) fn container_of(self, image: &str, name: &str, arguments: &[&str]) -> Container {
        let name = name.to_owned();
        let guard = Container { name };
        let whole: Vec<&str> = ["create", "--name", &guard.name]
            .into_iter()
            .chain(arguments.iter().copied())
            .chain(image.split(' '))
            .collect();
        self.docker(&whole);
        guard
    }

    fn imported(self, variant: &str, changes: &[&str], programs: &[&str]) -> String {
        let image = format!("{REPOSITORY}:{}{variant}", fixture::version());
        let binary = fixture::binary();
        let _lock = fixture::lock("workspace-import");
        let known = command(&["image", "inspect", &image]).stdout(Stdio::null()).output();
        if known.is_ok_and(|output| output.status.success()) {
            return image;
        }
        let own = ("workspace".to_owned(), fs::read(binary).expect("it was built"));
        let others = programs.iter().map(|path| {
            let content = fs::read(path).expect("the program is there");
            (path.trim_start_matches('/').to_owned(), content)
        });
        let files: Vec<_> = std::iter::once(own).chain(others).collect();
        let usual = [r#"CMD ["/workspace"]"#, "EXPOSE 80"];
        self.import(&image, &[&usual, changes].concat(), &files);
        image
    }

    /// Makes an image of executable files, and of what a Dockerfile would say besides.
    pub(crate) fn import(self, image: &str, changes: &[&str], files: &[(String, Vec<u8>)]) {
        let mut arguments = vec!["import"];
        arguments.extend(changes.iter().flat_map(|change| ["--change", *change]));
        arguments.extend(["-", image]);
        let mut import = command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker runs");
        let mut input = import.stdin.take().expect("it was piped");
        for (name, content) in files {
            input.write_all(&entry(name, content)).expect("docker reads the archive");
        }
        input.write_all(&ARCHIVE_END).expect("docker reads the archive");
        drop(input);
        succeeded(&arguments, import.wait_with_output().expect("docker ends"));
    }
}

/// A name that no other test uses, whichever process it runs in.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{what}-{}-{number}", std::process::id())
}

/// A container that is removed when the test ends, well or not.
pub(crate) struct Container {
    /// The container's name.
    pub(crate) name: String,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = command(&["rm", "--force", "--volumes", &self.name]).output();
    }
}

/// A network with addresses of the test's choice. Removed when the test ends.
pub(crate) struct Network {
    engine: Engine,
    pub(crate) name: String,
    /// This machine in it.
    pub(crate) gateway: IpAddr,
}

impl Network {
    pub(crate) fn new(engine: Engine) -> Self {
        let name = format!("frostgate-{}", unique("subnet"));
        // Some other test, or the machine, may have a subnet already.
        let third = std::process::id().to_le_bytes()[0];
        let second = (190..=253).find(|second| {
            let subnet = format!("10.{second}.{third}.0/28");
            engine.tries(&["network", "create", "--subnet", &subnet, &name])
        });
        let second = second.expect("a subnet is free");
        Self { engine, name, gateway: Ipv4Addr::new(10, second, third, 1).into() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.engine.tries(&["network", "rm", &self.name]);
    }
}

/// The command `docker`, which gets nothing to read.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null());
    command
}

fn succeeded(arguments: &[&str], output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {}: {errors}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A tar archive of one executable file.
pub(crate) fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = entry(name, content);
    archive.extend_from_slice(&ARCHIVE_END);
    archive
}

/// An executable file in a tar archive (POSIX ustar).
fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |offset: usize, text: &str| {
        header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    // The checksum is computed as if its own field were blank.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut entry = header.to_vec();
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}
