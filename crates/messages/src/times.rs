//! Milliseconds since the Unix epoch to and from protobuf timestamps.

use pbjson_types::Timestamp;

/// A protobuf timestamp for this many milliseconds since the Unix epoch.
pub fn from_millis(unix_millis: i64) -> Timestamp {
    Timestamp {
        seconds: unix_millis.div_euclid(1000),
        nanos: i32::try_from(unix_millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
    }
}

/// Milliseconds since the Unix epoch; what is finer is cut off.
pub fn to_millis(timestamp: &Timestamp) -> i64 {
    timestamp.seconds.saturating_mul(1000).saturating_add(i64::from(timestamp.nanos / 1_000_000))
}

/// Seconds of the years 1 to 9999, beyond which a timestamp has no form in JSON.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// What is wrong with a timestamp, which by protobuf's rules may be none at all; `None`: nothing. A wrong one cannot be
/// sent on as JSON.
pub fn wrong_time(timestamp: Option<&Timestamp>) -> Option<&'static str> {
    let fits = |time: &Timestamp| SECONDS.contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    (!timestamp.is_none_or(fits)).then_some("must be a time in the years 1 to 9999")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_a_form_in_json_are_refused() {
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000)] {
            let time = Timestamp { seconds, nanos };
            assert!(wrong_time(Some(&time)).is_some(), "{time:?}");
        }
        for seconds in [*SECONDS.start(), 0, *SECONDS.end()] {
            let time = Timestamp { seconds, nanos: 999_999_999 };
            assert_eq!(wrong_time(Some(&time)), None);
            let text = serde_json::to_string(&time).expect("it has a form");
            assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("it reads back"), time);
        }
    }

    #[test]
    fn milliseconds_survive_the_round_trip() {
        for millis in [0, 1, 999, 1_000, 1_732_000_000_123, -1, -1_500] {
            assert_eq!(to_millis(&from_millis(millis)), millis);
        }
    }
}
