//! The outputs of a network on transformed rows.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;

use super::{
    learner::parts,
    network::{Network, NetworkInput, Trace},
};
use crate::features::TokenRole;

/// Number of rows whose outputs one thread computes at a time; fixed, so that bits do not depend on the number of
/// threads.
const PART_ROWS: usize = 256;

/// Computes the outputs of a network on transformed rows, in parts of whole samples that run in parallel.
///
/// A part is padded to a multiple of 256 rows, because matrix products of other shapes differ in their last bits. The
/// outputs of tokens are therefore the same alone and among others. Those of pooled samples are so within rounding: the
/// products after the pooling have as many rows as the part has samples.
pub(super) fn network_outputs(
    network: &Network,
    parameters: &[f32],
    input: &NetworkInput<'_, f32>,
) -> Array2<f32> {
    let NetworkInput { rows, starts, roles } = *input;
    let computed: Vec<Array2<f32>> = parts(starts, PART_ROWS)
        .into_par_iter()
        .map_init(Trace::default, |trace, (first, end)| {
            let part = starts[first]..starts[end];
            let n_padded = part.len().next_multiple_of(PART_ROWS);
            let mut padded = Array2::zeros((n_padded, rows.ncols()));
            padded.slice_mut(s![..part.len(), ..]).assign(&rows.slice(s![part.clone(), ..]));
            let mut own: Vec<usize> =
                starts[first..=end].iter().map(|row| row - part.start).collect();
            own.push(n_padded);
            let own_roles = roles.get(part.clone()).unwrap_or_default();
            let padded_roles = padded_roles(network, own_roles, n_padded);
            let input = NetworkInput { rows: padded.view(), starts: &own, roles: &padded_roles };
            network.forward(parameters, &input, None, trace);
            let logits = trace.logits();
            if network.spec().pools() {
                return logits.slice(s![..end - first, ..]).to_owned();
            }
            if own_roles.is_empty() {
                return logits.slice(s![..part.len(), ..]).to_owned();
            }
            let outputs = (0..part.len()).filter(|row| own_roles[*row].is_output);
            logits.select(Axis(0), &outputs.collect::<Vec<usize>>())
        })
        .collect();
    let views: Vec<ArrayView2<'_, f32>> = computed.iter().map(|part| part.view()).collect();
    if views.is_empty() {
        Array2::zeros((0, network.spec().n_outputs))
    } else {
        concatenate(Axis(0), &views).expect("parts of equal width")
    }
}

/// The roles of the rows of a part and of its padding, which is a window by itself. Each row has an output, so that all
/// products have the shape of the padded part.
fn padded_roles(network: &Network, roles: &[TokenRole], n_padded: usize) -> Vec<TokenRole> {
    if roles.is_empty() {
        return Vec::new();
    }
    let mut padded = roles.to_vec();
    TokenRole::push_window(&mut padded, n_padded - roles.len());
    if network.spec().has_output_tokens() {
        padded.iter_mut().for_each(|role| role.is_output = true);
    }
    padded
}
