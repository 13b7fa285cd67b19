//! Response bodies and the plain JSON replies of the HTTP endpoints.
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

/// An error in a body breaks the connection off, so that a client never takes half a file for a whole one.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An error of the HTTP endpoints: `{"code": 404, "message": "…"}` with the same status.
#[derive(Debug)]
pub(crate) struct HttpError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl HttpError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct WireError {
            code: u16,
            message: String,
        }
        json(self.status, &WireError { code: self.status.as_u16(), message: self.message })
    }
}

/// How long a refused request is still read: a client that is busy sending does not see the answer otherwise, and a
/// connection whose request was not read in full cannot be used again.
const DISCARD_LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn discard(body: &mut Incoming) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(DISCARD_LIMIT, all).await;
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(encoded) => {
            let mut response = Response::new(full(encoded));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
