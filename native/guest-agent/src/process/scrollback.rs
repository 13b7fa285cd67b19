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
    /// Older output is gone: the first piece begins anywhere.
    cut: bool,
}

/// A terminal that is repainted from the middle of an escape sequence or of a character shows rubbish.
fn behind_first_line_break(piece: &[u8]) -> &[u8] {
    let start = memchr::memchr(b'\n', piece).map_or(0, |at| at + 1);
    piece.get(start..).unwrap_or_default()
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
            self.cut = true;
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

    /// Of a terminal from the first whole line on.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Stream, Bytes)> {
        self.pieces.iter().enumerate().map(|(index, (stream, piece))| {
            let cut = index == 0 && self.cut && *stream == Stream::Pty;
            let piece = if cut { behind_first_line_break(piece) } else { piece };
            (*stream, Bytes::copy_from_slice(piece))
        })
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

    #[test]
    fn a_terminal_is_repainted_from_a_whole_line_on() {
        let mut scrollback = Scrollback::default();
        scrollback.push(Stream::Pty, b"\x1b[31mred\n");
        let text =
            |scrollback: &Scrollback| scrollback.pieces().flat_map(|(_, piece)| piece.to_vec()).collect::<Vec<_>>();
        assert_eq!(text(&scrollback), b"\x1b[31mred\n");
        scrollback.push(Stream::Pty, b"next\n");
        scrollback.push(Stream::Pty, &vec![b'x'; KEPT_BYTES - 6]);
        assert_eq!(scrollback.pieces().next().unwrap().1, b"next\n".as_slice());
        scrollback.push(Stream::Pty, &vec![b'y'; KEPT_BYTES]);
        assert_eq!(text(&scrollback), vec![b'y'; KEPT_BYTES]);
    }
}
