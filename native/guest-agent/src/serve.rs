//! The agent's life: protect itself, listen, serve.
use std::io;
use std::sync::Arc;

use tokio::runtime::Builder;

use crate::agent::Agent;
use crate::memory::Memory;
use crate::process::{Processes, UserCgroup};
use crate::server::{self, Origin};

/// Threads only wait for disks; one more than this many hung file systems would stop file calls, never the rest.
const DISK_THREADS: usize = 32;
const DISK_THREAD_STACK: usize = 256 * 1024;

const OPEN_FILES: u64 = 524_288;
const NICE: i32 = -10;

pub(crate) struct Options {
    pub(crate) port: u16,
    /// Where the host side comes in. On `lo` there is no guest side, unless it has a port of its own.
    pub(crate) host_interface: String,
    pub(crate) guest_port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 49_983, host_interface: "eth0".to_owned(), guest_port: None }
    }
}

/// Each of these needs privileges that a test on a plain machine may not have; none is needed to serve.
fn protect() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = rustix::process::setpriority_process(None, NICE);
    let limit = rustix::process::Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    // Threads would otherwise get an arena each, which costs memory that is never given back.
    // SAFETY: changes a setting of the allocator before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// `memory` is what process 1 keeps from one agent to the next.
pub(crate) fn run(options: &Options, memory: Option<Memory>) -> io::Result<()> {
    protect();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS)
        .thread_stack_size(DISK_THREAD_STACK)
        .build()?;
    runtime.block_on(async {
        let agent = Arc::new(Agent::new(Processes::new(UserCgroup::set_up())?, memory));
        let explain = |port: u16| move |error: io::Error| io::Error::new(error.kind(), format!("port {port}: {error}"));
        let guest_side = match options.guest_port {
            Some(port) => Some(server::listen(None, port).map_err(explain(port))?),
            None if options.host_interface == "lo" => None,
            None => Some(server::listen(Some("lo"), options.port).map_err(explain(options.port))?),
        };
        let host_side = server::listen(Some(&options.host_interface), options.port).map_err(explain(options.port))?;
        if let Some(listener) = guest_side {
            tokio::spawn(server::serve(agent.clone(), Origin::Guest, listener));
        }
        let origin = if options.host_interface == "lo" { Origin::Anyone } else { Origin::Outside };
        server::serve(agent, origin, host_side).await;
        Ok(())
    })
}
