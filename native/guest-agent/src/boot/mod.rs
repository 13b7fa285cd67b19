//! Process 1 of the guest: from the initramfs to a root filesystem with an agent in it.
mod disk;
mod modules;
mod mounts;
mod network;
mod supervise;

use std::fmt::Display;
use std::fs;
use std::io;

use rustix::system::RebootCommand;

use crate::{boot_id, serve, system};

/// A step that failed, in the words that go to the console.
pub(super) struct BootError(String);

fn failed<E: Display>(step: impl Display) -> impl FnOnce(E) -> BootError {
    move |error| BootError(format!("{step}: {error}"))
}

fn warn(message: impl Display) {
    eprintln!("wrenn-guest: {message}");
}

/// Does not return: process 1 must not end.
pub(crate) fn run() -> ! {
    let Err(BootError(message)) = boot();
    warn(format_args!("cannot boot: {message}"));
    power_off()
}

fn boot() -> Result<std::convert::Infallible, BootError> {
    mounts::mount_devices()?;
    modules::load_all();
    disk::mount_root(mounts::NEW_ROOT)?;
    disk::grow_root();
    mounts::mount_all()?;
    network::configure()?;
    mounts::switch_root()?;
    // Each of these only makes something better.
    set_kernel_settings();
    provide_dns();
    make_boot_id_changeable();
    supervise::run(&serve::Options::default())
}

fn set_kernel_settings() {
    for (name, value) in [
        // Whoever runs out of memory dies alone.
        ("vm/panic_on_oom", "0"),
        // Users' `ping` works without privileges.
        ("net/ipv4/ping_group_range", "0 2147483647"),
    ] {
        if let Err(error) = fs::write(format!("/proc/sys/{name}"), value) {
            warn(format_args!("sysctl {name}: {error}"));
        }
    }
}

/// So that a restore, which somebody waits for, finds it done.
fn make_boot_id_changeable() {
    if let Err(error) = boot_id::renew() {
        warn(format_args!("boot id: {error}"));
    }
}

/// `wrenn.dns=` of the kernel command line, for a root filesystem that names no server itself.
fn provide_dns() {
    if fs::read_to_string("/etc/resolv.conf").is_ok_and(|content| content.contains("nameserver")) {
        return;
    }
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let servers: Vec<String> = command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("wrenn.dns="))
        .map(|list| list.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    if !servers.is_empty()
        && let Err(error) = system::write_resolv_conf(&servers)
    {
        warn(format_args!("/etc/resolv.conf: {error}"));
    }
}

/// Writes back what is in memory, then ends the VM; where that cannot be done, halts it.
fn power_off() -> ! {
    rustix::fs::sync();
    let error: io::Result<()> = rustix::system::reboot(RebootCommand::PowerOff).map_err(Into::into);
    warn(format_args!("power off: {error:?}"));
    loop {
        std::thread::park();
    }
}
