//! Ends TCP connections of a past that has gone: their peers are not there any more, or talk to the guest that this one is a
//! copy of. Their processes would otherwise wait for an answer for minutes, or for ever.
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// A connection as its own side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// A socket as the kernel lists it; the raw id, which has a number that no two sockets share, is what it is ended by.
struct Listed {
    family: u8,
    state: u8,
    id: [u8; ID_BYTES],
}

// Messages of sock_diag(7): struct nlmsghdr, then struct inet_diag_req_v2 to the kernel or struct inet_diag_msg from it.
const HEADER_BYTES: usize = 16;
const ID_BYTES: usize = 48;
const REQUEST_BYTES: usize = HEADER_BYTES + 8 + ID_BYTES;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// What the kernel puts together for one read, unless there is room for more: more would only be more memory to touch.
const BUFFER_BYTES: usize = 8 * 1024;

const FIN_WAIT2: u8 = 5;

/// All in which a process can be waiting: not listening, closed, or in time-wait.
const STATES: u32 = {
    const TIME_WAIT: u32 = 6;
    const CLOSED: u32 = 7;
    const LISTEN: u32 = 10;
    const LAST: u32 = 12;
    ((1 << (LAST + 1)) - 2) & !(1 << TIME_WAIT | 1 << CLOSED | 1 << LISTEN)
};

/// Ends what goes out by the address that `kept` has here, and gives their number. What has both ends in the guest was
/// frozen as a whole and goes on. Their processes are told at once (`ECONNABORTED`).
pub(crate) fn close_all_but(kept: &Endpoints) -> io::Result<usize> {
    let flags = SocketFlags::CLOEXEC;
    let kernel = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    let mut buffer = [0; BUFFER_BYTES];
    let mut listed = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        list(&kernel, u8::try_from(family).map_err(io::Error::other)?, &mut buffer, &mut listed)?;
    }
    let mut closed = 0;
    for socket in listed.iter().filter(|socket| socket.leaves_by(kept.local.ip()) && socket.endpoints() != Some(*kept))
    {
        closed += usize::from(destroy(&kernel, socket, &mut buffer)?);
    }
    Ok(closed)
}

impl Listed {
    fn parse(message: &[u8]) -> Option<Self> {
        let (&[family, state, ..], rest) = message.split_first_chunk::<4>()?;
        Some(Self { family, state, id: *rest.first_chunk()? })
    }

    fn leaves_by(&self, address: IpAddr) -> bool {
        self.endpoints().is_some_and(|ends| ends.local.ip() == address && ends.peer.ip() != address)
    }

    /// `struct inet_diag_sockid`: both ports, then both addresses, as they are on the wire.
    fn endpoints(&self) -> Option<Endpoints> {
        let (ports, rest) = self.id.split_first_chunk::<4>()?;
        let (local, rest) = rest.split_first_chunk::<16>()?;
        let peer = rest.first_chunk::<16>()?;
        let [high, low, peer_high, peer_low] = *ports;
        Some(Endpoints {
            local: SocketAddr::new(self.address(local)?, u16::from_be_bytes([high, low])),
            peer: SocketAddr::new(self.address(peer)?, u16::from_be_bytes([peer_high, peer_low])),
        })
    }

    /// A socket for IPv6 can have a connection of IPv4.
    fn address(&self, bytes: &[u8; 16]) -> Option<IpAddr> {
        if i32::from(self.family) == libc::AF_INET {
            return Some(IpAddr::from(*bytes.first_chunk::<4>()?));
        }
        Some(Ipv6Addr::from(*bytes).to_canonical())
    }
}

fn list(kernel: &OwnedFd, family: u8, buffer: &mut [u8], into: &mut Vec<Listed>) -> io::Result<()> {
    send(kernel, SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, family, &[0; ID_BYTES])?;
    let mut last = false;
    while !last {
        receive(kernel, buffer, |kind, message| {
            match i32::from(kind) {
                libc::NLMSG_DONE => last = true,
                libc::NLMSG_ERROR => return Err(error_in(message).unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
                _ => into.extend(Listed::parse(message)),
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// False when it has ended by itself meanwhile.
fn destroy(kernel: &OwnedFd, socket: &Listed, buffer: &mut [u8]) -> io::Result<bool> {
    send(kernel, SOCK_DESTROY, libc::NLM_F_ACK, socket.family, &socket.id)?;
    let mut outcome = None;
    receive(kernel, buffer, |_, message| {
        outcome = error_in(message);
        Ok(())
    })?;
    match outcome {
        None => Ok(true),
        Some(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        // What its process has closed already is little more than a note of the kernel, and cannot be ended.
        Some(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && socket.state == FIN_WAIT2 => Ok(false),
        Some(error) => Err(error),
    }
}

fn send(kernel: &OwnedFd, kind: u16, flags: i32, family: u8, id: &[u8; ID_BYTES]) -> io::Result<()> {
    let mut message = Vec::with_capacity(REQUEST_BYTES);
    message.extend(u32::try_from(REQUEST_BYTES).map_err(io::Error::other)?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST | flags).map_err(io::Error::other)?.to_ne_bytes());
    // Sequence number and port: there is one question at a time, and the kernel knows who asks.
    message.extend([0; 8]);
    message.extend([family, u8::try_from(libc::IPPROTO_TCP).map_err(io::Error::other)?, 0, 0]);
    message.extend(STATES.to_ne_bytes());
    message.extend(id);
    rustix::net::send(kernel, &message, SendFlags::empty())?;
    Ok(())
}

/// Hands on the type and content of every message of one read.
fn receive(kernel: &OwnedFd, buffer: &mut [u8], mut each: impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let (read, _) = rustix::net::recv(kernel, &mut *buffer, RecvFlags::empty())?;
    let mut rest = buffer.get(..read).unwrap_or_default();
    while let Some((&[a, b, c, d, kind_low, kind_high, ..], _)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).map_err(io::Error::other)?;
        let Some(message) = rest.get(HEADER_BYTES..length) else { return Err(io::ErrorKind::InvalidData.into()) };
        each(u16::from_ne_bytes([kind_low, kind_high]), message)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// Of an `NLMSG_ERROR`, which is also how the kernel says that all went well.
fn error_in(message: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*message.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Addresses of loopback that nothing else on the machine uses, so that this ends nobody's connections.
    const HERE: &str = "127.83.11.1";
    const THERE: &str = "127.83.11.2";

    fn connect(listener: &TcpListener, from: &str) -> (TcpStream, TcpStream) {
        use rustix::net::{bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        connect(&socket, &listener.local_addr().unwrap()).unwrap();
        (TcpStream::from(socket), listener.accept().unwrap().0)
    }

    fn error_of(stream: &mut TcpStream) -> Option<i32> {
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0]).err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn connections_with_the_outside_end_and_others_go_on() {
        let here = TcpListener::bind((HERE, 0)).unwrap();
        let there = TcpListener::bind((THERE, 0)).unwrap();
        let (mut client, mut called) = connect(&here, THERE);
        let (mut peer, mut accepted) = connect(&here, THERE);
        let (mut dialled, mut other_peer) = connect(&there, HERE);
        let (mut inside, mut inside_too) = connect(&here, HERE);
        let (mut elsewhere, mut elsewhere_too) = connect(&there, THERE);
        let kept = Endpoints { local: called.local_addr().unwrap(), peer: called.peer_addr().unwrap() };

        assert_eq!(close_all_but(&kept).unwrap(), 2);

        for ended in [&mut accepted, &mut dialled] {
            assert_eq!(error_of(ended), Some(libc::ECONNABORTED));
        }
        for reset in [&mut peer, &mut other_peer] {
            assert_eq!(error_of(reset), Some(libc::ECONNRESET));
        }
        for kept in [&mut client, &mut called, &mut inside, &mut inside_too, &mut elsewhere, &mut elsewhere_too] {
            assert_eq!(error_of(kept), Some(libc::EAGAIN));
        }
        // Whoever listens goes on listening.
        let _next = connect(&here, THERE);
        assert_eq!(close_all_but(&kept).unwrap(), 1);
    }

    #[test]
    fn sockets_for_ipv6_count_by_the_address_that_they_use() {
        let mut id = [0; ID_BYTES];
        id[..4].copy_from_slice(&[0x1f, 0x90, 0, 80]);
        id[4..20].copy_from_slice(&"::ffff:169.254.0.21".parse::<Ipv6Addr>().unwrap().octets());
        id[20..36].copy_from_slice(&"::ffff:203.0.113.9".parse::<Ipv6Addr>().unwrap().octets());
        let socket = Listed { family: 10, state: 1, id };
        assert!(socket.leaves_by("169.254.0.21".parse().unwrap()));
        let ends = socket.endpoints().unwrap();
        assert_eq!((ends.local.port(), ends.peer.to_string()), (8080, "203.0.113.9:80".into()));
    }
}
