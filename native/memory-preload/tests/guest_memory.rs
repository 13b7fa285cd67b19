//! What a process gets when it maps guest memory as QEMU does: this file runs itself again, with the library's environment.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE};
use memory_image::{Extent, Header, LayerId, PAGE_SIZE, Source};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use userfault::Userfault;

const SIZE: usize = 1 << 20;
const IN_CHILD: &str = "IN_CHILD";

/// Maps guest memory as QEMU does, writes its second page, and prints the first bytes of the first and the last page.
fn child() {
    let reserved = map(std::ptr::null_mut(), 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    let other = map(std::ptr::null_mut(), SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    let memory = map(reserved, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
    assert_eq!(memory, reserved);
    // SAFETY: it is SIZE long, writable, and only this slice leads to it.
    let memory = unsafe { std::slice::from_raw_parts_mut(memory, SIZE) };
    // SAFETY: as above.
    let other = unsafe { std::slice::from_raw_parts(other, SIZE) };
    assert!(other.iter().all(|&byte| byte == 0), "only guest memory is replaced");
    memory[4096] = b'w';
    println!("MEMORY {}{}", char::from(memory[0]), char::from(memory[SIZE - 4096]));
}

fn map(address: *mut u8, length: usize, protection: i32, flags: i32) -> *mut u8 {
    // SAFETY: new memory, or a part of what this test reserved.
    let mapped = unsafe { wrenn_memory::mmap64(address.cast(), length, protection, flags, -1, 0) };
    assert_ne!(mapped, MAP_FAILED, "{}", io::Error::last_os_error());
    mapped.cast()
}

/// The child, which inherits `file` under its own number.
fn start(configuration: &str, file: &File) -> Child {
    start_with(configuration, &[(file, file.as_raw_fd())])
}

/// The child, which inherits each file under the number beside it.
fn start_with(configuration: &str, files: &[(&File, RawFd)]) -> Child {
    let files = files.iter().map(|&(file, number)| (file.as_raw_fd(), number)).collect::<Vec<_>>();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "guest_memory_is_what_the_environment_names", "--nocapture"]);
    command.env(IN_CHILD, "1").env("WRENN_GUEST_MEMORY", configuration);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let inherit = move || {
        for &(descriptor, number) in &files {
            let set = if descriptor == number {
                // SAFETY: this request takes a number.
                unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) }
            } else {
                // SAFETY: takes numbers.
                unsafe { libc::dup2(descriptor, number) }
            };
            if set < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: fcntl and dup2 may be called between fork and exec.
    unsafe { command.pre_exec(inherit) };
    command.spawn().expect("the child starts")
}

fn file_of(length: usize) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.set_len(length as u64).expect("its length");
    file.write_all(b"a").expect("its beginning");
    file.seek(SeekFrom::Start((length - 4096) as u64)).expect("its end");
    file.write_all(b"z").expect("its end");
    file
}

#[test]
fn guest_memory_is_what_the_environment_names() {
    if std::env::var_os(IN_CHILD).is_some() {
        return child();
    }
    let mut file = file_of(SIZE);
    let output = start(&format!("size={SIZE},file={}", file.as_raw_fd()), &file).wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("MEMORY az"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let mut written = [0];
    file.seek(SeekFrom::Start(4096)).and_then(|_| file.read_exact(&mut written)).expect("the second page");
    assert_eq!(written, [0], "what a guest writes stays its own");
}

/// An image of `SIZE` bytes: the first page and the last lie in the second layer, the second page is zero, the rest lies in the first.
fn image() -> Header {
    let page = PAGE_SIZE;
    let (size, last) = (SIZE as u64, SIZE as u64 - page);
    let extent = |guest, length, source| Extent { guest, length, source };
    let extents = vec![
        extent(0, page, Source::Layer { index: 1, offset: page }),
        extent(page, page, Source::Zero),
        extent(2 * page, size - 3 * page, Source::Layer { index: 0, offset: 2 * page }),
        extent(last, page, Source::Layer { index: 1, offset: 0 }),
    ];
    Header::new(size, vec![LayerId::from_bytes([1; 16]), LayerId::from_bytes([2; 16])], extents).expect("a header")
}

fn start_image(header: &[u8], layers: [&File; 2]) -> Child {
    const FIRST: RawFd = 200;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(header).and_then(|()| file.rewind()).expect("its content");
    let [first, second] = layers;
    let files = [(&file, FIRST), (first, FIRST + 1), (second, FIRST + 2)];
    start_with(&format!("size={SIZE},image={FIRST},layers=2"), &files)
}

#[test]
fn the_pieces_of_an_image_come_from_its_layers() {
    let (mut first, second) = (file_of(SIZE), file_of(2 * 4096));
    first.seek(SeekFrom::Start(4096)).and_then(|_| first.write_all(b"x")).expect("what the zeros hide");
    let output = start_image(&image().encode(), [&first, &second]).wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("MEMORY za"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let mut written = [0];
    first.seek(SeekFrom::Start(4096)).and_then(|_| first.read_exact(&mut written)).expect("the second page");
    assert_eq!(&written, b"x", "what a guest writes stays its own");
}

#[test]
fn an_image_that_is_not_whole_ends_the_process_before_it_runs() {
    let (first, second, short) = (file_of(SIZE), file_of(2 * 4096), file_of(4096));
    let mut damaged = image().encode();
    damaged[50] ^= 1;
    let other = Header::new_flat(SIZE as u64, LayerId::from_bytes([1; 16]), whole()).expect("a header").encode();
    let cases = [
        (image().encode(), [&first, &short], "ends before the memory"),
        (damaged, [&first, &second], "not a memory image"),
        (other, [&first, &second], "in 1 layers"),
    ];
    for (header, layers, reason) in cases {
        let output = start_image(&header, layers).wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(71), "{reason}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("MEMORY"));
    }
}

fn whole() -> Vec<Extent> {
    vec![Extent { guest: 0, length: SIZE as u64, source: Source::Layer { index: 0, offset: 0 } }]
}

#[test]
fn a_file_of_another_length_ends_the_process_before_it_runs() {
    let file = file_of(SIZE - 4096);
    let output = start(&format!("size={SIZE},file={}", file.as_raw_fd()), &file).wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(71));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the memory file is 1044480 bytes long, guest memory 1048576"), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("MEMORY"));
}

#[test]
fn a_missing_or_wrong_environment_or_descriptor_ends_the_process_before_it_runs() {
    let file = file_of(SIZE);
    for configuration in [
        "",
        "size=1048576",
        "size=1048576,file=999",
        "size=1048576,image=999,layers=1",
        "size=1048576,uffd=999,socket=/nowhere",
    ] {
        let output = start(configuration, &file).wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(71), "{configuration}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("libwrenn-memory: WRENN_GUEST_MEMORY: "), "{said}");
    }
}

#[test]
fn pages_come_from_whoever_listens_at_the_socket() {
    let device = File::open("/dev/userfaultfd").expect("/dev/userfaultfd, as root");
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("pager,sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let configuration = format!("size={SIZE},uffd={},socket={}", device.as_raw_fd(), socket.display());
    let child = start(&configuration, &device);
    let (stream, _) = listener.accept().expect("the child connects");
    let (regions, userfault) = receive(&stream);

    let base: u64 = regions.split([':', ',']).nth(1).and_then(|base| base.parse().ok()).expect("a base address");
    assert_eq!(regions, format!(r#"[{{"base_host_virt_addr":{base},"size":{SIZE},"offset":0,"page_size":4096}}]"#));
    let end = base + SIZE as u64;
    assert_eq!(userfault.copy(base, &[b'p'; 4096]).bytes, 4096);
    assert_eq!(userfault.zero(base + 4096..end - 4096).bytes, (SIZE - 8192) as u64);
    assert_eq!(userfault.copy(end - 4096, &[b'q'; 4096]).bytes, 4096);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("MEMORY pq"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

fn receive(stream: &std::os::unix::net::UnixStream) -> (String, Userfault) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut message = [0; 256];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut message)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
    let length = received.expect("a message").bytes;
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let [descriptor] = <[OwnedFd; 1]>::try_from(descriptors).expect("one descriptor");
    (String::from_utf8_lossy(&message[..length]).into_owned(), Userfault::from(descriptor))
}
