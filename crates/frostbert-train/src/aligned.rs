//! Vectors of numbers that start at the beginning of a cache line.

use std::ops::{Deref, DerefMut};

/// Size in bytes of a line of the processor's cache, and of the widest vector register.
const LINE_BYTES: usize = 64;

/// Values whose first one is aligned to 64 bytes. A vector that spans two cache lines takes two reads and two writes:
/// an optimiser step over values in a plain `Vec` takes half as long again.
///
/// ```
/// use frostbert_train::aligned::Aligned;
/// let mut values = Aligned::zeros(3);
/// values[1] = 2.0;
/// assert_eq!(values.as_ptr().align_offset(64), 0);
/// assert_eq!(&values.clone()[..], [0.0, 2.0, 0.0]);
/// ```
#[derive(Debug)]
pub struct Aligned {
    values: Vec<f32>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Creates a vector of `length` zeros.
    pub fn zeros(length: usize) -> Aligned {
        let spare = LINE_BYTES / size_of::<f32>() - 1;
        let values = vec![0.0; length + spare];
        // If the allocation cannot tell where the next line begins, the values are left unaligned.
        let start = values.as_ptr().align_offset(LINE_BYTES).min(spare);
        Aligned { values, start, length }
    }

    /// Resizes the vector to `length` values; the values are unspecified afterwards.
    pub fn resize(&mut self, length: usize) {
        if self.start + length > self.values.len() {
            *self = Aligned::zeros(length);
        }
        self.length = length;
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.length]
    }
}

impl Clone for Aligned {
    fn clone(&self) -> Aligned {
        let mut copy = Aligned::zeros(self.length);
        copy.copy_from_slice(self);
        copy
    }
}
