//! `exp`, `ln`, `ln(1 + x)`, `tanh`, `erf` and the normal distribution in f32 without branches or calls, so that loops
//! over them vectorise.
//!
//! Except for [`exp_of_negative`], none of them uses a fused multiply-add, so every instruction set gives the same
//! bits.

/// Smallest argument whose exponential is a normal number.
const LOWEST: f32 = -87.336_54;

/// Largest argument whose exponential has an exponent that fits.
const HIGHEST: f32 = 88.376_26;

/// `e^x`, within 2 units in the last place from -87.3 to 88.3; 0 below, the value at 88.3 above. NaN stays NaN.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`, and a polynomial in `r` (coefficients of Moshier's Cephes, `expf`).
///
/// ```
/// use frostbert_train::exp::exp;
/// assert_eq!(exp(0.0), 1.0);
/// assert!((exp(-3.5) - (-3.5f32).exp()).abs() < 1e-8);
/// assert_eq!(exp(-1e30), 0.0);
/// ```
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Comparisons instead of `max` and `min`, which would turn NaN into a number.
    let inside = if x < LOWEST { LOWEST } else { x };
    let inside = if inside > HIGHEST { HIGHEST } else { inside };
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the lowest bits.
    let shifted = inside * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = inside - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    let value = (p * r * r + r + 1.0) * power;
    if x < LOWEST { 0.0 } else { value }
}

/// `e^x` for `x` of at most 0, within 2 units in the last place down to -87, and constant below. NaN stays NaN.
///
/// [`exp`] with half the operations: its products and sums are fused, so it is slow on a processor without that
/// instruction.
///
/// ```
/// use frostbert_train::exp::exp_of_negative;
/// assert_eq!(exp_of_negative(0.0), 1.0);
/// assert!((exp_of_negative(-3.5) - (-3.5f32).exp()).abs() < 1e-8);
/// assert!(exp_of_negative(-1e30) < 2e-38);
/// ```
#[inline(always)]
pub fn exp_of_negative(x: f32) -> f32 {
    let inside = if x < -87.0 { -87.0 } else { x };
    let shifted = inside.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = n.mul_add(-0.693_359_4, inside);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 0.166_666_65);
    p = p.mul_add(r, 0.5);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    (p.mul_add(r * r, r) + 1.0) * power
}

/// `ln(1 + x)` for `x` from 0 to 1, to a relative 1e-7: `2 artanh(x / (2 + x))` by its series. NaN stays NaN.
///
/// ```
/// use frostbert_train::exp::ln_1p;
/// assert!((ln_1p(1.0) - 2.0f32.ln()).abs() < 1e-7);
/// assert_eq!(ln_1p(1e-20), 1e-20);
/// ```
#[inline(always)]
pub fn ln_1p(x: f32) -> f32 {
    let t = x / (2.0 + x);
    let s = t * t;
    let mut p = 1.0 / 13.0;
    p = p * s + 1.0 / 11.0;
    p = p * s + 1.0 / 9.0;
    p = p * s + 1.0 / 7.0;
    p = p * s + 0.2;
    p = p * s + 1.0 / 3.0;
    2.0 * t + 2.0 * t * s * p
}

/// `ln x` for finite `x` from 1, to 1e-7 and a relative 1e-7: for `x = 2^n (1 + m)` it is `n ln 2 + ln(1 + m)`.
///
/// ```
/// use frostbert_train::exp::ln;
/// assert_eq!(ln(1.0), 0.0);
/// assert!((ln(1e30) - 1e30f32.ln()).abs() < 1e-5);
/// ```
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let n = (bits >> 23) as f32 - 127.0;
    let mantissa = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000);
    n * std::f32::consts::LN_2 + ln_1p(mantissa - 1.0)
}

/// `tanh(x)`, to a relative 1e-6: a quotient of polynomials, as in the Eigen library.
///
/// ```
/// use frostbert_train::exp::tanh;
/// assert!((tanh(0.5) - 0.5f32.tanh()).abs() < 1e-7);
/// ```
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let x = clamp(x, 7.905_311);
    let s = x * x;
    let mut p = -2.760_768_5e-16;
    p = p * s + 2.000_188e-13;
    p = p * s + -8.604_672e-11;
    p = p * s + 5.122_297_3e-8;
    p = p * s + 1.485_722_35e-5;
    p = p * s + 6.372_619_4e-4;
    p = p * s + 4.893_524_6e-3;
    let mut q = 1.198_258_4e-6;
    q = q * s + 1.185_347_1e-4;
    q = q * s + 2.268_434_6e-3;
    q = q * s + 4.893_525_3e-3;
    x * p / q
}

/// `erf(x)`, to a relative 1e-6: a quotient of polynomials, as in the Eigen library.
///
/// The GELU of heads uses it. [`normal_cdf_and_density`] is more accurate, but would change the bytes of such heads.
///
/// ```
/// use frostbert_train::exp::erf;
/// assert!((erf(0.5) - 0.520_499_9).abs() < 1e-7);
/// ```
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = clamp(x, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10;
    p = p * s + 2.770_681_4e-8;
    p = p * s + -2.101_024e-6;
    p = p * s + -5.692_506_5e-5;
    p = p * s + -7.349_906_3e-4;
    p = p * s + -2.954_6e-3;
    p = p * s + -1.609_603_3e-2;
    let mut q = -1.456_607_2e-5;
    q = q * s + -2.133_740_6e-4;
    q = q * s + -1.682_827e-3;
    q = q * s + -7.373_329e-3;
    q = q * s + -1.426_474e-2;
    x * p / q
}

/// The standard normal distribution at `x`: `Phi(x) = (1 + erf(x / sqrt 2)) / 2`, within 4 units in the last place from
/// -12.5 on, and `e^(-x^2 / 2) / sqrt(2 pi)`, within 2. Where they leave the range of normal numbers, about -13 and 13,
/// they become 0 and 1. NaN stays NaN.
///
/// `1 + erf` of a large negative number would have few correct digits, so the smaller tail is computed instead: with
/// `y = |x|`, `Phi(-y) = e^(-y^2 / 2) P(y / (y + 2.5)) / (y + 2.5)`, with a polynomial `P` that was fitted to 2e-8.
///
/// ```
/// use frostbert_train::exp::normal_cdf_and_density;
/// let (cdf, density) = normal_cdf_and_density(-5.0);
/// assert!((cdf / 2.866_515_7e-7 - 1.0).abs() < 5e-7);
/// assert!((density / 1.486_719_5e-6 - 1.0).abs() < 5e-7);
/// ```
#[inline(always)]
pub fn normal_cdf_and_density(x: f32) -> (f32, f32) {
    let y = clamp(x, 14.0).abs();
    let square = y * y;
    // What rounding took from the square (Dekker 1971): the upper half of the bits has an exact square.
    let upper = f32::from_bits(y.to_bits() & 0xFFFF_F000);
    let lower = y - upper;
    let rest = (upper * upper - square) + 2.0 * upper * lower + lower * lower;
    let power = exp(-0.5 * square);
    let power = power - power * (0.5 * rest);
    let t = 1.0 / (y + 2.5);
    let v = y * t;
    let mut p = -7.878_255e-2;
    p = p * v + 0.276_043_24;
    p = p * v + -0.307_829_44;
    p = p * v + 0.133_565_53;
    p = p * v + -0.147_699_61;
    p = p * v + 5.548_931_3e-2;
    p = p * v + 0.291_947_04;
    p = p * v + 0.169_601_56;
    p = p * v + -1.243_392_1;
    p = p * v + 1.25;
    let tail = power * (p * t);
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, power * 0.398_942_3)
}

#[inline(always)]
fn clamp(x: f32, bound: f32) -> f32 {
    let x = if x < -bound { -bound } else { x };
    if x > bound { bound } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest relative error over a fine grid.
    fn worst(range: f32, approximate: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let steps = 400_000;
        let difference = |step: i32| {
            let x = range * step as f32 / steps as f32;
            let expected = exact(f64::from(x));
            (f64::from(approximate(x)) - expected).abs() / expected.abs().max(1e-30)
        };
        (-steps..=steps).filter(|step| *step != 0).map(difference).fold(0.0, f64::max)
    }

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        let worst = worst(87.3, exp, f64::exp);
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
    }

    #[test]
    fn the_exponential_of_negative_numbers_is_within_two_units_in_the_last_place() {
        let negative = |x: f32| if x > 0.0 { 1.0 } else { exp_of_negative(x) };
        let worst = worst(87.0, negative, |x| x.min(0.0).exp());
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert!(exp_of_negative(f32::NAN).is_nan());
        assert!(exp_of_negative(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn the_hyperbolic_tangent_and_the_error_function_are_within_1e_6() {
        let tanh = worst(9.5, tanh, f64::tanh);
        assert!(tanh < 1e-6, "{tanh:e}");
        let erf = worst(5.0, erf, libm::erf);
        assert!(erf < 1e-6, "{erf:e}");
    }

    /// `Phi` in f64; `erfc` has no cancellation on either side.
    fn exact_cdf(x: f64) -> f64 {
        0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    }

    fn exact_density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
    }

    #[test]
    fn the_normal_distribution_is_within_4_and_its_density_within_2_units_in_the_last_place() {
        let epsilon = f64::from(f32::EPSILON);
        let cdf = worst(12.5, |x| normal_cdf_and_density(x).0, exact_cdf);
        assert!(cdf < 4.0 * epsilon, "{cdf:e}");
        let density = worst(12.5, |x| normal_cdf_and_density(x).1, exact_density);
        assert!(density < 2.0 * epsilon, "{density:e}");
        // Where most units are, and where both tails meet.
        let near = worst(1.0, |x| normal_cdf_and_density(x).0, exact_cdf);
        assert!(near < 2.5 * epsilon, "{near:e}");
        assert_eq!(normal_cdf_and_density(0.0).0, 0.5);
        assert_eq!(normal_cdf_and_density(f32::MAX), (1.0, 0.0));
        assert_eq!(normal_cdf_and_density(f32::MIN), (0.0, 0.0));
        assert_eq!(normal_cdf_and_density(f32::NEG_INFINITY), (0.0, 0.0));
        let (cdf, density) = normal_cdf_and_density(f32::NAN);
        assert!(cdf.is_nan() && density.is_nan());
    }

    #[test]
    fn nan_stays_nan_and_the_ends_are_finite() {
        for function in [exp, tanh, erf] {
            assert!(function(f32::NAN).is_nan());
            assert!(function(f32::INFINITY).is_finite() && function(f32::MAX).is_finite());
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }
}
