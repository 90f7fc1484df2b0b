//! Parses durations and sizes as users type them.

use std::time::Duration;

/// Units of time, in seconds.
const TIMES: [(&str, f64); 5] =
    [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0), ("w", 604_800.0)];

/// Units of size, in bytes; their `B` may be omitted.
const SIZES: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// Parses a duration such as `90s`, `10m`, `12h`, `30d` or `4w`. The error is reported by clap as wrong usage.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a number with a unit, as in 90s, 10m, 12h, 30d or 4w";
    let seconds = with_unit(text, &TIMES, str::eq);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or(expected.into())
}

/// Parses a size such as `800MB`, `1.5GiB` or `20G`. The error is reported by clap as wrong usage.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let expected = "expected a size with a unit, as in 800MB, 20GB or 1.5GiB";
    let is_unit = |known: &str, typed: &str| {
        known.eq_ignore_ascii_case(typed) || known.trim_end_matches('B').eq_ignore_ascii_case(typed)
    };
    let bytes = with_unit(text, &SIZES, is_unit).filter(|bytes| *bytes < u64::MAX as f64);
    bytes.map(|bytes| bytes as u64).ok_or(expected.into())
}

/// Parses a number followed by one of the units, and returns it in the unit with the factor 1.
fn with_unit(
    text: &str,
    units: &[(&str, f64)],
    is_unit: impl Fn(&str, &str) -> bool,
) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(known, _)| is_unit(known, unit.trim()))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_unit() {
        let seconds = |text: &str| duration(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("90s"), Ok(90.0));
        assert_eq!(seconds("1.5 h"), Ok(5400.0));
        assert_eq!(seconds("2w"), Ok(1_209_600.0));
        for wrong in ["", "10", "m", "-1s", "1y", "1.2.3s", "9e99s", "1m30s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("800MB"), Ok(800_000_000));
        assert_eq!(size("2g"), Ok(2_000_000_000));
        assert_eq!(size("1.5 GiB"), Ok(1_610_612_736));
        assert_eq!(size("1024kb"), Ok(1_024_000));
        for wrong in ["", "10", "GB", "1 PB", "99999999999TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
