//! What attention itself computes of positions: rotary angles, windows, and buckets of distances.

/// The positions of one layer in a family with rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RotaryLayer {
    /// The base of the angles.
    pub(super) theta: f64,
    /// What all angles are divided by.
    pub(super) divisor: f64,
    /// The number of tokens on each side that a token sees; all of them if `None`.
    pub(super) window: Option<usize>,
}

impl RotaryLayer {
    /// Returns the cosines and the sines of all angles, each `[positions, width / 2]`, for heads of this width.
    ///
    /// The angles are rounded to f32 as in `transformers`, where those of far positions differ visibly from exact ones.
    pub(super) fn angles(&self, positions: usize, width: usize) -> [Vec<f32>; 2] {
        let theta = self.theta as f32;
        let divisor = self.divisor as f32;
        let frequency =
            |place: usize| 1.0 / theta.powf(2.0 * place as f32 / width as f32) / divisor;
        let frequencies: Vec<f32> = (0..width / 2).map(frequency).collect();
        let angles = (0..positions).flat_map(|position| {
            frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency))
        });
        let both = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32));
        let (cosines, sines): (Vec<f32>, Vec<f32>) = both.unzip();
        [cosines, sines]
    }
}

/// Returns for each query, a row, and each key whether the key is outside the query's window (1) or not (0):
/// `[length, length]`.
pub(super) fn outside_window(window: usize, length: usize) -> Vec<i32> {
    let keys_of =
        |query: usize| (0..length).map(move |key| i32::from(query.abs_diff(key) > window));
    (0..length).flat_map(keys_of).collect()
}

/// Returns the distance of each key from each query, a row, whichever comes first: `[length, length]`.
pub(super) fn token_distances(length: usize) -> Vec<i32> {
    let keys_of = |query: usize| (0..length).map(move |key| query.abs_diff(key) as i32);
    (0..length).flat_map(keys_of).collect()
}

/// Returns what the scores of each head lose by every token between key and query (ALiBi): a geometric series, followed
/// by every second member of the one for twice as many heads if their number is no power of two.
pub(super) fn alibi_slopes(heads: usize) -> Vec<f32> {
    let power = 1usize << heads.ilog2();
    let series = |n: usize| (1..=n).map(move |member| (-8.0 * member as f64 / n as f64).exp2());
    let between = series(2 * power).step_by(2).take(heads - power);
    series(power).chain(between).map(|slope| slope as f32).collect()
}

/// The number of queries that a block may have, however narrow the window.
const LEAST_QUERIES: usize = 16;

/// How a text whose tokens see a window only is cut for attention: into blocks of neighbouring queries, each with the
/// keys that any of them sees. So a long text takes time and memory by its length, and not by its square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowBlocks {
    window: usize,
    length: usize,
    n_blocks: usize,
    /// The number of queries in each block. The last of the last block may be beyond the text.
    n_queries: usize,
    /// The number of keys before the first query, and after the last.
    margin: usize,
}

impl WindowBlocks {
    /// Cuts a text of this length. A short one is a block of its own: attention of all pairs takes less time than
    /// copies of keys would.
    pub(super) fn of(window: usize, length: usize) -> WindowBlocks {
        // With more queries fewer keys are copied, and more scores computed that the window hides.
        let most_queries = window.max(LEAST_QUERIES);
        if length <= 2 * most_queries {
            return WindowBlocks { window, length, n_blocks: 1, n_queries: length, margin: 0 };
        }
        let n_blocks = length.div_ceil(most_queries);
        let n_queries = length.div_ceil(n_blocks);
        WindowBlocks { window, length, n_blocks, n_queries, margin: window }
    }

    fn n_keys(&self) -> usize {
        self.n_queries + 2 * self.margin
    }

    /// Returns one of the inputs by which a graph cuts texts, with its shape.
    pub(super) fn input(&self, input: BlockInput) -> ([usize; 2], Vec<i32>) {
        let (n_blocks, n_queries, n_keys) = (self.n_blocks, self.n_queries, self.n_keys());
        let last = self.length - 1;
        // The place of each key as it would be with as many tokens more before the text.
        let keys =
            (0..n_blocks).flat_map(|block| (0..n_keys).map(move |key| block * n_queries + key));
        match input {
            BlockInput::Queries => {
                let places = (0..n_blocks * n_queries).map(|place| place.min(last) as i32);
                ([n_blocks, n_queries], places.collect())
            }
            BlockInput::Keys => {
                let places = keys.map(|place| place.saturating_sub(self.margin).min(last) as i32);
                ([n_blocks, n_keys], places.collect())
            }
            BlockInput::Present => {
                let text = self.margin..self.margin + self.length;
                ([n_blocks, n_keys], keys.map(|place| i32::from(text.contains(&place))).collect())
            }
            BlockInput::Outside => {
                let outside = (0..n_queries).flat_map(|query| {
                    (0..n_keys).map(move |key| (query + self.margin).abs_diff(key) > self.window)
                });
                ([n_queries, n_keys], outside.map(i32::from).collect())
            }
        }
    }
}

/// The scores of attention that a layer holds at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldScores {
    /// The matrices of scores of a layer: one for each attention head, or two with ALiBi; 0 if the folder does not say.
    pub(super) matrices: usize,
    /// The keys of each query.
    pub(super) keys: HeldKeys,
}

/// The keys for which the scores of a query are held at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HeldKeys {
    /// All of the text.
    #[default]
    All,
    /// Those of its block, in layers with a window of so many tokens on each side; in others a few.
    OfBlock(usize),
    /// A few, whatever the length of the text.
    Few,
}

impl HeldScores {
    /// Returns their bytes in f32 with texts of this many tokens, one in each of so many workers.
    pub(super) fn bytes(&self, n_workers: usize, tokens: usize) -> u64 {
        let keys = match self.keys {
            HeldKeys::All => tokens,
            HeldKeys::OfBlock(window) => WindowBlocks::of(window, tokens.max(1)).n_keys(),
            HeldKeys::Few => 0,
        };
        4 * (self.matrices * n_workers) as u64 * (tokens * keys) as u64
    }
}

/// An input by which a graph cuts texts into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockInput {
    /// `[blocks, queries]`: the place of each query in its text.
    Queries,
    /// `[blocks, keys]`: the place of each key; a key beyond the text has that of a token.
    Keys,
    /// `[blocks, keys]`: whether a key is within the text (1) or not (0).
    Present,
    /// `[queries, keys]`: whether a key is outside a query's window (1) or not (0), the same in each block.
    Outside,
}

/// Attention between states and distances (DeBERTa): the distances with a state of their own, and the terms that they
/// add to the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disentangled {
    /// The number of buckets on each side; 0 if every distance has its own.
    pub(super) buckets: usize,
    /// The distance from which on all are in the last bucket.
    pub(super) furthest: usize,
    /// Whether queries are multiplied by the keys of distances (`c2p`).
    pub(super) keys_of_distances: bool,
    /// Whether keys are multiplied by the queries of distances (`p2c`).
    pub(super) queries_of_distances: bool,
    /// Whether distances get their keys and queries by the projections of the states (`share_att_key`).
    pub(super) shares_projections: bool,
    /// Whether the states of distances are normalised.
    pub(super) is_normed: bool,
}

impl Disentangled {
    /// Returns the number of distances on each side that have a state.
    pub(super) fn span(&self) -> usize {
        if self.buckets > 0 { self.buckets } else { self.furthest }
    }

    /// Returns what all scores are divided by, for heads of this width.
    pub(super) fn divisor(&self, width: usize) -> f32 {
        let terms =
            1 + usize::from(self.keys_of_distances) + usize::from(self.queries_of_distances);
        ((width * terms) as f32).sqrt()
    }

    /// Returns the row of the table of distances for each query, a row, and each key: `[length, length]`.
    pub(super) fn indices(&self, length: usize) -> Vec<i32> {
        let rows = self.rows(length);
        // The row of the query itself is in the middle.
        let keys_of = |query: usize| rows[length - 1 - query..][..length].iter().copied();
        (0..length).flat_map(keys_of).collect()
    }

    /// Returns the row of the table of distances for each distance in a text of this length, from the key farthest
    /// before its query on.
    pub(super) fn rows(&self, length: usize) -> Vec<i32> {
        let farthest = length as i32 - 1;
        let span = self.span() as i32;
        let row = |after: i32| {
            // A distance is the place of the query minus that of the key.
            let bucket = -after.signum() * self.bucket(after.abs());
            (bucket + span).clamp(0, 2 * span - 1)
        };
        (-farthest..=farthest).map(row).collect()
    }

    /// Returns the bucket of a distance that is not negative.
    fn bucket(&self, distance: i32) -> i32 {
        let middle = (self.buckets / 2) as i32;
        if self.buckets == 0 || distance <= middle {
            return distance;
        }
        let of_middle = |distance: f64| (distance / f64::from(middle)).ln();
        let reached = of_middle(f64::from(distance)) / of_middle(self.furthest as f64 - 1.0);
        // Rounded to f32 first, as `transformers` computes, so that the furthest distance is not moved by the last bit.
        (reached as f32 * (middle - 1) as f32).ceil() as i32 + middle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_turn_faster_at_the_front_of_a_head() {
        let layer = RotaryLayer { theta: 10_000.0, divisor: 1.0, window: None };
        let [cosines, sines] = layer.angles(3, 4);
        assert_eq!((cosines.len(), sines.len()), (6, 6));
        assert_eq!((&cosines[..2], &sines[..2]), (&[1.0, 1.0][..], &[0.0, 0.0][..]));
        let near = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-7, "{a} {b}");
        near(cosines[4], 2.0f64.cos());
        near(sines[5], 0.02f64.sin());
        let [cosines, _] = RotaryLayer { divisor: 2.0, ..layer }.angles(3, 4);
        near(cosines[4], 1.0f64.cos());
    }

    #[test]
    fn a_window_holds_as_many_tokens_on_either_side() {
        let outside = outside_window(2, 5);
        assert_eq!(&outside[..5], &[0, 0, 0, 1, 1]);
        assert_eq!(&outside[10..15], &[0, 0, 0, 0, 0]);
        assert_eq!(&outside[20..], &[1, 1, 0, 0, 0]);
    }

    #[test]
    fn slopes_halve_from_head_to_head_of_eight() {
        let halves = [0.5, 0.25, 0.125, 0.0625, 0.031_25, 0.015_625, 0.007_812_5, 0.003_906_25];
        assert_eq!(alibi_slopes(8), halves);
        assert_eq!(alibi_slopes(1), halves[7..]);
        assert_eq!(alibi_slopes(2), [0.0625, 0.003_906_25]);
        // Twelve heads: the first slopes of sixteen between those of eight.
        let twelve = alibi_slopes(12);
        assert_eq!(twelve[..8], halves);
        for (slope, power) in twelve[8..].iter().zip([-0.5, -1.5, -2.5, -3.5f64]) {
            assert!((f64::from(*slope) - power.exp2()).abs() < 1e-7, "{slope}");
        }
        assert_eq!(token_distances(3), [0, 1, 2, 1, 0, 1, 2, 1, 0]);
    }

    #[test]
    fn blocks_hold_every_pair_within_the_window_once() {
        for (window, length) in
            [(0, 3), (0, 60), (8, 1), (8, 32), (8, 33), (8, 64), (64, 128), (64, 129), (3, 200)]
        {
            let blocks = WindowBlocks::of(window, length);
            let [queries, keys, present, outside] =
                [BlockInput::Queries, BlockInput::Keys, BlockInput::Present, BlockInput::Outside]
                    .map(|input| blocks.input(input));
            let ([n_blocks, n_queries], queries) = queries;
            let ([_, n_keys], keys) = keys;
            assert_eq!(present.0, [n_blocks, n_keys]);
            assert_eq!(outside.0, [n_queries, n_keys]);
            assert_eq!(n_blocks > 1, length > 2 * window.max(16), "{window}, {length}");
            let mut seen = vec![0; length * length];
            for (place, query) in queries.iter().enumerate().take(length) {
                // Rows beyond the text are cut off, so those before must be the text itself.
                assert_eq!(*query as usize, place);
                let (block, row) = (place / n_queries, place % n_queries);
                for key in 0..n_keys {
                    let is_seen = outside.1[row * n_keys + key] == 0;
                    if is_seen && present.1[block * n_keys + key] == 1 {
                        seen[place * length + keys[block * n_keys + key] as usize] += 1;
                    }
                }
            }
            let inside: Vec<i32> =
                outside_window(window, length).iter().map(|outside| 1 - outside).collect();
            assert_eq!(seen, inside, "{window}, {length}");
            assert!(keys.iter().chain(&queries).all(|place| (0..length as i32).contains(place)));
        }
    }

    #[test]
    fn the_scores_of_a_long_text_are_those_of_its_blocks_where_it_is_cut() {
        let bytes = |keys, tokens| HeldScores { matrices: 12, keys }.bytes(2, tokens);
        assert_eq!(bytes(HeldKeys::All, 8_192), 4 * 24 * 8_192 * 8_192);
        // Blocks of 64 queries with 192 keys.
        assert_eq!(bytes(HeldKeys::OfBlock(64), 8_192), 4 * 24 * 8_192 * 192);
        assert_eq!(bytes(HeldKeys::OfBlock(64), 128), bytes(HeldKeys::All, 128));
        assert_eq!((bytes(HeldKeys::OfBlock(64), 0), bytes(HeldKeys::Few, 8_192)), (0, 0));
    }

    #[test]
    fn buckets_of_distances_are_those_of_transformers() {
        let disentangled = Disentangled {
            buckets: 256,
            furthest: 512,
            keys_of_distances: true,
            queries_of_distances: true,
            shares_projections: true,
            is_normed: true,
        };
        // make_log_bucket_position of transformers 5.24, at and around the places where a bucket begins.
        for (distance, bucket) in [
            (0, 0),
            (127, 127),
            (128, 128),
            (129, 129),
            (131, 131),
            (200, 169),
            (255, 192),
            (300, 207),
            (510, 255),
            (511, 255),
            (512, 256),
            (599, 270),
        ] {
            assert_eq!(disentangled.bucket(distance), bucket, "{distance}");
        }
        let all = disentangled.indices(600);
        assert_eq!((all[0], all[1], all[600]), (256, 255, 257));
        assert_eq!((all[599], all[599 * 600]), (0, 511));
        let plain = Disentangled { buckets: 0, furthest: 3, ..disentangled };
        assert_eq!(plain.indices(2), [3, 2, 4, 3]);
        assert_eq!(plain.indices(6)[5], 0);
        assert_eq!(disentangled.divisor(64), 192f32.sqrt());
    }
}
