//! What `/init` changes about the guest's system. Takes system calls that may wait for the disk.
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec};
use serde::Serialize;

use crate::connections::{self, Endpoints};
use crate::{boot_id, entropy};

/// Below this the request's own way here explains the difference, and stepping the clock would only disturb.
const CLOCK_TOLERANCE_MS: i128 = 50;

pub(crate) struct SystemChanges {
    pub(crate) time: Option<Timespec>,
    pub(crate) entropy: Option<Vec<u8>>,
    pub(crate) hostname: Option<String>,
    pub(crate) machine_id: Option<String>,
    pub(crate) dns: Option<Vec<String>>,
    pub(crate) restored: Option<Restored>,
}

/// What only a guest needs that was frozen and runs again, here or as a copy.
pub(crate) struct Restored {
    /// Whether the machine is this agent's guest: one that it merely runs on has had no past that must end.
    pub(crate) is_guest: bool,
    /// The connection of the present.
    pub(crate) caller: Endpoints,
}

/// Confirms to the host side that nothing is left that a copy of this guest has, too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Renewal {
    reseeded: bool,
    connections_closed: usize,
}

/// The renewal is that of a restored guest.
pub(crate) fn apply(changes: &SystemChanges) -> io::Result<Option<Renewal>> {
    // Before anything derives keys or names from the generator or the clock.
    if let Some(entropy) = &changes.entropy {
        entropy::add(entropy).map_err(explain("adding entropy"))?;
    }
    if let Some(time) = changes.time {
        set_clock(time).map_err(explain("setting the clock"))?;
    }
    let renewal = changes.restored.as_ref().map(renew).transpose()?;
    if let Some(hostname) = &changes.hostname {
        set_hostname(hostname).map_err(explain("setting the host name"))?;
    }
    if let Some(id) = &changes.machine_id {
        write_if_changed("/etc/machine-id", &format!("{id}\n")).map_err(explain("writing /etc/machine-id"))?;
    }
    if let Some(servers) = changes.dns.as_deref().filter(|servers| !servers.is_empty()) {
        write_resolv_conf(servers).map_err(explain("writing /etc/resolv.conf"))?;
    }
    Ok(renewal)
}

fn renew(restored: &Restored) -> io::Result<Renewal> {
    let mut renewal = Renewal { reseeded: true, connections_closed: 0 };
    if restored.is_guest {
        renewal.connections_closed =
            connections::close_all_but(&restored.caller).map_err(explain("ending connections of the past"))?;
        boot_id::renew().map_err(explain("giving the guest a new boot id"))?;
    }
    Ok(renewal)
}

fn explain(doing: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{doing}: {error}"))
}

fn set_clock(to: Timespec) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds =
        |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1000 + i128::from(nanoseconds / 1_000_000);
    let ours = milliseconds(now.as_secs().cast_signed(), now.subsec_nanos().into());
    if (milliseconds(to.tv_sec, to.tv_nsec) - ours).abs() <= CLOCK_TOLERANCE_MS {
        return Ok(());
    }
    Ok(rustix::time::clock_settime(ClockId::Realtime, to)?)
}

fn set_hostname(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    write_if_changed("/etc/hostname", &format!("{name}\n"))?;
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    write_if_changed("/etc/hosts", &with_own_name(&hosts, name))
}

/// Debian's convention: 127.0.1.1 is the machine's own name. `sudo` complains when it does not resolve.
fn with_own_name(hosts: &str, name: &str) -> String {
    let mut lines: Vec<&str> = hosts.lines().filter(|line| !line.starts_with("127.0.1.1")).collect();
    if !lines.iter().any(|line| line.starts_with("127.0.0.1")) {
        lines.insert(0, "127.0.0.1\tlocalhost");
    }
    let own = format!("127.0.1.1\t{name}");
    lines.push(&own);
    lines.join("\n") + "\n"
}

/// Resume calls `/init` again with the same values: the disk need not notice. Written over, not anew: a file that is cut to
/// nothing first has its blocks allocated while its writer waits (ext4's `auto_da_alloc`), and here somebody waits for the writer.
/// Nor is it cut to the length that it has, which is work, too.
fn write_if_changed(path: &str, content: &str) -> io::Result<()> {
    let current = fs::read_to_string(path).unwrap_or_default();
    if current == content {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(content.as_bytes())?;
    if current.len() > content.len() {
        file.set_len(content.len() as u64)?;
    }
    Ok(())
}

/// In images made for other init systems it is often a link to what such a system would write; that file is not there.
pub(crate) fn write_resolv_conf(servers: &[String]) -> io::Result<()> {
    let path = Path::new("/etc/resolv.conf");
    let mut content = String::new();
    for server in servers {
        content.push_str("nameserver ");
        content.push_str(server);
        content.push('\n');
    }
    if path.is_symlink() && !path.exists() {
        fs::remove_file(path)?;
    }
    write_if_changed("/etc/resolv.conf", &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_name_replaces_an_older_one_and_nothing_else() {
        let before = "127.0.0.1\tlocalhost\n127.0.1.1\told\n::1\tip6-localhost\n";
        assert_eq!(with_own_name(before, "new"), "127.0.0.1\tlocalhost\n::1\tip6-localhost\n127.0.1.1\tnew\n");
        assert_eq!(with_own_name("", "new"), "127.0.0.1\tlocalhost\n127.0.1.1\tnew\n");
    }

    #[test]
    fn a_file_holds_what_was_written_last_and_is_left_alone_while_it_does() {
        let file = std::env::temp_dir().join(format!("wrenn-guest-name-{}", std::process::id()));
        let path = file.to_str().unwrap();
        for content in ["a long name\n", "short\n", "a longer name\n"] {
            write_if_changed(path, content).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), content);
        }
        let written = fs::metadata(path).unwrap().modified().unwrap();
        write_if_changed(path, "a longer name\n").unwrap();
        assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), written);
        fs::remove_file(path).unwrap();
    }
}
