//! Pools the hidden states of a document's tokens into one vector.

use frostbert_cache::states::Pooling;

/// Pools `[tokens, hidden]` states of one document, padding excluded, into `out [hidden]`.
///
/// - `cls`: `h_0`
/// - `mean`: `(1/T) sum_t h_t` over all `T` real tokens, `[CLS]` and `[SEP]` included (sentence-transformers)
/// - `max`: `max_t h_t`, element by element
///
/// Sums run over the tokens in order, so the result depends on nothing but the states.
///
/// ```
/// use frostbert::internals::encoder::pooling::pool;
/// use frostbert::cache::states::Pooling;
/// let states = [1.0, -2.0, 3.0, 4.0]; // two tokens, two values each
/// let mut out = [0.0; 2];
/// pool(Pooling::Mean, &states, &mut out);
/// assert_eq!(out, [2.0, 1.0]);
/// ```
///
/// # Panics
/// Panics if `states` is not one or more rows of `out.len()` values.
pub fn pool(pooling: Pooling, states: &[f32], out: &mut [f32]) {
    let hidden = out.len();
    assert!(
        !states.is_empty() && states.len().is_multiple_of(hidden),
        "states are rows of {hidden}"
    );
    out.copy_from_slice(&states[..hidden]);
    let others = states[hidden..].chunks_exact(hidden);
    match pooling {
        Pooling::Cls | Pooling::Given(_) => {}
        Pooling::Mean => {
            for row in others {
                for (sum, value) in out.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            let tokens = (states.len() / hidden) as f32;
            for sum in out {
                *sum /= tokens;
            }
        }
        Pooling::Max => {
            for row in others {
                for (largest, value) in out.iter_mut().zip(row) {
                    // Propagate NaN, so that it is detected when the states are stored.
                    if *value > *largest || value.is_nan() {
                        *largest = *value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pooling_takes_what_its_name_says() {
        let states = [1.0, -2.0, 3.0, 4.0, -1.0, 0.0];
        let mut out = [0.0; 2];
        pool(Pooling::Cls, &states, &mut out);
        assert_eq!(out, [1.0, -2.0]);
        pool(Pooling::Max, &states, &mut out);
        assert_eq!(out, [3.0, 4.0]);
        pool(Pooling::Mean, &states, &mut out);
        assert_eq!(out, [1.0, 2.0 / 3.0]);
    }

    #[test]
    fn nan_is_never_pooled_away() {
        for pooling in [Pooling::Mean, Pooling::Max] {
            let mut out = [0.0; 1];
            pool(pooling, &[1.0, f32::NAN, 2.0], &mut out);
            assert!(out[0].is_nan(), "{pooling:?}");
        }
    }
}
