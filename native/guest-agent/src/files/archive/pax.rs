//! What the POSIX format says of an entry in a header of its own: names of any length, sizes, times, holes.
use rustix::fs::Timespec;

use super::entry::Malformed;

/// Keys that change how the archive is read on. In a header for all entries nobody writes them, and they would break it.
const STRUCTURAL: [&[u8]; 4] = [b"path", b"linkpath", b"size", b"GNU.sparse.major"];

const NANOSECONDS: u32 = 1_000_000_000;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<Timespec>,
    /// Of a file with holes: its size with them. The map comes before its data.
    pub(super) size_with_holes: Option<u64>,
}

/// Records of `length key=value\n`. The value may hold anything, line breaks too.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((key, value, rest)) = split_record(bytes) else {
            bytes = &[];
            return Some(Err(Malformed::new("an extended header is damaged")));
        };
        bytes = rest;
        Some(Ok((key, value)))
    })
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = memchr::memchr(b' ', bytes)?;
    let length = usize::try_from(number(bytes.get(..space)?)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = memchr::memchr(b'=', record)?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, rest))
}

/// Decimal digits and nothing else.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// Seconds with any number of decimals.
fn time(value: &[u8]) -> Option<Timespec> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |value| (true, value));
    let dot = memchr::memchr(b'.', value).unwrap_or(value.len());
    let seconds = i64::try_from(number(value.get(..dot)?)?).ok()?;
    let decimals = value.get(dot + 1..).unwrap_or_default();
    let mut nanoseconds = 0;
    for index in 0..9 {
        let digit = decimals.get(index).map_or(Some(0), |digit| char::from(*digit).to_digit(10))?;
        nanoseconds = nanoseconds * 10 + digit;
    }
    let (seconds, nanoseconds) = match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, NANOSECONDS - nanoseconds),
    };
    Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() })
}

impl Pax {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut pax = Self::default();
        let mut version = None;
        let mut sparse_name = None;
        for record in records(bytes) {
            let (key, value) = record?;
            // An empty value takes one for all entries back.
            if value.is_empty() {
                continue;
            }
            let size =
                || number(value).ok_or_else(|| Malformed::new("an extended header has a size that is no number"));
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"linkpath" => pax.link = Some(value.to_vec()),
                b"size" => pax.size = Some(size()?),
                // A time that makes no sense is no reason to refuse a file.
                b"mtime" => pax.modified = time(value),
                b"GNU.sparse.major" => version = Some(size()?),
                b"GNU.sparse.name" => sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => pax.size_with_holes = Some(size()?),
                b"GNU.sparse.map" | b"GNU.sparse.numblocks" => version = Some(0),
                _ => {}
            }
        }
        match version {
            None => pax.size_with_holes = None,
            Some(1) if pax.size_with_holes.is_some() => {}
            Some(_) => {
                return Err(Malformed::new("its files with holes are of a kind that is not known (use version 1.0)"));
            }
        }
        pax.path = sparse_name.or(pax.path);
        Ok(pax)
    }

    /// A header for all entries that follow, such as `git archive` writes to name its commit.
    pub(super) fn check_global(bytes: &[u8]) -> Result<(), Malformed> {
        for record in records(bytes) {
            let (key, _) = record?;
            if STRUCTURAL.contains(&key) {
                return Err(Malformed::new("a header for all entries names a path or a size"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let rest = format!(" {key}={value}\n");
        let length = (1..100).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
        format!("{length}{rest}").into_bytes()
    }

    #[test]
    fn records_hold_any_value() {
        let bytes = [
            record("path", "a=b\nc \u{e9}"),
            record("size", "8589934592"),
            record("other", ""),
            record("linkpath", "l"),
        ];
        let pax = Pax::read(&bytes.concat()).unwrap();
        assert_eq!(pax.path.unwrap(), "a=b\nc \u{e9}".as_bytes());
        assert_eq!((pax.size, pax.link), (Some(8_589_934_592), Some(b"l".to_vec())));
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in
            ["x", "0 a=b\n", "99 path=a\n", "9 path=ab", "8 patha\n", "-9 path=a\n", " path=a\n", "12 size=1x\n"]
        {
            assert!(Pax::read(bytes.as_bytes()).is_err(), "{bytes}");
        }
        assert!(Pax::check_global(&record("comment", "0123")).is_ok());
        assert!(Pax::check_global(&record("size", "1")).is_err());
    }

    #[test]
    fn times_have_decimals_and_may_lie_before_1970() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1700000000.5", 1_700_000_000, 500_000_000),
            ("1.1234567891", 1, 123_456_789),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
        ] {
            let time = time(text.as_bytes()).unwrap();
            assert_eq!((time.tv_sec, time.tv_nsec), (seconds, nanoseconds), "{text}");
        }
        assert_eq!([time(b""), time(b"x"), time(b"1.x"), time(b"--1")], [None; 4]);
    }
}
