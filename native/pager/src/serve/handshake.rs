//! The socket that a VM comes to, once, with what Firecracker sends to a page fault handler.
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

use memory_image::{Error, ErrorCode, Result};
use rustix::event::PollFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::socket_peercred};

use super::vm::{Vm, wait};

/// A region takes about 90 bytes, and an engine has two of them at most.
const MOST_MESSAGE_BYTES: usize = 4096;

/// Removes its name when dropped.
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// In a directory that this process's user may write; only that user and root may connect.
    pub(crate) fn bind(path: PathBuf) -> Result<Self> {
        let failed = |error| Error::io("listen at", &path, &error);
        let previous = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&path).map_err(failed);
        rustix::process::umask(previous);
        let listener = listener?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// The first process of user `uid` that connects. Others are turned away without a word.
    pub(crate) fn accept(&self, uid: u32, deadline: Instant) -> Result<Vm> {
        loop {
            if wait([(self.listener.as_fd(), PollFlags::IN)], Some(deadline))? == [false] {
                return Err(Error::new(ErrorCode::NoClient, "no VM asked for its memory in time"));
            }
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                // Gone again before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(Error::io("accept a connection at", &self.path, &error)),
            };
            let peer = socket_peercred(&stream)
                .map_err(|error| Error::io("ask who connected to", &self.path, &error.into()))?;
            if peer.uid.as_raw() == uid {
                return Vm::new(stream, peer.pid);
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // If it is gone already, that is what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The one message of a VM: its text and the descriptors beside it.
pub(crate) fn receive(stream: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MOST_MESSAGE_BYTES];
    // Room for more than the one that is expected, so that more are seen and refused; the kernel closes what has no room.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )
    .map_err(|error| Error::new(ErrorCode::HandshakeFailed, format!("cannot hear the VM: {error}")))?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    text.truncate(received.bytes);
    Ok((text, descriptors))
}
