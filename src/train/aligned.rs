//! Numbers that begin where a line of the processor's cache does.

use std::ops::{Deref, DerefMut};

/// Bytes of a line of the processor's cache, and of the widest vector.
const LINE_BYTES: usize = 64;

/// Values whose first stands at a multiple of 64 bytes. A vector that lies across two lines is read and written as two:
/// an optimiser's step over values that a plain `Vec` holds takes half as long again.
///
/// ```
/// use frostbert::internals::train::aligned::Aligned;
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
    /// So many zeros.
    pub fn zeros(length: usize) -> Aligned {
        let spare = LINE_BYTES / size_of::<f32>() - 1;
        let values = vec![0.0; length + spare];
        // An allocator that cannot say where the next line begins gets values as they come.
        let start = values.as_ptr().align_offset(LINE_BYTES).min(spare);
        Aligned { values, start, length }
    }

    /// Room for so many values; those that are kept and those that are new are unspecified.
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
