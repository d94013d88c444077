//! The waiting page in a real browser, with JavaScript and without.

use std::path::PathBuf;
use std::time::Duration;

use fantoccini::Locator;
use frostgate::config::Config;
use frostgate::model::{FreezeMode, PolicyOverrides, Runs, Spec};
use serde_json::json;

use crate::fixture;
use crate::support::{Browser, Client, Gateway, Habits, PATIENCE, add, process, until};

/// What the workspace's own page says, which the waiting page never does.
const OWN: &str = "boot ";

fn slow(config: &mut Config, start_ms: &str) {
    let environment = [("START_DELAY_MS", start_ms)];
    process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &environment);
    config.policy.page_after = Duration::from_millis(100);
    config.policy.hold_max = PATIENCE * 9;
}

async fn open(browser: &Browser, gateway: &Gateway, id: &str) {
    let url = format!("http://{id}.localhost:{}/", gateway.public().port());
    browser.client.goto(&url).await.unwrap();
}

/// How the page was made to look.
async fn style(browser: &Browser, property: &str) -> String {
    let script = "return getComputedStyle(document.body).getPropertyValue(arguments[0])";
    browser.ask(script, json!([property])).await.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_how_it_goes_and_ends_at_the_workspaces_own() {
    let Some(browser) = Browser::open(Habits::default()).await else { return };
    let gateway = Gateway::start(|config| slow(config, "4000")).await;
    open(&browser, &gateway, "alice").await;
    assert_eq!(browser.client.title().await.unwrap(), "alice is waking up");
    assert_eq!(browser.text("title").await, "alice is waking up");
    browser.until("This takes a moment.").await;
    // Its style and its script are ours, and allowed.
    assert_eq!(style(&browser, "background-color").await, "rgb(244, 247, 251)");
    let busy = browser.client.find(Locator::Css("[role=progressbar]")).await.unwrap();
    assert!(busy.is_displayed().await.unwrap());
    let retry = browser.client.find(Locator::Id("retry")).await.unwrap();
    assert!(!retry.is_displayed().await.unwrap());
    browser.until(OWN).await;

    // The second time it knows how long that takes.
    assert_eq!(gateway.call("PUT", "/workspaces/alice/stop").await.status, 200);
    open(&browser, &gateway, "alice").await;
    browser.until("This usually takes about 4 seconds.").await;
    browser.until("aria-valuenow").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    browser.picture("waiting-page").await;
    browser.until(OWN).await;
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_it_looks_again_by_itself() {
    let habits = Habits { without_scripts: true, ..Habits::default() };
    let Some(browser) = Browser::open(habits).await else { return };
    let gateway = Gateway::start(|config| slow(config, "3000")).await;
    open(&browser, &gateway, "alice").await;
    browser.until("alice is waking up").await;
    browser.until("http-equiv=\"refresh\"").await;
    browser.until(OWN).await;
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_in_the_queue_is_shown_in_the_dark_on_a_telephone() {
    let habits = Habits { dark: true, narrow: true, ..Habits::default() };
    let Some(browser) = Browser::open(habits).await else { return };
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        slow(config, "0");
        process(config, "bob", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    let mut inside = Client::connect(gateway.public()).await;
    inside.send("GET /wait?ms=600000 HTTP/1.1\r\nHost: bob.localhost\r\n\r\n").await;
    until("bob is in use", || gateway.workspace("bob").view().inside == 1).await;
    open(&browser, &gateway, "alice").await;
    browser.until("It gets the next one that is free.").await;
    assert_eq!(style(&browser, "background-color").await, "rgb(12, 19, 27)");
    let width = browser.ask("return [innerWidth, document.body.scrollWidth]", json!([])).await;
    assert_eq!(width, json!([390, 390]), "it fits");
    browser.picture("waiting-page-dark").await;
    drop(inside);
    browser.until(OWN).await;
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_is_told_and_can_be_tried_again() {
    let Some(browser) = Browser::open(Habits::default()).await else { return };
    let program = Program(crate::support::unique_state_dir().with_extension("program"));
    let gateway = Gateway::start(|config| {
        let argv = vec![program.0.to_str().unwrap().to_owned()];
        let spec = Spec::new(Runs::Command { argv, directory: None });
        add(config, "alice", spec, PolicyOverrides::default());
    })
    .await;
    open(&browser, &gateway, "alice").await;
    browser.until("alice could not be started").await;
    assert!(!browser.client.source().await.unwrap().contains(program.0.to_str().unwrap()));
    std::os::unix::fs::symlink(fixture::binary(), &program.0).unwrap();
    // It is offered when it makes sense, which is after the back-off.
    let retry = browser.client.wait().for_element(Locator::Id("retry")).await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !retry.is_displayed().await.unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "nothing is offered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(retry.text().await.unwrap(), "Try again");
    browser.picture("waiting-page-failed").await;
    retry.click().await.unwrap();
    browser.until(OWN).await;
    browser.close().await;
    gateway.stop().await;
}

/// A file that goes with the test.
struct Program(PathBuf);

impl Drop for Program {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}
