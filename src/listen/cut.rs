//! The end of a connection in the middle of an answer: its client must see that it is not whole.
//!
//! Most answers say beforehand where they end, and one that ends earlier is seen to be cut. Then
//! the client is let read what it got: a socket that is closed while bytes come in resets the
//! connection, which takes away from the client what it has not read yet. An answer to an HTTP/1.0
//! client may end where the connection ends (RFC 9112 §6.3); that one is reset just for this.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::stream::Stream;

/// How long a client may take to see the end of its connection.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(1);
/// What is read of it meanwhile is thrown away, this much at a time.
pub(super) const DISCARD_BYTES: usize = 8 * 1024;

/// Hangs up. `unframed`: the end of the connection is the end of the answer.
pub(super) async fn cut(mut stream: impl Stream, unframed: bool) {
    if unframed {
        // The drop does it. A socket that can't be told is gone already.
        return drop(SockRef::from(&stream.socket()).set_linger(Some(Duration::ZERO)));
    }
    let lingering = async {
        stream.shutdown().await?;
        let mut discarded = [0; DISCARD_BYTES];
        while stream.read(&mut discarded).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that stays longer, or is gone, is hung up on all the same.
    drop(timeout(LINGER_MAX, lingering).await);
}
