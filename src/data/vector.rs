//! A vector that another model made, with the key by which it is known.

use frostbert_cache::fingerprint::Key;

/// A vector that another model made. Its values are rounded to f32, whatever their type in the file, so that the same
/// values have the same key in every file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// Its key: that of its values.
    pub key: Key,
    /// Its values as little-endian f32; empty once they are stored elsewhere.
    pub bytes: Vec<u8>,
}

impl Vector {
    /// Creates a vector of these values.
    pub fn of(values: &[f32]) -> Vector {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Vector { key: Key::of_vector(&bytes), bytes }
    }

    /// Returns the number of values.
    pub fn width(&self) -> usize {
        self.bytes.len() / size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_values_have_one_key_and_others_another() {
        assert_eq!(Vector::of(&[0.5, 2.0]), Vector::of(&[0.5, 2.0]));
        assert_ne!(Vector::of(&[0.5, 2.0]).key, Vector::of(&[2.0, 0.5]).key);
        assert_ne!(Vector::of(&[0.0]).key, Vector::of(&[0.0, 0.0]).key);
    }
}
