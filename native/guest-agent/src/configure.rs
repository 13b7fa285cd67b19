//! `POST /init`: the host side tells the guest who it is. Called once the guest answers, and again after each resume.
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::DateTime;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rustix::time::Timespec;
use serde::Deserialize;

use crate::agent::Agent;
use crate::connections::Endpoints;
use crate::entropy;
use crate::server::body::{Body, HttpError, empty, json};
use crate::settings::{Settings, equal_secrets};
use crate::sync::{blocking, lock};
use crate::system::{self, Restored, SystemChanges};
use crate::users::User;

/// Environments are bounded to 128 KiB by the control plane; JSON may double that.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Bounds of the kernel: a name of 64 bytes, 32 hexadecimal digits.
const MAX_HOSTNAME: usize = 64;
const MACHINE_ID_DIGITS: usize = 32;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    env_vars: Option<BTreeMap<String, String>>,
    access_token: Option<String>,
    timestamp: Option<String>,
    default_user: Option<String>,
    default_workdir: Option<String>,
    hostname: Option<String>,
    machine_id: Option<String>,
    entropy: Option<String>,
    dns: Option<Vec<String>>,
    restored: bool,
}

pub(crate) async fn handle(
    agent: &Arc<Agent>,
    caller: Endpoints,
    request: Request<Incoming>,
) -> Result<Response<Body>, HttpError> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| HttpError::bad_request(format!("the request broke off: {error}")))?
        .to_bytes();
    let configuration: Configuration = if body.is_empty() {
        Configuration::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| HttpError::bad_request(format!("invalid request body: {error}")))?
    };

    authorize(
        &lock(&agent.settings),
        crate::server::router::token(&parts.headers),
        configuration.access_token.as_deref(),
    )?;
    let mut changes = parse(&configuration)?;
    if configuration.restored {
        changes.restored = Some(Restored { is_guest: agent.is_of_a_guest(), caller });
    }
    let renewal = blocking(move || system::apply(&changes))
        .await
        .and_then(|outcome| outcome)
        .map_err(|error| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;

    let mut settings = lock(&agent.settings);
    if let Some(environment) = configuration.env_vars {
        settings.environment = environment;
    }
    if let Some(token) = configuration.access_token.filter(|token| !token.is_empty()) {
        settings.token = Some(token);
    }
    if let Some(user) = configuration.default_user.filter(|user| !user.is_empty()) {
        settings.default_user = Some(user);
    }
    if let Some(directory) = configuration.default_workdir.filter(|directory| !directory.is_empty()) {
        settings.default_directory = Some(directory);
    }
    if let Some(memory) = &agent.memory {
        memory.store(&settings).map_err(|error| {
            HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("keeping the settings: {error}"))
        })?;
    }
    Ok(renewal.map_or_else(|| empty(StatusCode::NO_CONTENT), |renewal| json(StatusCode::OK, &renewal)))
}

/// Once a token is set, whoever calls again must know it: in the header, or by setting the same again.
fn authorize(settings: &Settings, header: Option<&str>, in_body: Option<&str>) -> Result<(), HttpError> {
    let Some(current) = &settings.token else { return Ok(()) };
    let known = |token: Option<&str>| token.is_some_and(|token| equal_secrets(token, current));
    if known(header) || known(in_body) {
        return Ok(());
    }
    Err(HttpError::new(StatusCode::UNAUTHORIZED, "the access token of this sandbox is already set to another"))
}

fn parse(configuration: &Configuration) -> Result<SystemChanges, HttpError> {
    if let Some(name) = configuration.default_user.as_deref().filter(|name| !name.is_empty())
        && User::named(name).is_none()
    {
        return Err(HttpError::bad_request(format!("invalid username: '{name}'")));
    }
    if let Some(directory) = configuration.default_workdir.as_deref()
        && !directory.is_empty()
        && !directory.starts_with('/')
    {
        return Err(HttpError::bad_request("defaultWorkdir must be an absolute path"));
    }
    let time = configuration.timestamp.as_deref().map(parse_time).transpose()?;
    let entropy = configuration.entropy.as_deref().map(parse_entropy).transpose()?;
    if configuration.restored && entropy.as_ref().is_none_or(|bytes| bytes.len() < entropy::MIN_BYTES_TO_RESEED) {
        let message = format!("a restored guest needs at least {} bytes of entropy", entropy::MIN_BYTES_TO_RESEED);
        return Err(HttpError::bad_request(message));
    }
    let hostname = configuration.hostname.clone();
    if hostname.as_deref().is_some_and(|name| !is_hostname(name)) {
        return Err(HttpError::bad_request("hostname must be 1 to 64 letters, digits, dots and hyphens"));
    }
    let machine_id = configuration.machine_id.clone();
    if machine_id.as_deref().is_some_and(|id| !is_machine_id(id)) {
        return Err(HttpError::bad_request("machineId must be 32 lower-case hexadecimal digits"));
    }
    let dns = configuration.dns.clone();
    if let Some(server) = dns.iter().flatten().find(|server| server.parse::<std::net::IpAddr>().is_err()) {
        return Err(HttpError::bad_request(format!("dns: '{server}' is not an IP address")));
    }
    Ok(SystemChanges { time, entropy, hostname, machine_id, dns, restored: None })
}

fn parse_time(value: &str) -> Result<Timespec, HttpError> {
    let time = DateTime::parse_from_rfc3339(value)
        .map_err(|error| HttpError::bad_request(format!("timestamp '{value}' is not RFC 3339: {error}")))?;
    Ok(Timespec { tv_sec: time.timestamp(), tv_nsec: time.timestamp_subsec_nanos().into() })
}

fn parse_entropy(value: &str) -> Result<Vec<u8>, HttpError> {
    match BASE64_STANDARD.decode(value) {
        Ok(bytes) if bytes.len() <= entropy::MAX_BYTES => Ok(bytes),
        _ => Err(HttpError::bad_request(format!("entropy must be base64 of at most {} bytes", entropy::MAX_BYTES))),
    }
}

fn is_hostname(name: &str) -> bool {
    (1..=MAX_HOSTNAME).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

fn is_machine_id(id: &str) -> bool {
    id.len() == MACHINE_ID_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_token_needs_the_first() {
        let settings = Settings { token: Some("first".into()), ..Settings::default() };
        assert!(authorize(&Settings::default(), None, None).is_ok());
        assert!(authorize(&settings, None, Some("first")).is_ok());
        assert!(authorize(&settings, Some("first"), Some("second")).is_ok());
        for (header, body) in [(None, None), (None, Some("second")), (Some("second"), None), (Some(""), Some(""))] {
            assert_eq!(authorize(&settings, header, body).unwrap_err().status, StatusCode::UNAUTHORIZED);
        }
    }

    #[test]
    fn times_with_offsets_and_fractions_are_understood() {
        let time = parse_time("2026-11-23T21:00:00.25+01:00").unwrap();
        assert_eq!((time.tv_sec, time.tv_nsec), (1_795_464_000, 250_000_000));
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn names_and_ids_are_checked() {
        assert!(is_hostname("sb-1.example") && is_hostname("a"));
        assert!(!is_hostname("") && !is_hostname("-a") && !is_hostname("a b") && !is_hostname(&"a".repeat(65)));
        assert!(is_machine_id(&"0f".repeat(16)) && !is_machine_id(&"0F".repeat(16)) && !is_machine_id("0f"));
    }
}
