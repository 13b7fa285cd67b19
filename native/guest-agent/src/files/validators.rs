//! `ETag`, `Last-Modified` and the conditions that refer to them.
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};

pub(super) struct Validators {
    pub(super) etag: String,
    pub(super) last_modified: String,
    modified_seconds: u64,
}

/// The end of the year 9999: later dates cannot be written.
const LAST_SECOND: u64 = 253_402_300_799;

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn seconds(date: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(date).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

impl Validators {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified_seconds = u64::try_from(metadata.mtime()).unwrap_or_default().min(LAST_SECOND);
        let nanoseconds = metadata.mtime_nsec();
        let (size, inode) = (metadata.size(), metadata.ino());
        Self {
            etag: format!("\"{modified_seconds:x}.{nanoseconds:x}-{size:x}-{inode:x}\""),
            last_modified: httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(modified_seconds)),
            modified_seconds,
        }
    }

    /// What the client has is what there is.
    pub(super) fn not_modified(&self, headers: &HeaderMap) -> bool {
        if let Some(tags) = header(headers, IF_NONE_MATCH) {
            return tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.etag);
        }
        header(headers, IF_MODIFIED_SINCE).and_then(seconds).is_some_and(|since| self.modified_seconds <= since)
    }

    /// A range is of use only with the part the client has already.
    pub(super) fn range_applies(&self, headers: &HeaderMap) -> bool {
        header(headers, IF_RANGE).is_none_or(|condition| {
            condition == self.etag || seconds(condition).is_some_and(|date| date == self.modified_seconds)
        })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn conditions_compare_tags_and_times() {
        let validators =
            Validators { etag: "\"a-1\"".to_owned(), last_modified: String::new(), modified_seconds: 784_111_777 };
        let with = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            headers
        };
        for (value, expected) in [("\"a-1\"", true), ("\"b\", W/\"a-1\"", true), ("*", true), ("\"b\"", false)] {
            assert_eq!(validators.not_modified(&with(IF_NONE_MATCH, value)), expected, "{value}");
        }
        for (value, expected) in
            [("Sun, 06 Nov 1994 08:49:37 GMT", true), ("Sun, 06 Nov 1994 08:49:36 GMT", false), ("yesterday", false)]
        {
            assert_eq!(validators.not_modified(&with(IF_MODIFIED_SINCE, value)), expected, "{value}");
        }
        assert!(validators.range_applies(&HeaderMap::new()));
        assert!(validators.range_applies(&with(IF_RANGE, "\"a-1\"")));
        assert!(validators.range_applies(&with(IF_RANGE, "Sun, 06 Nov 1994 08:49:37 GMT")));
        assert!(!validators.range_applies(&with(IF_RANGE, "W/\"a-1\"")));
    }
}
