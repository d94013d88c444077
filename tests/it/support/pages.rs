//! The pages of the documentation, as readers who do what they say.
//!
//! Each block of commands is run in order, in a directory of the reader's own, with ports of its own in
//! the place of those on the page, and its output is compared with the block `text` right behind it, in
//! which `…` stands for whatever is there. Comments before a block, which no reader of the page sees,
//! say what else there is to know:
//!
//! - `file: NAME`: it is not run, but written to that file
//! - `runs on, until: WORDS`: it is for a terminal of its own, where it prints these words when it is
//!   up; it is interrupted when the next such block comes, and at the end
//! - `eventually`: it is run until it is as it should be
//! - `once it has printed: WORDS`: not before the terminal of its own has printed them
//! - `needs: docker`: it is run where there is an engine
//! - `not run: WHY`

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{PATIENCE, unique_state_dir};

/// What such a comment begins with; others are for those who write the page.
const KINDS: [&str; 6] =
    ["file: ", "runs on, until: ", "eventually", "once it has printed: ", "needs: ", "not run: "];

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// The comments right before it.
    pub(crate) notes: Vec<String>,
    /// What it should print.
    pub(crate) output: Option<String>,
    /// For whoever reads of a failure.
    pub(crate) place: String,
}

/// A page of Markdown, by its path in the repository.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) blocks: Vec<Block>,
    /// The rest, line by line.
    pub(crate) prose: Vec<String>,
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Block {
    /// What stands behind `name: ` in one of its notes.
    pub(crate) fn note(&self, name: &str) -> Option<&str> {
        self.notes.iter().find_map(|note| note.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn needs_docker(&self) -> bool {
        self.note("needs") == Some("docker")
    }
}

impl Page {
    pub(crate) fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let (mut blocks, mut prose, mut notes) = (Vec::<Block>::new(), Vec::new(), Vec::new());
        let mut lines = text.lines().enumerate();
        let mut follows_commands = false;
        while let Some((number, line)) = lines.next() {
            let (margin, rest) = line.split_at(line.len() - line.trim_start().len());
            if let Some(language) = rest.strip_prefix("```") {
                let mut text = String::new();
                for (_, line) in lines.by_ref() {
                    if line.trim_start() == "```" {
                        break;
                    }
                    text.push_str(line.strip_prefix(margin).unwrap_or(line));
                    text.push('\n');
                }
                if let (true, "text", Some(last)) = (follows_commands, language, blocks.last_mut())
                {
                    last.output = Some(text);
                    follows_commands = false;
                    continue;
                }
                follows_commands = language == "sh";
                let (language, notes) = (language.to_owned(), std::mem::take(&mut notes));
                let place = format!("{name}:{}", number + 1);
                blocks.push(Block { language, text, notes, output: None, place });
                continue;
            }
            follows_commands = false;
            let note = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            match note.filter(|note| KINDS.iter().any(|kind| note.starts_with(kind))) {
                Some(note) => notes.push(note.to_owned()),
                None => {
                    assert!(notes.is_empty(), "{name}:{}: a note without a block", number + 1);
                    prose.push(line.to_owned());
                }
            }
        }
        Self { name: name.to_owned(), blocks, prose }
    }

    /// All pages, but for those of others.
    pub(crate) fn all() -> Vec<Self> {
        let mut names = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
        names.push("certs/README.md".to_owned());
        for directory in ["docs", "examples"] {
            markdown_below(&root().join(directory), &mut names);
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }
}

fn markdown_below(directory: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            names.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// Somebody who does what a page says.
pub(crate) struct Reader {
    home: PathBuf,
    /// What is another thing here than on the page, in this order.
    instead: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    terminal: Option<Child>,
}

impl Reader {
    /// With the program in the path, the ports 8080 and up replaced, and these variables.
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        let home = unique_state_dir();
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::create_dir_all(home.join("work")).unwrap();
        let program = env!("CARGO_BIN_EXE_frostgate");
        std::os::unix::fs::symlink(program, home.join("bin/frostgate")).unwrap();
        let port = free_ports();
        let instead = [
            ("cargo run --release -- demo".to_owned(), "frostgate demo".to_owned()),
            ("frostgate demo".to_owned(), "frostgate demo --port 8080".to_owned()),
            ("8080".to_owned(), port.to_string()),
            ("8081".to_owned(), (port + 1).to_string()),
            ("8443".to_owned(), (port + 2).to_string()),
        ];
        let path = std::env::var("PATH").unwrap_or_default();
        let state_dir = home.join(".local/state/frostgate");
        let environment = [
            ("HOME", home.display().to_string()),
            ("PATH", format!("{}:{path}", home.join("bin").display())),
            ("FROSTGATE_STATE_DIR", state_dir.display().to_string()),
            ("FROSTGATE_LISTEN__PUBLIC", format!("127.0.0.1:{port}")),
            ("FROSTGATE_LISTEN__ADMIN", format!("127.0.0.1:{}", port + 1)),
        ];
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let environment = environment.into_iter().chain(variables);
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).collect();
        Self { home, instead: instead.to_vec(), environment, terminal: None }
    }

    /// Puts something else in the place of what is on the page.
    pub(crate) fn replace(&mut self, this: &str, by: &str) {
        self.instead.push((this.to_owned(), by.to_owned()));
    }

    /// Puts a file of the reader's own in the place of one that everybody would share.
    pub(crate) fn replace_by_own(&mut self, file: &str) {
        let own = self.home.join("own").display().to_string();
        self.replace(file, &own);
    }

    /// Does what the blocks say.
    pub(crate) fn follow<'a>(&mut self, blocks: impl IntoIterator<Item = &'a Block>) {
        for block in blocks {
            if let Some(name) = block.note("file") {
                fs::write(self.home.join("work").join(name), self.here(&block.text)).unwrap();
            } else if let Some(words) = block.note("runs on, until") {
                self.open_terminal(block, words);
            } else {
                if let Some(words) = block.note("once it has printed") {
                    self.wait_for(block, words);
                }
                self.run(block);
            }
        }
        self.close_terminal();
    }

    fn here(&self, text: &str) -> String {
        self.instead.iter().fold(text.to_owned(), |text, (this, by)| text.replace(this, by))
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-e", "-c", script]).current_dir(self.home.join("work"));
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, block: &Block) {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let output = self.command(&self.here(&block.text)).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let expected = block.output.as_ref().map(|expected| self.here(expected));
            let is_right = expected.as_ref().is_none_or(|expected| matches(expected, &printed));
            if output.status.success() && is_right {
                return;
            }
            let may_come = block.notes.iter().any(|note| note == "eventually");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                may_come && Instant::now() < deadline,
                "{}: {}\n--- printed\n{printed}--- expected\n{}\n--- errors\n{errors}\n--- in \
                 the other terminal\n{}",
                block.place,
                output.status,
                expected.unwrap_or_default(),
                self.printed(),
            );
            sleep(Duration::from_millis(100));
        }
    }

    fn open_terminal(&mut self, block: &Block, words: &str) {
        self.close_terminal();
        let log = File::create(self.home.join("terminal")).unwrap();
        let mut command = self.command(&format!("exec {}", self.here(&block.text)));
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.terminal = Some(command.spawn().unwrap());
        self.wait_for(block, words);
    }

    fn printed(&self) -> String {
        fs::read_to_string(self.home.join("terminal")).unwrap_or_default()
    }

    fn wait_for(&mut self, block: &Block, words: &str) {
        let deadline = Instant::now() + PATIENCE * 2;
        while !self.printed().contains(words) {
            let terminal = self.terminal.as_mut().expect("a terminal");
            let ended = terminal.try_wait().unwrap().is_some();
            let place = &block.place;
            assert!(
                !ended && Instant::now() < deadline,
                "{place}: {words:?} is not printed, but:\n{}",
                self.printed()
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// As Ctrl-C does.
    fn close_terminal(&mut self) {
        let Some(mut terminal) = self.terminal.take() else { return };
        kill_process_group(Pid::from_child(&terminal), Signal::INT).unwrap();
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            if let Some(status) = terminal.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.printed());
                return;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.printed());
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut terminal) = self.terminal.take() {
            drop(terminal.kill());
            drop(terminal.wait());
        }
        // Workspaces outlive their gateway, wherever the page has left them.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(cwd) = fs::read_link(entry.path().join("cwd")) else { continue };
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (cwd.starts_with(&self.home), pid.and_then(Pid::from_raw)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        drop(fs::remove_dir_all(&self.home));
    }
}

/// The first of three that are free in a row, below those that the system gives to others.
fn free_ports() -> u16 {
    let first = 10_000
        + u16::from_ne_bytes(getrandom::u32().unwrap().to_ne_bytes()[..2].try_into().unwrap())
            % 20_000;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (first..32_000).step_by(3).find(|port| (*port..port + 3).all(is_free)).expect("free ports")
}

/// Whether it was printed as expected: `…` stands for anything on a line, and on a line of its own for
/// any lines.
fn matches(expected: &str, printed: &str) -> bool {
    let expected: Vec<&str> = expected.lines().collect();
    let printed: Vec<&str> = printed.lines().collect();
    lines_match(&expected, &printed)
}

fn lines_match(expected: &[&str], printed: &[&str]) -> bool {
    match (expected, printed) {
        ([], []) => true,
        (["…", rest @ ..], _) => (0..=printed.len()).any(|at| lines_match(rest, &printed[at..])),
        ([line, expected @ ..], [found, printed @ ..]) => {
            line_matches(line, found) && lines_match(expected, printed)
        }
        _ => false,
    }
}

fn line_matches(expected: &str, found: &str) -> bool {
    let Some((begin, rest)) = expected.split_once('…') else { return expected == found };
    let Some(left) = found.strip_prefix(begin) else { return false };
    left.char_indices()
        .map(|(at, _)| at)
        .chain([left.len()])
        .any(|at| line_matches(rest, &left[at..]))
}

#[test]
fn dots_stand_for_whatever_is_there() {
    for (expected, printed, fits) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("a…c", "abc", true),
        ("a…c", "abcd", false),
        ("a…c", "acbc", true),
        ("a\n…", "a", true),
        ("a\n…\nz", "a\nb\nc\nz", true),
        ("a\n…\nz", "a\nb", false),
        ("", "a", false),
    ] {
        assert_eq!(matches(expected, printed), fits, "{expected:?} {printed:?}");
    }
}
