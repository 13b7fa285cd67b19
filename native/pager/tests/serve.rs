//! A VM gets every byte of its memory from the pager, and nothing is left of it afterwards.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
use std::fs;
use std::io::{Read, Seek, SeekFrom};

mod serving;
use serving::{PAGE, PAGES, Sandbox, until};

/// The VM's process; see `serving::client`.
#[test]
fn client() {
    serving::client::run_if_asked();
}

#[test]
fn every_page_is_what_the_image_holds_in_whatever_order_it_is_touched() {
    let sandbox = Sandbox::new(61_001);
    let mut pager = sandbox.serve(&[]);
    let mut client = sandbox.client();
    for page in (0..PAGES).map(|number| number * 389 % PAGES) {
        assert_eq!(client.reads(page, page + 1), Some(sandbox.hash(page, page + 1)), "page {page}");
    }
    let status = pager.ends().unwrap();
    assert_eq!(status["state"], "complete");
    assert_eq!(status["vm_pid"], client.process.id());
    assert_eq!(status["regions"][0]["size"], sandbox.content.len());
    let counts = &status["counts"];
    let [copied, zeroed, faults] =
        ["pages_copied", "pages_zeroed", "faults"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!(copied + zeroed, PAGES as u64);
    assert!(faults < PAGES as u64 / 2, "{faults} faults: a fault brings in what lies beside it");

    // The pager has let go, and the VM goes on with what it has.
    assert_eq!(client.reads(0, PAGES), Some(sandbox.hash(0, PAGES)));
    client.does("write", 0, 8).unwrap();
    assert_eq!(client.reads(8, PAGES), Some(sandbox.hash(8, PAGES)));
    assert!(client.ends().success());
    assert_eq!(sandbox.names(), ["pager.json"]);
}

#[test]
fn the_pager_ends_with_its_vm_and_leaves_no_socket() {
    let sandbox = Sandbox::new(61_002);
    let mut pager = sandbox.serve(&[]);
    let mut client = sandbox.client();
    assert_eq!(client.reads(5, 6), Some(sandbox.hash(5, 6)));
    assert!(!sandbox.file("pager.sock").exists());
    client.process.kill().unwrap();
    client.ends();
    let status = pager.ends().unwrap();
    assert_eq!(status["state"], "serving");
    assert_eq!(status["counts"]["faults"], 1);
}

#[test]
fn a_serving_pager_has_no_power_left() {
    let sandbox = Sandbox::new(61_003);
    let pager = sandbox.serve(&[]);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(pager.process_status(name), "0000000000000000", "{name}");
    }
    for name in ["Uid", "Gid"] {
        assert!(pager.process_status(name).split('\t').all(|id| id == "61003"), "{name}");
    }
    assert_eq!(pager.process_status("Groups"), "");
    assert_eq!(pager.process_status("NoNewPrivs"), "1");
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    assert_ne!(namespace(&pager.process.id().to_string()), namespace("self"));
}

#[test]
fn neither_memory_nor_descriptors_grow_with_the_number_of_faults() {
    let sandbox = Sandbox::new(61_004);
    let mut pager = sandbox.serve(&[]);
    let mut client = sandbox.client();
    client.reads(0, 600).unwrap();
    let mut many = |rounds: usize| {
        for _ in 0..rounds {
            // Each page that is given back is a fault when it is touched again, and is zero, as the kernel promises.
            client.does("discard", 0, 500).unwrap();
        }
        let resident = pager.process_status("VmRSS");
        (pager.descriptors(), resident.trim_end_matches(" kB").parse::<u64>().unwrap())
    };
    let (descriptors, resident) = many(2);
    let (descriptors_after, resident_after) = many(40);
    assert_eq!(descriptors_after, descriptors);
    // One number kept for every fault would be 160 kB; the kernel itself counts to within some pages.
    assert!(resident_after < resident + 120, "{resident} kB became {resident_after}");
    client.ends();
    assert!(pager.ends().unwrap()["counts"]["faults"].as_u64().unwrap() > 20_000);
}

#[test]
fn a_hundred_vms_one_after_the_other_leave_nothing_behind() {
    let sandbox = Sandbox::new(61_005);
    for _ in 0..100 {
        let mut pager = sandbox.serve(&[]);
        let mut client = sandbox.client();
        assert_eq!(client.reads(0, 1), Some(sandbox.hash(0, 1)));
        assert!(client.ends().success());
        pager.ends().unwrap();
        fs::remove_file(sandbox.file("pager.json")).unwrap();
        assert!(sandbox.names().is_empty(), "{:?}", sandbox.names());
    }
}

#[test]
fn what_a_vm_needed_first_is_there_the_next_time_before_it_asks() {
    let sandbox = Sandbox::new(61_006);
    let needed = [3, 200, 201, 450, 700, 1000];
    let record = sandbox.file("working-set");
    let record_option = ["--record", record.to_str().unwrap()];
    let mut pager = sandbox.serve(&record_option);
    let mut client = sandbox.client();
    for page in needed {
        client.reads(page, page + 1).unwrap();
    }
    client.ends();
    let first = pager.ends().unwrap()["counts"]["faults"].as_u64().unwrap();
    assert!(first >= 4);
    fs::remove_file(sandbox.file("pager.json")).unwrap();

    let recorded = fs::read(&record).unwrap();
    let granules = |recorded: &[u8]| u32::from_le_bytes(recorded[12..16].try_into().unwrap());
    let earlier = sandbox.file("earlier");
    fs::copy(&record, &earlier).unwrap();
    let mut pager = sandbox.serve(&[record_option[0], record_option[1], "--working-set", earlier.to_str().unwrap()]);
    let mut client = sandbox.client();
    until(|| pager.status().is_some_and(|status| status["state"] == "serving"));
    let base = pager.status().unwrap()["regions"][0]["base_host_virt_addr"].as_u64().unwrap();
    let process = client.process.id();
    until(|| needed.iter().all(|page| is_present(process, base + (page * PAGE) as u64)));
    for page in needed {
        assert_eq!(client.reads(page, page + 1), Some(sandbox.hash(page, page + 1)));
    }
    client.ends();
    let counts = pager.ends().unwrap()["counts"].clone();
    assert_eq!(counts["faults"], 0);
    assert!(counts["pages_prefetched"].as_u64().unwrap() >= needed.len() as u64);
    let again = fs::read(&record).unwrap();
    assert_eq!(granules(&again), granules(&recorded), "what was there before it was asked for is not forgotten");
}

#[test]
fn a_working_set_that_cannot_be_read_is_no_error() {
    let sandbox = Sandbox::new(61_007);
    let wrong = sandbox.file("wrong");
    fs::write(&wrong, b"WRENNWSS and nothing that follows").unwrap();
    for file in [&wrong, &sandbox.file("missing")] {
        let mut pager = sandbox.serve(&["--working-set", file.to_str().unwrap()]);
        let mut client = sandbox.client();
        assert_eq!(client.reads(0, PAGES), Some(sandbox.hash(0, PAGES)));
        assert_eq!(pager.ends().unwrap()["counts"]["pages_prefetched"], 0);
        client.ends();
        fs::remove_file(sandbox.file("pager.json")).unwrap();
    }
}

/// Whether the page at `address` of a process is in memory (bit 63 of its entry, see proc(5)).
fn is_present(process: u32, address: u64) -> bool {
    let mut pagemap = fs::File::open(format!("/proc/{process}/pagemap")).unwrap();
    let mut entry = [0; 8];
    pagemap.seek(SeekFrom::Start(address / PAGE as u64 * 8)).unwrap();
    pagemap.read_exact(&mut entry).unwrap();
    u64::from_le_bytes(entry) >> 63 == 1
}
