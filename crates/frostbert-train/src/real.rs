//! The two number types that heads compute in: f32 for training, f64 to run finite differences through the same code.

use ndarray::NdFloat;

use crate::exp;

/// `f32` or `f64`.
pub trait Real: NdFloat + Default + Into<f64> + private::Sealed {
    /// Converts to the nearest number of this type.
    fn of(value: f64) -> Self;
    /// `e^x`; in f32 by [`exp::exp`], which vectorises.
    fn fast_exp(self) -> Self;
    /// `ln(1 + x)` for `x` from 0 to 1; in f32 by [`exp::ln_1p`], which vectorises.
    fn fast_ln_1p(self) -> Self;
    /// `tanh(x)`; in f32 by [`exp::tanh`], which vectorises.
    fn fast_tanh(self) -> Self;
    /// `erf(x) = 2 / sqrt(pi) int_0^x e^(-t^2) dt`; in f32 by [`exp::erf`], which vectorises.
    fn erf(self) -> Self;
    /// The standard normal distribution and its density; in f32 by [`exp::normal_cdf_and_density`], which vectorises.
    fn normal_cdf_and_density(self) -> (Self, Self);
}

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn fast_exp(self) -> f32 {
        exp::exp(self)
    }

    #[inline(always)]
    fn fast_ln_1p(self) -> f32 {
        exp::ln_1p(self)
    }

    #[inline(always)]
    fn fast_tanh(self) -> f32 {
        exp::tanh(self)
    }

    #[inline(always)]
    fn erf(self) -> f32 {
        exp::erf(self)
    }

    #[inline(always)]
    fn normal_cdf_and_density(self) -> (f32, f32) {
        exp::normal_cdf_and_density(self)
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn fast_exp(self) -> f64 {
        self.exp()
    }

    #[inline(always)]
    fn fast_ln_1p(self) -> f64 {
        self.ln_1p()
    }

    #[inline(always)]
    fn fast_tanh(self) -> f64 {
        self.tanh()
    }

    #[inline(always)]
    fn erf(self) -> f64 {
        libm::erf(self)
    }

    #[inline(always)]
    fn normal_cdf_and_density(self) -> (f64, f64) {
        let cdf = 0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2);
        (cdf, (-0.5 * self * self).exp() / std::f64::consts::TAU.sqrt())
    }
}

mod private {
    /// Restricts [`super::Real`] to the two types whose matrix products are known.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}
