use super::*;

/// Everything that passes of bytes in pieces of that size, as hyper would get it, and whether it
/// ended in a refusal.
fn read(bytes: &[u8], size: usize) -> (Vec<u8>, Option<&'static str>) {
    let mut requests = Requests::new(1_000);
    let mut passed = Vec::new();
    for piece in bytes.chunks(size) {
        match requests.follow(piece) {
            Ok(length) => {
                assert_eq!(length, piece.len());
                passed.extend(piece);
            }
            Err(refused) => {
                passed.extend(&piece[..refused.at]);
                return (passed, Some(refused.fault.0));
            }
        }
    }
    (passed, None)
}

const CLEAR: &str = "GET /0 HTTP/1.1\r\nHost: a\r\n\r\n\
     POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n\
     \r\nPOST /2 HTTP/1.0\r\ncontent-length:\t0003 \r\n\r\nabc\
     PUT /3 HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\nTrailer: x\r\n\r\n\
     00a;n=\"v\";m\r\n0123456789\r\n1 ; x\r\n\n\r\n0\r\nx: y\r\n\r\n\
     OPTIONS * HTTP/1.1\r\nX: \r\nHost: a\r\n\r\n";

#[test]
fn clear_requests_pass_however_they_are_cut() {
    for size in 1..=CLEAR.len() {
        let mut requests = Requests::new(1_000);
        for piece in CLEAR.as_bytes().chunks(size) {
            assert_eq!(requests.follow(piece), Ok(piece.len()), "in pieces of {size}");
        }
        assert_eq!(requests.heads(), 5, "in pieces of {size}");
    }
}

#[test]
fn what_is_wrong_is_refused_at_the_same_byte_however_it_is_cut() {
    let cases = [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    ];
    for case in cases {
        let bytes = [CLEAR.as_bytes(), case.as_bytes(), CLEAR.as_bytes()].concat();
        let (passed, fault) = read(&bytes, bytes.len());
        assert!(fault.is_some() && passed.len() > CLEAR.len(), "{case:?}");
        assert!(passed.len() < CLEAR.len() + case.len(), "{case:?}");
        for size in 1..bytes.len() {
            assert_eq!(read(&bytes, size), (passed.clone(), fault), "{case:?} by {size}");
        }
    }
}

#[test]
fn what_follows_a_request_that_may_switch_is_for_later() {
    let upgrade = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let both = [&upgrade[..], b"\x81\x00\nwhatever"].concat();
    let mut requests = Requests::new(1_000);
    assert_eq!(requests.follow(&both), Ok(upgrade.len()));
    assert!(requests.may_switch());
    assert_eq!(requests.follow(&both[upgrade.len()..]), Ok(0));
    requests.go_on();
    assert!(!requests.may_switch() && requests.follow(b"\x81\x00\nwhatever").is_err());
    // Nothing is switched to by a request with a body, or of a version that knows no switching.
    for head in [
        "POST /ws HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
        "GET /ws HTTP/1.0\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut requests = Requests::new(1_000);
        assert_eq!(requests.follow(head.as_bytes()), Ok(head.len()));
        assert!(!requests.may_switch(), "{head:?}");
    }
}

#[test]
fn a_line_of_any_length_takes_no_more_memory_than_a_head() {
    let mut requests = Requests::new(1_000);
    assert_eq!(requests.follow(b"GET /"), Ok(5));
    // Whoever reads it sees that it is too long.
    assert_eq!(requests.follow(&[b'a'; 5_000]), Ok(5_000));
    assert!(requests.follow(b"a").is_err());
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for extension in [vec![b'x'; 1_100], [&[b'x'; 1_100][..], b"\r\nabc\r\n"].concat()] {
        let mut requests = Requests::new(100_000);
        assert_eq!(requests.follow(head), Ok(head.len()));
        assert!(requests.follow(&[b"3;", &extension[..]].concat()).is_err());
    }
}
