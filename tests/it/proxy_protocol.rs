//! The PROXY protocol: believed from the load balancers that are named, and expected of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::{Client, Gateway, Origin, PATIENCE, ok, upstream};

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

async fn pair() -> (Gateway, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.proxy_protocol = vec!["127.0.0.7/32".parse().unwrap()];
        config.listen.first_byte_timeout = Duration::from_millis(300);
        config.listen.header_timeout = Duration::from_millis(300);
    })
    .await;
    (gateway, origin)
}

/// A block of version 2.
fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

fn ipv4() -> Vec<u8> {
    vec![192, 0, 2, 9, 127, 0, 0, 1, 0x10, 0, 0, 80]
}

fn ipv6() -> Vec<u8> {
    let source = "2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&source[..], &[0; 16], &[0x10, 0, 0, 80]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_balancer_says_of_its_client_is_passed_on() {
    let (gateway, origin) = pair().await;
    let with_more = [ipv4(), vec![4; 1_000]].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a line", b"PROXY TCP4 192.0.2.9 127.0.0.1 4096 80\r\n".to_vec(), "192.0.2.9"),
        ("a line of IPv6", b"PROXY TCP6 2001:db8::9 ::1 4096 80\r\n".to_vec(), "2001:db8::9"),
        ("a line of its own", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.7"),
        ("a line of nobody", b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n".to_vec(), "127.0.0.7"),
        ("a block", block(1, 0x11, &ipv4()), "192.0.2.9"),
        ("a block of IPv6", block(1, 0x21, &ipv6()), "2001:db8::9"),
        ("a block with more", block(1, 0x11, &with_more), "192.0.2.9"),
        ("a block of its own", block(0, 0, &[]), "127.0.0.7"),
        ("a block of a socket", block(1, 0x31, &[0; 216]), "127.0.0.7"),
    ];
    assert_eq!(cases.len(), 9);
    for (name, header, expected) in cases {
        // Together with the request, and in parts.
        for cut in [0, 1, 7, 12, 14, header.len() - 1] {
            let mut client = Client::connect_from(BALANCER, gateway.public()).await;
            if cut > 0 {
                client.send(&header[..cut]).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.send([&header[cut..], REQUEST.as_bytes()].concat()).await;
            assert_eq!(client.reply().await.status, 200, "{name}, cut at {cut}");
            let received = &origin.take()[0];
            assert_eq!(received.header("x-forwarded-for"), Some(expected), "{name}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_says_nothing_or_nonsense_is_not_let_in() {
    let (gateway, origin) = pair().await;
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("the request alone", vec![b'\r', b'\n']),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0".to_vec()),
        ("a line without an end", b"PROXY TCP4 192.0.2.9".to_vec()),
        ("a long line", long.into_bytes()),
        ("a line that ends in a bare LF", b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\n".to_vec()),
        ("a bad address", b"PROXY TCP4 192.0.2.999 127.0.0.1 1 2\r\n".to_vec()),
        ("a bad port", b"PROXY TCP4 192.0.2.9 127.0.0.1 65536 2\r\n".to_vec()),
        ("another family", b"PROXY TCP6 192.0.2.9 127.0.0.1 1 2\r\n".to_vec()),
        ("another protocol", b"PROXY UDP4 192.0.2.9 127.0.0.1 1 2\r\n".to_vec()),
        ("another version", [SIGNATURE, &[0x31, 0x11, 0, 0]].concat()),
        ("another command", block(2, 0x11, &ipv4())),
        ("a block that is too short", block(1, 0x11, &[0; 4])),
        ("a block that is too long", block(1, 0x11, &[0; 5_000])),
        ("a block without an end", block(1, 0x21, &ipv6())[..30].to_vec()),
    ];
    assert_eq!(cases.len(), 15);
    for (name, header) in cases {
        let mut client = Client::connect_from(BALANCER, gateway.public()).await;
        let request =
            if name.contains("without an end") || name == "nothing" { "" } else { REQUEST };
        client.send([&header[..], request.as_bytes()].concat()).await;
        let rest = client.rest(PATIENCE).await;
        assert_eq!(rest.as_deref(), Some(&b""[..]), "{name}");
        assert!(origin.take().is_empty(), "{name}");
    }
    // Who is no balancer needs none of it, and may not say it.
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\n{REQUEST}")).await;
    assert_eq!(client.reply().await.status, 400);
    // The API's own listener has no balancer in front.
    let mut client = Client::connect_from(BALANCER, gateway.admin()).await;
    client.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(client.reply().await.status > 0);
    gateway.stop().await;
}
