//! Replies and errors in the framing the caller used.
use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::call::Framing;
use super::codec::Message;
use super::envelope::{self, FLAG_END_STREAM};
use super::{Codec, ConnectError};
use crate::server::body::{Body, full};

/// Where the messages of a stream come from. Dropping it is how a stream learns that its client is gone.
pub(crate) trait EventSource: Send + 'static {
    type Message: Message;
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Message, ConnectError>>> + Send;
}

#[derive(Serialize)]
struct WireError<'a> {
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct EndOfStream<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WireError<'a>>,
}

fn wire_error(error: &ConnectError) -> WireError<'_> {
    WireError { code: error.code.name(), message: &error.message }
}

fn response(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn stream_type(codec: Codec) -> &'static str {
    match codec {
        Codec::Json => "application/connect+json",
        Codec::Proto => "application/connect+proto",
    }
}

pub(crate) fn unary<M: Message>(codec: Codec, outcome: Result<M, ConnectError>) -> Response<Body> {
    let mut encoded = Vec::new();
    match outcome.and_then(|message| codec.encode(&message, &mut encoded)) {
        Ok(()) => {
            let content_type = match codec {
                Codec::Json => "application/json",
                Codec::Proto => "application/proto",
            };
            response(content_type, full(encoded))
        }
        Err(error) => unary_error(&error),
    }
}

/// Errors are JSON whatever the codec.
fn unary_error(error: &ConnectError) -> Response<Body> {
    let body = serde_json::to_vec(&wire_error(error)).unwrap_or_default();
    let mut response = response("application/json", full(body));
    *response.status_mut() = error.code.http_status();
    response
}

pub(crate) fn error(framing: Framing, codec: Codec, error: &ConnectError) -> Response<Body> {
    match framing {
        Framing::Unary => unary_error(error),
        Framing::Stream => response(stream_type(codec), full(end_envelope(Some(error)))),
    }
}

fn end_envelope(error: Option<&ConnectError>) -> Bytes {
    let mut bytes = envelope::begin();
    // Writing to memory does not fail, and the structure has nothing JSON cannot hold.
    let _ = serde_json::to_writer(&mut bytes, &EndOfStream { error: error.map(wire_error) });
    envelope::finish(bytes, FLAG_END_STREAM)
}

fn message_envelope<M: Message>(codec: Codec, message: &M) -> Result<Bytes, ConnectError> {
    let mut bytes = envelope::begin();
    codec.encode(message, &mut bytes)?;
    Ok(envelope::finish(bytes, 0))
}

/// One message and the end of the stream: the reply to a client stream.
pub(crate) fn single<M: Message>(codec: Codec, outcome: Result<M, ConnectError>) -> Response<Body> {
    match outcome.and_then(|message| message_envelope(codec, &message)) {
        Ok(first) => {
            let mut bytes = Vec::from(first);
            bytes.extend_from_slice(&end_envelope(None));
            response(stream_type(codec), full(bytes))
        }
        Err(error) => self::error(Framing::Stream, codec, &error),
    }
}

pub(crate) fn stream<S: EventSource>(codec: Codec, source: S) -> Response<Body> {
    let frames = stream::unfold(Some(source), move |source| async move {
        let mut source = source?;
        let (bytes, source) = match source.next().await {
            None => (end_envelope(None), None),
            Some(Err(error)) => (end_envelope(Some(&error)), None),
            Some(Ok(message)) => match message_envelope(codec, &message) {
                Ok(bytes) => (bytes, Some(source)),
                Err(error) => (end_envelope(Some(&error)), None),
            },
        };
        Some((Ok::<_, Infallible>(Frame::data(bytes)), source))
    });
    response(stream_type(codec), StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync())
}
