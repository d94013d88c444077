//! Ten thousand workspaces: what each costs, that all are listed, and that all are known again.

use std::collections::HashSet;
use std::time::Instant;

use crate::support::{Program, Setup};

const MANY: usize = 10_000;
/// Enough that what is allocated once is.
const FEW: usize = 100;
/// Bytes of memory for a workspace that nobody uses.
const EACH_MAX: usize = 4_096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_workspaces_cost_little_and_are_all_there() {
    let few = with(FEW).await.memory();
    let began = Instant::now();
    let many = with(MANY).await;
    println!("up after {:?}", began.elapsed());
    check(&many, few).await;
    let began = Instant::now();
    let again = many.kill_and_start().await;
    println!("up again after {:?}", began.elapsed());
    check(&again, few).await;
}

async fn with(count: usize) -> Program {
    let workspaces =
        (0..count).map(|number| format!("[workspaces.w{number}]\ncommand = [\"a\"]\n"));
    let configuration = format!("[docker]\nenable = false\n{}", workspaces.collect::<String>());
    Program::run(Setup { configuration, log: "info", ..Setup::default() }).await
}

async fn check(program: &Program, few: usize) {
    assert_eq!(listed(program).await, MANY);
    let each = program.memory().saturating_sub(few) / (MANY - FEW);
    println!("{each} bytes for a workspace");
    assert!(each <= EACH_MAX, "{each} bytes for a workspace that nobody uses");
}

/// How many different workspaces the pages of the list have.
async fn listed(program: &Program) -> usize {
    let (mut seen, mut token) = (HashSet::new(), String::new());
    loop {
        let line = format!("GET /workspaces?limit=100&page_token={token}");
        let page = program.call(&line, "").await.json();
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page["paging"]["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => return seen.len(),
        }
    }
}
