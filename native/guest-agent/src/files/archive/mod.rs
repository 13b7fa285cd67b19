//! `/files/archive`: whole directories as tar, both ways, of any size, in constant memory.
//!
//! The `tar` crate writes and reads the fields of headers. Its own archives are not used: they hold names and maps of any
//! length in memory, work on paths that somebody may change under them, and trust that a file stays as long as it was.
mod entry;
mod header;
mod holes;
mod map;
mod pax;
mod place;
mod placement;
mod reader;
mod walk;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
mod scratch;

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;

use self::placement::{Placed, Placement};
use self::reader::Reader;
use self::walk::Walk;
use super::access::{self, Access};
use super::body::{Source, frames, next_piece};
use super::disk::{disk_error, on_disk};
use super::encoding::{self, Coding};
use crate::agent::Agent;
use crate::server::body::{Body, HttpError, discard, json};
use crate::server::router::query;

const BLOCK_BYTES: usize = 512;

/// Two blocks of zeros end an archive.
const END_BYTES: usize = 2 * BLOCK_BYTES;

const TAR: &str = "application/x-tar";

/// Whose, and which path; there is no sensible default for a whole directory.
fn target(agent: &Agent, parts: &Parts) -> Result<(Access, String), HttpError> {
    let parameter = |name| query(parts.uri.query(), name);
    let path = parameter("path").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| HttpError::bad_request("path query parameter is required"))?;
    let access = access::named(agent, &parts.headers, parameter("username"), None)?;
    let path = access.resolve(&path)?;
    Ok((access, path))
}

pub(crate) async fn download(agent: &Arc<Agent>, parts: &Parts) -> Result<Response<Body>, HttpError> {
    let (_, path) = target(agent, parts)?;
    let keep_holes = query(parts.uri.query(), "sparse").is_some_and(|value| value == "true");
    // The first piece comes before the head, so that what fails early has a status.
    let (first, rest) = on_disk(move || {
        let walk = Walk::begin(&path, keep_holes)?;
        walk.next().map_err(|error| disk_error(&format!("error reading '{path}'"), &error))
    })
    .await?;
    let all = stream::iter([Ok(Frame::data(first))]).chain(frames(rest));
    let mut response = Response::new(StreamBody::new(all).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TAR));
    Ok(response)
}

#[derive(Serialize)]
struct Extracted {
    path: String,
    #[serde(flatten)]
    placed: Placed,
}

pub(crate) async fn upload(
    agent: &Arc<Agent>,
    parts: &Parts,
    body: &mut Incoming,
) -> Result<Response<Body>, HttpError> {
    match receive(agent, parts, body).await {
        Ok(extracted) => Ok(json(StatusCode::OK, &extracted)),
        Err(error) => {
            discard(body).await;
            Err(error)
        }
    }
}

fn check_type(parts: &Parts) -> Result<(), HttpError> {
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(Ok(TAR), HeaderValue::to_str).unwrap_or("?");
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !matches!(media_type.as_str(), TAR | "application/octet-stream") {
        return Err(HttpError::bad_request(format!("unsupported content type: {media_type}, expected {TAR}")));
    }
    match encoding::sent(&parts.headers) {
        Ok(Coding::Identity) => Ok(()),
        Ok(Coding::Gzip) => Err(HttpError::bad_request("unsupported Content-Encoding: gzip, send the archive itself")),
        Err(coding) => Err(HttpError::bad_request(format!("unsupported Content-Encoding: {coding}"))),
    }
}

/// Whatever ends this early, the client leaving included, leaves what was placed, and no file that is not whole.
async fn receive(agent: &Arc<Agent>, parts: &Parts, body: &mut Incoming) -> Result<Extracted, HttpError> {
    let (access, path) = target(agent, parts)?;
    check_type(parts)?;
    let mut piece = next_piece(body).await?;
    let directory = path.clone();
    let mut extraction = on_disk(move || Ok((Reader::default(), Placement::new(&directory, access.user)?))).await?;
    while let Some(bytes) = piece {
        extraction = on_disk(move || {
            let (mut reader, mut placement) = extraction;
            reader.push(&bytes, &mut placement)?;
            Ok((reader, placement))
        })
        .await?;
        piece = next_piece(body).await?;
    }
    let placed = on_disk(move || {
        let (reader, placement) = extraction;
        reader.finish()?;
        placement.finish()
    })
    .await?;
    Ok(Extracted { path, placed })
}
