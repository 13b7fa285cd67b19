//! The two encodings of a message: proto3 JSON and binary.
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ConnectError;

/// What prost and pbjson generate for every message.
pub(crate) trait Message: prost::Message + Default + Serialize + DeserializeOwned + 'static {}
impl<M: prost::Message + Default + Serialize + DeserializeOwned + 'static> Message for M {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Json,
    Proto,
}

/// In proto3 JSON a field that is null is one that is not set; the generated code refuses it for most types.
fn decode_json<M: Message>(encoded: &[u8]) -> serde_json::Result<M> {
    // Most messages hold none, and need no second form in memory.
    if memchr::memmem::find(encoded, b"null").is_none() {
        return serde_json::from_slice(encoded);
    }
    let mut value = serde_json::from_slice(encoded)?;
    remove_nulls(&mut value);
    serde_json::from_value(value)
}

/// Recursion ends where the parser's own bound on nesting is.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

impl Codec {
    pub(crate) fn decode<M: Message>(self, encoded: &[u8]) -> Result<M, ConnectError> {
        match self {
            Self::Json => decode_json(encoded)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::process::{SendInputRequest, StartRequest, process_input::Input};

    #[test]
    fn null_is_a_field_that_is_not_set() {
        let message =
            br#"{"process":{"cmd":"null","args":null,"envs":null,"cwd":null},"pty":null,"tag":null,"stdin":null}"#;
        let request: StartRequest = Codec::Json.decode(message).unwrap();
        let process = request.process.unwrap();
        assert_eq!((process.cmd.as_str(), process.args.len(), process.envs.len(), process.cwd), ("null", 0, 0, None));
        assert_eq!((request.pty, request.tag, request.stdin), (None, None, None));

        let message = br#"{"process":{"pid":null,"tag":"t"},"input":{"stdin":null,"pty":"eA=="}}"#;
        let request: SendInputRequest = Codec::Json.decode(message).unwrap();
        assert_eq!(request.input.unwrap().input, Some(Input::Pty("x".into())));
    }
}
