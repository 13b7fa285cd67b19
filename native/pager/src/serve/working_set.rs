//! The working set: what a VM touched first after it was restored, in that order. A hint for the next time: whatever is wrong
//! with it is no error.
use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory_image::{BLOCK_SIZE, Fields, checked, to_usize, with_sum};

use super::status::replace;

const MAGIC: [u8; 8] = *b"WRENNWSS";
const VERSION: u32 = 1;

/// What is touched later than this is no part of getting going.
const RECORDED: Duration = Duration::from_secs(5);

/// In granules of 64 KiB: 256 MiB, so that one that only ever grows comes to an end.
const MOST_GRANULES: usize = 4096;

/// Guest addresses of granules, none twice, all in memory; empty when there is no such file or it is of no use.
pub(crate) fn read(file: &Path, memory_size: u64) -> Vec<u64> {
    std::fs::read(file).ok().and_then(|bytes| decode(&bytes, memory_size)).unwrap_or_default()
}

fn encode(granules: &[u64]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(granules.len()).unwrap_or(u32::MAX).to_le_bytes());
    for granule in granules {
        bytes.extend_from_slice(&granule.to_le_bytes());
    }
    with_sum(bytes)
}

fn decode(bytes: &[u8], memory_size: u64) -> Option<Vec<u64>> {
    let mut fields = Fields::new(checked(bytes)?);
    if fields.bytes()? != MAGIC || fields.u32()? != VERSION {
        return None;
    }
    let count = usize::try_from(fields.u32()?).ok().filter(|&count| count <= MOST_GRANULES)?;
    let granules = (0..count).map(|_| fields.u64()).collect::<Option<Vec<_>>>()?;
    let mut seen = Seen::new(memory_size);
    granules.iter().all(|&granule| granule.is_multiple_of(BLOCK_SIZE) && seen.insert(granule)).then_some(granules)
}

/// Granules that have come up.
struct Seen(Vec<bool>);

impl Seen {
    fn new(memory_size: u64) -> Self {
        Self(vec![false; to_usize(memory_size.div_ceil(BLOCK_SIZE))])
    }

    /// Whether it had not come up, and is in memory.
    fn insert(&mut self, granule: u64) -> bool {
        self.0.get_mut(to_usize(granule / BLOCK_SIZE)).is_some_and(|seen| !std::mem::replace(seen, true))
    }
}

/// Hands out what an earlier run needed, and writes down what this one does.
pub(crate) struct Recorder {
    file: Option<PathBuf>,
    memory_size: u64,
    until: Instant,
    seen: Seen,
    recorded: Vec<u64>,
    /// What was needed the last time, and how much of it has been handed out.
    earlier: Vec<u64>,
    expected: VecDeque<u64>,
}

impl Recorder {
    pub(crate) fn new(file: Option<PathBuf>, memory_size: u64, earlier: Vec<u64>) -> Self {
        Self {
            file,
            memory_size,
            until: Instant::now() + RECORDED,
            seen: Seen::new(memory_size),
            recorded: Vec::with_capacity(MOST_GRANULES),
            expected: earlier.iter().copied().collect(),
            earlier,
        }
    }

    pub(crate) fn has_expected(&self) -> bool {
        !self.expected.is_empty()
    }

    /// What to fetch next.
    pub(crate) fn next_expected(&mut self) -> Option<Range<u64>> {
        let granule = self.expected.pop_front()?;
        Some(granule..(granule + BLOCK_SIZE).min(self.memory_size))
    }

    /// When [`Recorder::finish_in_time`] has something to do; never, when it has done it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.file.as_ref().map(|_| self.until)
    }

    /// Somebody waited for the page `guest`.
    pub(crate) fn note(&mut self, guest: u64) {
        let granule = guest - guest % BLOCK_SIZE;
        if self.file.is_some() && self.recorded.len() < MOST_GRANULES && self.seen.insert(granule) {
            self.recorded.push(granule);
        }
    }

    /// Writes the record when its time has come, and says so.
    pub(crate) fn finish_in_time(&mut self) -> bool {
        let due = self.deadline().is_some_and(|until| Instant::now() >= until);
        if due {
            self.finish();
        }
        due
    }

    /// Writes the record, unless that has been done.
    pub(crate) fn finish(&mut self) {
        let Some(file) = self.file.take() else { return };
        // What was fetched ahead was not waited for, and so not noted: it stays known, behind what was.
        for &granule in &self.earlier {
            if self.recorded.len() < MOST_GRANULES && self.seen.insert(granule) {
                self.recorded.push(granule);
            }
        }
        if let Err(error) = replace(&file, &encode(&self.recorded)) {
            eprintln!("the working set is not kept: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    #[test]
    fn what_is_written_is_read() {
        let granules = vec![3 * BLOCK_SIZE, 0, 15 * BLOCK_SIZE];
        assert_eq!(decode(&encode(&granules), SIZE), Some(granules));
        assert_eq!(decode(&encode(&[]), SIZE), Some(vec![]));
    }

    #[test]
    fn one_that_is_cut_changed_or_of_another_memory_is_ignored() {
        let good = encode(&[BLOCK_SIZE, 0]);
        for at in 0..good.len() {
            assert_eq!(decode(&good[..at], SIZE), None, "cut at {at}");
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed, SIZE), None, "changed at {at}");
        }
        for wrong in [vec![1], vec![SIZE], vec![0, 0]] {
            assert_eq!(decode(&encode(&wrong), SIZE), None, "{wrong:?}");
        }
        assert!(read(Path::new("/nonexistent"), SIZE).is_empty());
    }
}
