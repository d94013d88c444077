//! What wakes nobody: requests that ask for nothing which is worth a start, such as those of
//! monitors, or for the little picture of a tab.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Rules for requests that don't wake a workspace. One that fits is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoWake {
    /// Paths as the workspace sees them, without the query; `*` stands for any characters.
    pub paths: Vec<String>,
    /// Methods, in capitals.
    pub methods: Vec<String>,
    /// Parts of `User-Agent`, whatever their case.
    pub user_agents: Vec<String>,
    /// Networks that clients are in.
    pub clients: Vec<IpNet>,
}

/// The part of these rules that one workspace sets for itself; `None` leaves the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoWakeOverrides {
    /// See [`NoWake::paths`].
    pub paths: Option<Vec<String>>,
    /// See [`NoWake::methods`].
    pub methods: Option<Vec<String>>,
    /// See [`NoWake::user_agents`].
    pub user_agents: Option<Vec<String>>,
    /// See [`NoWake::clients`].
    pub clients: Option<Vec<IpNet>>,
}

/// Who asks for what, as far as the rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The path as the workspace sees it.
    pub path: &'a str,
    /// The method.
    pub method: &'a str,
    /// What it says of itself; empty: nothing.
    pub user_agent: &'a [u8],
    /// From where it comes, in canonical form.
    pub address: IpAddr,
}

impl Default for NoWake {
    fn default() -> Self {
        Self {
            // What browsers and crawlers ask for by themselves.
            paths: vec!["/favicon.ico".to_owned(), "/robots.txt".to_owned()],
            methods: vec![],
            user_agents: vec![],
            clients: vec![],
        }
    }
}

impl NoWake {
    /// Whether this caller wakes nobody.
    pub fn covers(&self, caller: &Caller<'_>) -> bool {
        let says = |part: &String| contains(caller.user_agent, part.as_bytes());
        self.paths.iter().any(|pattern| fits(pattern.as_bytes(), caller.path.as_bytes()))
            || self.methods.iter().any(|method| method == caller.method)
            || self.user_agents.iter().any(says)
            || self.clients.iter().any(|network| network.contains(&caller.address))
    }
}

impl NoWakeOverrides {
    /// These overrides, and `later` ones that win where both say something.
    pub fn and(&self, later: &Self) -> Self {
        let later = later.clone();
        Self {
            paths: later.paths.or_else(|| self.paths.clone()),
            methods: later.methods.or_else(|| self.methods.clone()),
            user_agents: later.user_agents.or_else(|| self.user_agents.clone()),
            clients: later.clients.or_else(|| self.clients.clone()),
        }
    }

    /// The rules that result from these overrides on top of `base`.
    pub fn over(&self, base: &NoWake) -> NoWake {
        NoWake {
            paths: self.paths.as_ref().unwrap_or(&base.paths).clone(),
            methods: self.methods.as_ref().unwrap_or(&base.methods).clone(),
            user_agents: self.user_agents.as_ref().unwrap_or(&base.user_agents).clone(),
            clients: self.clients.as_ref().unwrap_or(&base.clients).clone(),
        }
    }

    /// The overrides that make exactly these rules of any others.
    pub fn everything(rules: &NoWake) -> Self {
        Self {
            paths: Some(rules.paths.clone()),
            methods: Some(rules.methods.clone()),
            user_agents: Some(rules.user_agents.clone()),
            clients: Some(rules.clients.clone()),
        }
    }

    /// A pattern of paths, if it is one.
    pub fn path(text: &str) -> Option<String> {
        let graphic = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?');
        (text.starts_with(['/', '*']) && graphic).then(|| text.to_owned())
    }

    /// A method in capitals, if it is one.
    pub fn method(text: &str) -> Option<String> {
        let word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        word.then(|| text.to_ascii_uppercase())
    }

    /// A part of `User-Agent`, if it is one.
    pub fn user_agent(text: &str) -> Option<String> {
        let visible = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (!text.is_empty() && visible).then(|| text.to_owned())
    }

    /// A network, if it is one; an address alone is a network of one.
    pub fn client(text: &str) -> Option<IpNet> {
        let one = || text.parse::<IpAddr>().map(IpNet::from).ok();
        // Bits beyond the prefix are cleared.
        Some(text.parse::<IpNet>().ok().or_else(one)?.trunc())
    }
}

/// Whether `text` is the pattern, in which `*` stands for any characters. Takes steps in proportion
/// to the product of their lengths at most.
pub(crate) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where the last star stands, and how much of the text it has taken.
    let mut star = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match &mut star {
                Some((place, taken)) => {
                    *taken += 1;
                    (at, seen) = (*place + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let rows = [
            ("/favicon.ico", "/favicon.ico", true),
            ("/favicon.ico", "/favicon.icon", false),
            ("/favicon.ico", "/a/favicon.ico", false),
            ("/health/*", "/health/", true),
            ("/health/*", "/health/a/b", true),
            ("/health/*", "/health", false),
            ("*.map", "/a/b.map", true),
            ("*.map", "/a.map/b", false),
            ("/*/ping*", "/a/pin/ping", true),
            ("/a**b", "/ab", true),
            ("*", "/", true),
            ("/", "/", true),
            ("/", "", false),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(fits(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
        let (pattern, path) = ("*a".repeat(200), "a".repeat(5_000) + "b");
        assert!(!fits(pattern.as_bytes(), path.as_bytes()));
    }

    #[test]
    fn one_rule_that_fits_is_enough() {
        let rules = NoWake {
            methods: vec!["OPTIONS".to_owned()],
            user_agents: vec!["UptimeRobot".to_owned()],
            clients: vec!["10.0.0.0/8".parse().unwrap()],
            ..NoWake::default()
        };
        let caller = Caller {
            path: "/",
            method: "GET",
            user_agent: b"Mozilla/5.0",
            address: IpAddr::from([192, 0, 2, 1]),
        };
        assert!(!rules.covers(&caller));
        let covered = [
            Caller { path: "/robots.txt", ..caller },
            Caller { method: "OPTIONS", ..caller },
            Caller { user_agent: b"Mozilla/5.0 (uptimerobot/2.0)", ..caller },
            Caller { address: IpAddr::from([10, 1, 2, 3]), ..caller },
        ];
        for caller in covered {
            assert!(rules.covers(&caller), "{caller:?}");
        }
    }

    #[test]
    fn a_list_replaces_the_default_of_its_kind_alone() {
        let own = NoWakeOverrides { paths: Some(vec![]), ..NoWakeOverrides::default() };
        let base = NoWake { methods: vec!["HEAD".to_owned()], ..NoWake::default() };
        assert_eq!(own.over(&base), NoWake { paths: vec![], ..base.clone() });
        let later = NoWakeOverrides { methods: Some(vec![]), ..NoWakeOverrides::default() };
        assert_eq!(own.and(&later).over(&base), NoWake { paths: vec![], methods: vec![], ..base });
    }
}
