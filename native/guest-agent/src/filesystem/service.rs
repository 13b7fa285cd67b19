//! The calls of `filesystem.Filesystem`.
use std::fs;
use std::io;
use std::sync::Arc;

use hyper::Response;
use tokio::time::Instant;

use super::directories::{self, MakeError};
use super::tree_watch::{TreeWatch, WatchOptions};
use super::watch_stream::{WatchEvents, WatchStream};
use super::{entry, list, removal};
use crate::agent::Agent;
use crate::connect::call::Framing;
use crate::connect::{Call, ConnectError, reply};
use crate::paths;
use crate::proto::filesystem as proto;
use crate::server::body::Body;
use crate::sync::blocking;
use crate::users::{Names, User};

/// File systems that tell nothing of changes made elsewhere: NFS, SMB, CIFS, SMB2, FUSE.
const NETWORK_FILE_SYSTEMS: [i64; 5] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546];

/// Nothing when there is no such method.
pub(crate) async fn call(
    agent: &Arc<Agent>,
    method: &str,
    framing: Framing,
    call: &mut Call,
) -> Option<Response<Body>> {
    let codec = call.codec;
    Some(match (method, framing) {
        ("Stat", Framing::Unary) => reply::unary(codec, stat(agent, call).await),
        ("MakeDir", Framing::Unary) => reply::unary(codec, make_dir(agent, call).await),
        ("Move", Framing::Unary) => reply::unary(codec, move_entry(agent, call).await),
        ("ListDir", Framing::Unary) => reply::unary(codec, list_dir(agent, call).await),
        ("Remove", Framing::Unary) => reply::unary(codec, remove(agent, call).await),
        ("CreateWatcher", Framing::Unary) => reply::unary(codec, create_watcher(agent, call).await),
        ("GetWatcherEvents", Framing::Unary) => reply::unary(codec, get_watcher_events(agent, call).await),
        ("RemoveWatcher", Framing::Unary) => reply::unary(codec, remove_watcher(agent, call).await),
        ("WatchDir", Framing::Stream) => match watch_dir(agent, call).await {
            Ok(events) => reply::stream(codec, events),
            Err(error) => reply::error(framing, codec, &error),
        },
        _ => return None,
    })
}

struct Caller {
    user: User,
    default_directory: Option<String>,
}

impl Caller {
    fn of(agent: &Agent, call: &Call) -> Result<Self, ConnectError> {
        let (user, default_directory) = agent.rpc_user(&call.parts.headers)?;
        Ok(Self { user, default_directory })
    }

    fn resolve(&self, path: &str) -> Result<String, ConnectError> {
        paths::resolve(path, &self.user, self.default_directory.as_deref()).map_err(ConnectError::invalid_argument)
    }
}

/// On a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectError> + Send + 'static,
) -> Result<T, ConnectError> {
    blocking(work).await.unwrap_or_else(|error| Err(ConnectError::internal(error.to_string())))
}

fn describe(path: &str) -> Result<proto::EntryInfo, ConnectError> {
    entry::describe(path, &mut Names::default()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConnectError::not_found(format!("file not found: {path}")),
        _ => ConnectError::io(&format!("error getting file info of {path}"), &error),
    })
}

fn make_error(error: MakeError) -> ConnectError {
    match error {
        MakeError::IsFile(path) => ConnectError::invalid_argument(format!("path is a file: {path}")),
        MakeError::Io(path, error) => ConnectError::io(&format!("failed to create directory {path}"), &error),
    }
}

async fn stat(agent: &Agent, call: &mut Call) -> Result<proto::StatResponse, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::StatRequest = call.unary().await?;
    let path = caller.resolve(&request.path)?;
    let entry = on_disk(move || describe(&path)).await?;
    Ok(proto::StatResponse { entry: Some(entry) })
}

async fn make_dir(agent: &Agent, call: &mut Call) -> Result<proto::MakeDirResponse, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::MakeDirRequest = call.unary().await?;
    let path = caller.resolve(&request.path)?;
    let entry = on_disk(move || {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let message = format!("directory already exists: {path}");
                return Err(ConnectError::new(crate::connect::Code::AlreadyExists, message));
            }
            Ok(_) => {
                let message = format!("path already exists but it is not a directory: {path}");
                return Err(ConnectError::invalid_argument(message));
            }
            Err(_) => directories::ensure(&path, &caller.user).map_err(make_error)?,
        }
        describe(&path)
    })
    .await?;
    Ok(proto::MakeDirResponse { entry: Some(entry) })
}

async fn move_entry(agent: &Agent, call: &mut Call) -> Result<proto::MoveResponse, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::MoveRequest = call.unary().await?;
    let source = caller.resolve(&request.source)?;
    let destination = caller.resolve(&request.destination)?;
    let entry = on_disk(move || {
        if fs::symlink_metadata(&source).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(ConnectError::not_found(format!("source file not found: {source}")));
        }
        directories::ensure(paths::parent(&destination), &caller.user).map_err(make_error)?;
        fs::rename(&source, &destination)
            .map_err(|error| ConnectError::io(&format!("error moving {source} to {destination}"), &error))?;
        describe(&destination)
    })
    .await?;
    Ok(proto::MoveResponse { entry: Some(entry) })
}

async fn list_dir(agent: &Agent, call: &mut Call) -> Result<proto::ListDirResponse, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::ListDirRequest = call.unary().await?;
    let path = caller.resolve(&request.path)?;
    // Zero is what a client that names no depth sends.
    let depth = request.depth.max(1);
    let entries = on_disk(move || list::list(&path, depth)).await?;
    Ok(proto::ListDirResponse { entries })
}

async fn remove(agent: &Agent, call: &mut Call) -> Result<proto::RemoveResponse, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::RemoveRequest = call.unary().await?;
    let path = caller.resolve(&request.path)?;
    if path == "/" {
        return Err(ConnectError::invalid_argument("the root directory cannot be removed"));
    }
    on_disk(move || {
        removal::remove(&path).map_err(|error| ConnectError::io(&format!("error removing {path}"), &error))
    })
    .await?;
    Ok(proto::RemoveResponse {})
}

struct WatchRequest {
    path: String,
    recursive: bool,
    include_entry: bool,
    allow_network_mounts: bool,
}

async fn watch(caller: &Caller, request: WatchRequest) -> Result<WatchEvents, ConnectError> {
    let path = caller.resolve(&request.path)?;
    let options = WatchOptions { recursive: request.recursive, include_entry: request.include_entry };
    let tree = on_disk(move || {
        let metadata = fs::metadata(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ConnectError::not_found(format!("path {path} not found")),
            _ => ConnectError::io(&format!("error looking at path {path}"), &error),
        })?;
        if !metadata.is_dir() {
            return Err(ConnectError::invalid_argument(format!("path {path} is not a directory")));
        }
        if !request.allow_network_mounts
            && rustix::fs::statfs(&path).is_ok_and(|fs| NETWORK_FILE_SYSTEMS.contains(&fs.f_type))
        {
            return Err(ConnectError::invalid_argument(format!("cannot watch path on network filesystem: {path}")));
        }
        TreeWatch::new(&path, options).map_err(|error| ConnectError::io(&format!("error watching path {path}"), &error))
    })
    .await?;
    WatchEvents::new(tree).map_err(|error| ConnectError::io("error watching", &error))
}

async fn watch_dir(agent: &Agent, call: &mut Call) -> Result<WatchStream, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::WatchDirRequest = call.only().await?;
    let proto::WatchDirRequest { path, recursive, include_entry, allow_network_mounts } = request;
    let deadline = call.timeout()?.map(|timeout| Instant::now() + timeout);
    let events = watch(&caller, WatchRequest { path, recursive, include_entry, allow_network_mounts }).await?;
    Ok(WatchStream::new(events, call.keepalive_interval(), deadline))
}

async fn create_watcher(agent: &Agent, call: &mut Call) -> Result<proto::CreateWatcherResponse, ConnectError> {
    let caller = Caller::of(agent, call)?;
    let request: proto::CreateWatcherRequest = call.unary().await?;
    let proto::CreateWatcherRequest { path, recursive, include_entry, allow_network_mounts } = request;
    let events = watch(&caller, WatchRequest { path, recursive, include_entry, allow_network_mounts }).await?;
    Ok(proto::CreateWatcherResponse { watcher_id: agent.watchers.add(events) })
}

async fn get_watcher_events(agent: &Agent, call: &mut Call) -> Result<proto::GetWatcherEventsResponse, ConnectError> {
    let request: proto::GetWatcherEventsRequest = call.unary().await?;
    Ok(proto::GetWatcherEventsResponse { events: agent.watchers.take_events(&request.watcher_id)? })
}

async fn remove_watcher(agent: &Agent, call: &mut Call) -> Result<proto::RemoveWatcherResponse, ConnectError> {
    let request: proto::RemoveWatcherRequest = call.unary().await?;
    agent.watchers.remove(&request.watcher_id)?;
    Ok(proto::RemoveWatcherResponse {})
}
