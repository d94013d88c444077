//! One client: it creates workspaces of its own, changes, stops, resumes and removes them, has them
//! report, and visits everybody's. It goes on until nobody answers any more.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::ledger::{Fate, Kind, Ledger};
use crate::support::program::call;
use crate::support::{Client, Dice, Reply};

/// Workspaces that a client has at a time.
const OWN_MAX: usize = 3;

pub(super) struct Caller {
    /// Its workspaces' ids begin with that.
    pub(super) name: String,
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) token: String,
    pub(super) dice: Dice,
    pub(super) ledger: Arc<Mutex<Ledger>>,
}

impl Caller {
    pub(super) async fn run(mut self) {
        while self.step().await.is_some() {}
    }

    /// `None`: nobody answers any more.
    async fn step(&mut self) -> Option<()> {
        let own = self.own();
        let Some(id) = self.dice.pick(&own) else { return self.create().await };
        match self.dice.roll(20) {
            0..3 if own.len() < OWN_MAX => self.create().await,
            3..5 => self.patch(id).await,
            5..7 => self.stop(id).await,
            7..9 => self.resume(id).await,
            9 => self.remove(id).await,
            10..13 => self.report(id).await,
            13 => self.stay().await,
            _ => self.visit().await,
        }
    }

    async fn create(&mut self) -> Option<()> {
        let (kind, mut fields) = match self.dice.roll(5) {
            0 | 1 => (Kind::Steady, json!({ "inactivity_timeout": "1h" })),
            2 | 3 => (Kind::Lively, json!({ "inactivity_timeout": "200ms" })),
            _ => (Kind::Fleeting, json!({ "inactivity_timeout": "500ms" })),
        };
        if kind != Kind::Fleeting {
            fields["max_inactive_storage_time"] = json!("1h");
        }
        if self.dice.roll(2) == 0 {
            fields["freeze_mode"] = json!("pause");
            fields["stop_after"] = json!("400ms");
        }
        let hold = 1 + self.dice.roll(1_000);
        let id = {
            let mut ledger = self.ledger();
            let id = format!("{}-{}", self.name, ledger.entries.len());
            ledger.order(&id, kind, hold);
            id
        };
        fields["project_id"] = json!("app");
        fields["id"] = json!(id);
        fields["hold_max"] = json!(hold);
        let reply = self.call("POST /workspaces", &fields).await?;
        assert_eq!(reply.status, 201, "{id}: {reply:?}");
        self.ledger().entry(&id).fate = Fate::Lives;
        Some(())
    }

    async fn patch(&mut self, id: &str) -> Option<()> {
        let hold = 1 + self.dice.roll(1_000);
        self.ledger().entry(id).holds.insert(hold);
        let fields = json!({ "hold_max": hold });
        self.changed(id, &format!("PATCH /workspaces/{id}"), &fields, 200).await?;
        self.ledger().entry(id).holds = BTreeSet::from([hold]);
        Some(())
    }

    async fn stop(&mut self, id: &str) -> Option<()> {
        self.ledger().stop(id);
        let (line, status) = match self.dice.roll(4) {
            0 => (format!("PUT /workspaces/{id}/stop?wait=false"), 202),
            _ => (format!("PUT /workspaces/{id}/stop"), 200),
        };
        self.changed(id, &line, &Value::Null, status).await?;
        self.ledger().entry(id).stopping = status == 202;
        Some(())
    }

    async fn resume(&mut self, id: &str) -> Option<()> {
        self.changed(id, &format!("PUT /workspaces/{id}/resume"), &Value::Null, 200).await?;
        self.ledger().entry(id).stopping = false;
        Some(())
    }

    async fn remove(&mut self, id: &str) -> Option<()> {
        self.ledger().entry(id).fate = Fate::Doomed;
        self.changed(id, &format!("DELETE /workspaces/{id}"), &Value::Null, 204).await?;
        self.ledger().entry(id).fate = Fate::Gone;
        Some(())
    }

    /// Has a workspace report to us, over its own network.
    async fn report(&mut self, id: &str) -> Option<()> {
        let active = self.dice.roll(2) == 0;
        self.ledger().entry(id).reports.insert(active);
        let line = format!("POST /check-in?active={}", u8::from(active));
        let reply = self.request(id, &line).await?;
        let answer = reply.text();
        match (reply.status, answer.as_str()) {
            (200, "200") => self.ledger().entry(id).reports = BTreeSet::from([active]),
            // It was cut off, or not let in.
            (200, _) if answer.parse::<u16>().is_err() => {}
            (503, _) => {}
            _ => {
                let entry = self.ledger().entry(id).clone();
                assert!(entry.stopping || !entry.must_live(), "{id}: {reply:?}");
            }
        }
        Some(())
    }

    async fn visit(&mut self) -> Option<()> {
        let Some(id) = self.anybodys() else { return Some(()) };
        let before = self.ledger().entry(&id).clone();
        let reply = self.request(&id, "GET /boot").await?;
        let mut ledger = self.ledger();
        match reply.status {
            200 => ledger.saw(&id, &reply.text(), before.stops),
            503 if reply.header("retry-after").is_some() => ledger.turned_away += 1,
            _ => {
                let lived = before.must_live() && ledger.entry(&id).must_live();
                assert!(!lived, "{id}: {reply:?}");
            }
        }
        Some(())
    }

    /// Holds a WebSocket for a moment.
    async fn stay(&mut self) -> Option<()> {
        let Some(id) = self.anybodys() else { return Some(()) };
        let _inside = Client::websocket(self.public, &id).await;
        sleep(Duration::from_millis(self.dice.roll(100))).await;
        Some(())
    }

    /// Those of its own that are there.
    fn own(&self) -> Vec<String> {
        let ledger = self.ledger();
        let own = ledger.entries.iter().filter(|(id, entry)| {
            entry.fate == Fate::Lives && id.rsplit_once('-').unwrap().0 == self.name
        });
        own.map(|(id, _)| id.clone()).collect()
    }

    fn anybodys(&mut self) -> Option<String> {
        let living: Vec<String> = {
            let ledger = self.ledger();
            let living = ledger.entries.iter().filter(|(_, entry)| entry.may_live());
            living.map(|(id, _)| id.clone()).collect()
        };
        self.dice.pick(&living).cloned()
    }

    /// A call that changes a workspace of its own. `None` too if that has gone by itself.
    async fn changed(&self, id: &str, line: &str, fields: &Value, status: u16) -> Option<()> {
        let reply = self.call(line, fields).await?;
        let mut ledger = self.ledger();
        ledger.changes += 1;
        let entry = ledger.entry(id);
        if entry.kind == Kind::Fleeting && reply.status == 404 {
            entry.fate = Fate::Gone;
        } else if entry.kind == Kind::Fleeting && matches!(reply.status, 409 | 503) {
            // It can't be stopped, or is being removed.
        } else {
            assert_eq!(reply.status, status, "{line}: {reply:?}");
        }
        Some(())
    }

    async fn call(&self, line: &str, fields: &Value) -> Option<Reply> {
        let body = if fields.is_null() { String::new() } else { fields.to_string() };
        call(self.admin, &self.token, line, &body).await
    }

    /// As a browser that opens a page.
    async fn request(&self, id: &str, line: &str) -> Option<Reply> {
        let mut client = Client::try_connect(self.public).await?;
        client
            .send(format!(
                "{line} HTTP/1.1\r\nHost: {id}.localhost\r\nAccept: text/html\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
        client.whole_reply().await
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
