//! The API's description: what is served is what is stored, and what it promises holds.

use std::path::Path;

use crate::support::{Gateway, get};

const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/openapi.json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_is_what_is_served() {
    let gateway = Gateway::start(|_| {}).await;
    let served = get(gateway.admin(), "admin", "/openapi.json").await;
    assert_eq!((served.status, served.header("content-type")), (200, Some("application/json")));
    if std::env::var_os("FROSTGATE_BLESS").is_some() {
        std::fs::create_dir_all(Path::new(STORED).parent().unwrap()).unwrap();
        std::fs::write(STORED, &served.body).unwrap();
    }
    let stored = std::fs::read_to_string(STORED).unwrap_or_default();
    let served_text = served.text();
    let first = stored.lines().zip(served_text.lines()).find(|(stored, served)| stored != served);
    assert!(
        stored == served_text,
        "run FROSTGATE_BLESS=1 cargo test reference; the first difference: {first:?}"
    );
    let again = get(gateway.admin(), "admin", "/api/v1/openapi.json").await;
    assert_eq!(again.body, served.body);
    gateway.stop().await;
}
