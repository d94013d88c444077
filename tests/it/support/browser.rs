//! A real browser: Chromium without a window, driven through its own driver.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, skipped};

const CHROMIUM: &str = "/usr/bin/chromium";
const DRIVER: &str = "/usr/bin/chromedriver";
/// Says that a browser has to be there.
const REQUIRE: &str = "FROSTGATE_REQUIRE_BROWSER";
/// Says that pictures are to be kept, in `docs/images`.
const PICTURES: &str = "FROSTGATE_SCREENSHOTS";
/// A name that leads to this machine, for the browser alone.
pub(crate) const PLAIN_NAME: &str = "gate.test";
/// A browser that starts while others are busy takes its time.
const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

/// What kind of person sits in front of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Habits {
    pub(crate) without_scripts: bool,
    pub(crate) dark: bool,
    /// As narrow as a telephone.
    pub(crate) narrow: bool,
    /// As wide as a desk.
    pub(crate) wide: bool,
}

pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    profile: PathBuf,
}

impl Browser {
    /// `None`: there is no browser here, and none is required; that was said.
    pub(crate) async fn open(habits: Habits) -> Option<Self> {
        if !Path::new(CHROMIUM).exists() || !Path::new(DRIVER).exists() {
            assert!(std::env::var_os(REQUIRE).is_none(), "{CHROMIUM} or {DRIVER} is missing");
            skipped("there is no chromium with its chromium-driver");
            return None;
        }
        let profile = super::unique_state_dir().with_extension("browser");
        std::fs::create_dir_all(&profile).unwrap();
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("successfully on port ")?;
            rest.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("the driver says where it listens");
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options(habits, &profile));
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self { client, driver, profile })
    }

    pub(crate) async fn text(&self, id: &str) -> String {
        let script = "const e = document.getElementById(arguments[0]); return e ? e.innerText : ''";
        self.ask(script, json!([id])).await.as_str().unwrap_or_default().to_owned()
    }

    /// What a script says.
    pub(crate) async fn ask(&self, script: &str, arguments: Value) -> Value {
        let arguments = arguments.as_array().cloned().unwrap_or_default();
        self.client.execute(script, arguments).await.unwrap_or(Value::Null)
    }

    /// Waits until the page says that somewhere.
    pub(crate) async fn until(&self, words: &str) {
        let deadline = Instant::now() + BROWSER_PATIENCE;
        loop {
            let page = self.client.source().await.unwrap_or_default();
            if page.contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "never {words:?}: {page}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a script says yes.
    pub(crate) async fn until_yes(&self, what: &str, script: &str, arguments: Value) {
        let deadline = Instant::now() + BROWSER_PATIENCE;
        while self.ask(script, arguments.clone()).await != Value::Bool(true) {
            if Instant::now() >= deadline {
                let page = self.ask("return document.body.innerText", json!([])).await;
                panic!("waited in vain until {what}: {page}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps a picture of what is to be seen, if pictures are wanted.
    pub(crate) async fn picture(&self, name: &str) {
        if std::env::var_os(PICTURES).is_none() {
            return;
        }
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
        std::fs::create_dir_all(&directory).unwrap();
        let picture = self.client.screenshot().await.unwrap();
        std::fs::write(directory.join(format!("{name}.png")), picture).unwrap();
    }

    pub(crate) async fn close(self) {
        // What is left of it ends with the driver.
        drop(tokio::time::timeout(PATIENCE, self.client.clone().close()).await);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.driver.kill());
        drop(self.driver.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}

fn options(habits: Habits, profile: &Path) -> Value {
    let size = match habits {
        Habits { narrow: true, .. } => "390,844",
        Habits { wide: true, .. } => "1440,1000",
        Habits { .. } => "1280,800",
    };
    let mut arguments = vec![
        "--headless=new".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--hide-scrollbars".to_owned(),
        format!("--window-size={size}"),
        format!("--user-data-dir={}", profile.display()),
        // A name to which browsers grant nothing, as they do to localhost.
        format!("--host-resolver-rules=MAP {PLAIN_NAME} 127.0.0.1"),
    ];
    if habits.dark {
        arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    let mut options = json!({ "binary": CHROMIUM, "args": arguments });
    if habits.narrow {
        let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 2.0, "mobile": true });
        options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
    }
    if habits.without_scripts {
        options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
    }
    options
}
