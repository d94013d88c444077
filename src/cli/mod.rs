//! The command line: what each command is called, what it takes, and how it ends.
//!
//! Exit codes are for scripts and service managers, and stay what they are: `AFTER_HELP` tells them all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Flags};

mod activation;
mod certs;
mod check_config;
mod demo;
mod sample;
mod serve;
mod service_manager;

mod change;
mod create;
mod events;
mod health;
mod logs;
mod ls;
mod reload;
mod rm;
mod show;
mod token;
mod why;

mod check_in;
mod doctor;

mod completions;
mod man;

mod client;
mod feed;
mod log;
mod policy;
mod progress;
mod signals;
mod table;
mod when;
mod workspace;

use client::CallError;

/// A failure while running.
const FAILED: u8 = 1;
/// A wrong command line or configuration, so that trying again is no use; clap ends with the same.
const MISUSED: u8 = 2;
/// No gateway answered.
const UNREACHABLE: u8 = 3;
/// The gateway did not allow it.
const FORBIDDEN: u8 = 4;
/// The gateway has no such thing.
const UNKNOWN: u8 = 5;

/// What the help ends with.
const AFTER_HELP: &str = "\
Exit codes: 0, it did what was asked; 1, it failed; 2, the command line or the configuration is
wrong; 3, no gateway answers; 4, the gateway does not allow it; 5, there is no such thing.

Variables: FROSTGATE_URL and FROSTGATE_TOKEN say which gateway is asked and who asks; on the machine
of the gateway neither is needed. FROSTGATE_CONFIG names the configuration, and FROSTGATE_LOG is the
filter of logs, such as debug. NO_COLOR takes colours away.";

/// Frostgate's command line.
#[derive(Debug, Parser)]
#[command(name = "frostgate", version, about, after_help = AFTER_HELP)]
#[command(subcommand_required = true, max_term_width = 100)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the configured workspaces, and the containers labelled for Frostgate
    Serve(serve::Serve),
    /// Try it out: three sample workspaces that freeze when idle, on this machine alone
    Demo(demo::Demo),
    /// Say whether the configuration is right, or everything that is wrong with it
    CheckConfig(check_config::CheckConfig),
    /// Find what keeps Frostgate from working here, and say how to fix it
    Doctor(doctor::Doctor),
    /// Make certificates for development, and say how to have them trusted
    Certs(certs::Certs),
    /// Have the running gateway read its configuration again, and say what that changes
    Reload(reload::Reload),
    /// Say whether the gateway lives and is ready; for health checks as well
    Health(health::Health),
    /// List workspaces
    Ls(ls::Ls),
    /// Show a workspace and its policy
    Show(show::Show),
    /// Say why a workspace is awake, or what froze it
    Why(why::Why),
    /// Create a workspace from a project
    Create(create::Create),
    /// Change the policy of workspaces, at once and for good
    Set(change::Set),
    /// Freeze workspaces now
    Stop(change::Turn),
    /// Wake workspaces
    Resume(change::Turn),
    /// Keep workspaces awake for a while, whoever is inside
    Keep(change::Keep),
    /// Remove workspaces, with all that they have
    Rm(rm::Rm),
    /// Print what a workspace's processes wrote
    Logs(logs::Logs),
    /// Tell what happened to workspaces, or what happens
    Events(events::Events),
    /// Report the activity of the workspace that this runs in
    CheckIn(check_in::CheckIn),
    /// List, make, rotate and revoke the tokens that open the API
    Token(token::Token),
    /// Print what a shell needs to complete command lines
    Completions(completions::Completions),
    /// Print a manual page, or write all of them to a directory
    Man(man::Man),
    /// Be a sample workspace on $PORT
    #[command(hide = true)]
    Sample(sample::Sample),
}

/// What the command line may say about the configuration; it wins over file and environment.
#[derive(Debug, Default, Args)]
struct Overrides {
    /// The configuration [default: the first of FROSTGATE_CONFIG, ./frostgate.toml,
    /// ~/.config/frostgate/frostgate.toml and /etc/frostgate/frostgate.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where end users arrive, such as 0.0.0.0:80; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where end users arrive by TLS, such as 0.0.0.0:443; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen_tls: Vec<String>,
    /// Where the API is served, such as 127.0.0.1:8081
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Where tokens and records are kept
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<String>,
    /// Workspaces are at {id}.DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
}

/// The environment, as far as it is text; other variables can't be ours.
type Environment = BTreeMap<String, String>;

/// Runs the command that `arguments` name, and says how the process should end.
pub fn run(
    arguments: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        Err(help_or_mistake) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = help_or_mistake.print();
            return ExitCode::from(u8::try_from(help_or_mistake.exit_code()).unwrap_or(MISUSED));
        }
    };
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let environment: Environment = environment.filter_map(text).collect();
    match command_line.run(&environment) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads along has read enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Told>() {
                complain(&error);
            }
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Somebody asked for what can't be meant, as far as only a command itself can tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// What went wrong is on the terminal already; this is how it ends.
#[derive(Debug, thiserror::Error)]
#[error("it failed")]
struct Told {
    code: u8,
}

impl Told {
    /// Tells it.
    fn of(error: &anyhow::Error) -> Self {
        complain(error);
        Self { code: exit_code(error) }
    }
}

fn complain(error: &anyhow::Error) {
    // Nobody is left to tell if the terminal is gone.
    drop(writeln!(std::io::stderr(), "frostgate: {}", told(error)));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let system = error.downcast_ref::<std::io::Error>();
    system.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A duration, as flags take it.
fn duration_from(text: &str) -> Result<std::time::Duration, String> {
    crate::duration::parse(text).map_err(|invalid| invalid.to_string())
}

impl CommandLine {
    fn run(self, environment: &Environment) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve::run(serve, environment),
            Command::Demo(demo) => demo::run(&demo, environment),
            Command::CheckConfig(check) => check_config::run(check, environment),
            Command::Doctor(doctor) => doctor::run(&doctor, environment),
            Command::Certs(certs) => certs::run(certs, environment),
            Command::Reload(reload) => reload::run(&reload, environment),
            Command::Health(health) => health::run(&health, environment),
            Command::Ls(ls) => ls::run(&ls, environment),
            Command::Show(show) => show::run(&show, environment),
            Command::Why(why) => why::run(&why, environment),
            Command::Create(create) => create::run(&create, environment),
            Command::Set(set) => change::set(&set, environment),
            Command::Stop(turn) => change::stop(&turn, environment),
            Command::Resume(turn) => change::resume(&turn, environment),
            Command::Keep(keep) => change::keep(&keep, environment),
            Command::Rm(rm) => rm::run(&rm, environment),
            Command::Logs(logs) => logs::run(&logs, environment),
            Command::Events(events) => events::run(&events, environment),
            Command::CheckIn(check_in) => check_in::run(&check_in, environment),
            Command::Token(token) => token::run(&token, environment),
            Command::Completions(completions) => completions::run(&completions),
            Command::Man(man) => man::run(&man),
            Command::Sample(sample) => sample::run(&sample, environment),
        }
    }
}

impl Overrides {
    fn load(&self, environment: &Environment) -> Result<Config, ConfigError> {
        let flags = Flags {
            listen: self.listen.clone(),
            listen_tls: self.listen_tls.clone(),
            admin: self.admin.clone(),
            state_dir: self.state_dir.clone(),
            domain: self.domain.clone(),
        };
        Config::load(self.config.as_deref(), environment.clone().into_iter(), &flags)
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(CallError::NoUrl { .. } | CallError::NoToken(_)) => MISUSED,
        Some(CallError::Unreachable { .. }) => UNREACHABLE,
        Some(CallError::Refused { status, .. }) => match status.as_u16() {
            401 | 403 | 429 => FORBIDDEN,
            404 => UNKNOWN,
            _ => FAILED,
        },
        None if error.is::<ConfigError>() || error.is::<Misuse>() => MISUSED,
        None => error.downcast_ref().map_or(FAILED, |Told { code }| *code),
    }
}

/// An error in the words for a terminal: the chain on one line, a configuration's problems on a
/// line each.
fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(ConfigError::Invalid { problems }) => {
            let lines: Vec<String> = problems.iter().map(|line| format!("\n  {line}")).collect();
            format!("the configuration is wrong:{}", lines.concat())
        }
        Some(ConfigError::Unreadable { .. }) | None => format!("{error:#}"),
    }
}

/// A runtime for the control plane. The data plane has threads of its own.
fn control_plane() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("frostgate-control")
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_names_the_commands_of_users_and_hides_the_sample() {
        let help = CommandLine::command().render_help().to_string();
        for command in [
            "serve",
            "demo",
            "check-config",
            "doctor",
            "certs",
            "reload",
            "health",
            "ls",
            "show",
            "why",
            "create",
            "set",
            "stop",
            "resume",
            "keep",
            "rm",
            "logs",
            "events",
            "check-in",
            "token",
            "completions",
            "man",
            "Exit codes: ",
        ] {
            assert!(help.contains(command), "{help}");
        }
        assert!(!help.contains("\n  sample"), "{help}");
    }

    #[test]
    fn commands_take_what_the_help_says() {
        for line in [
            "frostgate serve --config f --listen a --listen b --admin c --state-dir d --domain e",
            "frostgate serve --listen-tls a --listen-tls b",
            "frostgate serve --takeover --config f",
            "frostgate certs --config f --domain d --directory e --force a.d *.b.d",
            "frostgate check-config --config f --print",
            "frostgate check-config --output json",
            "frostgate demo --port 9000 --idle 1.5s",
            "frostgate sample --name hello",
            "frostgate why alice --lines 3 --url http://a --config f --output json",
            "frostgate reload --config f --output json",
            "frostgate token list",
            "frostgate token add ci --scope read",
            "frostgate token add ci --project a --project b",
            "frostgate token rotate admin --output text",
            "frostgate token revoke ci",
            "frostgate ls --project a --phase running,frozen -q",
            "frostgate ls --phase failed --output table",
            "frostgate create notebook --id alice --wait --inactivity-timeout 30m --hold-max 5s",
            "frostgate set alice bob --monitoring off --max-inactive-storage-time unlimited",
            "frostgate stop alice bob --wait --timeout 1m",
            "frostgate keep alice --for 0",
            "frostgate rm alice --yes",
            "frostgate logs alice -n 10 -f",
            "frostgate events alice -f --types phase,check-in --output json",
            "frostgate check-in --active 3",
            "frostgate check-in --watch --port 5432,5433 --ssh --process *x* --cpu 5% --interval 5s",
            "frostgate check-in --watch --ssh=2222 --except 127.0.0.1,10.0.0.0/8 --gateway-port 8080",
            "frostgate health --timeout 2s --url unix:///run/frostgate/admin.sock",
            "frostgate doctor --config f --output json",
            "frostgate completions zsh",
            "frostgate man token add",
            "frostgate man --directory d",
        ] {
            assert!(parsed(line).is_ok(), "{line}");
        }
        for line in [
            "frostgate",
            "frostgate serv",
            "frostgate demo --port 65535",
            "frostgate demo --idle soon",
            "frostgate demo --idle 0s",
            "frostgate why",
            "frostgate why Not_An_Id",
            "frostgate token",
            "frostgate token add ci",
            "frostgate token add ci --scope write",
            "frostgate token add ci --scope read --project a",
            "frostgate token revoke ../x",
            "frostgate ls --phase asleep",
            "frostgate ls -q --output json",
            "frostgate create",
            "frostgate create notebook --inactivity-timeout 30",
            "frostgate set alice --freeze-mode off",
            "frostgate stop",
            "frostgate keep alice --for soon",
            "frostgate logs alice -n 0",
            "frostgate events -f -n 5",
            "frostgate events --types phase",
            "frostgate check-in",
            "frostgate check-in --active 1 --idle",
            "frostgate check-in --idle --port 5432",
            "frostgate check-in --watch --port 0",
            "frostgate check-in --watch --cpu 0",
            "frostgate completions tcsh",
            "frostgate man ls --directory d",
        ] {
            let mistake = parsed(line).expect_err(line);
            assert_eq!(mistake.exit_code(), i32::from(MISUSED), "{line}");
        }
    }

    #[test]
    fn a_wrong_configuration_ends_with_two_and_a_line_for_each_problem() {
        let flags =
            Flags { admin: Some("x".to_owned()), domain: Some("-".to_owned()), ..Flags::default() };
        let variable = ("FROSTGATE_CONFIG".to_owned(), "/dev/null".to_owned());
        let home = ("HOME".to_owned(), "/home/frost".to_owned());
        let error = Config::load(None, [variable, home].into_iter(), &flags);
        let error = anyhow::Error::from(error.expect_err("two wrong flags"));
        let words = told(&error);
        assert!(words.starts_with("the configuration is wrong:\n  --admin: "), "{words}");
        assert!(words.contains("\n  --domain: "), "{words}");
    }
}
