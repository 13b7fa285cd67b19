//! Listeners and connections.
pub(crate) mod body;
pub(crate) mod router;
mod tunnel;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use rustix::net::{AddressFamily, SocketAddrV4, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::agent::Agent;
use crate::connections::Endpoints;

/// Where a connection came in. Only the host side may configure the agent and open tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Guest,
}

/// Who makes a request, and on which connection.
#[derive(Clone, Copy, Debug)]
struct Caller {
    side: Side,
    connection: Endpoints,
}

/// What a listener's connections can be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// From the host side, by where the listener is bound; but see `is_own_address`.
    Outside,
    Guest,
    /// On a machine that is no guest, where everything comes from loopback: the host side.
    Anyone,
}

/// Open connections per listener; more wait to be accepted. So the guest's own processes cannot crowd out the host.
const MAX_CONNECTIONS: usize = 1024;

/// An idle connection is closed, and a request whose head takes this long is not waited for. Longer than any
/// client keeps an idle connection in its pool, so that none is closed under a request.
const IDLE_LIMIT: Duration = Duration::from_secs(640);

/// Bound on a request's head, and on what is buffered of a body.
const BUFFER_BYTES: usize = 128 * 1024;

const BACKLOG: i32 = 1024;

/// `interface` keeps out whatever arrives elsewhere; two listeners on different interfaces may share a port.
pub(crate) fn listen(interface: Option<&str>, port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let Some(interface) = interface {
        bind_to_interface(&socket, interface)?;
    }
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_to_interface(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(interface.len()).map_err(io::Error::other)?;
    // SAFETY: the name is valid for the length given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, interface.as_ptr().cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A peer that vanished (a restored VM's old peer, say) is noticed within two minutes.
fn tune(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_mins(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)
}

/// A guest's connection to its own address of the outside interface counts, for the kernel, as coming in there. Who
/// can be bound to is one of us, whichever addresses have been added meanwhile.
fn is_own_address(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

pub(crate) async fn serve(agent: Arc<Agent>, origin: Origin, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: some will be given back. Other errors concern one connection.
                eprintln!("wrenn-guest: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let side = match origin {
            Origin::Guest => Side::Guest,
            Origin::Outside if is_own_address(peer.ip()) => Side::Guest,
            Origin::Outside | Origin::Anyone => Side::Host,
        };
        // Of a connection that has ended already there is nothing to serve.
        let Ok(local) = stream.local_addr() else { continue };
        let caller = Caller { side, connection: Endpoints { local, peer } };
        let agent = agent.clone();
        tokio::spawn(async move {
            let _place = place;
            // Failing to tune costs latency, not correctness.
            let _ = tune(&stream);
            let service = service_fn(|request| {
                let agent = agent.clone();
                async move { Ok::<_, Infallible>(router::route(agent, caller, request).await) }
            });
            // Errors here are clients that left or did not speak HTTP; hyper has answered what can be answered.
            let _ = http1::Builder::new()
                .timer(Timer)
                .header_read_timeout(IDLE_LIMIT)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(Connection(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

/// A socket in the terms of hyper.
struct Connection(TcpStream);

impl Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // SAFETY: ReadBuf never makes initialised bytes uninitialised.
        let mut buffer = ReadBuf::uninit(unsafe { into.as_mut() });
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        let filled = buffer.filled().len();
        // SAFETY: the socket has filled this many.
        unsafe { into.advance(filled) };
        Poll::Ready(Ok(()))
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, parts)
    }
}

/// Tokio's clock in the terms of hyper.
#[derive(Clone)]
struct Timer;

struct Sleep(Pin<Box<tokio::time::Sleep>>);

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: std::time::Instant) {
        *sleep = self.sleep_until(deadline);
    }
}
