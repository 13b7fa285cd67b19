//! `google.protobuf.Timestamp`, with the JSON that proto3 asks for: RFC 3339 in UTC, ending in `Z`.
use std::ops::RangeInclusive;

use chrono::{DateTime, SecondsFormat};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

/// What the protocol can express: the years 1 to 9999.
const RANGE: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

impl Timestamp {
    /// Times of files, which any user can set to any time, are moved into the range.
    pub(crate) fn nearest(seconds: i64, nanos: i64) -> Self {
        Self { seconds: seconds.clamp(*RANGE.start(), *RANGE.end()), nanos: i32::try_from(nanos).unwrap_or_default() }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = u32::try_from(self.nanos).map_err(S::Error::custom)?;
        let time =
            DateTime::from_timestamp(self.seconds, nanos).ok_or_else(|| S::Error::custom("time out of range"))?;
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        let nanos = i32::try_from(time.timestamp_subsec_nanos()).map_err(D::Error::custom)?;
        Ok(Self { seconds: time.timestamp(), nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_utc_with_as_many_digits_as_needed() {
        for (seconds, nanos, json) in [
            (0, 0, "\"1970-01-01T00:00:00Z\""),
            (1_795_464_000, 250_000_000, "\"2026-11-23T20:00:00.250Z\""),
            (1_795_464_000, 1, "\"2026-11-23T20:00:00.000000001Z\""),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(serde_json::to_string(&time).unwrap(), json);
            assert_eq!(serde_json::from_str::<Timestamp>(json).unwrap(), time);
        }
        assert!(serde_json::to_string(&Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
        assert_eq!(serde_json::to_string(&Timestamp::nearest(i64::MAX, 0)).unwrap(), "\"9999-12-31T23:59:59Z\"");
        assert_eq!(serde_json::to_string(&Timestamp::nearest(i64::MIN, 0)).unwrap(), "\"0001-01-01T00:00:00Z\"");
    }
}
