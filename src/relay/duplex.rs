//! Reading from the relay while writing to it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::Poll;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::Stream;

/// The number of octets; zero for an error or the end of the connection.
pub(super) enum Event {
    Read(usize),
    Written(usize),
}

/// Whether a read would return at once: with octets, the end of the connection or an error.
pub(super) fn has_octets(socket: &TcpStream) -> bool {
    match SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Reads into `buffer` or writes `octets`, whichever is possible first; the read has precedence.
pub(super) async fn read_or_write(stream: &mut Stream<TcpStream>, buffer: &mut [u8], octets: &[u8]) -> Event {
    poll_fn(|context| {
        let mut read = ReadBuf::new(buffer);
        if let Poll::Ready(done) = Pin::new(&mut *stream).poll_read(context, &mut read) {
            return Poll::Ready(Event::Read(done.map_or(0, |()| read.filled().len())));
        }
        Pin::new(&mut *stream).poll_write(context, octets).map(|written| Event::Written(written.unwrap_or(0)))
    })
    .await
}
