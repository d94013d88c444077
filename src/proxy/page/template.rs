//! What the waiting page looks like: the built-in template, or the operator's own.
//!
//! An own one is `waiting.html` in a directory, in the language of Jinja2 with everything escaped
//! that is put in. It is used from the moment that it can be read and makes a page of every state;
//! one that can't leaves the last good one, or the built-in, in use.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use minijinja::{Environment, context};
use tokio::time::Instant;

use super::Sight;
use crate::lifecycle::Progress;

/// The operator's file. The name says that what is put in is HTML.
const FILE: &str = "waiting.html";
const BUILT_IN: &str = include_str!("waiting.html");
/// Pages are sent to everybody who waits, and are to be small.
const BYTES_MAX: u64 = 256 * 1024;

/// See the module's head. Shared by all threads.
#[derive(Debug)]
pub struct Template {
    directory: Option<PathBuf>,
    current: RwLock<Arc<Environment<'static>>>,
}

/// Why a template can't be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("could not be read")]
    Unreadable(#[from] std::io::Error),
    #[error("it is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("{0:#}")]
    Wrong(#[from] minijinja::Error),
}

/// What a template may put in.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// The workspace's id.
    pub(super) name: &'a str,
    pub(super) sight: &'a Sight,
    /// Where to hear of what is new.
    pub(super) events: &'a str,
    /// In how many seconds to look again without JavaScript; `None`: not by itself.
    pub(super) refresh: Option<u64>,
    /// Scripts and styles have to name it.
    pub(super) nonce: &'a str,
    pub(super) lang: &'a str,
}

impl Template {
    /// The one of this directory, if it has one that is right; else the built-in.
    pub fn open(directory: Option<PathBuf>) -> Self {
        let template = Self { directory, current: RwLock::new(Arc::new(built_in())) };
        template.reload();
        template
    }

    /// Where it is, if an own one is looked for.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Reads it again. What can't be used is told in the log, and leaves what was there before.
    /// Blocks on the disk.
    pub fn reload(&self) {
        let Some(path) = self.directory.as_ref().map(|directory| directory.join(FILE)) else {
            return;
        };
        match read(&path) {
            Ok(Some(own)) => {
                tracing::info!(?path, "the waiting page is made from this template");
                self.replace(own);
            }
            Ok(None) => {
                tracing::warn!(?path, "there is no such template; using the built-in page");
                self.replace(built_in());
            }
            Err(error) => {
                tracing::warn!(?path, error = chain(&error), "a template can't be used");
            }
        }
    }

    /// The page.
    pub(super) fn render(&self, context: &Context<'_>) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        rendered(&current, context).unwrap_or_else(|error| {
            // Every state was tried when it was read, so this takes an odd template.
            tracing::warn!(error = chain(&error.into()), "the waiting page can't be made");
            rendered(&built_in(), context).unwrap_or_default()
        })
    }

    fn replace(&self, new: Environment<'static>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }
}

fn built_in() -> Environment<'static> {
    parsed(BUILT_IN.to_owned()).unwrap_or_else(|_| Environment::new())
}

/// `None`: there is no file.
fn read(path: &Path) -> Result<Option<Environment<'static>>, Unusable> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Unusable::TooLarge);
    }
    let template = parsed(text)?;
    for sight in every_sight() {
        let (events, nonce, lang) = ("/events", "0", "en");
        let refresh = sight.busy.then_some(1);
        rendered(
            &template,
            &Context { name: "name", sight: &sight, events, refresh, nonce, lang },
        )?;
    }
    Ok(Some(template))
}

fn parsed(text: String) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_template_owned(FILE, text)?;
    Ok(environment)
}

fn rendered(
    environment: &Environment<'_>,
    context: &Context<'_>,
) -> Result<String, minijinja::Error> {
    let Context { name, sight, events, refresh, nonce, lang } = *context;
    let Sight { state, title, text, action, busy, elapsed_ms, usual_ms, retry_ms } = sight;
    let text = text.as_ref();
    environment.get_template(FILE)?.render(context! {
        name => name, events => events, refresh => refresh, nonce => nonce, lang => lang,
        state => *state, title => title, text => text, action => *action, busy => *busy,
        elapsed_ms => *elapsed_ms, usual_ms => *usual_ms, retry_ms => *retry_ms,
    })
}

/// One of each state.
fn every_sight() -> Vec<Sight> {
    let now = Instant::now();
    let usual = Some(Duration::from_secs(5));
    let all = [
        Progress::Preparing,
        Progress::Queued { before: 2 },
        Progress::Waking { since: now, usual: None },
        Progress::Waking { since: now, usual },
        Progress::Ready,
        Progress::Failed { retry_at: now },
        Progress::Asleep,
        Progress::Gone,
    ];
    let sights = all.into_iter().map(|progress| Sight::of("name", progress));
    sights.chain([Sight::full("name")]).collect()
}

/// An error with all that it comes from, in one line.
fn chain(error: &Unusable) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(template: &Template, sight: &Sight) -> String {
        let (name, events, nonce, lang) = ("alice", "/e", "abc", "en");
        template.render(&Context { name, sight, events, refresh: Some(5), nonce, lang })
    }

    #[test]
    fn the_built_in_page_knows_every_state() {
        let template = Template::open(None);
        let sights = every_sight();
        assert!(sights.len() > 8);
        for sight in sights {
            let page = page(&template, &sight);
            assert!(page.contains(&sight.title) && page.contains("nonce=\"abc\""), "{page}");
            assert_eq!(page.contains("id=\"retry\" href=\"\" hidden"), sight.action.is_empty());
            assert!(page.len() < 8 * 1024, "{} bytes", page.len());
            assert!(!page.contains("://"), "something comes from outside");
        }
    }

    #[test]
    fn what_is_put_in_is_escaped() {
        let directory = std::env::temp_dir().join(format!("frostgate-page-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(FILE), "<b>{{ title }}</b>").unwrap();
        let template = Template::open(Some(directory.clone()));
        let sight = Sight::of("<script>'\"", Progress::Asleep);
        assert_eq!(page(&template, &sight), "<b>&lt;script&gt;&#x27;&quot; is asleep</b>");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
