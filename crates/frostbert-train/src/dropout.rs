//! Dropout masks from a counter rather than a stream: whether a unit is dropped depends on its position, not on the
//! draws before it.

use multiversion::multiversion;

use crate::real::Real;

/// Zeroes each of `values` with probability `rate` and scales the others by `1 / (1 - rate)` (inverted dropout).
///
/// Which units are dropped is a function of `(seed, epoch, row, unit)` alone, so it does not depend on the thread, the
/// batch or the other heads.
///
/// # Panics
/// Panics if `rate` is not in `0..1`.
#[multiversion(targets = "simd")]
pub fn drop_units<F: Real>(values: &mut [F], rate: f32, seed: u64, epoch: u64, row: u64) {
    assert!((0.0..1.0).contains(&rate), "a dropout rate from 0 to below 1");
    if rate == 0.0 {
        return;
    }
    let base = mix64(mix64(mix64(seed) ^ epoch) ^ row);
    let (low, high) = (base as u32, (base >> 32) as u32);
    let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
    let scale = F::one() / (F::one() - F::of(f64::from(rate)));
    for (unit, value) in values.iter_mut().enumerate() {
        let draw = mix32((unit as u32).wrapping_mul(0x9E37_79B9).wrapping_add(low)) ^ high;
        *value = if mix32(draw) < threshold { F::zero() } else { *value * scale };
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
fn mix64(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `lowbias32` (Wellons 2018): 32 bits to 32 bits, in operations that vectorise.
fn mix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_dropped_units_is_the_rate_and_the_mean_stays() {
        let (mut dropped, mut sum) = (0usize, 0.0f64);
        for row in 0..500 {
            let mut values = [1.0f32; 400];
            drop_units(&mut values, 0.3, 7, 2, row);
            dropped += values.iter().filter(|value| **value == 0.0).count();
            sum += values.iter().map(|value| f64::from(*value)).sum::<f64>();
        }
        assert!((dropped as f64 / 200_000.0 - 0.3).abs() < 0.005, "{dropped}");
        assert!((sum / 200_000.0 - 1.0).abs() < 0.01, "{sum}");
    }

    #[test]
    fn other_seeds_epochs_and_rows_give_other_masks() {
        let mask = |seed, epoch, row| {
            let mut values = [1.0f32; 64];
            drop_units(&mut values, 0.5, seed, epoch, row);
            values
        };
        let first = mask(1, 1, 1);
        assert_eq!(first, mask(1, 1, 1));
        for other in [mask(2, 1, 1), mask(1, 2, 1), mask(1, 1, 2)] {
            let equal = first.iter().zip(other).filter(|(a, b)| **a == *b).count();
            assert!((16..48).contains(&equal), "{equal} of 64 units share their fate");
        }
    }
}
