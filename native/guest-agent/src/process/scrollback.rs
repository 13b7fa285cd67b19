//! The last output of a process, for who connects later and asks for it.
use std::collections::VecDeque;

use bytes::Bytes;

use super::subscriber::Stream;

const KEPT_BYTES: usize = 64 * 1024;

/// Pieces are merged up to this size, so that a process printing single bytes does not cost a list entry for each.
const PIECE_BYTES: usize = 4 * 1024;

#[derive(Default)]
pub(super) struct Scrollback {
    pieces: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
}

impl Scrollback {
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(KEPT_BYTES)..).unwrap_or_default();
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() + bytes.len() <= PIECE_BYTES => {
                piece.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back((stream, bytes.to_vec())),
        }
        while self.bytes > KEPT_BYTES {
            let Some((_, piece)) = self.pieces.front_mut() else { break };
            let excess = self.bytes - KEPT_BYTES;
            if piece.len() <= excess {
                self.bytes -= piece.len();
                self.pieces.pop_front();
            } else {
                piece.drain(..excess);
                self.bytes -= excess;
            }
        }
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = (Stream, Bytes)> {
        self.pieces.iter().map(|(stream, piece)| (*stream, Bytes::copy_from_slice(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_last_bytes_are_kept() {
        let mut scrollback = Scrollback::default();
        let mut all = Vec::new();
        for number in 0..40_000_u32 {
            let line = format!("{number}\n");
            all.extend_from_slice(line.as_bytes());
            scrollback.push(Stream::Stdout, line.as_bytes());
        }
        let kept: Vec<u8> = scrollback.pieces().flat_map(|(_, piece)| piece.to_vec()).collect();
        assert_eq!(kept, all[all.len() - KEPT_BYTES..]);

        scrollback.push(Stream::Stderr, &vec![b'x'; 3 * KEPT_BYTES]);
        let kept: Vec<_> = scrollback.pieces().collect();
        assert_eq!(kept, [(Stream::Stderr, Bytes::from(vec![b'x'; KEPT_BYTES]))]);
    }
}
