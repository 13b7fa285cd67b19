//! Processes of users: started, listed, connected to, written to, signalled.
mod cgroup;
mod end;
mod exit;
mod input;
mod kill;
mod launch;
mod output;
mod registry;
mod running;
mod scrollback;
mod service;
mod spawn;
mod subscriber;
mod terminal;

pub(crate) use cgroup::UserCgroup;
pub(crate) use registry::Processes;
pub(crate) use service::call;
