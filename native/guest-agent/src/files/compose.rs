//! `POST /files/compose`: joins files, such as the parts of a parallel upload, into one and removes them.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::access::{self, Access};
use super::disk::{disk_error, on_disk};
use super::intake::{Written, begin_file, open_regular};
use crate::agent::Agent;
use crate::filesystem::metadata::Metadata;
use crate::paths;
use crate::server::body::{Body, HttpError, json};

const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct Composition {
    #[serde(default)]
    source_paths: Vec<String>,
    #[serde(default)]
    destination: String,
    username: Option<String>,
}

pub(crate) async fn compose(agent: &Arc<Agent>, parts: Parts, body: Incoming) -> Result<Response<Body>, HttpError> {
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| HttpError::bad_request(format!("invalid request body: {error}")))?;
    let composition: Composition = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| HttpError::bad_request(format!("invalid request body: {error}")))?;
    if composition.source_paths.is_empty() {
        return Err(HttpError::bad_request("source_paths must not be empty"));
    }
    if composition.destination.is_empty() {
        return Err(HttpError::bad_request("destination is required"));
    }
    let access = access::named(agent, &parts.headers, composition.username, None)?;
    let destination = access.resolve(&composition.destination)?;
    let sources =
        composition.source_paths.iter().map(|source| access.resolve(source)).collect::<Result<Vec<_>, _>>()?;
    let written = on_disk(move || join(&access, &sources, destination)).await?;
    Ok(json(StatusCode::OK, &written))
}

/// Sources are removed only once the whole has its name.
fn join(access: &Access, sources: &[String], destination: String) -> Result<Written, HttpError> {
    let existing = fs::metadata(&destination).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let mut opened = Vec::with_capacity(sources.len());
    for source in sources {
        let (file, metadata) = match open_regular(source) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Err(HttpError::bad_request(format!("source path is not a regular file: {source}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HttpError::new(StatusCode::NOT_FOUND, format!("source file not found: {source}")));
            }
            Err(error) => return Err(disk_error(&format!("error opening source file {source}"), &error)),
        };
        if existing == Some((metadata.dev(), metadata.ino())) {
            return Err(HttpError::bad_request(format!("source path '{source}' cannot be the same as destination")));
        }
        opened.push(file);
    }

    let mut whole = begin_file(&destination, access)?;
    for (source, mut file) in sources.iter().zip(opened) {
        // Within the kernel, and without copying where the file system can share blocks.
        io::copy(&mut file, whole.file())
            .map_err(|error| disk_error(&format!("error composing source {source}"), &error))?;
    }
    whole.finish(&Metadata::new()).map_err(|error| disk_error("error finalizing compose", &error))?;
    for source in sources {
        let _ = fs::remove_file(source);
    }
    Ok(Written {
        name: paths::file_name(&destination).to_owned(),
        path: destination,
        r#type: "file",
        metadata: Metadata::new(),
    })
}
