//! `GET /files`: one file, or a range of it.
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use super::access;
use super::body::{CHUNK_BYTES, Source, frames};
use super::disk::{disk_error, on_disk};
use super::encoding::{self, Coding};
use super::intake::open_regular;
use super::range::{self, Wanted};
use super::signature::Operation;
use super::validators::Validators;
use crate::agent::Agent;
use crate::paths;
use crate::server::body::{Body, HttpError, empty};

pub(crate) async fn download(agent: &Arc<Agent>, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
    let (parts, _) = request.into_parts();
    let access = access::check(agent, &parts, Operation::Read)?;
    let path = access.resolve(access.path.as_deref().unwrap_or_default())?;
    let (path, opened) = on_disk(move || open(&path).map(|opened| (path, opened))).await?;
    respond(&parts, &path, opened)
}

struct Opened {
    file: File,
    metadata: Metadata,
    /// Files of pseudo file systems say they are empty and are not: they are read to their end, whatever it is.
    size: Option<u64>,
}

fn open(path: &str) -> Result<Opened, HttpError> {
    match open_regular(path) {
        Ok(Some((file, metadata))) => {
            let size = metadata.size();
            let pretends = size == 0 && file.read_at(&mut [0], 0).is_ok_and(|read| read > 0);
            Ok(Opened { file, metadata, size: (!pretends).then_some(size) })
        }
        Ok(None) if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) => {
            Err(HttpError::bad_request(format!("path '{path}' is a directory")))
        }
        Ok(None) => Err(HttpError::bad_request(format!("path '{path}' is not a regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(HttpError::new(StatusCode::NOT_FOUND, format!("path '{path}' does not exist")))
        }
        Err(error) => Err(disk_error(&format!("error opening file '{path}'"), &error)),
    }
}

fn respond(parts: &Parts, path: &str, opened: Opened) -> Result<Response<Body>, HttpError> {
    let headers = &parts.headers;
    let whole_file = ![RANGE, IF_RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH].iter().any(|name| headers.contains_key(name));
    let coding = encoding::choose(headers, whole_file).ok_or_else(|| {
        let message = if whole_file {
            "no acceptable encoding found, supported: [gzip]"
        } else {
            "identity encoding not acceptable for Range or conditional request"
        };
        HttpError::new(StatusCode::NOT_ACCEPTABLE, message)
    })?;
    let validators = Validators::of(&opened.metadata);
    let mut response = if validators.not_modified(headers) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let header = headers.get(RANGE).and_then(|value| value.to_str().ok());
        let wanted = match opened.size {
            Some(size) if validators.range_applies(headers) => range::parse(header, size),
            _ => Wanted::Whole,
        };
        content(parts, opened, coding, wanted)?
    };
    set(&mut response, ETAG, &validators.etag);
    set(&mut response, LAST_MODIFIED, &validators.last_modified);
    set(&mut response, CONTENT_DISPOSITION, &disposition(paths::file_name(path)));
    set(&mut response, VARY, "Accept-Encoding");
    Ok(response)
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn content(parts: &Parts, opened: Opened, coding: Coding, wanted: Wanted) -> Result<Response<Body>, HttpError> {
    let Opened { mut file, size: known_size, .. } = opened;
    let size = known_size.unwrap_or_default();
    let (status, start, length) = match &wanted {
        Wanted::Unsatisfiable => {
            let mut response =
                HttpError::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range begins behind the end of the file")
                    .into_response();
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range.start, range.end - range.start),
    };
    if start > 0 {
        file.seek(SeekFrom::Start(start)).map_err(|error| disk_error("error seeking in the file", &error))?;
    }
    let remaining = known_size.map(|_| length);
    let mut response = if parts.method == Method::HEAD {
        empty(StatusCode::OK)
    } else {
        let encoder = (coding == Coding::Gzip).then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Response::new(StreamBody::new(frames(Some(Reading { file, remaining, encoder }))).boxed_unsync())
    };
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    set(&mut response, ACCEPT_RANGES, "bytes");
    if coding == Coding::Gzip {
        set(&mut response, CONTENT_ENCODING, "gzip");
    } else if remaining.is_some() {
        set(&mut response, CONTENT_LENGTH, &length.to_string());
    }
    if let Wanted::Part(range) = wanted {
        set(&mut response, CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    Ok(response)
}

/// Names that are not plain ASCII are given in the form of RFC 5987.
fn disposition(name: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    if name.bytes().all(token) {
        return format!("inline; filename={name}");
    }
    if name.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("inline; filename=\"{escaped}\"");
    }
    let encode = |byte: u8| if token(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let encoded: String = name.bytes().map(encode).collect();
    format!("inline; filename*=utf-8''{encoded}")
}

struct Reading {
    file: File,
    /// Bytes still owed; nothing when only the end of the file ends it.
    remaining: Option<u64>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Source for Reading {
    fn next(mut self) -> io::Result<(Bytes, Option<Self>)> {
        let wanted =
            self.remaining.map_or(CHUNK_BYTES, |left| usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES));
        let mut bytes = Vec::with_capacity(wanted);
        (&mut self.file).take(wanted as u64).read_to_end(&mut bytes)?;
        let last = match &mut self.remaining {
            // The file has shrunk: break off rather than pass a part for the whole.
            Some(_) if bytes.len() < wanted => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(left) => {
                *left -= bytes.len() as u64;
                *left == 0
            }
            None => bytes.len() < wanted,
        };
        let bytes = match &mut self.encoder {
            None => bytes,
            Some(encoder) => {
                encoder.write_all(&bytes)?;
                if last {
                    encoder.try_finish()?;
                }
                std::mem::take(encoder.get_mut())
            }
        };
        Ok((bytes.into(), (!last).then_some(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_can_be_given() {
        assert_eq!(disposition("a.txt"), "inline; filename=a.txt");
        assert_eq!(disposition("a \"b\".txt"), "inline; filename=\"a \\\"b\\\".txt\"");
        assert_eq!(disposition("\u{e9}\n"), "inline; filename*=utf-8''%C3%A9%0A");
    }
}
