//! Whatever is wrong, a VM never goes on with memory that is not its own, and somebody is told why.
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

mod serving;
use serving::client::Client;
use serving::{PAGE, PAGES, Sandbox, until};

/// The VM's process; see `serving::client`.
#[test]
fn client() {
    serving::client::run_if_asked();
}

#[test]
fn a_damaged_block_ends_the_vm_before_it_sees_a_byte_of_it() {
    let sandbox = Sandbox::new(61_101);
    sandbox.corrupt(2, 70_000);
    let mut pager = sandbox.serve(&[]);
    let mut client = sandbox.client();
    let read = (0..PAGES).find(|&page| {
        let hash = client.reads(page, page + 1);
        assert!(hash.is_none() || hash == Some(sandbox.hash(page, page + 1)), "page {page}");
        hash.is_none()
    });
    assert!(read.is_some(), "the damage is in what was read");
    assert_eq!(client.ends().signal(), Some(libc::SIGKILL));
    assert_eq!(pager.ends(), Err("layer_damaged".to_owned()));
    let message = pager.status().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("block 1 does not match its checksum"), "{message}");
}

#[test]
fn a_layer_that_was_cut_ends_the_vm() {
    let sandbox = Sandbox::new(61_102);
    let mut pager = sandbox.serve(&[]);
    let mut client = sandbox.client();
    assert_eq!(client.reads(0, 1), Some(sandbox.hash(0, 1)));
    std::fs::File::options().write(true).open(sandbox.layer_file(1)).unwrap().set_len(65_536).unwrap();
    assert_eq!(client.reads(0, PAGES), None);
    assert_eq!(client.ends().signal(), Some(libc::SIGKILL));
    assert_eq!(pager.ends(), Err("layer_damaged".to_owned()));
}

#[test]
fn a_pager_that_no_vm_comes_to_ends_and_says_so() {
    let sandbox = Sandbox::new(61_103);
    let mut pager = sandbox.serve(&["--accept-timeout", "50"]);
    assert_eq!(pager.ends(), Err("no_client".to_owned()));
    assert_eq!(sandbox.names(), ["pager.json"]);
}

#[test]
fn another_user_is_turned_away_and_the_right_one_is_served() {
    let sandbox = Sandbox::new(61_104);
    let mut pager = sandbox.serve(&[]);
    // Root may connect to any socket, and is not the VM either.
    let mut root = UnixStream::connect(sandbox.file("pager.sock")).unwrap();
    assert_eq!(std::io::Read::read(&mut root, &mut [0]).unwrap_or(0), 0);
    let foreign = Client::start(&sandbox.file("pager.sock"), 61_199, sandbox.content.len());
    assert_eq!(foreign.ends().code(), Some(71), "it cannot even connect");
    let mut client = sandbox.client();
    assert_eq!(client.reads(0, PAGES), Some(sandbox.hash(0, PAGES)));
    pager.ends().unwrap();
    client.ends();
}

#[test]
fn a_vm_of_another_size_is_not_served() {
    for (uid, size) in [(61_105, (PAGES - 1) * PAGE), (61_106, (PAGES + 1) * PAGE)] {
        let sandbox = Sandbox::new(uid);
        let mut pager = sandbox.serve(&[]);
        let client = Client::start(&sandbox.file("pager.sock"), uid, size);
        assert_eq!(pager.ends(), Err("handshake_failed".to_owned()));
        assert!(pager.status().unwrap()["message"].as_str().unwrap().contains("bytes"));
        client.ends();
        assert_eq!(sandbox.names(), ["pager.json"]);
    }
}

#[test]
fn what_is_wrong_with_the_image_is_found_before_a_vm_is_listened_to() {
    let sandbox = Sandbox::new(61_107);
    std::fs::remove_file(sandbox.layer_file(2)).unwrap();
    let output = sandbox.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("layer_missing"));
    assert!(sandbox.names().is_empty());
}

#[test]
fn a_vm_whose_pager_was_killed_waits_and_reads_nothing_wrong() {
    let sandbox = Sandbox::new(61_108);
    let mut pager = sandbox.serve(&[]);
    let mut client = sandbox.client();
    assert_eq!(client.reads(0, 1), Some(sandbox.hash(0, 1)));
    pager.process.kill().unwrap();
    pager.process.wait().unwrap();
    client.begins("read", 0, PAGES).unwrap();
    until(|| client.waits_for_a_page());
    client.process.kill().unwrap();
    assert_eq!(client.ends().signal(), Some(libc::SIGKILL));
}
