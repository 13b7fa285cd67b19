//! The Range header, as far as it asks for one range.
use std::ops::Range;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Part(Range<u64>),
    /// Begins behind the end.
    Unsatisfiable,
}

/// Several ranges, other units and what is malformed are answered with the whole, as the standard allows.
pub(super) fn parse(header: Option<&str>, size: u64) -> Wanted {
    parse_one(header, size).unwrap_or(Wanted::Whole)
}

fn parse_one(header: Option<&str>, size: u64) -> Option<Wanted> {
    let (unit, range) = header?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are simply far behind any end.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let wanted = match (first, last) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if wanted.start >= size { Wanted::Unsatisfiable } else { Wanted::Part(wanted) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_understood() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-4", Wanted::Part(2..5)),
            ("bytes=7-", Wanted::Part(7..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=5-500", Wanted::Part(5..10)),
            ("bytes=0-18446744073709551615", Wanted::Part(0..10)),
            ("Bytes = 1-1", Wanted::Part(1..2)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
        ] {
            assert_eq!(parse(Some(header), 10), expected, "{header}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn everything_else_is_answered_with_the_whole() {
        for header in
            ["bytes=1-2,4-5", "bytes=3-1", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes", "bytes=+1-2"]
        {
            assert_eq!(parse(Some(header), 10), Wanted::Whole, "{header}");
        }
        assert_eq!(parse(None, 10), Wanted::Whole);
    }
}
