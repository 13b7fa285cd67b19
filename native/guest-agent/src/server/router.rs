//! Which request goes where, and who may make it.
use std::borrow::Cow;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::body::{Body, HttpError, discard, empty, json};
use super::{Caller, Side, tunnel};
use crate::agent::Agent;
use crate::connect::call::{Framing, content_type};
use crate::connect::{Call, Code, ConnectError, reply};
use crate::sync::lock;
use crate::{configure, files, filesystem, metrics, process, writeback};

const TOKEN_HEADER: &str = "x-access-token";

pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(TOKEN_HEADER)?.to_str().ok()
}

fn unauthorized() -> HttpError {
    HttpError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized access, please provide a valid access token or method signing if supported",
    )
}

fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let message = format!("use {allowed} here");
    let mut response = HttpError::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) async fn route(agent: Arc<Agent>, caller: Caller, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match path.as_str() {
        "/health" => match method {
            Method::GET | Method::HEAD => empty(StatusCode::NO_CONTENT),
            _ => method_not_allowed("GET, HEAD"),
        },
        "/init" | "/sync" | "/tunnel" if caller.side != Side::Host => {
            HttpError::new(StatusCode::FORBIDDEN, format!("{path} is only for the host of this sandbox"))
                .into_response()
        }
        "/init" => match method {
            Method::POST => plain(configure::handle(&agent, caller.connection, request).await),
            _ => method_not_allowed("POST"),
        },
        // Without a token: it does nothing that the kernel does not do by itself a little later.
        "/sync" => match method {
            Method::POST => plain(writeback::handle().await),
            _ => method_not_allowed("POST"),
        },
        "/tunnel" => match method {
            Method::GET => {
                let port = query(request.uri().query(), "port");
                plain(tunnel::open(request, port.as_deref()).await)
            }
            _ => method_not_allowed("GET"),
        },
        "/files" => match method {
            Method::GET | Method::HEAD => plain(files::download(&agent, request).await),
            Method::POST => plain(files::upload(&agent, request).await),
            _ => method_not_allowed("GET, HEAD, POST"),
        },
        _ => guarded(agent, &path, request).await,
    }
}

fn plain(outcome: Result<Response<Body>, HttpError>) -> Response<Body> {
    outcome.unwrap_or_else(HttpError::into_response)
}

/// What needs the token once there is one.
async fn guarded(agent: Arc<Agent>, path: &str, request: Request<Incoming>) -> Response<Body> {
    let (parts, mut body) = request.into_parts();
    let allowed = lock(&agent.settings).accepts_token(token(&parts.headers));
    let rpc = path.strip_prefix('/').and_then(|path| path.split_once('/')).filter(|(service, method)| {
        matches!(*service, "process.Process" | "filesystem.Filesystem") && !method.contains('/')
    });
    if let Some((service, method)) = rpc {
        return self::rpc(agent, allowed, service, method, parts, body).await;
    }
    if !allowed {
        discard(&mut body).await;
        return unauthorized().into_response();
    }
    match (path, &parts.method) {
        ("/envs", &Method::GET) => json(StatusCode::OK, &lock(&agent.settings).environment),
        ("/metrics", &Method::GET) => plain(metrics::handle(&agent).await),
        ("/envs" | "/metrics", _) => method_not_allowed("GET"),
        ("/files/compose", &Method::POST) => plain(files::compose(&agent, parts, body).await),
        ("/files/archive", &Method::GET) => plain(files::archive::download(&agent, &parts).await),
        ("/files/archive", &Method::POST) => plain(files::archive::upload(&agent, &parts, &mut body).await),
        ("/files/archive", _) => method_not_allowed("GET, POST"),
        ("/files/compose", _) => method_not_allowed("POST"),
        _ => HttpError::new(StatusCode::NOT_FOUND, format!("there is no {path} here")).into_response(),
    }
}

async fn rpc(
    agent: Arc<Agent>,
    allowed: bool,
    service: &str,
    method: &str,
    parts: Parts,
    mut body: Incoming,
) -> Response<Body> {
    if parts.method != Method::POST {
        return method_not_allowed("POST");
    }
    let Some((codec, framing)) = content_type(&parts) else {
        discard(&mut body).await;
        let mut response = empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let accepted = "application/json, application/proto, application/connect+json, application/connect+proto";
        response.headers_mut().insert("accept-post", HeaderValue::from_static(accepted));
        return response;
    };
    let mut call = Call::new(codec, parts, body);
    let refused = if allowed {
        call.check_protocol().and_then(|()| call.timeout())
    } else {
        Err(ConnectError::new(Code::Unauthenticated, unauthorized().message))
    };
    let limit = match refused {
        Ok(limit) => limit,
        Err(error) => {
            call.discard().await;
            return reply::error(framing, codec, &error);
        }
    };
    let handled = &mut call;
    let answer = async move {
        match service {
            "process.Process" => process::call(&agent, method, framing, handled).await,
            _ => filesystem::call(&agent, method, framing, handled).await,
        }
    };
    // The deadline of a stream is its own affair: that of Start ends the process, not the stream.
    let answer = match (framing, limit) {
        (Framing::Unary, Some(limit)) => timeout(limit, answer).await.unwrap_or_else(|_| {
            let error = ConnectError::new(Code::DeadlineExceeded, "the deadline of the call has passed");
            Some(reply::error(framing, codec, &error))
        }),
        _ => answer.await,
    };
    call.discard().await;
    answer.unwrap_or_else(|| {
        let message = format!("{service} has no method '{method}' of this kind");
        let mut response = reply::error(Framing::Unary, codec, &ConnectError::new(Code::Unimplemented, message));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
}

/// The first value of a query parameter.
pub(crate) fn query(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key) == name).then(|| percent_decode(value).into_owned())
    })
}

/// As forms encode: `+` is a space.
fn percent_decode(encoded: &str) -> Cow<'_, str> {
    if !encoded.contains(['%', '+']) {
        return Cow::Borrowed(encoded);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                        rest = tail;
                    }
                    _ => decoded.push(byte),
                }
            }
            _ => decoded.push(byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_decoded() {
        let example = Some("path=%2Fa%20b%2Bc+d&empty=&user%6Eame=x&bad=100%&path=second");
        assert_eq!(query(example, "path").unwrap(), "/a b+c d");
        assert_eq!(query(example, "empty").unwrap(), "");
        assert_eq!(query(example, "username").unwrap(), "x");
        assert_eq!(query(example, "bad").unwrap(), "100%");
        assert_eq!(query(example, "none"), None);
    }
}
