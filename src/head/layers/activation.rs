//! The activation functions of the hidden layers.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::train::real::Real;

/// A function that is applied to each unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x Phi(x) = x (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016; PyTorch's default, without approximation).
    #[default]
    Gelu,
    /// `tanh(x)`.
    Tanh,
}

/// `y = f(x)`.
///
/// ```
/// use frostbert::internals::head::layers::activation::{Activation, forward};
/// let mut y = [0.0f32; 2];
/// forward(Activation::Relu, &[-1.0, 2.0], &mut y);
/// assert_eq!(y, [0.0, 2.0]);
/// ```
///
/// # Panics
/// Panics if the lengths differ.
#[multiversion(targets = "simd")]
pub fn forward<F: Real>(activation: Activation, x: &[F], y: &mut [F]) {
    assert_eq!(x.len(), y.len(), "one output per unit");
    let units = x.iter().zip(y);
    match activation {
        Activation::Relu => units.for_each(|(x, y)| *y = relu(*x)),
        Activation::Gelu => units.for_each(|(x, y)| *y = *x * normal_cdf(*x)),
        Activation::Tanh => units.for_each(|(x, y)| *y = x.fast_tanh()),
    }
}

/// Turns `dL/dy` into `dL/dx = f'(x) dL/dy`, in place.
///
/// The slope of ReLU at 0 is 0, as in PyTorch.
///
/// # Panics
/// Panics if the lengths differ.
#[multiversion(targets = "simd")]
pub fn backward<F: Real>(activation: Activation, x: &[F], gradient: &mut [F]) {
    assert_eq!(x.len(), gradient.len(), "one gradient per unit");
    let units = x.iter().zip(gradient);
    match activation {
        Activation::Relu => units.for_each(|(x, gradient)| {
            *gradient = if *x > F::zero() { *gradient } else { F::zero() };
        }),
        Activation::Gelu => units.for_each(|(x, gradient)| {
            let density =
                F::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)
                    * (F::of(-0.5) * *x * *x).fast_exp();
            *gradient *= normal_cdf(*x) + *x * density;
        }),
        Activation::Tanh => units.for_each(|(x, gradient)| {
            let y = x.fast_tanh();
            *gradient *= F::one() - y * y;
        }),
    }
}

/// ReLU as a comparison that is false for NaN, so that NaN is not turned into 0.
#[inline(always)]
fn relu<F: Real>(x: F) -> F {
    if x < F::zero() { F::zero() } else { x }
}

#[inline(always)]
fn normal_cdf<F: Real>(x: F) -> F {
    F::of(0.5) * (F::one() + (x * F::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
}
