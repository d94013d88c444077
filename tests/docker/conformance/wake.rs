//! Whoever comes back to a frozen workspace.

use serde_json::json;
use tokio::task::JoinSet;

use super::Town;
use crate::images::engine;
use crate::support::{Client, get};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_who_come_at_once_cause_one_start_and_lose_nothing_that_they_sent() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let guest = town.guest(json!({ "max_inactive_storage_time": "1h" })).await;
    town.patch(&guest, json!({ "inactivity_timeout": "300ms" })).await;
    town.until_status(&guest, "exited").await;
    town.patch(&guest, json!({ "inactivity_timeout": "1h" })).await;
    let host = format!("{}.localhost", guest.id);
    let public = town.program.public;
    let mut visitors = JoinSet::new();
    for number in 0..100_usize {
        let host = host.clone();
        visitors.spawn(async move {
            if number % 2 == 0 {
                let reply = get(public, &host, "/boot").await;
                return (reply.status, reply.body.len() == 16);
            }
            let body = vec![b'a' + (number % 26) as u8; number * 1_000];
            let mut client = Client::connect(public).await;
            let length = body.len();
            let head = format!("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}");
            client.send(format!("{head}\r\n\r\n")).await;
            client.send(&body).await;
            let reply = client.reply().await;
            (reply.status, reply.body == body)
        });
    }
    let answers = visitors.join_all().await;
    assert_eq!(answers, vec![(200, true); 100]);
    assert_eq!(town.moments(&guest, "start").len(), 2, "the first start was its creation's");
}
