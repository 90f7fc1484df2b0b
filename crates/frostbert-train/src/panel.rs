//! Products of rows with a panel of a few dozen columns of weights, which make up a step of the bank.
//!
//! A general matrix product splits its work depending on the shapes. Here every output is the sum of its own terms in
//! order, with one fused multiply-add per term, on every instruction set, so its bits depend only on its row and its
//! column. Heads may therefore be placed side by side in any way and on any number of threads, and every processor that
//! has the instruction gives the same bits. With AVX-512 the products reach about twice the rate of [`super::gemm`].

use multiversion::{multiversion, target::match_target};

/// The number of columns of a panel is a multiple of this.
pub const LANES: usize = 16;

/// `out = bias + rows weights`, with `rows [n, n_features]`, `weights [n_features, columns]`, `bias [columns]` and
/// `out [n, columns]`, all row-major.
///
/// ```
/// use frostbert_train::panel::{LANES, outputs};
/// let (weights, bias) = ([2.0; 2 * LANES], [0.5; LANES]);
/// let mut out = [0.0; LANES];
/// outputs(&[1.0, 3.0], &weights, &bias, &mut out);
/// assert_eq!(out, [8.5; LANES]);
/// ```
///
/// # Panics
/// Panics if the lengths do not match or `columns` is not a multiple of [`LANES`].
pub fn outputs(rows: &[f32], weights: &[f32], bias: &[f32], out: &mut [f32]) {
    let columns = bias.len();
    assert!(columns.is_multiple_of(LANES), "whole lanes of columns");
    let (n_features, n_rows) = (weights.len() / columns, out.len() / columns);
    assert_eq!(weights.len(), n_features * columns, "whole rows of weights");
    assert_eq!(out.len(), n_rows * columns, "whole rows of outputs");
    assert_eq!(rows.len(), n_rows * n_features, "features of each row");
    if n_features == 0 {
        return out.chunks_exact_mut(columns).for_each(|out| out.copy_from_slice(bias));
    }
    let left = LeftOperand { values: rows, line: n_features, step: 1 };
    for_each_panel(weights, columns, |panel, across| {
        let start = &bias[across.first..across.first + across.width];
        add_product(left, panel, Some(start), across, out);
    });
}

/// `out = rows^T errors`, with `rows [n, n_features]`, `errors [n, columns]` and `out [n_features, columns]`, all
/// row-major.
///
/// ```
/// use frostbert_train::panel::{LANES, gradients};
/// let mut out = [1.0; 2 * LANES];
/// gradients(&[3.0, 4.0], LANES, &[0.5; LANES], &mut out);
/// assert_eq!(out[..LANES], [1.5; LANES]);
/// assert_eq!(out[LANES..], [2.0; LANES]);
/// ```
///
/// # Panics
/// Panics if the lengths do not match or `columns` is not a multiple of [`LANES`].
pub fn gradients(rows: &[f32], columns: usize, errors: &[f32], out: &mut [f32]) {
    assert!(columns.is_multiple_of(LANES), "whole lanes of columns");
    gradients_from(rows, out.len() / columns, 0, columns, errors, out);
}

/// Like [`gradients`], for the features from `first` on, as many of the `n_features` as `out` has room for.
///
/// # Panics
/// Panics if [`gradients`] would.
pub fn gradients_from(
    rows: &[f32],
    n_features: usize,
    first: usize,
    columns: usize,
    errors: &[f32],
    out: &mut [f32],
) {
    assert!(columns.is_multiple_of(LANES), "whole lanes of columns");
    let (n_own, n_rows) = (out.len() / columns, errors.len() / columns);
    assert_eq!(out.len(), n_own * columns, "whole rows of gradients");
    assert_eq!(errors.len(), n_rows * columns, "whole rows of errors");
    assert_eq!(rows.len(), n_rows * n_features, "features of each row");
    assert!(first + n_own <= n_features, "features of the rows");
    if n_own == 0 || n_rows == 0 {
        return out.fill(0.0);
    }
    for_each_panel(errors, columns, |panel, across| {
        let zeros = vec![0.0; across.width];
        let mut start = Some(&zeros[..]);
        let rows_at_a_time = (errors_at_a_time() / across.width).max(1);
        let parts = rows.chunks(rows_at_a_time * n_features);
        for (rows, errors) in parts.zip(panel.chunks(rows_at_a_time * across.width)) {
            let left = LeftOperand { values: &rows[first..], line: 1, step: n_features };
            add_product(left, errors, start.take(), across, out);
        }
    });
}

/// Number of columns of a panel when there are more than twice as many: the values that are read again for every few
/// lines are then contiguous.
const PANEL_COLUMNS: usize = 64;

/// Visits the columns of a matrix `[n, columns]` in panels `[n, width]`; few columns are visited as they are.
fn for_each_panel(right: &[f32], columns: usize, mut visit: impl FnMut(&[f32], ResultColumns)) {
    let across = |first: usize, width: usize| ResultColumns { first, width, columns };
    if columns <= 2 * PANEL_COLUMNS {
        return visit(right, across(0, columns));
    }
    let mut panel = Vec::new();
    for first in (0..columns).step_by(PANEL_COLUMNS) {
        let width = PANEL_COLUMNS.min(columns - first);
        panel.clear();
        for row in right.chunks_exact(columns) {
            panel.extend_from_slice(&row[first..first + width]);
        }
        visit(&panel, across(first, width));
    }
}

/// The columns of the result that a product fills.
#[derive(Clone, Copy)]
struct ResultColumns {
    first: usize,
    width: usize,
    /// Number of columns of the whole result.
    columns: usize,
}

/// Number of errors in a part of the rows: they stay in the first-level cache while all features are processed, and are
/// read once for every few lines of the result. With AVX2 there are fewer lines at a time, so the features are read
/// more often and should fit into that cache too.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma"))]
fn errors_at_a_time() -> usize {
    match_target! {
        "x86_64+avx512f" => 8192,
        _ => 4096,
    }
}

/// The rows or features on the left of a product: the values of line `i` are `values[i * line + term * step]`.
#[derive(Clone, Copy)]
struct LeftOperand<'a> {
    values: &'a [f32],
    line: usize,
    step: usize,
}

/// Adds a product to `start` for every line, or to the existing values, with as many parallel sums as the registers
/// hold: 8 lines of 32 columns with AVX-512, 6 of 16 elsewhere.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_product(
    left: LeftOperand<'_>,
    right: &[f32],
    start: Option<&[f32]>,
    across: ResultColumns,
    out: &mut [f32],
) {
    debug_assert!(left.step == 1 || left.line == 1, "terms or lines lie beside each other");
    match_target! {
        "x86_64+avx512f" => add_lines::<8, 32>(left, right, start, across, out),
        // With a step or a line of 1 known at compile time, there is less to do for each term.
        _ => match left.step {
            1 => add_lines::<6, 16>(LeftOperand { step: 1, ..left }, right, start, across, out),
            _ => add_lines::<6, 16>(LeftOperand { line: 1, ..left }, right, start, across, out),
        },
    }
}

/// Adds `R` lines at a time, and the remaining ones in fewer steps than there are lines.
#[inline(always)]
fn add_lines<const R: usize, const C: usize>(
    left: LeftOperand<'_>,
    right: &[f32],
    start: Option<&[f32]>,
    across: ResultColumns,
    out: &mut [f32],
) {
    let done = add_whole::<R, C>(left, 0, right, start, across, out);
    let done = add_whole::<4, C>(left, done, right, start, across, out);
    let done = add_whole::<2, C>(left, done, right, start, across, out);
    add_whole::<1, C>(left, done, right, start, across, out);
}

/// Adds the lines from `first` on as long as there are `R` of them; returns where it stopped.
#[inline(always)]
fn add_whole<const R: usize, const C: usize>(
    left: LeftOperand<'_>,
    first: usize,
    right: &[f32],
    start: Option<&[f32]>,
    across: ResultColumns,
    out: &mut [f32],
) -> usize {
    let mut line = first;
    let columns = across.columns;
    for out in out[first * columns..].chunks_exact_mut(R * columns) {
        add_across::<R, C>(left, line, right, start, across, out);
        line += R;
    }
    line
}

/// Adds `R` lines of the product, in all columns.
#[inline(always)]
fn add_across<const R: usize, const C: usize>(
    left: LeftOperand<'_>,
    line: usize,
    right: &[f32],
    start: Option<&[f32]>,
    across: ResultColumns,
    out: &mut [f32],
) {
    let n_terms = right.len() / across.width;
    let end = (n_terms - 1) * left.step + 1;
    // One slice for each line: with adjacent values the compiler would use gather and scatter instructions.
    let lines: [&[f32]; R] =
        std::array::from_fn(|i| &left.values[(line + i) * left.line..(line + i) * left.line + end]);
    let mut column = 0;
    while column + C <= across.width {
        add_tile::<R, C>(lines, left.step, right, start, across, column, out);
        column += C;
    }
    while column + LANES <= across.width {
        add_tile::<R, LANES>(lines, left.step, right, start, across, column, out);
        column += LANES;
    }
}

/// Adds `R` lines and `C` columns of the product, with sums that stay in registers over all terms.
#[inline(always)]
fn add_tile<const R: usize, const C: usize>(
    lines: [&[f32]; R],
    step: usize,
    right: &[f32],
    start: Option<&[f32]>,
    across: ResultColumns,
    column: usize,
    out: &mut [f32],
) {
    let mut sums = [[0.0f32; C]; R];
    for (i, sums) in sums.iter_mut().enumerate() {
        let line = i * across.columns + across.first;
        let start = start.unwrap_or(&out[line..line + across.width]);
        sums.copy_from_slice(&start[column..column + C]);
    }
    for (term, right) in right.chunks_exact(across.width).enumerate() {
        let right: &[f32; C] =
            right[column..column + C].first_chunk().expect("a slice of this length");
        for (line, sums) in lines.iter().zip(&mut sums) {
            let value = line[term * step];
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = value.mul_add(*right, *sum);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let place = i * across.columns + across.first + column;
        out[place..place + C].copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, factor: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * factor).sin()).collect()
    }

    /// Each sum in the order of its terms, as the products guarantee.
    fn sums(
        lines: usize,
        terms: usize,
        value: impl Fn(usize, usize) -> f32,
        right: &[f32],
        start: &[f32],
    ) -> Vec<f32> {
        let columns = right.len() / terms;
        (0..lines * columns)
            .map(|place| {
                let (line, column) = (place / columns, place % columns);
                (0..terms).fold(start[place], |sum, term| {
                    value(line, term).mul_add(right[term * columns + column], sum)
                })
            })
            .collect()
    }

    #[test]
    fn every_output_is_the_sum_of_its_terms_in_their_order_at_any_shape() {
        for (n_rows, n_features, columns) in
            [(1, 1, 16), (7, 20, 48), (8, 33, 32), (47, 5, 80), (9, 6, 208)]
        {
            let rows = numbers(n_rows * n_features, 0.37);
            let weights = numbers(n_features * columns, 0.11);
            let bias = numbers(columns, 0.7);
            let mut out = vec![f32::NAN; n_rows * columns];
            outputs(&rows, &weights, &bias, &mut out);
            let value = |row: usize, feature: usize| rows[row * n_features + feature];
            let expected = sums(n_rows, n_features, value, &weights, &bias.repeat(n_rows));
            assert_eq!(out, expected, "{n_rows} x {n_features} x {columns}");
        }
    }

    #[test]
    fn every_gradient_is_the_sum_of_its_rows_in_their_order_at_any_shape() {
        for (n_rows, n_features, columns) in [(1, 1, 16), (7, 20, 48), (1100, 23, 32), (90, 7, 208)]
        {
            let rows = numbers(n_rows * n_features, 0.37);
            let errors = numbers(n_rows * columns, 0.11);
            let mut out = vec![f32::NAN; n_features * columns];
            gradients(&rows, columns, &errors, &mut out);
            let value = |feature: usize, row: usize| rows[row * n_features + feature];
            let zeros = vec![0.0; out.len()];
            let expected = sums(n_features, n_rows, value, &errors, &zeros);
            assert_eq!(out, expected);
            let first = n_features / 2;
            let own = &mut out[first * columns..];
            own.fill(f32::NAN);
            gradients_from(&rows, n_features, first, columns, &errors, own);
            assert_eq!(out, expected);
        }
    }

    #[test]
    #[should_panic(expected = "features of each row")]
    fn rows_that_do_not_fit_are_a_bug() {
        outputs(&[1.0; 3], &[0.0; 32], &[0.0; 16], &mut [0.0; 16]);
    }
}
