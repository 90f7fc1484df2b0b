//! The step of columns that all belong to one head, on all threads.

use rayon::prelude::*;

use super::{Corrections, Factors, Optimizer, OptimizerState, apply_to_all};

/// Number of parameters that one thread updates at a time when all have the same settings.
const PART: usize = 1 << 14;

impl OptimizerState {
    /// Like [`OptimizerState::step`] for columns that all belong to one head, whatever their settings. Gives the same
    /// bits on any number of threads, and needs no factors per column, which would take more memory than a wide row.
    ///
    /// # Panics
    /// Panics if [`OptimizerState::step`] would.
    pub fn step_alike(
        &mut self,
        parameters: &mut [f32],
        gradients: &[f32],
        optimizer: &Optimizer,
        corrections: Corrections,
        lr_factor: f64,
        gradient_scale: f32,
    ) {
        assert_eq!(parameters.len(), self.first.len(), "parameters of its shape");
        assert_eq!(gradients.len(), self.first.len(), "gradients of its shape");
        let factors = Factors::new(optimizer, corrections, lr_factor, gradient_scale);
        let moments = self.first.par_chunks_mut(PART);
        let moments = moments.zip(self.second.par_chunks_mut(PART));
        let values = parameters.par_chunks_mut(PART).zip(gradients.par_chunks(PART));
        values.zip(moments).for_each(|((parameters, gradients), (first, second))| {
            apply_to_all(factors, parameters, gradients, first, second);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::OptimizerKind;

    #[test]
    fn columns_that_move_alike_move_as_columns_that_are_all_set_alike() {
        let (rows, columns) = (130, 160);
        let numbers = |factor: f32| -> Vec<f32> {
            let all = 0..rows * columns;
            all.map(|i| (i as f32 * factor).sin()).collect()
        };
        for kind in [OptimizerKind::Sgd, OptimizerKind::Adam, OptimizerKind::AdamW] {
            let optimizer = Optimizer { kind, ..Optimizer::default() };
            let (mut one, mut other) = (numbers(0.3), numbers(0.3));
            let mut set = OptimizerState::new(rows, columns);
            let mut alike = OptimizerState::new(rows, columns);
            for step in 0..3 {
                let gradients = numbers(0.7 + step as f32);
                let corrections = Corrections::new(optimizer.betas, step);
                set.set_columns(0..columns, &optimizer, corrections, 0.9, 0.5);
                set.step(&mut one, &gradients);
                alike.step_alike(&mut other, &gradients, &optimizer, corrections, 0.9, 0.5);
            }
            assert_eq!(one, other, "{kind:?}");
        }
    }
}
