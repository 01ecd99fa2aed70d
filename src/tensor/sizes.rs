//! The sizes of a tensor, where they need no memory of their own: views are made while a model runs.

use super::TensorError;
use std::ops::Deref;

/// The most axes that a tensor has.
pub const MAX_AXES: usize = 6;

/// Some numbers, one for each axis, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    each: [usize; MAX_AXES],
    axes: usize,
}

impl Sizes {
    /// Of a list.
    pub fn of(sizes: &[usize]) -> Result<Sizes, TensorError> {
        let mut it = Sizes {
            axes: sizes.len(),
            ..Sizes::default()
        };
        let place = it.each.get_mut(..sizes.len());
        place
            .ok_or(TensorError::Axes { axes: sizes.len() })?
            .copy_from_slice(sizes);
        Ok(it)
    }

    /// The product of all, checked.
    pub fn product(&self) -> Result<usize, TensorError> {
        let product = self.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        product.ok_or_else(|| TensorError::TooLarge {
            shape: self.to_vec(),
        })
    }

    /// How far apart neighbours of each axis are where rows lie one after the other.
    pub(super) fn strides(&self) -> Sizes {
        let mut strides = *self;
        let mut apart = 1;
        for axis in (0..self.axes).rev() {
            strides.each[axis] = apart;
            apart *= self.each[axis].max(1);
        }
        strides
    }

    pub(super) fn set(&mut self, axis: usize, size: usize) {
        self.each[axis] = size;
    }

    /// Without an axis.
    pub(super) fn without(&self, axis: usize) -> Sizes {
        let mut it = Sizes::default();
        for (at, size) in self.iter().enumerate() {
            if at != axis {
                it.each[it.axes] = *size;
                it.axes += 1;
            }
        }
        it
    }
}

impl Deref for Sizes {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.each[..self.axes]
    }
}

impl std::fmt::Debug for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.iter().collect::<Vec<_>>().fmt(f)
    }
}
