//! A call as it arrives: which codec, which framing, which deadline, and its messages.
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;

use super::codec::Message;
use super::envelope::{EnvelopeReader, MAX_MESSAGE_BYTES, message_too_large};
use super::{Code, Codec, ConnectError};
use crate::server::body::discard;

/// E2B's agent sends a keepalive after so many idle seconds unless the caller asks otherwise.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(90);

/// Any longer is as good as never, and clocks cannot add up just any number of seconds.
const MAX_KEEPALIVE_SECONDS: u64 = 24 * 60 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Unary,
    Stream,
}

/// The protocol's content types, or nothing for any other.
pub(crate) fn content_type(parts: &Parts) -> Option<(Codec, Framing)> {
    let value = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next()?.trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/json" => Some((Codec::Json, Framing::Unary)),
        "application/proto" => Some((Codec::Proto, Framing::Unary)),
        "application/connect+json" => Some((Codec::Json, Framing::Stream)),
        "application/connect+proto" => Some((Codec::Proto, Framing::Stream)),
        _ => None,
    }
}

pub(crate) struct Call {
    pub(crate) codec: Codec,
    pub(crate) parts: Parts,
    body: Incoming,
    envelopes: EnvelopeReader,
}

impl Call {
    pub(crate) fn new(codec: Codec, parts: Parts, body: Incoming) -> Self {
        Self { codec, parts, body, envelopes: EnvelopeReader::default() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// How long the caller is willing to wait.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ConnectError> {
        let Some(value) = self.header("connect-timeout-ms") else { return Ok(None) };
        // The protocol allows ten digits.
        match value.parse::<u64>() {
            Ok(milliseconds) if value.len() <= 10 => Ok(Some(Duration::from_millis(milliseconds))),
            _ => Err(ConnectError::invalid_argument(format!("Connect-Timeout-Ms is not valid: '{value}'"))),
        }
    }

    pub(crate) fn keepalive_interval(&self) -> Duration {
        self.header("keepalive-ping-interval")
            .and_then(|value| value.parse().ok())
            .filter(|seconds| *seconds > 0)
            .map_or(DEFAULT_KEEPALIVE, |seconds| Duration::from_secs(u64::min(seconds, MAX_KEEPALIVE_SECONDS)))
    }

    pub(crate) fn has_flag(&self, name: &str) -> bool {
        self.header(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(crate) fn check_protocol(&self) -> Result<(), ConnectError> {
        if let Some(version) = self.header("connect-protocol-version")
            && version != "1"
        {
            return Err(ConnectError::invalid_argument(format!("Connect-Protocol-Version must be 1, not '{version}'")));
        }
        let compression = self.header(CONTENT_ENCODING.as_str()).or_else(|| self.header("connect-content-encoding"));
        match compression {
            None | Some("identity") => Ok(()),
            Some(other) => Err(ConnectError::new(
                Code::Unimplemented,
                format!("compression '{other}' is not supported: supported encodings are identity"),
            )),
        }
    }

    /// The message of a unary call.
    pub(crate) async fn unary<M: Message>(&mut self) -> Result<M, ConnectError> {
        let mut message = Vec::new();
        while let Some(bytes) = self.next_bytes().await? {
            if message.len() + bytes.len() > MAX_MESSAGE_BYTES {
                return Err(message_too_large());
            }
            message.extend_from_slice(&bytes);
        }
        self.codec.decode(&message)
    }

    /// The one message of a stream of replies.
    pub(crate) async fn only<M: Message>(&mut self) -> Result<M, ConnectError> {
        let message = self.next().await?;
        let message = message.ok_or_else(|| ConnectError::invalid_argument("the request holds no message"))?;
        match self.next_envelope().await? {
            None => Ok(message),
            Some(_) => Err(ConnectError::invalid_argument("the request holds more than one message")),
        }
    }

    /// The next message of a stream; nothing at its end.
    pub(crate) async fn next<M: Message>(&mut self) -> Result<Option<M>, ConnectError> {
        self.next_envelope().await?.map(|envelope| self.codec.decode(&envelope)).transpose()
    }

    /// What has not been read, because the request is refused.
    pub(crate) async fn discard(&mut self) {
        discard(&mut self.body).await;
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>, ConnectError> {
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|error| ConnectError::invalid_argument(format!("the request broke off: {error}")))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    async fn next_envelope(&mut self) -> Result<Option<Bytes>, ConnectError> {
        loop {
            if let Some(envelope) = self.envelopes.next()? {
                return Ok(Some(envelope));
            }
            match self.next_bytes().await? {
                Some(bytes) => self.envelopes.push(&bytes),
                None if self.envelopes.is_empty() => return Ok(None),
                None => return Err(ConnectError::invalid_argument("the last message of the request is cut short")),
            }
        }
    }
}
