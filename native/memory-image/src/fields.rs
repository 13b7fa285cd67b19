//! Little-endian fields, read one after the other from bytes that may end anywhere.

pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}

/// `bytes` without the CRC32C at their end, if that is theirs.
#[must_use]
pub fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*sum)).then_some(content)
}

/// `content` with its CRC32C at its end.
#[must_use]
pub fn with_sum(mut content: Vec<u8>) -> Vec<u8> {
    content.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    content
}
