//! The Connect protocol (connectrpc.com/docs/protocol), as far as a server of unary, server-streaming and
//! client-streaming calls over HTTP/1.1 needs it.
pub(crate) mod call;
pub(crate) mod codec;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod reply;

pub(crate) use call::Call;
pub(crate) use codec::Codec;
pub(crate) use error::{Code, ConnectError};
pub(crate) use reply::EventSource;
