//! Lengths of time as people write them: `90s`, `20m`, `1h`, `2d`.

use std::time::Duration;

/// Reads one.
///
/// # Errors
/// A sentence that says how to write it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no length of time; write it as 90s, 20m, 1h or 2d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= 315_360_000)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is longer than ten years"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_mistakes_say_how_to_write_them() {
        let seconds = |text: &str| parse(text).map(|span| span.as_secs());
        assert_eq!(["0s", "90s", "20m", "1h", "2d"].map(|text| seconds(text).unwrap()), [0, 90, 1_200, 3_600, 172_800]);
        for text in ["", "20", "m", "1.5h", "-1s", "5 m", "5w"] {
            assert!(parse(text).unwrap_err().contains("20m"), "{text}");
        }
        assert!(parse("99999999999999999d").unwrap_err().contains("ten years"));
    }
}
