//! Certificates that change while they are used: a right one is taken over, a wrong one is told, and
//! no connection is lost either way.

use std::fs;
use std::time::{Duration, SystemTime};

use frostgate::app::App;
use frostgate::config::CertificatePair;
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep};

use crate::support::{
    Authority, Client, Gateway, Origin, PATIENCE, config, get, gullible, ok, secure, tls,
    unique_state_dir, upstream,
};

const HOST: &str = "alice.localhost";
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn gateway(authority: &Authority) -> (Gateway, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, authority);
    })
    .await;
    (gateway, origin)
}

async fn given(gateway: &Gateway, host: &str) -> CertificateDer<'static> {
    let stream = tls(&gullible(), gateway.tls(), host).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// Waits until new connections get that certificate.
async fn until_given(gateway: &Gateway, host: &str, certificate: &CertificateDer<'_>) {
    let deadline = Instant::now() + PATIENCE;
    while given(gateway, host).await != *certificate {
        assert!(Instant::now() < deadline, "{host} still gets another certificate");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What `/readyz?verbose` says of the certificates: their status and its detail. The metrics say
/// the same.
async fn told(gateway: &Gateway) -> (String, String) {
    let reply = get(gateway.admin(), "admin", "/readyz?verbose").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let readiness = reply.json();
    assert_eq!(readiness["status"], "ready");
    let checks = readiness["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "certificates").unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    let degraded = u8::from(text("status") == "degraded");
    let metric = format!("frostgate_degraded{{part=\"certificates\"}} {degraded}\n");
    let metrics = get(gateway.admin(), "admin", "/metrics").await;
    // They may change between the two.
    if readiness == get(gateway.admin(), "admin", "/readyz?verbose").await.json() {
        assert!(metrics.text().contains(&metric), "no {metric} in {}", metrics.text());
    }
    (text("status"), text("detail"))
}

async fn until_told(gateway: &Gateway, status: &str, detail: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = told(gateway).await;
        if now.0 == status && now.1.contains(detail) {
            assert!(!now.1.contains('/'), "it tells of directories: {}", now.1);
            return;
        }
        assert!(Instant::now() < deadline, "not {status}, {detail:?}, but {now:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_given_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::with(&[HOST]);
    let (gateway, _origin) = gateway(&authority).await;
    let stream = tls(&authority.client(&["http/1.1"]), gateway.tls(), HOST).await;
    let mut old = Client::over(stream);
    for round in 0..3 {
        let renewed = authority.certify("a", &[HOST]);
        until_given(&gateway, HOST, &renewed).await;
        old.send(format!("GET /{round} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        assert_eq!(old.reply().await.text(), format!("/{round}"));
    }
    // Another is added, and taken away.
    let bob = authority.certify("bob", &["bob.localhost"]);
    until_given(&gateway, "bob.localhost", &bob).await;
    fs::remove_file(authority.directory.join("bob.crt")).unwrap();
    fs::remove_file(authority.directory.join("bob.key")).unwrap();
    let first = given(&gateway, HOST).await;
    until_given(&gateway, "bob.localhost", &first).await;
    // A whole directory in place of another.
    let another = Authority::with(&[HOST]);
    let moved = authority.directory.with_extension("moved");
    fs::rename(&authority.directory, &moved).unwrap();
    fs::rename(&another.directory, &authority.directory).unwrap();
    fs::remove_dir_all(moved).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while given(&gateway, HOST).await == first {
        assert!(Instant::now() < deadline, "the old directory's is still given");
        sleep(Duration::from_millis(20)).await;
    }
    // And that is watched too.
    let renewed = another.certify_until(
        &authority.directory.join("a"),
        &[HOST],
        SystemTime::now() + 1_000 * HOUR,
    );
    until_given(&gateway, HOST, &renewed).await;
    until_told(&gateway, "ok", "1 used").await;
    old.send(format!("GET /end HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(old.reply().await.text(), "/end");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_is_told_and_the_one_before_it_stays() {
    let authority = Authority::new();
    let other = authority.certify("other", &["other.localhost"]);
    let file = |name: &str| authority.directory.join(name);
    let right = authority.certify("a", &[HOST]);
    let (gateway, _origin) = gateway(&authority).await;
    let (cert, key) = (fs::read(file("a.crt")).unwrap(), fs::read(file("a.key")).unwrap());
    let put_back = || {
        fs::write(file("a.crt"), &cert).unwrap();
        fs::write(file("a.key"), &key).unwrap();
    };
    let expired = || {
        authority.certify_until(&file("a"), &[HOST], SystemTime::now() - HOUR);
    };
    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let changes: [Change<'_>; 8] = [
        (
            "a.crt: the key in a.key is not that",
            Box::new(|| {
                fs::copy(file("other.key"), file("a.key")).unwrap();
            }),
        ),
        (
            "a.crt: there is no certificate in PEM",
            Box::new(|| fs::write(file("a.crt"), "hello").unwrap()),
        ),
        (
            "a.crt: there is no certificate in PEM",
            Box::new(|| fs::write(file("a.crt"), &cert[..cert.len() / 2]).unwrap()),
        ),
        (
            "a.crt: it can't be read",
            Box::new(|| {
                fs::write(
                    file("a.crt"),
                    "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
                )
                .unwrap()
            }),
        ),
        (
            "a.crt: there is no private key in PEM in a.key",
            Box::new(|| fs::write(file("a.key"), &key[..key.len() / 2]).unwrap()),
        ),
        ("a.crt: a.key could not be read", Box::new(|| fs::remove_file(file("a.key")).unwrap())),
        ("a.crt: a.crt could not be read", Box::new(|| fs::remove_file(file("a.crt")).unwrap())),
        ("a.crt: it is valid from", Box::new(expired)),
    ];
    for (reason, change) in &changes {
        change();
        until_told(&gateway, "degraded", reason).await;
        assert!(given(&gateway, HOST).await == right, "{reason}");
        assert!(given(&gateway, "other.localhost").await == other, "{reason}");
        put_back();
        until_told(&gateway, "ok", "2 used").await;
    }
    // What is wrong with one keeps no other from being renewed.
    fs::write(file("a.crt"), "hello").unwrap();
    let renewed = authority.certify("other", &["other.localhost"]);
    until_given(&gateway, "other.localhost", &renewed).await;
    assert!(given(&gateway, HOST).await == right);
    // Nothing at all is no reason to have nothing.
    fs::remove_dir_all(&authority.directory).unwrap();
    until_told(&gateway, "degraded", "looked through").await;
    fs::create_dir(&authority.directory).unwrap();
    until_told(&gateway, "degraded", "none are left").await;
    assert!(given(&gateway, HOST).await == right);
    put_back();
    until_told(&gateway, "ok", "1 used").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_elsewhere_are_followed_through_links() {
    let authority = Authority::new();
    let store = authority.directory.join("store");
    fs::create_dir_all(store.join("1")).unwrap();
    fs::create_dir(store.join("2")).unwrap();
    let month = SystemTime::now() + 30 * 24 * HOUR;
    let first = authority.certify_until(&store.join("1/a"), &[HOST], month);
    let second = authority.certify_until(&store.join("2/a"), &[HOST], month);
    let live = authority.directory.join("live");
    fs::create_dir(&live).unwrap();
    let link = |number: u8| {
        for kind in ["crt", "key"] {
            let aside = live.join("aside");
            let target = store.join(format!("{number}/a.{kind}"));
            std::os::unix::fs::symlink(target, &aside).unwrap();
            fs::rename(&aside, live.join(format!("a.{kind}"))).unwrap();
        }
    };
    link(1);
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.tls.directory = None;
        config.tls.certificates =
            vec![CertificatePair { cert: live.join("a.crt"), key: live.join("a.key") }];
    })
    .await;
    assert!(given(&gateway, HOST).await == first);
    link(2);
    until_given(&gateway, HOST, &second).await;
    // What a link leads to may change as well.
    let third = authority.certify_until(&store.join("2/a"), &[HOST], month);
    until_given(&gateway, HOST, &third).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_soon_is_told() {
    let authority = Authority::new();
    let soon = SystemTime::now() + 24 * HOUR;
    authority.certify_until(&authority.directory.join("a"), &[HOST], soon);
    let (gateway, _origin) = gateway(&authority).await;
    until_told(&gateway, "degraded", "a.crt: it ends ").await;
    // An expired one is better than none.
    let past = SystemTime::now() - HOUR;
    let expired = authority.certify_until(&authority.directory.join("b"), &["b.localhost"], past);
    until_given(&gateway, "b.localhost", &expired).await;
    until_told(&gateway, "degraded", "b.crt: it is not valid now").await;
    let plain = get(gateway.admin(), "admin", "/readyz").await;
    assert_eq!(plain.text(), "{\"status\":\"ready\",\"checks\":null}\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_usable_certificates_fails_and_says_which() {
    let authority = Authority::new();
    let directory = authority.directory.clone();
    let start = async || {
        let mut config = config(unique_state_dir());
        secure(&mut config, &authority);
        match App::start(config).await {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    };
    let error = start().await;
    assert!(error.contains("there is none in") && error.contains("frostgate certs"), "{error}");
    authority.certify("a", &[HOST]);
    authority.certify("b", &[HOST]);
    fs::copy(directory.join("a.key"), directory.join("b.key")).unwrap();
    fs::remove_file(directory.join("a.key")).unwrap();
    let error = start().await;
    assert!(error.contains("a.crt: a.key could not be read"), "{error}");
    assert!(error.contains("b.crt: the key in b.key is not that"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
    let error = start().await;
    assert!(error.contains("could not look for them in"), "{error}");
}
