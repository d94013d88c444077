//! Limits and deadlines: nobody waits for ever, and no client keeps the others out.

use std::time::Duration;

use frostgate::model::FreezeMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::http2::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, fields, frame};
use crate::support::{Client, Gateway, Origin, PATIENCE, get, ok, process, until, upstream};

const HOST: &str = "Host: alice.localhost\r\n";
const DEADLINE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_slow_clients_are_let_go() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.first_byte_timeout = DEADLINE;
        config.listen.header_timeout = DEADLINE;
    })
    .await;
    let beginnings = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        "G",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: alice.local",
        "\r\n\r\n",
    ];
    for (address, name) in [(gateway.public(), "public"), (gateway.admin(), "admin")] {
        for beginning in beginnings {
            let mut client = Client::connect(address).await;
            let began = Instant::now();
            client.send(beginning).await;
            assert!(client.is_hung_up_on(PATIENCE).await, "{beginning:?} on {name}");
            let waited = began.elapsed();
            assert!(waited < DEADLINE * 5, "{beginning:?} on {name} after {waited:?}");
        }
    }
    // A byte now and then makes a head no longer.
    let mut client = Client::connect(gateway.public()).await;
    let began = Instant::now();
    for byte in "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy".bytes() {
        if client.stream.write_all(&[byte]).await.is_err() || began.elapsed() > PATIENCE {
            break;
        }
        sleep(Duration::from_millis(30)).await;
    }
    assert!(client.is_hung_up_on(DEADLINE).await);
    // One that idles between two requests.
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(client.reply().await.status, 200);
    assert!(client.is_hung_up_on(DEADLINE * 5).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_never_answers_is_a_504() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.until_gone().await;
        }
    })
    .await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.upstream.response_timeout = DEADLINE;
    })
    .await;
    let began = Instant::now();
    let reply = gateway.get("alice", "/").await;
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(began.elapsed() >= DEADLINE && began.elapsed() < DEADLINE * 5, "{:?}", began.elapsed());
    assert_eq!(origin.received().len(), 1, "a request that timed out was repeated");
    gateway.until_empty("alice", "a 504").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_is_gone_is_a_502_in_time() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.upstream.connect_timeout = DEADLINE;
        config.policy.start_timeout = DEADLINE;
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    drop(origin);
    let began = Instant::now();
    let reply = gateway.get("alice", "/").await;
    assert!(matches!(reply.status, 502..=504), "{reply:?}");
    assert!(began.elapsed() < DEADLINE * 10, "{:?}", began.elapsed());
    gateway.until_empty("alice", "a 502").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_are_held_at_a_gate_and_at_all_gates() {
    let gateway = Gateway::start(|config| {
        for id in ["alice", "bob"] {
            process(config, id, FreezeMode::Stop, PATIENCE, &[("START_DELAY_MS", "800")]);
        }
        config.limits.held_per_workspace_max = 5;
        config.limits.held_max = 8;
    })
    .await;
    let mut held = JoinSet::new();
    for (id, places) in [("alice", 5), ("bob", 3)] {
        let host = format!("{id}.localhost");
        for _ in 0..places {
            let (address, host) = (gateway.public(), host.clone());
            held.spawn(async move { get(address, &host, "/").await });
        }
        until("all are held", || gateway.workspace(id).view().held == places).await;
        let began = Instant::now();
        let reply = gateway.get(id, "/").await;
        assert_eq!(reply.status, 503, "{id}: {reply:?}");
        assert!(reply.header("retry-after").is_some());
        assert!(began.elapsed() < DEADLINE, "it was held first: {:?}", began.elapsed());
    }
    let mut answered = 0;
    while let Some(reply) = held.join_next().await {
        assert_eq!(reply.unwrap().status, 200);
        answered += 1;
    }
    assert_eq!(answered, 8);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_waits_for_a_place() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.workers = 1;
        config.listen.connections_max = 4;
    })
    .await;
    let mut first = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
        first.push(client);
    }
    let mut fifth = Client::connect(gateway.public()).await;
    fifth.send(format!("GET /5 HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(timeout(DEADLINE, fifth.head()).await.is_err(), "it was served beyond the limit");
    first.pop();
    assert_eq!(fifth.reply().await.text(), "/5");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_goes_on_has_all_the_time_it_takes() {
    let origin = Origin::answering(|request| ok(&request.body.len().to_string())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.body_timeout = DEADLINE;
        config.listen.body_rate_min = 0;
        config.upstream.response_timeout = DEADLINE;
        config.listen.header_timeout = DEADLINE;
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\n")).await;
    for _ in 0..10 {
        sleep(DEADLINE / 2).await;
        client.send("x").await;
    }
    assert_eq!(client.reply().await.text(), "10");
    // One that stalls does not.
    client.send(format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\nx")).await;
    let began = Instant::now();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")), "{reply:?}");
    assert!(began.elapsed() >= DEADLINE);
    gateway.until_empty("alice", "a stalled upload").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_by_the_drop_is_ended_and_a_fast_one_is_not() {
    let origin = Origin::answering(|request| ok(&request.body.len().to_string())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.body_timeout = DEADLINE;
        config.listen.body_rate_min = 1_000;
    })
    .await;
    let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 100000\r\n\r\n");
    let mut client = Client::connect(gateway.public()).await;
    client.send(&head).await;
    let (reader, mut writer) = client.stream.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            sleep(DEADLINE / 10).await;
        }
    });
    let mut client = Client::over(tokio::io::join(reader, tokio::io::sink()));
    assert_eq!(client.reply().await.status, 408);
    dripping.abort();
    gateway.until_empty("alice", "an upload by the drop").await;
    // Each part earns the time until the next, and more than that.
    let mut client = Client::connect(gateway.public()).await;
    client.send(&head).await;
    for _ in 0..10 {
        sleep(DEADLINE / 5).await;
        client.send("x".repeat(10_000)).await;
    }
    assert_eq!(client.reply().await.text(), "100000");
    gateway.stop().await;
}

/// An upstream whose answer is more than all buffers hold.
async fn endless() -> Origin {
    Origin::start(|mut connection| async move {
        if connection.request().await.is_none() {
            return;
        }
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        while connection.send(vec![0; 100_000]).await {}
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_loses_its_lease() {
    let origin = endless().await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.send_timeout = DEADLINE;
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    until("it is inside", || gateway.workspace("alice").view().inside == 1).await;
    gateway.until_empty("alice", "a client that read nothing").await;
    drop(client);
    // By HTTP/2 it may read all frames, and give the stream no window.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let block = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "alice.localhost"),
    ]);
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let mut client = Client::connect(gateway.public()).await;
    client.send([&preface[..], &frame(4, 0, 0, &[]), &request].concat()).await;
    until("its stream is inside", || gateway.workspace("alice").view().inside == 1).await;
    let (mut reader, _writer) = client.stream.into_split();
    let reading = tokio::spawn(async move {
        let mut kinds = Vec::new();
        let mut head = [0; 9];
        while reader.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            reader.read_exact(&mut payload).await.unwrap();
            kinds.push(head[3]);
            if head[3] == RST_STREAM {
                break;
            }
        }
        kinds
    });
    gateway.until_empty("alice", "a stream without a window").await;
    let kinds = timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(kinds.last(), Some(&RST_STREAM), "{kinds:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_that_reads_on_gets_all_of_it() {
    let origin = Origin::answering(|_| ok(&"x".repeat(8_000_000))).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.send_timeout = DEADLINE * 3;
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    let mut read = 0;
    for _ in 0..10 {
        sleep(DEADLINE / 2).await;
        read += client.bytes(800_000).await.len();
    }
    assert_eq!(read, 8_000_000);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_connection_without_streams_is_ended() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.header_timeout = DEADLINE;
        config.listen.send_timeout = DEADLINE;
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send(frame(4, 0, 0, &[])).await;
    assert!(client.is_hung_up_on(PATIENCE).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_only_so_many_connections_and_others_have_theirs() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.connections_per_client_max = 3;
    })
    .await;
    let request = format!("GET / HTTP/1.1\r\n{HOST}\r\n");
    let mut first = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(&request).await;
        assert_eq!(client.reply().await.status, 200);
        first.push(client);
    }
    let mut fourth = Client::connect(gateway.public()).await;
    fourth.send(&request).await;
    assert!(fourth.is_hung_up_on(PATIENCE).await);
    let mut other = Client::connect_from([127, 0, 0, 9].into(), gateway.public()).await;
    other.send(&request).await;
    assert_eq!(other.reply().await.status, 200);
    first.pop();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut again = Client::connect(gateway.public()).await;
        again.send(&request).await;
        if again.reply().await.status == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "a place that was given back can't be had");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_are_inside_a_workspace() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.path() == "/stay" {
                connection.until_gone().await;
                return;
            }
            connection.send(ok(request.path())).await;
        }
    })
    .await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        upstream(config, "bob", origin.address);
        config.limits.requests_per_workspace_max = 2;
    })
    .await;
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("GET /stay HTTP/1.1\r\n{HOST}\r\n")).await;
        inside.push(client);
    }
    until("two are inside", || gateway.workspace("alice").view().inside == 2).await;
    let reply = gateway.get("alice", "/").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert_eq!(gateway.get("bob", "/").await.status, 200);
    inside.pop();
    until("one has left", || gateway.workspace("alice").view().inside == 1).await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    gateway.stop().await;
}
