//! What operations take and return: a shape with a width, and no data.

use super::Fault;
use std::fmt;

/// The most sides of a shape: heads of a batch in groups have five.
pub const MAX_RANK: usize = 6;

/// The sides of a tensor, none of them 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    sides: [u64; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape of 1 to [`MAX_RANK`] sides.
    pub fn new(sides: &[u64]) -> Result<Shape, Fault> {
        if sides.is_empty() || sides.len() > MAX_RANK {
            return Err(Fault::Sides(sides.len()));
        }
        if sides.contains(&0) {
            return Err(Fault::Zero("a side of a shape"));
        }
        let mut held = [1; MAX_RANK];
        held[..sides.len()].copy_from_slice(sides);
        Ok(Shape {
            sides: held,
            rank: sides.len() as u8,
        })
    }

    /// Its sides, outermost first.
    pub fn sides(&self) -> &[u64] {
        &self.sides[..usize::from(self.rank)]
    }

    /// The innermost side.
    pub fn last(&self) -> u64 {
        self.sides[usize::from(self.rank) - 1]
    }

    /// The product of all sides.
    pub fn elements(&self) -> Result<u128, Fault> {
        let sides = self.sides().iter();
        sides
            .map(|side| u128::from(*side))
            .try_fold(1u128, u128::checked_mul)
            .ok_or(Fault::Overflow("the elements of a shape"))
    }

    /// The same with other innermost sides in place of as many of its own.
    pub fn with_last(&self, sides: &[u64]) -> Result<Shape, Fault> {
        let kept = self.sides().len().saturating_sub(sides.len());
        let rank = kept + sides.len();
        if rank > MAX_RANK {
            return Err(Fault::Sides(rank));
        }
        let mut held = self.sides;
        held[kept..rank].copy_from_slice(sides);
        Shape::new(&held[..rank])
    }

    /// The shape of what two shapes give element by element: sides are equal, or one of the two is 1 or missing.
    pub fn broadcast(&self, other: &Shape) -> Result<Shape, Fault> {
        let (a, b) = (self.sides(), other.sides());
        let rank = a.len().max(b.len());
        let at = |sides: &[u64], i: usize| match (i + sides.len()).checked_sub(rank) {
            Some(i) => sides[i],
            None => 1,
        };
        let mut out = [1; MAX_RANK];
        for (i, side) in out.iter_mut().enumerate().take(rank) {
            *side = match (at(a, i), at(b, i)) {
                (x, y) if x == y || y == 1 => x,
                (1, y) => y,
                _ => {
                    return Err(Fault::shapes(
                        *self,
                        *other,
                        "their sides, from the last, have to be equal or 1",
                    ));
                }
            };
        }
        Shape::new(&out[..rank])
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, side) in self.sides().iter().enumerate() {
            if i > 0 {
                f.write_str("x")?;
            }
            side.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Shape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.sides())
    }
}

/// A tensor: its shape and the width of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Operand {
    /// Its shape.
    pub shape: Shape,
    /// Bits of an element.
    pub bits: u32,
}

impl Operand {
    /// A tensor of a shape and a width of 1 to 64 bits.
    pub fn new(sides: &[u64], bits: u32) -> Result<Operand, Fault> {
        Ok(Operand {
            shape: Shape::new(sides)?,
            bits: width(bits)?,
        })
    }

    /// How many elements it has.
    pub fn elements(&self) -> Result<u128, Fault> {
        self.shape.elements()
    }

    /// The same width in another shape.
    pub(super) fn shaped(self, shape: Shape) -> Operand {
        Operand { shape, ..self }
    }

    /// The same elements under other sides, which costs nothing.
    pub fn reshape(self, sides: &[u64]) -> Result<Operand, Fault> {
        let shape = Shape::new(sides)?;
        if shape.elements()? != self.elements()? {
            return Err(Fault::shapes(
                self.shape,
                shape,
                "a reshape keeps the number of elements",
            ));
        }
        Ok(self.shaped(shape))
    }

    /// The last two sides swapped, which costs nothing.
    pub fn transpose(self) -> Result<Operand, Fault> {
        match self.shape.sides() {
            [.., a, b] => Ok(self.shaped(self.shape.with_last(&[*b, *a])?)),
            _ => Err(Fault::rank(self.shape, "a transposition needs two sides")),
        }
    }
}

/// A width, if it is one.
pub(super) fn width(bits: u32) -> Result<u32, Fault> {
    if (1..=64).contains(&bits) {
        Ok(bits)
    } else {
        Err(Fault::Bits(bits))
    }
}
