//! Messages of a stream: one byte of flags, a big-endian length, the message.
use bytes::{Buf, Bytes, BytesMut};

use super::{Code, ConnectError};

/// Of one message in either framing. E2B's own agent has no bound; this one keeps a bad length from exhausting memory.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

pub(crate) const HEADER_BYTES: usize = 5;
const FLAG_COMPRESSED: u8 = 0x01;
pub(crate) const FLAG_END_STREAM: u8 = 0x02;

pub(crate) fn message_too_large() -> ConnectError {
    ConnectError::new(Code::ResourceExhausted, format!("a message is larger than {MAX_MESSAGE_BYTES} bytes"))
}

/// Room for the header, to be filled by `finish` once the message is written behind it.
pub(crate) fn begin() -> Vec<u8> {
    vec![0; HEADER_BYTES]
}

pub(crate) fn finish(mut envelope: Vec<u8>, flags: u8) -> Bytes {
    let length = envelope.len().saturating_sub(HEADER_BYTES);
    // Replies are bounded far below 4 GiB by what produces them.
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(header) = envelope.first_chunk_mut::<HEADER_BYTES>() {
        *header = [flags, length[0], length[1], length[2], length[3]];
    }
    envelope.into()
}

/// Takes bytes as they arrive, gives messages as they become whole.
#[derive(Default)]
pub(crate) struct EnvelopeReader {
    buffered: BytesMut,
}

impl EnvelopeReader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffered.is_empty()
    }

    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, ConnectError> {
        let Some(&[flags, a, b, c, d]) = self.buffered.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if flags & FLAG_COMPRESSED != 0 {
            return Err(ConnectError::internal("a message is compressed, though no compression was agreed upon"));
        }
        if flags != 0 {
            return Err(ConnectError::invalid_argument(format!("envelope flags {flags:#04x} are not known")));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_MESSAGE_BYTES {
            return Err(message_too_large());
        }
        if self.buffered.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffered.advance(HEADER_BYTES);
        Ok(Some(self.buffered.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(message: &[u8], flags: u8) -> Bytes {
        let mut bytes = begin();
        bytes.extend_from_slice(message);
        finish(bytes, flags)
    }

    #[test]
    fn messages_come_out_whole_wherever_the_bytes_are_split() {
        let messages: [&[u8]; 3] = [b"first", b"", b"third one"];
        let stream: Vec<u8> = messages.iter().flat_map(|message| envelope(message, 0)).collect();
        for split in 0..=stream.len() {
            let mut reader = EnvelopeReader::default();
            let mut seen = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                reader.push(part);
                while let Some(message) = reader.next().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn compressed_oversized_and_unknown_envelopes_are_refused() {
        for (header, code) in [
            ([1, 0, 0, 0, 0], Code::Internal),
            ([0, 0xff, 0xff, 0xff, 0xff], Code::ResourceExhausted),
            ([0x40, 0, 0, 0, 0], Code::InvalidArgument),
        ] {
            let mut reader = EnvelopeReader::default();
            reader.push(&header);
            assert_eq!(reader.next().unwrap_err().code, code);
        }
    }
}
