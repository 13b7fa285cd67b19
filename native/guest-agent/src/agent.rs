//! The agent: everything its requests share.
use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use crate::connect::{Code, ConnectError};
use crate::filesystem::watchers::Watchers;
use crate::memory::Memory;
use crate::metrics::CpuMeter;
use crate::process::Processes;
use crate::settings::Settings;
use crate::sync::lock;
use crate::users::User;

pub(crate) struct Agent {
    pub(crate) settings: Mutex<Settings>,
    /// Only process 1 of a guest has one to give.
    pub(crate) memory: Option<Memory>,
    pub(crate) processes: Processes,
    pub(crate) watchers: Watchers,
    pub(crate) cpu: Mutex<CpuMeter>,
}

/// The user of `Authorization: Basic`, whose password is always empty.
pub(crate) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(credentials.trim()).ok()?).ok()?;
    decoded.split(':').next().map(str::to_owned)
}

impl Agent {
    pub(crate) fn new(processes: Processes, memory: Option<Memory>) -> Self {
        let settings = memory.as_ref().and_then(Memory::recall).unwrap_or_default();
        Self { settings: Mutex::new(settings), memory, processes, watchers: Watchers::default(), cpu: Mutex::default() }
    }

    /// Whether process 1 of a guest started it, whose machine it may then change. Anywhere else it is a guest itself.
    pub(crate) fn is_of_a_guest(&self) -> bool {
        self.memory.is_some()
    }

    /// Who an RPC acts for, and the directory that stands in for an empty path.
    pub(crate) fn rpc_user(&self, headers: &HeaderMap) -> Result<(User, Option<String>), ConnectError> {
        let settings = lock(&self.settings);
        let user = settings
            .user(basic_user(headers).as_deref())
            .map_err(|message| ConnectError::new(Code::Unauthenticated, message))?;
        Ok((user, settings.default_directory.clone()))
    }
}
