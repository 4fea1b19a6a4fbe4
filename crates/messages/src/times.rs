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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_round_trip() {
        for millis in [0, 1, 999, 1_000, 1_732_000_000_123, -1, -1_500] {
            assert_eq!(to_millis(&from_millis(millis)), millis);
        }
    }
}
