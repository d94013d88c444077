//! The dashboard in a real browser, at a desk and on a telephone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use frostgate::config::Config;
use frostgate::model::{FreezeMode, FrozenStorage, Phase, PolicyOverrides, Runs, Spec};
use frostgate::secrets;
use frostgate::store::{Moment, Sqlite, Store};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{
    Browser, Client, Gateway, Habits, PATIENCE, PLAIN_NAME, add, config, local_process, process,
    project, skipped, unique_state_dir, until,
};

/// Says where a file with axe-core is, which looks for what keeps people out.
const AXE: &str = "FROSTGATE_AXE";
/// Rows in the page, however many workspaces there are.
const ROWS_MAX: u64 = 120;

/// Whether a row is there, and says that.
const SAYS: &str = "const row = document.querySelector(`#rows [data-id=\"${arguments[0]}\"]`); \
                    return !!row && row.querySelector('.pill').textContent === arguments[1]";
const IS_GONE: &str = "return !document.querySelector(`#rows [data-id=\"${arguments[0]}\"]`)";
const IS_LIVE: &str = "return document.querySelector('#state').dataset.state === 'live'";
const COUNTS: &str =
    "return document.querySelector('#table').getAttribute('aria-rowcount') === arguments[0]";

fn at_a_desk() -> Habits {
    Habits { wide: true, ..Habits::default() }
}

fn on_a_telephone() -> Habits {
    Habits { narrow: true, ..Habits::default() }
}

async fn open(browser: &Browser, address: SocketAddr) {
    browser.client.goto(&format!("http://{address}/")).await.unwrap();
    until_shown(browser, "#token").await;
}

async fn until_shown(browser: &Browser, css: &str) {
    let script = "const found = document.querySelector(arguments[0]); \
                  return !!found && found.checkVisibility({ visibilityProperty: true })";
    browser.until_yes(&format!("{css} is shown"), script, json!([css])).await;
}

async fn log_in(browser: &Browser, token: &str) {
    let script = "document.querySelector('#token').value = arguments[0]; \
                  document.querySelector('#login-form button').click()";
    browser.ask(script, json!([token])).await;
}

async fn enter(browser: &Browser, gateway: &Gateway) {
    open(browser, gateway.admin()).await;
    log_in(browser, &gateway.token()).await;
    until_shown(browser, "#rows .name").await;
}

/// As somebody does with a finger or a mouse: what can't be pressed isn't.
async fn press(browser: &Browser, css: &str) {
    until_shown(browser, css).await;
    browser
        .until_yes(
            &format!("{css} can be pressed"),
            "const found = document.querySelector(arguments[0]); \
         if (!found || found.disabled) return false; \
         found.scrollIntoView({ block: 'center' }); found.click(); return true",
            json!([css]),
        )
        .await;
}

fn button(id: &str, act: &str) -> String {
    format!("#rows [data-id=\"{id}\"] [data-act={act}]")
}

async fn until_phase(browser: &Browser, id: &str, phase: &str) {
    browser.until_yes(&format!("{id} is {phase}"), SAYS, json!([id, phase])).await;
}

async fn until_gone(browser: &Browser, id: &str) {
    browser.until_yes(&format!("{id} is gone"), IS_GONE, json!([id])).await;
}

/// Nothing stands beyond the edge.
async fn assert_fits(browser: &Browser, what: &str) {
    let script = "return [document.scrollingElement.scrollWidth, innerWidth]";
    let widths = browser.ask(script, json!([])).await;
    assert!(widths[0].as_u64().unwrap() <= widths[1].as_u64().unwrap(), "{what}: {widths}");
}

fn some_workspaces(config: &mut Config) {
    process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
    process(config, "bob", FreezeMode::Pause, PATIENCE * 9, &[]);
    project(config, "notebook", local_process());
    config.api.storage = FrozenStorage::Unlimited;
}

/// Everything that somebody does in a day.
async fn a_day(habits: Habits) {
    let Some(browser) = Browser::open(habits).await else { return };
    let gateway = Gateway::start(some_workspaces).await;
    open(&browser, gateway.admin()).await;
    assert_fits(&browser, "the login").await;
    log_in(&browser, "wrong").await;
    browser.until("this token opens nothing").await;
    log_in(&browser, &gateway.token()).await;
    until_shown(&browser, "#rows .name").await;
    assert_fits(&browser, "the table").await;
    assert_eq!(gateway.phase("alice"), Phase::Frozen, "looking wakes nobody");

    // It wakes by a request, and freezes by itself, while one watches.
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    until_phase(&browser, "alice", "Running").await;
    browser.until("freezes in").await;
    let soon = "{\"inactivity_timeout\":\"1s\"}";
    let kind = "application/json";
    assert_eq!(gateway.send("PATCH /workspaces/alice", kind, soon).await.status, 200);
    until_phase(&browser, "alice", "Stopped").await;

    press(&browser, &button("bob", "resume")).await;
    until_phase(&browser, "bob", "Running").await;
    press(&browser, &button("bob", "stop")).await;
    until_phase(&browser, "bob", "Paused").await;
    assert_eq!(gateway.phase("bob"), Phase::Frozen);

    press(&browser, &button("bob", "policy")).await;
    until_shown(&browser, "#form #f-inactivity_timeout").await;
    assert_fits(&browser, "a policy").await;
    let set = "document.querySelector(arguments[0]).value = arguments[1]";
    browser.ask(set, json!(["#f-inactivity_timeout", "soon"])).await;
    press(&browser, "#form-yes").await;
    browser.until("is no time").await;
    browser.ask(set, json!(["#f-inactivity_timeout", "90s"])).await;
    press(&browser, "#form-yes").await;
    let timeout = || gateway.workspace("bob").policy().inactivity_timeout;
    until("it is changed", || timeout() == Some(Duration::from_secs(90))).await;
    browser
        .until_yes("it is closed", "return !document.querySelector('#form').open", json!([]))
        .await;

    press(&browser, "#create").await;
    until_shown(&browser, "#form #f-project").await;
    assert_fits(&browser, "a new workspace").await;
    browser.ask(set, json!(["#f-id", "carol"])).await;
    press(&browser, "#form-yes").await;
    until_phase(&browser, "carol", "Running").await;
    assert_eq!(gateway.workspace("carol").project(), Some("notebook"));

    // Its own page.
    press(&browser, "#rows [data-id=carol] .name").await;
    browser.until("Awake and idle: it will be frozen in").await;
    until_shown(&browser, ".timeline svg").await;
    until_shown(&browser, ".wakes svg").await;
    browser.until("listens on port").await;
    press(&browser, "#detail [data-act=keep]").await;
    browser.until("Kept awake until").await;
    assert!(gateway.workspace("carol").view().kept_until.is_some());
    assert_fits(&browser, "its page").await;
    press(&browser, "#detail .back").await;
    let pressed = format!("{}[aria-pressed=true]", button("carol", "keep"));
    press(&browser, &pressed).await;
    until("it is kept awake no longer", || gateway.workspace("carol").view().kept_until.is_none())
        .await;
    let shown = "return !!document.querySelector('#rows [data-id=carol] .memory').textContent";
    browser.until_yes("what it uses is told", shown, json!([])).await;

    press(&browser, &button("carol", "remove")).await;
    until_shown(&browser, "#ask[open]").await;
    assert_fits(&browser, "a question").await;
    press(&browser, "#ask [data-close]").await;
    assert_eq!(gateway.phase("carol"), Phase::Running, "nothing was said yet");
    press(&browser, &button("carol", "remove")).await;
    press(&browser, "#ask-yes").await;
    until_gone(&browser, "carol").await;
    assert!(gateway.app().registry().get("carol").is_none());

    press(&browser, "#logout").await;
    until_shown(&browser, "#token").await;
    assert_eq!(
        browser.ask("return document.querySelectorAll('#rows .name').length", json!([])).await,
        0
    );
    browser.client.refresh().await.unwrap();
    until_shown(&browser, "#token").await;
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_at_a_desk() {
    a_day(at_a_desk()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_on_a_telephone() {
    a_day(on_a_telephone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colours_are_those_of_the_system_until_somebody_chooses() {
    let colour = "return getComputedStyle(document.body).backgroundColor";
    let (light, dark) = ("rgb(244, 247, 251)", "rgb(12, 19, 27)");
    for (is_dark, own, other) in [(false, light, dark), (true, dark, light)] {
        let habits = Habits { dark: is_dark, ..at_a_desk() };
        let Some(browser) = Browser::open(habits).await else { return };
        let gateway = Gateway::start(some_workspaces).await;
        enter(&browser, &gateway).await;
        assert_eq!(browser.ask(colour, json!([])).await, own);
        // From the system's to light to dark.
        for _ in 0..(if is_dark { 1 } else { 2 }) {
            press(&browser, "#theme").await;
        }
        assert_eq!(browser.ask(colour, json!([])).await, other);
        browser.client.refresh().await.unwrap();
        until_shown(&browser, "#rows .name").await;
        assert_eq!(browser.ask(colour, json!([])).await, other, "it is remembered");
        browser.close().await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_only_read_is_offered_nothing_else() {
    let Some(browser) = Browser::open(at_a_desk()).await else { return };
    let gateway = Gateway::start(some_workspaces).await;
    let body = "{\"name\":\"reader\",\"scope\":\"read\"}";
    let made = gateway.send("POST /api/v1/tokens", "application/json", body).await;
    open(&browser, gateway.admin()).await;
    log_in(&browser, made.json()["token"].as_str().unwrap()).await;
    until_shown(&browser, "#rows .name").await;
    browser.until("Live, read only").await;
    let script = "return [document.querySelectorAll('#rows button').length, \
                  document.querySelector('#create').checkVisibility()]";
    assert_eq!(browser.ask(script, json!([])).await, json!([0, false]));
    press(&browser, "#rows [data-id=alice] .name").await;
    until_shown(&browser, ".timeline").await;
    let script = "return document.querySelectorAll('#detail .head button').length";
    assert_eq!(browser.ask(script, json!([])).await, 0);
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_name_without_tls_it_works_where_the_name_is_ours_and_says_why_where_not() {
    let Some(browser) = Browser::open(at_a_desk()).await else { return };
    for is_ours in [true, false] {
        let gateway = Gateway::start(|config| {
            some_workspaces(config);
            config.api.hosts.extend(is_ours.then(|| PLAIN_NAME.to_owned()));
        })
        .await;
        let url = format!("http://{PLAIN_NAME}:{}/", gateway.admin().port());
        browser.client.goto(&url).await.unwrap();
        until_shown(&browser, "#token").await;
        // Until it is told that nobody is logged in.
        browser
            .until_yes("it asks", "return document.activeElement.id === 'token'", json!([]))
            .await;
        log_in(&browser, &gateway.token()).await;
        if is_ours {
            press(&browser, &button("bob", "resume")).await;
            until_phase(&browser, "bob", "Running").await;
        } else {
            browser.until("is no name of this gateway").await;
        }
        gateway.stop().await;
    }
    browser.close().await;
}

/// Passes connections on while the last value is true, and cuts them when it turns false.
async fn relay(to: SocketAddr, works: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut works = works.clone();
            tokio::spawn(async move {
                if !*works.borrow_and_update() {
                    return;
                }
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = works.wait_for(|works| !works) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_is_made_again_and_all_is_read_afresh() {
    let Some(browser) = Browser::open(at_a_desk()).await else { return };
    let gateway = Gateway::start(some_workspaces).await;
    let (works, is_working) = watch::channel(true);
    let address = relay(gateway.admin(), is_working).await;
    open(&browser, address).await;
    log_in(&browser, &gateway.token()).await;
    until_shown(&browser, "#rows .name").await;
    browser.until_yes("it is live", IS_LIVE, json!([])).await;
    works.send_replace(false);
    browser.until("Reconnecting…").await;
    // What happens meanwhile is not missed.
    assert_eq!(gateway.call("PUT", "/workspaces/bob/resume").await.status, 200);
    assert_eq!(gateway.call("DELETE", "/workspaces/alice").await.status, 204);
    works.send_replace(true);
    until_phase(&browser, "bob", "Running").await;
    until_gone(&browser, "alice").await;
    browser.until_yes("it is live", IS_LIVE, json!([])).await;
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_workspaces_those_in_view_are_in_the_page() {
    let Some(browser) = Browser::open(at_a_desk()).await else { return };
    let gateway = Gateway::start(|config| {
        for number in 0..10_000 {
            let argv = vec!["nothing".to_owned()];
            let spec = Spec::new(Runs::Command { argv, directory: None });
            add(config, &format!("w{number:04}"), spec, PolicyOverrides::default());
        }
    })
    .await;
    enter(&browser, &gateway).await;
    let rows = "return document.querySelectorAll('#rows tr').length";
    let shown = async || browser.ask(rows, json!([])).await.as_u64().unwrap();
    browser.until_yes("all are counted", COUNTS, json!(["10001"])).await;
    assert!(shown().await < ROWS_MAX, "{} rows", shown().await);
    browser.ask("scrollTo(0, document.scrollingElement.scrollHeight)", json!([])).await;
    until_shown(&browser, "#rows [data-id=w9999]").await;
    assert!(shown().await < ROWS_MAX, "{} rows", shown().await);
    let index =
        "return document.querySelector('#rows [data-id=w9999]').getAttribute('aria-rowindex')";
    assert_eq!(browser.ask(index, json!([])).await, "10001");
    let find = "const find = document.querySelector('#find'); find.value = arguments[0]; \
                find.dispatchEvent(new Event('input', { bubbles: true }))";
    browser.ask(find, json!(["w123"])).await;
    browser.until_yes("ten are left", COUNTS, json!(["11"])).await;
    browser.ask(find, json!([""])).await;
    // The keys go on beyond what is in the page.
    let down = "const row = document.activeElement.closest('tr') || document.querySelector('#rows tr:not(.space)'); \
                const name = row.querySelector('.name'); name.focus(); \
                for (let n = 0; n < 100; n++) document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowDown', bubbles: true })); \
                return document.activeElement.closest('tr').dataset.id";
    browser.ask("scrollTo(0, 0)", json!([])).await;
    until_shown(&browser, "#rows [data-id=w0000]").await;
    assert_eq!(browser.ask(down, json!([])).await, "w0100");
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_workspaces_are_painted_soon() {
    let Some(browser) = Browser::open(at_a_desk()).await else { return };
    let gateway = Gateway::start(|config| {
        for number in 0..1_000 {
            let argv = vec!["nothing".to_owned()];
            let spec = Spec::new(Runs::Command { argv, directory: None });
            add(config, &format!("w{number:04}"), spec, PolicyOverrides::default());
        }
    })
    .await;
    enter(&browser, &gateway).await;
    browser.client.refresh().await.unwrap();
    until_shown(&browser, "#rows .name").await;
    let script = "return [...performance.getEntriesByType('paint'), \
                  ...performance.getEntriesByName('rows')].map(one => [one.name, one.startTime])";
    let painted = browser.ask(script, json!([])).await;
    // Said, and not judged: that depends on who else is busy here.
    println!("painted after {painted} ms");
    assert!(painted.as_array().is_some_and(|painted| !painted.is_empty()));
    browser.close().await;
    gateway.stop().await;
}

/// What axe-core finds that is serious or worse.
async fn offences(browser: &Browser, axe: &str) -> Value {
    browser.ask(axe, json!([])).await;
    let run = "const done = arguments[arguments.length - 1]; \
               axe.run(document, { resultTypes: ['violations'] }).then(result => done(result.violations \
                 .filter(found => ['serious', 'critical'].includes(found.impact)) \
                 .map(found => [found.id, found.nodes.map(node => node.html + ' ' + node.failureSummary)])))";
    browser.client.execute_async(run, vec![]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_kept_out() {
    let Some(axe) = std::env::var_os(AXE) else {
        return skipped("FROSTGATE_AXE names no file with axe-core");
    };
    let axe = std::fs::read_to_string(axe).unwrap();
    for habits in [at_a_desk(), Habits { dark: true, ..at_a_desk() }, on_a_telephone()] {
        let Some(browser) = Browser::open(habits).await else { return };
        let gateway = Gateway::start(some_workspaces).await;
        open(&browser, gateway.admin()).await;
        assert_eq!(offences(&browser, &axe).await, json!([]), "the login");
        log_in(&browser, &gateway.token()).await;
        assert_eq!(gateway.get("alice", "/").await.status, 200);
        until_phase(&browser, "alice", "Running").await;
        assert_eq!(offences(&browser, &axe).await, json!([]), "the table");
        press(&browser, &button("alice", "policy")).await;
        until_shown(&browser, "#form #f-inactivity_timeout").await;
        assert_eq!(offences(&browser, &axe).await, json!([]), "a policy");
        press(&browser, "#form [data-close]").await;
        press(&browser, &button("alice", "remove")).await;
        assert_eq!(offences(&browser, &axe).await, json!([]), "a question");
        press(&browser, "#ask [data-close]").await;
        press(&browser, "#rows [data-id=alice] .name").await;
        until_shown(&browser, ".timeline svg").await;
        assert_eq!(offences(&browser, &axe).await, json!([]), "its page");
        browser.close().await;
        gateway.stop().await;
    }
}

/// Sixteen workspaces of a team that has been at work for a day. Every third is paused when idle.
const TEAM: [&str; 16] = [
    "alice",
    "atlas-docs",
    "bob",
    "build-cache",
    "carol",
    "dave",
    "erin",
    "frank",
    "grafana",
    "heidi",
    "ivan",
    "judy",
    "mallory",
    "notes",
    "olivia",
    "review-412",
];

/// A day that is over, every ten minutes of it.
async fn keep_a_day(state_dir: &Path) {
    secrets::make_state_dir(state_dir).unwrap();
    let store = Sqlite::open(state_dir).unwrap();
    let now = SystemTime::now();
    for minutes in (0_u32..24 * 60).step_by(10) {
        // More are awake in the middle of the day, and now and then one more.
        let noon = (f64::from(minutes) / 1_440.0 * std::f64::consts::PI).sin();
        let some = (f64::from(minutes) / 61.0).sin() + (f64::from(minutes) / 23.0).cos();
        let running = (noon * 8.0 + some).max(0.0) as u32;
        let frozen = TEAM.len() as u32 - running;
        let at = now - Duration::from_secs(u64::from(24 * 60 - minutes) * 60);
        let memory_saved = u64::from(frozen) * 420 * 1024 * 1024;
        store.note_moment(Moment { at, running, frozen, memory_saved }).await.unwrap();
    }
}

/// For the documentation; see `Browser::picture`.
async fn picture(habits: Habits, name: &str) {
    let Some(browser) = Browser::open(habits).await else { return };
    let mut config = config(unique_state_dir());
    keep_a_day(&config.state_dir).await;
    for (number, id) in TEAM.into_iter().enumerate() {
        let mode = if number % 3 == 1 { FreezeMode::Pause } else { FreezeMode::Stop };
        let idle = Duration::from_secs(15 * 60 + 97 * number as u64);
        process(&mut config, id, mode, idle, &[]);
    }
    config.limits.slots = 12;
    let gateway = Gateway::start_as(config).await;
    let at_work = [("alice", 41), ("bob", 12), ("carol", 7), ("grafana", 23), ("olivia", 4)];
    let at_rest = [("dave", 16), ("frank", 9), ("heidi", 31), ("notes", 5), ("review-412", 11)];
    for (id, mib) in at_work.into_iter().chain(at_rest) {
        assert_eq!(gateway.get(id, &format!("/allocate?mib={mib}")).await.status, 200);
    }
    for (id, _) in at_rest {
        assert_eq!(gateway.call("PUT", &format!("/workspaces/{id}/stop")).await.status, 200);
    }
    assert_eq!(gateway.call("PUT", "/workspaces/carol/keep").await.status, 200);
    let mut inside = Vec::new();
    for id in ["alice", "alice", "grafana"] {
        let mut client = Client::connect(gateway.public()).await;
        let head = format!("GET /wait?ms=600000 HTTP/1.1\r\nHost: {id}.localhost\r\n\r\n");
        client.send(head).await;
        inside.push(client);
    }
    inside.extend(Client::websocket(gateway.public(), "alice").await);
    until("alice is in use", || gateway.workspace("alice").view().inside == 3).await;
    enter(&browser, &gateway).await;
    browser.until("while it is in use").await;
    let shown = "return ['memory', 'cpu'].every(what => \
                 document.querySelector(`#rows [data-id=alice] .${what}`).textContent)";
    browser.until_yes("what it uses is told", shown, json!([])).await;
    until_shown(&browser, "#running-plot .line").await;
    // What was said is over.
    browser
        .until_yes("no note is left", "return !document.querySelector('#notes p')", json!([]))
        .await;
    browser.picture(name).await;
    assert_fits(&browser, name).await;
    browser.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_looks_as_in_the_documentation() {
    picture(at_a_desk(), "dashboard").await;
    picture(Habits { dark: true, ..at_a_desk() }, "dashboard-dark").await;
    picture(on_a_telephone(), "dashboard-phone").await;
}
