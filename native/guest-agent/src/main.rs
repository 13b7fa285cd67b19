//! The one program of a Wrenn guest. As process 1 it boots the guest and looks after the agent; as `agent` it is the
//! agent: it serves processes, files and tunnels to the host side.
mod agent;
mod boot;
mod boot_id;
mod configure;
mod connect;
mod connections;
mod entropy;
mod files;
mod filesystem;
mod memory;
mod metrics;
mod paths;
mod process;
mod proto;
mod readiness;
mod serve;
mod server;
mod settings;
mod sync;
mod system;
mod timestamp;
mod users;
mod writeback;

use std::process::ExitCode;

const USAGE: &str = "usage: wrenn-guest agent [--port N] [--host-interface NAME] [--guest-port N]
       (as process 1, without arguments, it boots the guest)";

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<serve::Options> {
    let mut options = serve::Options::default();
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match flag.as_str() {
            "--port" => options.port = value.parse().ok()?,
            "--guest-port" => options.guest_port = Some(value.parse().ok()?),
            "--host-interface" => options.host_interface = value,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let options = match arguments.next().as_deref() {
        Some("agent") => parse(arguments),
        // The kernel hands words of its command line that it does not know to process 1 as arguments.
        _ if std::process::id() == 1 => boot::run(),
        _ => None,
    };
    let Some(options) = options else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve::run(&options, None) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wrenn-guest: {error}");
            ExitCode::FAILURE
        }
    }
}
