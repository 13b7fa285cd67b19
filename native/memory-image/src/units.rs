//! The two sizes that everything in an image is counted in.

/// Size of a guest page, the grain of extents: the same on every machine that images are made for.
pub const PAGE_SIZE: u64 = 4096;
/// [`PAGE_SIZE`] for lengths in memory.
pub const PAGE_BYTES: usize = 4096;

/// Size of a layer's block, the grain of checksums and of what a pager reads at once.
pub const BLOCK_SIZE: u64 = 65_536;
/// [`BLOCK_SIZE`] for lengths in memory.
pub const BLOCK_BYTES: usize = 65_536;

/// A length or offset in memory. What does not fit becomes one that no buffer has, so that it is found missing there.
#[must_use]
pub fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Whether `bytes` holds nothing but zeros.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Folded by words, in pieces: the compiler makes vector instructions of the inner loop, and a page that begins with
    // anything else is given up early.
    let (words, rest) = bytes.as_chunks::<8>();
    words.chunks(32).all(|piece| piece.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0)
        && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        for length in [0, 1, 7, 8, 9, 255, 256, 257, PAGE_BYTES] {
            let mut bytes = vec![0_u8; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "byte {at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
