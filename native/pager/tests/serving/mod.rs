//! What the tests of serving share: an image of several layers, a pager over it, and a client as its VM.
#![allow(dead_code, reason = "not every test file needs all of it")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed, and fails by a panic"
)]
pub(crate) mod client;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use memory_image::{Extent, Header, LayerId, LayerWriter, Source};
use serde_json::Value;
use tempfile::TempDir;

use self::client::Client;

pub(crate) const PAGE: usize = 4096;
pub(crate) const PAGES: usize = 1024;

/// The user of a VM, of no other test.
pub(crate) struct Sandbox {
    pub(crate) uid: u32,
    /// Root's alone: the image.
    image: TempDir,
    /// As the host agent makes a sandbox's directory: the VM's user may add files, but not touch others'.
    directory: TempDir,
    pub(crate) content: Vec<u8>,
}

impl Sandbox {
    pub(crate) fn new(uid: u32) -> Self {
        let (image, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        std::os::unix::fs::chown(directory.path(), Some(0), Some(uid)).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1770)).unwrap();
        fs::create_dir(image.path().join("layers")).unwrap();
        let content = write_image(&image);
        Self { uid, image, directory, content }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn layer_file(&self, number: u8) -> PathBuf {
        layer(number).directory(&self.image.path().join("layers")).join("memory")
    }

    /// Changes one byte of a layer.
    pub(crate) fn corrupt(&self, number: u8, offset: u64) {
        let file = File::options().read(true).write(true).open(self.layer_file(number)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }

    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wrenn-pager"));
        command.arg("serve").arg("--socket").arg(self.file("pager.sock"));
        command.arg("--status").arg(self.file("pager.json")).args(["--uid", &self.uid.to_string()]);
        command.arg("--header").arg(self.image.path().join("header"));
        command.arg("--layers").arg(self.image.path().join("layers")).args(options);
        command
    }

    /// A pager that listens.
    pub(crate) fn serve(&self, options: &[&str]) -> Pager {
        let mut command = self.command(options);
        let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pager = Pager { process, status: self.file("pager.json") };
        until(|| pager.status().is_some_and(|status| status["state"] == "listening"));
        pager
    }

    pub(crate) fn client(&self) -> Client {
        Client::start(&self.file("pager.sock"), self.uid, self.content.len())
    }

    /// What a client must read.
    pub(crate) fn hash(&self, from: usize, to: usize) -> u64 {
        client::hash(&self.content[from * PAGE..to * PAGE])
    }
}

pub(crate) struct Pager {
    pub(crate) process: Child,
    status: PathBuf,
}

impl Pager {
    pub(crate) fn status(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(&self.status).ok()?).ok()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status().unwrap()["counts"][name].as_u64().unwrap()
    }

    /// Its last status, or the code of its error.
    pub(crate) fn ends(&mut self) -> Result<Value, String> {
        let succeeded = self.process.wait().unwrap().success();
        let mut error = String::new();
        std::io::Read::read_to_string(&mut self.process.stderr.take().unwrap(), &mut error).unwrap();
        let status = self.status().unwrap_or_default();
        if succeeded {
            assert_eq!(error, "");
            return Ok(status);
        }
        let error: Value = serde_json::from_str(&error).unwrap();
        assert_eq!(status["state"], "failed");
        assert_eq!(status["message"], error["error"]["message"]);
        Err(error["error"]["code"].as_str().unwrap().to_owned())
    }

    /// A line of /proc/PID/status.
    pub(crate) fn process_status(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks until it is so.
pub(crate) fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(condition(), "waited in vain");
}

pub(crate) fn layer(number: u8) -> LayerId {
    LayerId::from_bytes([number; 16])
}

/// Memory whose pages come from two layers by turns, in runs of 1 to 7 pages, with zeros between; one long stretch of zeros at
/// the end. Returns what it holds.
fn write_image(directory: &TempDir) -> Vec<u8> {
    let layers = directory.path().join("layers");
    let mut content = vec![0; PAGES * PAGE];
    let mut writers = [1, 2].map(|number| LayerWriter::create(&layers, layer(number)).unwrap());
    let mut extents = Vec::new();
    let (mut page, mut run) = (0, 0);
    while page < PAGES {
        let length = if page < PAGES * 3 / 4 { (run * 5 % 7 + 1).min(PAGES * 3 / 4 - page) } else { PAGES - page };
        let bytes = &mut content[page * PAGE..(page + length) * PAGE];
        let which = if page < PAGES * 3 / 4 { run % 3 } else { 2 };
        let source = if which == 2 {
            Source::Zero
        } else {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::try_from((at * 31 + page * 7 + at / PAGE) % 251).unwrap();
            }
            let offset = writers[which].append(bytes).unwrap();
            Source::Layer { index: u32::try_from(which).unwrap(), offset }
        };
        let [guest, length_bytes] = [page, length].map(|pages| (pages * PAGE) as u64);
        extents.push(Extent { guest, length: length_bytes, source });
        (page, run) = (page + length, run + 1);
    }
    for writer in writers {
        writer.finish().unwrap().publish();
    }
    let header = Header::new(content.len() as u64, vec![layer(1), layer(2)], extents).unwrap();
    header.write(&directory.path().join("header")).unwrap();
    content
}
