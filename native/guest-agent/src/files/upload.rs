//! `POST /files`: the body is a file, or a form with files in it.
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode};

use super::access::{self, Access};
use super::body::next_piece;
use super::disk::on_disk;
use super::encoding::{self, Coding};
use super::intake::{Intake, Written};
use super::multipart;
use super::signature::Operation;
use crate::agent::Agent;
use crate::filesystem::metadata::{self, Metadata};
use crate::server::body::{Body, HttpError, discard, json};

const METADATA_PREFIX: &str = "x-metadata-";

struct Upload {
    access: Access,
    metadata: Metadata,
    coding: Coding,
    boundary: Option<String>,
}

pub(crate) async fn upload(agent: &Arc<Agent>, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
    let (parts, mut body) = request.into_parts();
    let outcome = match check(agent, &parts) {
        Ok(upload) => receive(upload, &mut body).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(written) => Ok(json(StatusCode::OK, &written)),
        Err(error) => {
            discard(&mut body).await;
            Err(error)
        }
    }
}

fn check(agent: &Agent, parts: &Parts) -> Result<Upload, HttpError> {
    let access = access::check(agent, parts, Operation::Write)?;
    let coding = encoding::sent(&parts.headers).map_err(|coding| {
        HttpError::bad_request(format!(
            "error decompressing request body: unsupported Content-Encoding: {coding}, supported: [gzip]"
        ))
    })?;
    let metadata = metadata_of(&parts.headers)?;
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let boundary = match media_type.as_str() {
        "application/octet-stream" => None,
        "multipart/form-data" => Some(multipart::boundary(content_type).ok_or_else(|| {
            HttpError::bad_request("error parsing multipart form: the content type names no boundary")
        })?),
        _ => {
            return Err(HttpError::bad_request(format!(
                "unsupported content type: {media_type}, expected multipart/form-data or application/octet-stream"
            )));
        }
    };
    Ok(Upload { access, metadata, coding, boundary })
}

/// Of a header that is sent twice the first counts.
fn metadata_of(headers: &HeaderMap) -> Result<Metadata, HttpError> {
    let invalid = |message: String| HttpError::bad_request(format!("invalid metadata: {message}"));
    let mut metadata = Metadata::new();
    for name in headers.keys() {
        let (Some(key), Some(value)) = (name.as_str().strip_prefix(METADATA_PREFIX), headers.get(name)) else {
            continue;
        };
        let value = value.to_str().map_err(|_| invalid(format!("the value of '{key}' must be printable ASCII")))?;
        metadata.insert(key.to_owned(), value.to_owned());
    }
    metadata::check(&metadata).map_err(invalid)?;
    Ok(metadata)
}

/// Whatever ends this early, the client leaving included, drops the intake and with it an unfinished file.
async fn receive(upload: Upload, body: &mut Incoming) -> Result<Vec<Written>, HttpError> {
    let Upload { access, metadata, coding, boundary } = upload;
    // The first piece comes along, so that a small file takes one trip to the disk thread, not three.
    let first = next_piece(body).await?;
    let second = if first.is_some() { next_piece(body).await? } else { None };
    let whole = second.is_none();
    let intake = on_disk(move || {
        let mut intake = Intake::new(access, metadata, coding, boundary.as_deref())?;
        for piece in [first, second].into_iter().flatten() {
            intake.push(&piece)?;
        }
        if whole { intake.finish().map(Progress::Done) } else { Ok(Progress::Open(Box::new(intake))) }
    })
    .await?;
    let mut intake = match intake {
        Progress::Done(written) => return Ok(written),
        Progress::Open(intake) => intake,
    };
    while let Some(piece) = next_piece(body).await? {
        intake = on_disk(move || intake.push(&piece).map(|()| intake)).await?;
    }
    on_disk(move || intake.finish()).await
}

enum Progress {
    Done(Vec<Written>),
    Open(Box<Intake>),
}
