//! Who asks for which path, and whether they may.
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};

use super::signature::{self, Operation, Signed};
use crate::agent::{Agent, basic_user};
use crate::paths;
use crate::server::body::HttpError;
use crate::server::router::{query, token};
use crate::settings::Settings;
use crate::sync::lock;
use crate::users::User;

pub(super) struct Access {
    pub(super) user: User,
    default_directory: Option<String>,
    /// As given; an upload of several files has none.
    pub(super) path: Option<String>,
}

fn unauthorized(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::UNAUTHORIZED, message)
}

pub(super) fn check(agent: &Agent, parts: &Parts, operation: Operation) -> Result<Access, HttpError> {
    let parameter = |name| query(parts.uri.query(), name);
    let (path, username) = (parameter("path"), parameter("username"));
    let settings = lock(&agent.settings);
    if let Some(secret) = &settings.token {
        match token(&parts.headers).filter(|presented| !presented.is_empty()) {
            Some(presented) if settings.accepts_token(Some(presented)) => {}
            Some(_) => return Err(unauthorized("access token present in header but does not match")),
            None => {
                let (expiration, given) = (parameter("signature_expiration"), parameter("signature"));
                let signed = Signed {
                    path: path.as_deref().unwrap_or_default(),
                    operation,
                    username: username.as_deref().unwrap_or_default(),
                    expiration: expiration.as_deref(),
                    signature: given.as_deref(),
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                signature::verify(&signed, secret, now.as_secs().cast_signed()).map_err(unauthorized)?;
                // A header is not signed: it cannot say whose home a relative path starts at.
                return settle(&settings, username.as_deref(), path);
            }
        }
    }
    drop(settings);
    named(agent, &parts.headers, username, path)
}

/// Without a name in the request, whoever Basic authentication names; else the default user.
pub(super) fn named(
    agent: &Agent,
    headers: &HeaderMap,
    username: Option<String>,
    path: Option<String>,
) -> Result<Access, HttpError> {
    let name = username.filter(|name| !name.is_empty()).or_else(|| basic_user(headers));
    settle(&lock(&agent.settings), name.as_deref(), path)
}

fn settle(settings: &Settings, name: Option<&str>, path: Option<String>) -> Result<Access, HttpError> {
    let user = settings.user(name).map_err(unauthorized)?;
    Ok(Access { user, default_directory: settings.default_directory.clone(), path })
}

impl Access {
    pub(super) fn resolve(&self, path: &str) -> Result<String, HttpError> {
        paths::resolve(path, &self.user, self.default_directory.as_deref()).map_err(HttpError::bad_request)
    }
}
