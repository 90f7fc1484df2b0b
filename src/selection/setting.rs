//! The values of settings, and their order.

use toml::Value;

/// A value as a number, if it is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(integer) => Some(*integer as f64),
        Value::Float(float) => Some(*float),
        _ => None,
    }
}

/// Each value once: numbers first, in ascending order, then other values in order of first occurrence.
pub(super) fn distinct<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
    let mut distinct: Vec<&Value> = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    let rank = |value: &Value| number(value).unwrap_or(f64::INFINITY);
    distinct.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::show;

    #[test]
    fn numbers_stand_in_order_of_size_and_others_in_order_of_coming() {
        let values: [Value; 7] = [
            "mean".into(),
            0.5.into(),
            "cls".into(),
            10.into(),
            (-1).into(),
            "mean".into(),
            0.5.into(),
        ];
        let shown: Vec<String> = distinct(values.iter()).into_iter().map(show).collect();
        assert_eq!(shown, ["-1", "0.5", "10", "mean", "cls"]);
    }
}
