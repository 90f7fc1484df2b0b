//! A bias that attention adds to its scores, by how far the key is from the query.

use std::ops::RangeInclusive;

/// A table of biases `[buckets, heads]`, which all layers share; a bucket holds the distances of one bias (T5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RelativeBias {
    /// The name of the table in the weights.
    pub(super) tensor: &'static str,
    /// The key of config.json with the number of buckets.
    pub(super) key: &'static str,
    /// The number of buckets: half of them for keys after the query, the other half for the rest.
    pub(super) buckets: usize,
    /// The distance from which on all keys of a side are in its last bucket.
    pub(super) max_distance: usize,
}

impl RelativeBias {
    /// Returns the distances that can differ in their bias, from the key farthest before the query; a distance is the
    /// place of the key minus that of the query.
    pub(super) fn distances(&self) -> RangeInclusive<i32> {
        let most = self.max_distance as i32;
        -most..=most
    }

    /// Returns the bucket of a distance.
    pub(super) fn bucket(&self, distance: i32) -> usize {
        let side = self.buckets / 2;
        let first = if distance > 0 { side } else { 0 };
        let distance = (distance.unsigned_abs() as usize).min(self.max_distance);
        // Half of the buckets of a side hold one distance each. The others widen by the same factor, up to the greatest
        // distance; their bounds are compared as integers, because rounding must not move one.
        let exact = side / 2;
        if distance < exact {
            return first + distance;
        }
        let widening = side - exact;
        let power = |base: usize, exponent: usize| (base as u128).pow(exponent as u32);
        let reached = |bucket: &usize| {
            power(self.max_distance, *bucket) * power(exact, widening - bucket)
                <= power(distance, widening)
        };
        first + exact + (1..widening).take_while(reached).count()
    }

    /// Returns the index among [`Self::distances`] of each key's distance from each query, for windows of this length:
    /// `[length, length]`, a row for each query.
    pub(super) fn indices(&self, length: usize) -> Vec<i32> {
        let (length, most) = (length as i32, self.max_distance as i32);
        let queries = 0..length;
        queries
            .flat_map(|query| (0..length).map(move |key| (key - query).clamp(-most, most) + most))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIAS: RelativeBias =
        RelativeBias { tensor: "bias", key: "buckets", buckets: 32, max_distance: 128 };

    #[test]
    fn buckets_are_those_of_transformers() {
        // The first distance of each bucket, as MPNetEncoder.relative_position_bucket of transformers 5.24 divides
        // distances from -600 to 600.
        let firsts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for distance in 0..=600 {
            let bucket = firsts.iter().filter(|first| **first <= distance).count() - 1;
            assert_eq!(BIAS.bucket(-distance), bucket, "{distance} before");
            if distance > 0 {
                assert_eq!(BIAS.bucket(distance), 16 + bucket, "{distance} after");
            }
        }
    }

    #[test]
    fn every_distance_has_the_bucket_of_its_index() {
        let distances: Vec<i32> = BIAS.distances().collect();
        let length = 200;
        let indices = BIAS.indices(length);
        assert_eq!(indices.len(), length * length);
        for (place, index) in indices.into_iter().enumerate() {
            let distance = (place % length) as i32 - (place / length) as i32;
            let found = distances[index as usize];
            assert_eq!(BIAS.bucket(found), BIAS.bucket(distance), "{distance}");
        }
        assert_eq!(BIAS.indices(2), [128, 129, 127, 128]);
    }
}
