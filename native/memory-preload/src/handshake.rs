//! Firecracker's handshake with a page fault handler: one message that says where guest memory lies in this process, with
//! the userfaultfd beside it. Nothing comes back.
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use userfault::Userfault;

pub(crate) fn hand_over(userfault: &Userfault, base: u64, size: usize, socket: &Path) -> io::Result<()> {
    let pager = UnixStream::connect(socket)?;
    let regions = format!(r#"[{{"base_host_virt_addr":{base},"size":{size},"offset":0,"page_size":4096}}]"#);
    let descriptors = [userfault.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // There is room for exactly this one.
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(&pager, &[IoSlice::new(regions.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == regions.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
