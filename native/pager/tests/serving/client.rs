//! A VM's process as the pager sees it: this program once more, whose guest memory the preloaded library's code has handed
//! over, and which does with it what it is told on stdin.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE};

use super::PAGE;

const SIZE: &str = "CLIENT_MEMORY_SIZE";

/// What the test named `client` does: nothing, unless it is run as one.
pub(crate) fn run_if_asked() {
    let Ok(size) = std::env::var(SIZE) else { return };
    let memory = map(size.parse().unwrap());
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [from, to] = [1, 2].map(|at| words[at].parse::<usize>().unwrap() * PAGE);
        let pages = &mut memory[from..to];
        match words[0] {
            "discard" => {
                // SAFETY: whole pages of this process's own memory, which then read as zeros.
                assert_eq!(unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED) }, 0);
            }
            "write" => pages.fill(b'w'),
            _ => {}
        }
        println!("\nDONE {}", hash(pages));
    }
    std::process::exit(0);
}

/// As QEMU does it.
fn map(size: usize) -> &'static mut [u8] {
    let anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    // SAFETY: new memory at an address of the kernel's choice.
    let reserved = unsafe { libc::mmap(std::ptr::null_mut(), size, PROT_NONE, anonymous, -1, 0) };
    // SAFETY: what was just reserved.
    let memory = unsafe { wrenn_memory::mmap64(reserved, size, PROT_READ | PROT_WRITE, anonymous | MAP_FIXED, -1, 0) };
    assert_ne!(memory, MAP_FAILED);
    // SAFETY: it is that long, writable, and nothing else leads to it.
    unsafe { std::slice::from_raw_parts_mut(memory.cast(), size) }
}

/// FNV-1a: each byte and its place count.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x100_0000_01b3))
}

pub(crate) struct Client {
    pub(crate) process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn start(socket: &Path, uid: u32, size: usize) -> Self {
        let device = File::open("/dev/userfaultfd").unwrap();
        let descriptor = device.as_raw_fd();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "client", "--nocapture"]).env(SIZE, size.to_string()).uid(uid).gid(uid);
        command.env("WRENN_GUEST_MEMORY", format!("size={size},uffd={descriptor},socket={}", socket.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let inherit = move || {
            // SAFETY: this request takes a number.
            let set = unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) };
            if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: fcntl may be called between fork and exec.
        unsafe { command.pre_exec(inherit) };
        let mut process = command.spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, stdin, stdout }
    }

    /// Has it do so, and waits for nothing.
    pub(crate) fn begins(&mut self, what: &str, from: usize, to: usize) -> Option<()> {
        writeln!(self.stdin, "{what} {from} {to}").ok()
    }

    /// Whether one of its threads waits for a page.
    pub(crate) fn waits_for_a_page(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        threads.flatten().any(|thread| {
            std::fs::read_to_string(thread.path().join("wchan")).is_ok_and(|place| place == "handle_userfault")
        })
    }

    /// Hash of the pages, after it has done `what` with them; none if it ended before.
    pub(crate) fn does(&mut self, what: &str, from: usize, to: usize) -> Option<u64> {
        self.begins(what, from, to)?;
        self.stdout.by_ref().lines().find_map(|line| line.ok()?.strip_prefix("DONE ")?.parse().ok())
    }

    pub(crate) fn reads(&mut self, from: usize, to: usize) -> Option<u64> {
        self.does("read", from, to)
    }

    pub(crate) fn ends(mut self) -> ExitStatus {
        drop(self.stdin);
        self.process.wait().unwrap()
    }
}
