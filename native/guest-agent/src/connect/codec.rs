//! The two encodings of a message: proto3 JSON and binary.
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ConnectError;

/// What prost and pbjson generate for every message.
pub(crate) trait Message: prost::Message + Default + Serialize + DeserializeOwned + 'static {}
impl<M: prost::Message + Default + Serialize + DeserializeOwned + 'static> Message for M {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Json,
    Proto,
}

impl Codec {
    pub(crate) fn decode<M: Message>(self, encoded: &[u8]) -> Result<M, ConnectError> {
        match self {
            Self::Json => serde_json::from_slice(encoded)
                .map_err(|error| ConnectError::invalid_argument(format!("the message is not valid JSON: {error}"))),
            Self::Proto => M::decode(encoded)
                .map_err(|error| ConnectError::invalid_argument(format!("the message is not valid protobuf: {error}"))),
        }
    }

    pub(crate) fn encode<M: Message>(self, message: &M, into: &mut Vec<u8>) -> Result<(), ConnectError> {
        let outcome = match self {
            Self::Json => serde_json::to_writer(into, message).map_err(|error| error.to_string()),
            Self::Proto => message.encode(into).map_err(|error| error.to_string()),
        };
        outcome.map_err(|error| ConnectError::internal(format!("the reply cannot be encoded: {error}")))
    }
}
