//! Which container is which workspace.
//!
//! The engine is the truth; this only saves a look-up per call. An entry that has become wrong
//! (somebody removed the container and made it anew) shows as a 404, and is then looked up again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::models::ContainerSummary;

use super::labels::{self, Claim, Labels};
use super::names::ContainerRef;
use crate::model::WorkspaceId;

/// The known containers. At most one per labelled container of the engine.
#[derive(Default)]
pub(super) struct Directory(Mutex<HashMap<WorkspaceId, Known>>);

struct Known {
    container: ContainerRef,
    /// What was last said to the log about it, so that it is said once.
    complaint: Option<String>,
    /// Its first process, when it was inspected last.
    pid: Option<u32>,
}

impl Directory {
    pub(super) fn find(&self, id: &WorkspaceId) -> Option<ContainerRef> {
        self.lock().get(id).map(|known| known.container.clone())
    }

    /// Which workspace a container is, from the engine's id of it.
    pub(super) fn workspace_of(&self, container: &ContainerRef) -> Option<WorkspaceId> {
        let known = self.lock();
        let found = known.iter().find(|(_, known)| known.container == *container);
        found.map(|(id, _)| id.clone())
    }

    /// Remembers a new container, unless an older one has the id.
    pub(super) fn learn(&self, id: &WorkspaceId, container: ContainerRef) {
        if let Entry::Vacant(entry) = self.lock().entry(id.clone()) {
            entry.insert(Known { container, complaint: None, pid: None });
        }
    }

    /// Forgets a container that is gone; another one with the same id stays.
    pub(super) fn forget(&self, id: &WorkspaceId, container: &ContainerRef) {
        if let Entry::Occupied(entry) = self.lock().entry(id.clone())
            && entry.get().container == *container
        {
            entry.remove();
        }
    }

    /// Takes over what a whole list says.
    pub(super) fn replace(&self, claimed: &[Claimed]) {
        let mut known = self.lock();
        let mut before = std::mem::take(&mut *known);
        for claim in claimed {
            let same = |old: &Known| old.container == claim.container;
            let new = || Known { container: claim.container.clone(), complaint: None, pid: None };
            let entry = before.remove(&claim.id).filter(same).unwrap_or_else(new);
            known.insert(claim.id.clone(), entry);
        }
    }

    /// Remembers the first process of a container.
    pub(super) fn note_pid(&self, id: &WorkspaceId, container: &ContainerRef, pid: Option<u32>) {
        let mut known = self.lock();
        if let Some(known) = known.get_mut(id).filter(|known| known.container == *container) {
            known.pid = pid;
        }
    }

    /// The first process of a container, when it was inspected last.
    pub(super) fn pid(&self, id: &WorkspaceId, container: &ContainerRef) -> Option<u32> {
        let known = self.lock();
        known.get(id).filter(|known| known.container == *container)?.pid
    }

    /// Whether `complaint` is news about this workspace. `None`: there is nothing to complain of.
    pub(super) fn is_news(&self, id: &WorkspaceId, complaint: Option<&str>) -> bool {
        let mut known = self.lock();
        let Some(known) = known.get_mut(id) else {
            return false;
        };
        let news = complaint.is_some() && known.complaint.as_deref() != complaint;
        known.complaint = complaint.map(str::to_owned);
        news
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Known>> {
        // No code that could panic half-way runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container that is a workspace.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) id: WorkspaceId,
    pub(super) container: ContainerRef,
    pub(super) labels: Labels,
    /// What is wrong with its claim.
    pub(super) warnings: Vec<String>,
}

/// A container that has our label and is no workspace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) container: String,
    pub(super) reason: String,
}

/// Settles who is who. Where two containers claim one id, the older keeps it, because requests may
/// be on their way to it; what a rule about the younger would do on the next start is a surprise.
pub(super) fn settle(
    mut listed: Vec<ContainerSummary>,
    scope: &str,
) -> (Vec<Claimed>, Vec<Unusable>) {
    listed.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let mut claimed: Vec<Claimed> = Vec::new();
    let mut unusable = Vec::new();
    let mut owner: HashMap<WorkspaceId, usize> = HashMap::new();
    for summary in listed {
        let Some(container) = summary.id.as_deref().and_then(ContainerRef::from_engine) else {
            continue;
        };
        let name = own_name(&summary.names.unwrap_or_default());
        let labels = summary.labels.unwrap_or_default();
        match labels::claim(&labels, &name, scope) {
            Claim::None => {}
            Claim::Unusable(reason) => unusable.push(Unusable { container: name, reason }),
            Claim::Workspace(id) => match owner.get(&id) {
                Some(&older) => claimed[older].warnings.push(format!(
                    "container {name} ({}) claims the id {id} too and is left alone: \
                     this older one keeps it",
                    container.short()
                )),
                None => {
                    owner.insert(id.clone(), claimed.len());
                    claimed.push(Claimed { id, container, labels, warnings: Vec::new() });
                }
            },
        }
    }
    (claimed, unusable)
}

/// Links give a container names such as `/other/alias`; its own has one slash, the first.
fn own_name(names: &[String]) -> String {
    let mut bare = names.iter().filter_map(|name| name.strip_prefix('/'));
    let own = bare.find(|name| !name.contains('/'));
    own.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(digit: char, name: &str, created: i64, labels: &[(&str, &str)]) -> ContainerSummary {
        let own = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        ContainerSummary {
            id: Some(digit.to_string().repeat(64)),
            names: Some(vec![format!("/other/{name}"), format!("/{name}")]),
            created: Some(created),
            labels: Some(labels.iter().map(own).collect()),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn the_older_of_two_containers_keeps_the_id() {
        let enabled = ("frostgate.enable", "true");
        let (claimed, unusable) = settle(
            vec![
                summary('a', "younger", 2, &[enabled, ("frostgate.id", "x")]),
                summary('b', "x", 1, &[enabled]),
                summary('c', "y", 3, &[enabled]),
                summary('d', "off", 3, &[("frostgate.enable", "false")]),
                summary('e', "odd", 3, &[("frostgate.enable", "maybe")]),
            ],
            "",
        );
        let who: Vec<_> =
            claimed.iter().map(|c| (c.id.as_str(), &c.container.as_str()[..1])).collect();
        assert_eq!(who, [("x", "b"), ("y", "c")]);
        assert!(claimed[0].warnings[0].contains("younger (aaaaaaaaaaaa)"), "{claimed:?}");
        assert_eq!(unusable.len(), 1);
        assert_eq!(unusable[0].container, "odd");
    }

    #[test]
    fn a_newcomer_does_not_take_an_id_and_a_stranger_does_not_free_it() {
        let directory = Directory::default();
        let id = WorkspaceId::parse("x").unwrap();
        let container = |digit: &str| ContainerRef::from_engine(&digit.repeat(64)).unwrap();
        directory.learn(&id, container("a"));
        directory.learn(&id, container("b"));
        assert_eq!(directory.find(&id), Some(container("a")));
        assert_eq!(directory.workspace_of(&container("a")), Some(id.clone()));
        directory.forget(&id, &container("b"));
        assert_eq!(directory.find(&id), Some(container("a")));
        directory.forget(&id, &container("a"));
        assert_eq!(directory.find(&id), None);
    }

    #[test]
    fn a_complaint_is_news_once() {
        let directory = Directory::default();
        let id = WorkspaceId::parse("x").unwrap();
        assert!(!directory.is_news(&id, Some("unknown workspace")));
        directory.learn(&id, ContainerRef::from_engine(&"a".repeat(64)).unwrap());
        assert!(directory.is_news(&id, Some("no port")));
        assert!(!directory.is_news(&id, Some("no port")));
        assert!(!directory.is_news(&id, None));
        assert!(directory.is_news(&id, Some("no port")));
    }
}
