//! What two parsers could read differently: either it is refused and the connection is closed, or
//! the workspace receives exactly one request that can be read in one way only.

use std::time::Duration;

use frostgate::config::Config;

use crate::support::{Client, Gateway, Origin, ok, upstream};

/// How long the gateway of these tests waits for the rest of a head.
const HEAD_MAX: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(5);

enum Expected {
    /// Refused with one of these, or with nothing but a closed connection; nothing is passed on.
    Refused(&'static [u16]),
    /// Passed on as one request with this body. The connection is then closed or in step.
    Passed(&'static str),
}

use Expected::{Passed, Refused};

const BAD: &[u16] = &[400];
const BAD_OR_UNKNOWN_CODING: &[u16] = &[400, 501];

/// Name, request and what is to become of it. A request that is let through has `@` for its path.
/// What a lenient parser would take for a second request asks for `/smuggled`.
const CASES: &[(&str, &str, Expected)] = &[
    // Two framings.
    (
        "content-length before chunked",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 6\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        Refused(BAD),
    ),
    (
        "chunked before content-length",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\
         Content-Length: 6\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        Refused(BAD),
    ),
    (
        "chunked between two lengths",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3\r\n\
         Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\nGET /smuggled ",
        Refused(BAD),
    ),
    // Codings.
    (
        "chunked in capitals",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
        Passed("abc"),
    ),
    (
        "chunked with spaces after",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked \t \r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
        Passed("abc"),
    ),
    (
        "chunked with a tab before",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding:\tchunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
        Passed("abc"),
    ),
    (
        "an unknown coding before chunked",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "gzip before chunked",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "chunked twice in a line",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "chunked in two lines",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "identity after chunked",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n\
         0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "identity before chunked, in two lines",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: identity\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "chunked with a parameter",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "chunked in quotes",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "a comma before chunked",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "a misspelt coding",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "a vertical tab before chunked",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "an empty coding",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "a coding in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_OR_UNKNOWN_CODING),
    ),
    (
        "a coding on a folded line",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD),
    ),
    (
        "a space before the coding's colon",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD),
    ),
    (
        "a coding under an alias",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer_Encoding: chunked\r\n\
         Content-Length: 3\r\n\r\nabc",
        Passed("abc"),
    ),
    // Lengths.
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        Refused(BAD),
    ),
    (
        "two lengths in a line",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3, 3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a length with a sign",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: +3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: -3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 0x3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a length with a fraction",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3.0\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a length in two words",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3 4\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length:\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a length with leading zeros",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 0003\r\n\r\nabc",
        Passed("abc"),
    ),
    (
        "a length on a folded line",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length:\r\n 3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a space before the length's colon",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length : 3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "a length under an alias",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nContent_Length: 30\r\n\
         Content-Length: 3\r\n\r\nabc",
        Passed("abc"),
    ),
    (
        "a length that connection names",
        "POST / HTTP/1.1\r\nHost: alice.localhost\r\nConnection: content-length\r\n\
         Content-Length: 27\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        Refused(BAD),
    ),
    (
        "a host that connection names",
        "GET / HTTP/1.1\r\nHost: alice.localhost\r\nConnection: close, Host\r\n\r\n",
        Refused(BAD),
    ),
    (
        "a body of a GET",
        "GET @ HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 24\r\n\r\nGET /smuggled HTTP/1.1\r\n",
        Passed("GET /smuggled HTTP/1.1\r\n"),
    ),
    (
        "a chunked body of a GET",
        "GET @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
        Passed("abc"),
    ),
    // Chunks.
    (
        "a chunk with an extension",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n",
        Passed("abc"),
    ),
    (
        "a chunk size with leading zeros",
        "POST @ HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         0003\r\nabc\r\n000\r\n\r\n",
        Passed("abc"),
    ),
];

/// Requests whose body is wrong: the head may have been passed on, but no whole request is.
const BROKEN_BODIES: &[(&str, &str)] = &[
    ("a chunk size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a negative chunk size", "-3\r\nabc\r\n0\r\n\r\n"),
    ("no chunk size", "\r\nabc\r\n0\r\n\r\n"),
    ("a space before the chunk size", " 3\r\nabc\r\n0\r\n\r\n"),
    ("two chunk sizes", "3 4\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size that is none", "g\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size beyond 63 bits", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size beyond 64 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size that ends in a bare LF", "3\nabc\r\n0\r\n\r\n"),
    ("a chunk size that ends in a bare CR", "3\rabc\r\n0\r\n\r\n"),
    ("an extension with a bare LF", "3;a\nabc\r\n0\r\n\r\n"),
    ("an extension with a bare CR", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("a chunk that is longer than its size", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a chunk that is shorter than its size", "5\r\nabc\r\n0\r\n\r\n"),
    ("a chunk that ends in a bare LF", "3\r\nabc\n0\r\n\r\n"),
    ("a trailer that is no field", "3\r\nabc\r\n0\r\nno field\r\n\r\n"),
    ("a trailer with a space before its colon", "3\r\nabc\r\n0\r\na : b\r\n\r\n"),
    ("a trailer that ends in a bare LF", "3\r\nabc\r\n0\r\na: b\n\r\n"),
    ("a body that ends in a bare LF", "3\r\nabc\r\n0\r\n\n"),
    ("a last chunk that ends in a bare LF", "3\r\nabc\r\n0\n\r\n"),
    ("a folded trailer", "3\r\nabc\r\n0\r\na: b\r\n c\r\n\r\n"),
    ("a length in a trailer", "3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n"),
    ("a coding in a trailer", "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("a chunk with nothing behind it", "3\r\nabc0\r\n\r\n"),
    ("a chunk with spaces behind its size", "3  \r\nabc\r\n0\r\n\r\n"),
    ("a chunk size with an underscore", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    ("a chunk size of 17 digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size in quotes", "\"3\"\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size with a comma", "3,3\r\nabc\r\n0\r\n\r\n"),
    ("a chunk size of a NUL", "\0\r\nabc\r\n0\r\n\r\n"),
    ("an extension with a NUL", "3;a\0b\r\nabc\r\n0\r\n\r\n"),
    ("an extension with an escape", "3;a\x1bb\r\nabc\r\n0\r\n\r\n"),
    ("an extension on a folded line", "3;a\r\n b\r\nabc\r\n0\r\n\r\n"),
];

/// Heads that nobody should act on.
const BAD_HEADS: &[(&str, &str)] = &[
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nHost: bob.localhost\r\n\r\n"),
    (
        "the same host twice",
        "GET / HTTP/1.1\r\nHost: alice.localhost\r\nHost: alice.localhost\r\n\r\n",
    ),
    ("two hosts in a line", "GET / HTTP/1.1\r\nHost: alice.localhost, bob.localhost\r\n\r\n"),
    ("a host with a space", "GET / HTTP/1.1\r\nHost: alice.localhost x\r\n\r\n"),
    ("a host with a path", "GET / HTTP/1.1\r\nHost: alice.localhost/x\r\n\r\n"),
    ("a host with a user", "GET / HTTP/1.1\r\nHost: x@alice.localhost\r\n\r\n"),
    ("a host with a bad port", "GET / HTTP/1.1\r\nHost: alice.localhost:8x\r\n\r\n"),
    ("a host with a port too high", "GET / HTTP/1.1\r\nHost: alice.localhost:65536\r\n\r\n"),
    ("a host with two ports", "GET / HTTP/1.1\r\nHost: alice.localhost:80:80\r\n\r\n"),
    ("a host with a NUL", "GET / HTTP/1.1\r\nHost: alice.localhost\0\r\n\r\n"),
    ("a host beyond ASCII", "GET / HTTP/1.1\r\nHost: älice.localhost\r\n\r\n"),
    ("a host with a percent", "GET / HTTP/1.1\r\nHost: %61lice.localhost\r\n\r\n"),
    ("a space before the host's colon", "GET / HTTP/1.1\r\nHost : alice.localhost\r\n\r\n"),
    (
        "another host in the target",
        "GET http://bob.localhost/ HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    (
        "another port in the target",
        "GET http://alice.localhost:81/ HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    (
        "a user in the target",
        "GET http://x@alice.localhost/ HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    (
        "a target that is only an authority",
        "GET alice.localhost HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    ("a target that is no path", "GET x/y HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("an asterisk for GET", "GET * HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a CR in the target", "GET /a\rb HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("two spaces before the target", "GET  / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a tab after the method", "GET\t/ HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a space before the method", " GET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a method with a bracket", "GE[T / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("no target", "GET HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("no version", "GET /\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n"),
    ("HTTP/2.0 in a line", "GET / HTTP/2.0\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: alice.localhost\r\n\r\n"),
    ("http in small letters", "GET / http/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("another protocol", "GET / HTTQ/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a folded line", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\r\n b\r\n\r\n"),
    ("a folded first line", "GET / HTTP/1.1\r\n X: a\r\nHost: alice.localhost\r\n\r\n"),
    ("a field without a colon", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX\r\n\r\n"),
    ("a field without a name", "GET / HTTP/1.1\r\nHost: alice.localhost\r\n: x\r\n\r\n"),
    ("a name with a space", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX Y: z\r\n\r\n"),
    ("a name with a slash", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX/Y: z\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\0b\r\n\r\n"),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\rHost: bob\r\n\r\n"),
    ("a bare CR for a line's end", "GET / HTTP/1.1\rHost: alice.localhost\r\r"),
    ("bare LF", "GET / HTTP/1.1\nHost: alice.localhost\n\n"),
    ("a bare LF after the first line", "GET / HTTP/1.1\nHost: alice.localhost\r\n\r\n"),
    ("a bare LF after a field", "GET / HTTP/1.1\r\nHost: alice.localhost\nX: y\r\n\r\n"),
    ("a bare LF for the empty line", "GET / HTTP/1.1\r\nHost: alice.localhost\r\n\n"),
    ("a bare LF before a CRLF", "GET / HTTP/1.1\r\nHost: alice.localhost\n\r\n"),
    ("a bare LF before the request", "\nGET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a CR before the request", "\rGET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("two CRs before an LF", "GET / HTTP/1.1\r\nHost: alice.localhost\r\r\n\r\n"),
    ("a CR before the empty line", "GET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\r\n"),
    (
        "many empty lines",
        "\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    ("a space in an empty line", " \r\nGET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a fragment in the target", "GET /a#b HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a DEL in the target", "GET /a\x7fb HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("an escape in the target", "GET /a\x1bb HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("two spaces before the version", "GET /  HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a space after the version", "GET / HTTP/1.1 \r\nHost: alice.localhost\r\n\r\n"),
    ("a tab before the version", "GET /\tHTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a form feed before the version", "GET /\x0cHTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/1.1 with a zero", "GET / HTTP/01.1\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/1", "GET / HTTP/1\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/1.", "GET / HTTP/1.\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/1,1", "GET / HTTP/1,1\r\nHost: alice.localhost\r\n\r\n"),
    ("HTTP/3.0 in a line", "GET / HTTP/3.0\r\nHost: alice.localhost\r\n\r\n"),
    ("no method", "/ HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a method with a colon", "GE:T / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a method beyond ASCII", "G\u{cb}T / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    (
        "a connect to a host",
        "CONNECT alice.localhost:80 HTTP/1.1\r\nHost: alice.localhost:80\r\n\r\n",
    ),
    (
        "a connect with a length",
        "CONNECT / HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "a scheme of another kind",
        "GET ftp://alice.localhost/ HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    ("a target in full without a host", "GET http:/// HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
    ("a host with a colon and no port", "GET / HTTP/1.1\r\nHost: alice.localhost:x:\r\n\r\n"),
    ("a host in brackets", "GET / HTTP/1.1\r\nHost: [alice.localhost]\r\n\r\n"),
    ("a host with a query", "GET / HTTP/1.1\r\nHost: alice.localhost?x\r\n\r\n"),
    ("a host with a backslash", "GET / HTTP/1.1\r\nHost: alice.localhost\\x\r\n\r\n"),
    ("a host with a tab", "GET / HTTP/1.1\r\nHost: alice\t.localhost\r\n\r\n"),
    ("a folded host", "GET / HTTP/1.1\r\nHost:\r\n alice.localhost\r\n\r\n"),
    ("a host under an alias too", "GET / HTTP/1.1\r\nHost : x\r\nHost: alice.localhost\r\n\r\n"),
    ("a line folded with a tab", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\r\n\tb\r\n\r\n"),
    ("a fold that is empty", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\r\n \r\n\r\n"),
    ("a tab before the colon", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX\t: y\r\n\r\n"),
    ("a name with a NUL", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX\0Y: z\r\n\r\n"),
    ("a name with a bracket", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX[0]: z\r\n\r\n"),
    ("a name with a quote", "GET / HTTP/1.1\r\nHost: alice.localhost\r\n\"X\": z\r\n\r\n"),
    ("a name beyond ASCII", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX\u{e4}: z\r\n\r\n"),
    ("a name with a vertical tab", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX\x0b: z\r\n\r\n"),
    ("a vertical tab in a value", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\x0bb\r\n\r\n"),
    ("a DEL in a value", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\x7fb\r\n\r\n"),
    ("a backspace in a value", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\x08b\r\n\r\n"),
    ("a CR at a value's end", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX: a\r\r\n\r\n"),
    ("a line that is only a colon", "GET / HTTP/1.1\r\nHost: alice.localhost\r\n:\r\n\r\n"),
    ("a second request line", "GET / HTTP/1.1\r\nHost: alice.localhost\r\nGET /x HTTP/1.1\r\n\r\n"),
    (
        "a PROXY line of a stranger",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    (
        "a PROXY block of a stranger",
        "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
    ),
    ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\x7f\x03\x03"),
];

/// What stands behind a bad request, for a reader that got out of step to act on.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: alice.localhost\r\n\r\n";

fn quick(config: &mut Config, origin: &Origin) {
    upstream(config, "alice", origin.address);
    config.listen.header_timeout = HEAD_MAX;
    config.listen.first_byte_timeout = HEAD_MAX;
}

async fn pair() -> (Gateway, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| quick(config, &origin)).await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    origin.take();
    (gateway, origin)
}

/// Sends it, sees that nothing but a refusal comes before the connection is closed, and that
/// nothing was passed on.
async fn refusal(
    gateway: &Gateway,
    origin: &Origin,
    bytes: &str,
    statuses: &[u16],
) -> Result<(), String> {
    let mut client = Client::connect(gateway.public()).await;
    client.send(bytes).await;
    let rest = client.rest(SOON).await.ok_or("the connection stays open")?;
    let text = String::from_utf8_lossy(&rest).into_owned();
    let received = origin.take();
    if !received.is_empty() {
        return Err(format!("passed on as {:.200}", received[0].head));
    }
    if text.is_empty() {
        return Ok(());
    }
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let one = text.starts_with("HTTP/1.") && text.matches("HTTP/1.").count() == 1;
    if one && statuses.contains(&status) {
        Ok(())
    } else {
        Err(format!("answered {}", text.lines().next().unwrap_or_default()))
    }
}

/// Sends it and sees that it is passed on as one clear request with that body, and that the
/// connection is in step afterwards, or closed.
async fn passage(
    gateway: &Gateway,
    origin: &Origin,
    request: &str,
    body: &str,
) -> Result<(), String> {
    let mut client = Client::connect(gateway.public()).await;
    client.send(request.replacen('@', "/case", 1)).await;
    let reply = client.reply().await;
    if (reply.status, reply.text().as_str()) != (200, "/case") {
        return Err(format!("answered {reply:?}"));
    }
    client.send("GET /after HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    let after = client.reply().await;
    if after.status != 0 && (after.status, after.text().as_str()) != (200, "/after") {
        return Err(format!("out of step: {after:?}"));
    }
    let mut received = origin.take();
    received.retain(|request| request.path() != "/after");
    match received.as_slice() {
        [one]
            if one.violation.is_none() && one.path() == "/case" && one.body == body.as_bytes() =>
        {
            Ok(())
        }
        _ => Err(format!("received {received:?}")),
    }
}

/// All that went wrong, at once.
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_framing_is_refused_or_resolved() {
    let (gateway, origin) = pair().await;
    let mut complaints = Vec::new();
    for (name, request, expected) in CASES {
        let outcome = match expected {
            Refused(statuses) => refusal(&gateway, &origin, request, statuses).await,
            Passed(body) => passage(&gateway, &origin, request, body).await,
        };
        complaints.extend(outcome.err().map(|complaint| format!("{name}: {complaint}")));
    }
    assert_none(&complaints);
    assert!(CASES.len() >= 40, "{}", CASES.len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_its_framing_is_never_a_whole_request() {
    let (gateway, origin) = pair().await;
    let mut complaints = Vec::new();
    for (name, body) in BROKEN_BODIES {
        let head = "POST / HTTP/1.1\r\nHost: alice.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let bytes = format!("{head}{body}{NEXT}");
        let outcome = refusal(&gateway, &origin, &bytes, &[400]).await;
        complaints.extend(outcome.err().map(|complaint| format!("{name}: {complaint}")));
    }
    assert_none(&complaints);
    assert!(BROKEN_BODIES.len() >= 17);
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    gateway.until_empty("alice", "broken bodies").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_head_is_refused_and_the_connection_closed() {
    let (gateway, origin) = pair().await;
    let mut complaints = Vec::new();
    for (name, head) in BAD_HEADS {
        let bytes = format!("{head}{NEXT}");
        let outcome = refusal(&gateway, &origin, &bytes, &[400, 501, 505]).await;
        complaints.extend(outcome.err().map(|complaint| format!("{name}: {complaint}")));
    }
    assert_none(&complaints);
    assert!(BAD_HEADS.len() >= 45);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_the_limits_is_refused() {
    let (gateway, origin) = pair().await;
    let host = "Host: alice.localhost\r\n";
    let huge = "a".repeat(600_000);
    let long = "a".repeat(70_000);
    let many: String = (0..150).map(|number| format!("X-{number}: 1\r\n")).collect();
    let cases = [
        ("a huge field", format!("GET / HTTP/1.1\r\n{host}X: {huge}\r\n\r\n")),
        ("a huge name", format!("GET / HTTP/1.1\r\n{host}{huge}: x\r\n\r\n")),
        ("many fields", format!("GET / HTTP/1.1\r\n{host}{many}\r\n")),
        ("a huge target", format!("GET /{huge} HTTP/1.1\r\n{host}\r\n")),
        ("a long target", format!("GET /{long} HTTP/1.1\r\n{host}\r\n")),
        ("a head without an end", format!("GET / HTTP/1.1\r\n{host}X: a")),
        ("a large field", format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n")),
    ];
    let mut complaints = Vec::new();
    for (name, bytes) in cases {
        let outcome = refusal(&gateway, &origin, &bytes, &[400, 408, 414, 431]).await;
        complaints.extend(outcome.err().map(|complaint| format!("{name}: {complaint}")));
    }
    assert_none(&complaints);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lenient_reader_may_accept_arrives_in_the_strict_form() {
    let (gateway, origin) = pair().await;
    let cases = [
        ("empty lines first", "\r\n\r\nGET /1 HTTP/1.1\r\nHost: alice.localhost\r\n\r\n"),
        (
            "a body's CRLF too much",
            "POST /1 HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 0\r\n\r\n\r\n",
        ),
        (
            "a target in full",
            "GET http://ALICE.localhost/1 HTTP/1.1\r\nHost: alice.localhost\r\n\r\n",
        ),
    ];
    for (name, bytes) in cases {
        let mut client = Client::connect(gateway.public()).await;
        client.send(bytes).await;
        assert_eq!(client.reply().await.status, 200, "{name}");
        client.send("GET /2 HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "/2", "{name}");
        let received = origin.take();
        let paths: Vec<_> = received.iter().map(|request| request.path()).collect();
        assert_eq!(paths, ["/1", "/2"], "{name}");
        assert!(received.iter().all(|request| request.violation.is_none()), "{name}: {received:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_stay_in_step_wherever_the_bytes_are_cut() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    // With all the time in the world for the rest of a head.
    let gateway = Gateway::before(&origin).await;
    let host = "Host: alice.localhost\r\n";
    let good = format!(
        "GET /0 HTTP/1.1\r\n{host}\r\nPOST /1 HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc\
         PUT /2 HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"
    );
    // After the third, what is wrong with the fourth takes away none of the answers before.
    let bad = format!("GET /3 HTTP/1.1\n{host}\r\n{NEXT}");
    let bytes = format!("{good}{bad}");
    let mut rounds = 0;
    for cut in 1..good.len() + 17 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(&bytes[..cut]).await;
        tokio::task::yield_now().await;
        client.send(&bytes[cut..]).await;
        for number in 0..3 {
            let reply = client.reply().await;
            assert_eq!(reply.text(), format!("/{number}"), "cut at {cut}: {reply:?}");
        }
        let reply = client.reply().await;
        assert_eq!(reply.status, 400, "cut at {cut}: {reply:?}");
        assert!(client.is_hung_up_on(SOON).await, "cut at {cut}");
        let received = origin.take();
        let paths: Vec<_> = received.iter().map(|request| request.path()).collect();
        assert_eq!(paths, ["/0", "/1", "/2"], "cut at {cut}");
        rounds += 1;
    }
    assert!(rounds > 200, "{rounds}");
    gateway.stop().await;
}
