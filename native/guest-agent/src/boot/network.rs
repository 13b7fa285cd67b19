//! Loopback and `eth0`, by the ioctls of old: no program of the guest is needed, and each is one system call.
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{BootError, failed};

/// The same in every guest, so that any frozen state fits any slot (packages/contract/src/guest-network.ts).
const INTERFACE: &str = "eth0";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 21);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 252);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 22);

pub(super) fn configure() -> Result<(), BootError> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("opening a socket"))?;
    // The kernel gives loopback its address by itself.
    bring_up(&socket, "lo").map_err(failed("lo"))?;
    set_address(&socket, libc::SIOCSIFADDR, ADDRESS).map_err(failed("eth0 address"))?;
    set_address(&socket, libc::SIOCSIFNETMASK, NETMASK).map_err(failed("eth0 netmask"))?;
    bring_up(&socket, INTERFACE).map_err(failed("eth0"))?;
    add_default_route(&socket).map_err(failed("default route"))
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let internet = libc::sockaddr_in {
        sin_family: 2, // AF_INET
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the kernel's two views of the same 16 bytes.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet) }
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn ioctl<T>(socket: &OwnedFd, operation: u64, argument: &mut T) -> io::Result<()> {
    // SAFETY: callers pass the structure that belongs to the operation.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), operation, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bring_up(socket: &OwnedFd, interface: &str) -> io::Result<()> {
    let mut request = request(interface);
    request.ifr_ifru.ifru_flags = 0x1 | 0x40; // IFF_UP | IFF_RUNNING
    ioctl(socket, libc::SIOCSIFFLAGS, &mut request)
}

fn set_address(socket: &OwnedFd, operation: u64, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(INTERFACE);
    request.ifr_ifru.ifru_addr = socket_address(address);
    ioctl(socket, operation, &mut request)
}

fn add_default_route(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: all zeroes is a valid route.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(GATEWAY);
    route.rt_flags = 0x1 | 0x2; // RTF_UP | RTF_GATEWAY
    ioctl(socket, libc::SIOCADDRT, &mut route)
}
