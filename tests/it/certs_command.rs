//! `frostgate certs`: what it makes is served and trusted, and nothing is written over unasked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::support::{Gateway, try_tls, unique_state_dir};

/// A directory with a configuration, which goes with it.
struct Place(PathBuf);

impl Place {
    fn new(config: &str) -> Self {
        let directory = unique_state_dir();
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("frostgate.toml"), config).unwrap();
        Self(directory)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frostgate"));
        command.current_dir(&self.0).env_clear().env("HOME", &self.0).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, which must succeed, and returns what it says.
    fn certs(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["certs"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("certs").join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A client that trusts the authority in that file.
fn trusting(authority: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Arc::new(config).into()
}

/// A gateway with the certificates of that place.
async fn serving(place: &Place) -> Gateway {
    let directory = place.0.join("certs");
    Gateway::start(|config| {
        config.listen.tls = vec!["127.0.0.1:0".parse().unwrap()];
        config.tls.directory = Some(directory);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_makes_is_served_and_trusted_and_renewed_by_the_same_authority() {
    let place = Place::new(
        "[routing]\ndomain = \"dev.localhost\"\nadmin_host = \"admin.localhost\"\n\
         [workspaces.alice]\nimage = \"i\"\n",
    );
    let told = place.certs(&["extra.test"]);
    for words in ["certs/dev.localhost.crt", "Debian", "Firefox", "macOS", "certs/ca.crt"] {
        assert!(told.contains(words), "{told}");
    }
    for (name, expected) in
        [("ca.key", 0o600), ("dev.localhost.key", 0o600), ("dev.localhost.crt", 0o644)]
    {
        assert_eq!(mode(&place.file(name)), expected, "{name}");
    }
    let gateway = serving(&place).await;
    let client = trusting(&place.file("ca.crt"));
    let hosts = [
        "dev.localhost",
        "alice.dev.localhost",
        "anybody.dev.localhost",
        "admin.localhost",
        "localhost",
        "127.0.0.1",
        "::1",
        "extra.test",
    ];
    for host in hosts {
        try_tls(&client, gateway.tls(), host)
            .await
            .unwrap_or_else(|error| panic!("{host}: {error}"));
    }
    assert!(try_tls(&client, gateway.tls(), "example.com").await.is_err());

    // Nothing is written over unasked.
    let read = |name: &str| fs::read(place.file(name)).unwrap();
    let before: Vec<_> =
        ["ca.crt", "ca.key", "dev.localhost.crt", "dev.localhost.key"].map(read).into();
    let refused = error(&place.run(&["certs"]));
    assert!(refused.contains("certs/dev.localhost.crt is there already; --force"), "{refused}");
    let now: Vec<_> =
        ["ca.crt", "ca.key", "dev.localhost.crt", "dev.localhost.key"].map(read).into();
    assert!(now == before, "files have changed");
    place.certs(&["--force"]);
    assert!(read("ca.crt") == before[0] && read("ca.key") == before[1], "another authority");
    assert!(read("dev.localhost.crt") != before[2] && read("dev.localhost.key") != before[3]);
    gateway.app().reload_certificates();
    try_tls(&client, gateway.tls(), "alice.dev.localhost").await.unwrap();
    assert!(try_tls(&client, gateway.tls(), "extra.test").await.is_err(), "the old one is served");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workspaces_are_named_where_no_wildcard_is_accepted() {
    let place = Place::new("[workspaces.alice]\nimage = \"i\"\n");
    let told = place.certs(&[]);
    assert!(told.contains("*.localhost, alice.localhost,"), "{told}");
    assert!(told.contains("accept no *.localhost"), "{told}");
    let gateway = serving(&place).await;
    let client = trusting(&place.file("ca.crt"));
    for host in ["localhost", "alice.localhost"] {
        try_tls(&client, gateway.tls(), host)
            .await
            .unwrap_or_else(|error| panic!("{host}: {error}"));
    }
    gateway.stop().await;
}

#[test]
fn what_can_not_be_made_is_said() {
    let place = Place::new("");
    place.certs(&[]);
    fs::remove_file(place.file("localhost.crt")).unwrap();
    // The key of another authority.
    let other = Place::new("");
    other.certs(&["--directory", "elsewhere"]);
    fs::copy(other.0.join("elsewhere/ca.key"), place.file("ca.key")).unwrap();
    let told = error(&place.run(&["certs"]));
    assert!(told.contains("clients that trust the authority in certs/ca.crt would not"), "{told}");
    assert!(!place.file("localhost.crt").exists());
    fs::remove_file(place.file("ca.key")).unwrap();
    let told = error(&place.run(&["certs"]));
    assert!(told.contains("could not read certs/ca.key"), "{told}");
    let told = error(&other.run(&["certs", "not a host"]));
    assert!(told.contains("\"not a host\" is no host"), "{told}");
    assert!(!other.file("localhost.crt").exists());
}

#[test]
fn the_check_of_the_configuration_looks_at_certificates_too() {
    let place = Place::new("[listen]\ntls = [\"127.0.0.1:0\"]\n");
    let check = || place.run(&["check-config"]);
    assert!(error(&check()).contains("frostgate certs"));
    place.certs(&[]);
    assert!(check().status.success());
    fs::copy(place.file("ca.key"), place.file("localhost.key")).unwrap();
    let told = error(&check());
    assert!(told.contains("certs/localhost.crt: the key in localhost.key is not"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_that_call_the_api_know_it_by_its_certificates() {
    let place = Place::new("");
    place.certs(&[]);
    let gateway = Gateway::start(|config| {
        config.listen.admin_tls = true;
        config.tls.directory = Some(place.0.join("certs"));
    })
    .await;
    let (admin, state) = (gateway.admin(), gateway.state_dir());
    let text = format!(
        "state_dir = {state:?}\n[listen]\nadmin = \"{admin}\"\nadmin_tls = true\nadmin_socket = false\n"
    );
    fs::write(place.0.join("frostgate.toml"), &text).unwrap();
    let list = place.run(&["token", "list"]);
    assert!(list.status.success(), "{list:?}");
    // Others are known by who vouches for them.
    let mut elsewhere = place.command(&["token", "list", "--url", &format!("https://{admin}")]);
    let stranger = elsewhere.output().unwrap();
    assert!(!stranger.status.success(), "{stranger:?}");
    let trusted = elsewhere.env("SSL_CERT_FILE", place.file("ca.crt")).output().unwrap();
    assert!(trusted.status.success(), "{trusted:?}");
    // One with other certificates is an impostor.
    place.certs(&["--directory", "others"]);
    let text = format!("{text}[tls]\ndirectory = \"others\"\n");
    fs::write(place.0.join("frostgate.toml"), text).unwrap();
    let told = place.run(&["token", "list"]);
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("no gateway answers at ") && told.contains("UnknownIssuer"), "{told}");
    gateway.stop().await;
}
