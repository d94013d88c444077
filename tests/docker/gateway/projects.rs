//! Workspaces of a project, from the text of the configuration to the container.

use frostgate::config::{Config, Flags};
use frostgate::model::{Phase, Tier};

use super::check_in::reachable;
use super::{Guest, Stage, change};
use crate::images::{Container, Engine, engine, unique};

/// A project of isolated workspaces with little memory, and some of its workspaces.
fn configure(engine: Engine, ids: &[&str]) -> (Config, Vec<Guest>) {
    let image = engine.image();
    let mut text = format!(
        "[projects.small]\nimage = \"{image}\"\nport = 8080\nisolate = true\nmemory = \"32MiB\"\n\
         environment = {{ WHO = \"{{id}}\", TEAM = \"small\" }}\ninactivity_timeout = 0\n"
    );
    for id in ids {
        text +=
            &format!("[workspaces.{id}]\nproject = \"small\"\nenvironment.TEAM = \"of {id}\"\n");
    }
    let file = std::env::temp_dir().join(format!("frostgate-{}.toml", unique("project")));
    std::fs::write(&file, text).unwrap();
    let home = ("HOME".to_owned(), "/nonexistent".to_owned());
    let config = Config::load(Some(&file), [home].into_iter(), &Flags::default());
    std::fs::remove_file(&file).unwrap();
    let guest = |id: &&str| {
        let (id, name) = ((*id).to_owned(), format!("frostgate-{id}"));
        Guest { id, container: Container { name } }
    };
    (config.unwrap(), ids.iter().map(guest).collect())
}

async fn start(engine: Engine, ids: &[&str]) -> (Stage, Vec<Guest>) {
    let (configured, guests) = configure(engine, ids);
    let stage = Stage::start(engine, |config| {
        reachable(config);
        config.projects = configured.projects;
        config.workspaces = configured.workspaces;
    })
    .await;
    (stage, guests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_workspace_of_a_project_is_itself_and_reports_from_its_own_network() {
    let Some(engine) = engine() else { return };
    let ids = [unique("one"), unique("other")];
    let (stage, guests) = start(engine, &[&ids[0], &ids[1]]).await;
    let boots = [stage.boot(&guests[0]).await, stage.boot(&guests[1]).await];
    assert_ne!(boots[0], boots[1]);
    for (guest, other) in [(&guests[0], &guests[1]), (&guests[1], &guests[0])] {
        let id = &guest.id;
        let environment = stage.inspect(guest, "{{range .Config.Env}}{{println .}}{{end}}");
        for line in [format!("WHO={id}"), format!("TEAM=of {id}")] {
            assert!(environment.lines().any(|found| found == line), "{environment}");
        }
        // By the address that it has in its network, and by its token.
        assert_eq!(stage.reports(guest, 1).await, "200");
        assert!(stage.reports_activity(guest) && !stage.reports_activity(other));
        assert_eq!(stage.post(guest, "/check-in?active=0", b"").await.text(), "200");
        assert!(!stage.reports_activity(guest));
    }
    for guest in &guests {
        let path = format!("/api/v1/workspaces/{}", guest.id);
        let reply = stage.gateway.call("DELETE", &path).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        assert!(!engine.tries(&["container", "inspect", &guest.container.name]));
        assert!(!engine.tries(&["network", "inspect", &guest.container.name]));
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_takes_more_memory_than_it_has_is_shown_to_have_and_thaws() {
    let Some(engine) = engine() else { return };
    let id = unique("hungry");
    let (stage, guests) = start(engine, &[&id]).await;
    let [guest] = &guests[..] else { panic!("one was asked for") };
    let boot = stage.boot(guest).await;
    // The engine itself doesn't always notice the reason.
    let mut reasons = Vec::new();
    while reasons.len() < 5 && !reasons.iter().any(|why: &String| why.contains("out of memory")) {
        stage.boot(guest).await;
        let mut changes = stage.gateway.app().changes();
        let reply = stage.post(guest, "/allocate?mib=128", b"").await;
        assert!(reply.status >= 500, "{reply:?}");
        let frozen = change(&mut changes, guest, Phase::Frozen).await;
        assert_eq!(frozen.tier, Some(Tier::Stopped));
        reasons.push(frozen.reason.to_string());
    }
    assert!(reasons.iter().any(|why| why.contains("out of memory")), "{reasons:?}");
    assert_ne!(stage.boot(guest).await, boot);
    let path = format!("/api/v1/workspaces/{id}");
    stage.gateway.call("DELETE", &path).await;
    assert!(!engine.tries(&["network", "inspect", &guest.container.name]));
    stage.stop().await;
}
