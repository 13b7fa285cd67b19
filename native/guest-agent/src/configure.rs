//! `POST /init`: the host side tells the guest who it is. Called once the guest answers, and again after each resume.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::DateTime;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use rustix::time::{ClockId, Timespec};
use serde::Deserialize;

use crate::agent::Agent;
use crate::server::body::{Body, HttpError, empty};
use crate::settings::{Settings, equal_secrets};
use crate::sync::{blocking, lock};
use crate::users::User;

/// Environments are bounded to 128 KiB by the control plane; JSON may double that.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Below this the request's own way here explains the difference, and stepping the clock would only disturb.
const CLOCK_TOLERANCE_MS: i128 = 50;

/// Bounds of the kernel: a name of 64 bytes, 32 hexadecimal digits, and what is worth mixing into the pool at once.
const MAX_HOSTNAME: usize = 64;
const MACHINE_ID_DIGITS: usize = 32;
const MAX_ENTROPY_BYTES: usize = 512;

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
}

/// What takes system calls that may wait for the disk.
struct SystemChanges {
    time: Option<Timespec>,
    entropy: Option<Vec<u8>>,
    hostname: Option<String>,
    machine_id: Option<String>,
    dns: Option<Vec<String>>,
}

pub(crate) async fn handle(agent: &Arc<Agent>, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
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
    let changes = parse(&configuration)?;
    blocking(move || apply(&changes))
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
    Ok(empty(StatusCode::NO_CONTENT))
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
    Ok(SystemChanges { time, entropy, hostname, machine_id, dns })
}

fn parse_time(value: &str) -> Result<Timespec, HttpError> {
    let time = DateTime::parse_from_rfc3339(value)
        .map_err(|error| HttpError::bad_request(format!("timestamp '{value}' is not RFC 3339: {error}")))?;
    Ok(Timespec { tv_sec: time.timestamp(), tv_nsec: time.timestamp_subsec_nanos().into() })
}

fn parse_entropy(value: &str) -> Result<Vec<u8>, HttpError> {
    match BASE64_STANDARD.decode(value) {
        Ok(bytes) if bytes.len() <= MAX_ENTROPY_BYTES => Ok(bytes),
        _ => Err(HttpError::bad_request(format!("entropy must be base64 of at most {MAX_ENTROPY_BYTES} bytes"))),
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

fn apply(changes: &SystemChanges) -> io::Result<()> {
    // Before anything derives keys or names from the pool or the clock.
    if let Some(entropy) = &changes.entropy {
        add_entropy(entropy).map_err(explain("adding entropy"))?;
    }
    if let Some(time) = changes.time {
        set_clock(time).map_err(explain("setting the clock"))?;
    }
    if let Some(hostname) = &changes.hostname {
        set_hostname(hostname).map_err(explain("setting the host name"))?;
    }
    if let Some(id) = &changes.machine_id {
        write_if_changed("/etc/machine-id", &format!("{id}\n")).map_err(explain("writing /etc/machine-id"))?;
    }
    if let Some(servers) = changes.dns.as_deref().filter(|servers| !servers.is_empty()) {
        write_resolv_conf(servers).map_err(explain("writing /etc/resolv.conf"))?;
    }
    Ok(())
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

/// Credited in full: the host made these bytes for this sandbox alone.
fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        bits: libc::c_int,
        bytes: libc::c_int,
        data: [u8; MAX_ENTROPY_BYTES],
    }
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

    let length = i32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut info = PoolInfo { bits: length * 8, bytes: length, data: [0; MAX_ENTROPY_BYTES] };
    for (to, from) in info.data.iter_mut().zip(bytes) {
        *to = *from;
    }
    let pool = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&pool);
    // SAFETY: the structure is laid out as the ioctl wants it, with its length within its array.
    let result = unsafe { libc::ioctl(descriptor, RNDADDENTROPY, &raw const info) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// Resume calls `/init` again with the same values: the disk need not notice.
fn write_if_changed(path: &str, content: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|current| current == content) {
        return Ok(());
    }
    fs::write(path, content)
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
