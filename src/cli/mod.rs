//! The command line: what each command is called, what it takes, and how it ends.
//!
//! Exit codes are for scripts and service managers, and stay what they are: `EXIT_CODES` has them all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::App;
use crate::config::{Config, ConfigError, Flags};

mod activation;
mod certs;
mod client;
mod demo;
mod log;
mod reload;
mod sample;
mod serve;
mod service_manager;
mod signals;
mod table;
mod token;
mod why;

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

/// The codes as the help tells them.
const EXIT_CODES: &str = "\
Exit codes: 0, it did what was asked; 1, it failed; 2, the command line or the configuration is
wrong; 3, no gateway answers; 4, the gateway does not allow it; 5, there is no such thing.";

/// Frostgate's command line.
#[derive(Debug, Parser)]
#[command(name = "frostgate", version, about, subcommand_required = true, after_help = EXIT_CODES)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the configured workspaces, and the containers labelled for Frostgate
    Serve(serve::Serve),
    /// Say whether the configuration is right, or everything that is wrong with it
    CheckConfig(CheckConfig),
    /// Have the running gateway read its configuration again, and say what that changes
    Reload(reload::Reload),
    /// Make certificates for development, and say how to have them trusted
    Certs(certs::Certs),
    /// Say why a workspace is awake, or what froze it
    Why(why::Why),
    /// List, make, rotate and revoke the tokens that open the API
    Token(token::Token),
    /// Try it out: three sample workspaces that freeze when idle, on this machine alone
    Demo(demo::Demo),
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

#[derive(Debug, Args)]
struct CheckConfig {
    /// The configuration [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print every option and its effective value as TOML
    #[arg(long)]
    print: bool,
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
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "frostgate: {}", told(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

impl CommandLine {
    fn run(self, environment: &Environment) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve::run(serve, environment),
            Command::CheckConfig(check) => check.run(environment),
            Command::Reload(reload) => reload::run(&reload, environment),
            Command::Certs(certs) => certs::run(certs, environment),
            Command::Why(why) => why::run(&why, environment),
            Command::Token(token) => token::run(&token, environment),
            Command::Demo(demo) => demo::run(&demo, environment),
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

impl CheckConfig {
    fn run(self, environment: &Environment) -> anyhow::Result<()> {
        let file = Config::find(self.config.as_deref(), environment);
        let overrides = Overrides { config: self.config, ..Overrides::default() };
        let config = overrides.load(environment)?;
        App::certificates(&config)?;
        let mut out = std::io::stdout();
        if self.print {
            write!(out, "{}", config.to_toml())?;
            return Ok(());
        }
        let subject = match file {
            Some(path) => format!("{} is fine", path.display()),
            None => "there is no configuration file, which is fine".to_owned(),
        };
        let workspaces = match config.workspaces.len() {
            1 => "1 workspace".to_owned(),
            number => format!("{number} workspaces"),
        };
        writeln!(out, "{subject}: {workspaces}")?;
        Ok(())
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
        None if error.is::<ConfigError>() => MISUSED,
        None => FAILED,
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
        for command in
            ["serve", "check-config", "reload", "certs", "why", "token", "demo", "Exit codes: "]
        {
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
            "frostgate demo --port 9000 --idle 1.5s",
            "frostgate sample --name hello",
            "frostgate why alice --lines 3 --url http://a --config f --output json",
            "frostgate reload --config f --output json",
            "frostgate token list",
            "frostgate token add ci --scope read",
            "frostgate token add ci --project a --project b",
            "frostgate token rotate admin --output text",
            "frostgate token revoke ci",
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
