//! Numbers as a page shows them.

/// What stands where there is no number.
pub(super) const NONE: &str = "–";

pub(super) use frostbert_cache::wording::grouped;

/// A share: `77.0 %`.
pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { NONE.into() }
}

/// A number with three digits behind the point.
pub(super) fn decimal(number: f64) -> String {
    if number.is_finite() { format!("{number:.3}") } else { NONE.into() }
}

/// A number of whatever size with as many digits as say something.
pub(super) fn short(number: f64) -> String {
    if !number.is_finite() {
        return NONE.into();
    }
    let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(number);
    rounded.to_string()
}

/// A value with its interval: `0.770 [0.745, 0.794]`.
pub(super) fn with_interval(value: Option<f64>, interval: Option<[f64; 2]>) -> String {
    let Some(value) = value else {
        return NONE.into();
    };
    match interval {
        Some([low, high]) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => decimal(value),
    }
}

/// A number of bytes: `1.2 MB`.
pub(super) fn size(bytes: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{size:.digits$} {}", units[unit])
}

/// At most `most` of `n` places, evenly spread.
pub(super) fn evenly(n: usize, most: usize) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    (0..most).map(|place| place * n / most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_the_digits_that_say_something() {
        assert_eq!(percent(0.7695), "77.0 %");
        assert_eq!((short(0.000_300_01).as_str(), short(1000.0).as_str()), ("0.0003", "1000"));
        assert_eq!(with_interval(Some(0.77), Some([0.7, 0.8])), "0.770 [0.700, 0.800]");
        assert_eq!(with_interval(None, None), NONE);
        assert_eq!((size(999).as_str(), size(1_234_567).as_str()), ("999 bytes", "1.2 MB"));
        assert_eq!((percent(f64::NAN).as_str(), decimal(f64::NAN).as_str()), (NONE, NONE));
    }

    #[test]
    fn a_sample_is_spread_evenly_and_of_few_all_are_taken() {
        assert_eq!(evenly(3, 5), [0, 1, 2]);
        assert_eq!(evenly(10, 4), [0, 2, 5, 7]);
    }
}
