//! The tensor: a block of memory, what lies in it, and which part of it is meant.

use super::{Dtype, Packing, ROWS, Sizes, TensorError};
use crate::float16;
use crate::memory::{Block, MemoryPool, Tag};
use std::ops::Range;
use std::sync::Arc;

/// What tensors are aligned to: a line of a cache.
const ALIGN: usize = 64;

/// Numbers as a program sees them.
pub trait Element: bytemuck::Pod {
    /// What messages call them.
    const NAME: &'static str;
    /// Whether a dtype is stored so.
    fn is(dtype: Dtype) -> bool;
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    fn is(dtype: Dtype) -> bool {
        dtype == Dtype::F32
    }
}

impl Element for i8 {
    const NAME: &'static str = "i8";
    fn is(dtype: Dtype) -> bool {
        dtype == Dtype::I8
    }
}

/// The bits of floats of 16 bits.
impl Element for u16 {
    const NAME: &'static str = "floats of 16 bits";
    fn is(dtype: Dtype) -> bool {
        matches!(dtype, Dtype::Bf16 | Dtype::F16)
    }
}

/// Packed codes.
impl Element for u8 {
    const NAME: &'static str = "packed codes";
    fn is(dtype: Dtype) -> bool {
        matches!(dtype, Dtype::Ternary(_))
    }
}

/// Numbers in memory with a shape. A copy of it is another view of the same memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    memory: Arc<Block>,
    /// The byte at which its first number lies.
    start: usize,
    dtype: Dtype,
    shape: Sizes,
    /// How many numbers neighbours of an axis are apart; of packed weights, as if they were not packed.
    strides: Sizes,
}

impl Tensor {
    /// Zeros; of packed weights, bytes of 0.
    pub fn zeros(
        pool: &MemoryPool,
        dtype: Dtype,
        shape: &[usize],
        tag: Tag,
    ) -> Result<Tensor, TensorError> {
        let shape = Sizes::of(shape)?;
        let block = pool.zeroed(bytes_of(dtype, &shape)?, ALIGN, tag)?;
        Tensor::of_block(Arc::new(block), 0, dtype, &shape)
    }

    /// A copy of numbers.
    pub fn of<T: Element>(
        pool: &MemoryPool,
        dtype: Dtype,
        numbers: &[T],
        shape: &[usize],
        tag: Tag,
    ) -> Result<Tensor, TensorError> {
        let mut tensor = Tensor::zeros(pool, dtype, shape, tag)?;
        let place = tensor.numbers_mut::<T>()?;
        if place.len() != numbers.len() {
            return Err(TensorError::Shape {
                shape: vec![numbers.len()],
                asked: shape.to_vec(),
            });
        }
        place.copy_from_slice(numbers);
        Ok(tensor)
    }

    /// What lies in a block of memory, such as a mapped file, from a byte on.
    pub fn of_block(
        memory: Arc<Block>,
        start: usize,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<Tensor, TensorError> {
        let shape = Sizes::of(shape)?;
        let needed = bytes_of(dtype, &shape)?;
        let bytes = memory.bytes().len();
        if start.checked_add(needed).is_none_or(|end| end > bytes) {
            return Err(TensorError::Bytes {
                shape: shape.to_vec(),
                dtype,
                needed,
                start,
                bytes,
            });
        }
        let size = match dtype {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::I8 | Dtype::Ternary(_) => 1,
        };
        if !(memory.bytes().as_ptr().addr() + start).is_multiple_of(size) {
            return Err(TensorError::Alignment { dtype, start });
        }
        Ok(Tensor {
            memory,
            start,
            dtype,
            strides: shape.strides(),
            shape,
        })
    }

    /// What its numbers are stored as.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many numbers neighbours of each axis are apart.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// How many numbers it has.
    pub fn len(&self) -> usize {
        // The product was checked when the tensor was made, and views have no more numbers unless they repeat some.
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that it is a view of.
    pub fn memory(&self) -> &Arc<Block> {
        &self.memory
    }

    /// A part of an axis.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Tensor, TensorError> {
        let size = self.axis(axis)?;
        if range.start > range.end || range.end > size {
            return Err(TensorError::Range {
                start: range.start,
                end: range.end,
                axis,
                shape: self.shape.to_vec(),
            });
        }
        let mut part = self.clone();
        part.shape.set(axis, range.len());
        part.start += match self.dtype {
            Dtype::Ternary(packing) => self.cut(packing, axis, &range)?,
            _ => range.start * self.strides[axis] * self.element_bytes(),
        };
        Ok(part)
    }

    /// What stands at a place of an axis; the axis is gone.
    pub fn index(&self, axis: usize, at: usize) -> Result<Tensor, TensorError> {
        let part = self.slice(axis, at..at.saturating_add(1))?;
        self.plain()?;
        Ok(Tensor {
            shape: part.shape.without(axis),
            strides: part.strides.without(axis),
            ..part
        })
    }

    /// Whether its numbers lie side by side, in order.
    pub fn is_contiguous(&self) -> bool {
        let mut apart = 1;
        self.shape
            .iter()
            .zip(&*self.strides)
            .rev()
            .all(|(size, stride)| {
                let lies = *size == 1 || *stride == apart;
                apart *= size;
                lies
            })
    }

    /// Its numbers, where they lie side by side.
    pub fn numbers<T: Element>(&self) -> Result<&[T], TensorError> {
        let range = self.range::<T>()?;
        Ok(bytemuck::cast_slice(&self.memory.bytes()[range]))
    }

    /// Its bytes, where they lie side by side.
    pub fn bytes(&self) -> Result<&[u8], TensorError> {
        Ok(&self.memory.bytes()[self.side_by_side()?])
    }

    /// Its numbers, to be written: where nobody else sees them.
    pub fn numbers_mut<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        let range = self.range::<T>()?;
        let memory = Arc::get_mut(&mut self.memory).ok_or(TensorError::Shared)?;
        let bytes = memory.bytes_mut()?;
        Ok(bytemuck::cast_slice_mut(&mut bytes[range]))
    }

    /// Writes its numbers as floats, in order, wherever they lie.
    pub fn read(&self, out: &mut [f32]) -> Result<(), TensorError> {
        self.plain()?;
        if out.len() != self.len() {
            return Err(TensorError::Shape {
                shape: self.shape.to_vec(),
                asked: vec![out.len()],
            });
        }
        if self.is_empty() {
            return Ok(());
        }
        let (bytes, size) = (&self.memory.bytes()[self.start..], self.element_bytes());
        let number = |at: usize| {
            let bytes = &bytes[at * size..][..size];
            let half = || u16::from_ne_bytes([bytes[0], bytes[1]]);
            match self.dtype {
                Dtype::F32 => f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                Dtype::Bf16 => float16::from_bf16(half()),
                Dtype::F16 => float16::from_f16(half()),
                Dtype::I8 | Dtype::Ternary(_) => f32::from(bytes[0] as i8),
            }
        };
        // The last axis is a row; the others count.
        let (cols, stride) = match self.shape.last() {
            Some(cols) => (*cols, self.strides[self.strides.len() - 1]),
            None => (1, 0),
        };
        let mut place = Sizes::of(&[0; super::MAX_AXES][..self.shape.len().saturating_sub(1)])?;
        for row in out.chunks_exact_mut(cols) {
            let first: usize = place
                .iter()
                .zip(&*self.strides)
                .map(|(at, apart)| at * apart)
                .sum();
            for (col, out) in row.iter_mut().enumerate() {
                *out = number(first + col * stride);
            }
            for axis in (0..place.len()).rev() {
                let next = place[axis] + 1;
                if next < self.shape[axis] {
                    place.set(axis, next);
                    break;
                }
                place.set(axis, 0);
            }
        }
        Ok(())
    }

    fn axis(&self, axis: usize) -> Result<usize, TensorError> {
        let size = self.shape.get(axis).copied();
        size.ok_or_else(|| TensorError::Axis {
            axis,
            shape: self.shape.to_vec(),
        })
    }

    /// Bytes before a part of packed weights, which has whole groups of rows.
    fn cut(
        &self,
        packing: Packing,
        axis: usize,
        range: &Range<usize>,
    ) -> Result<usize, TensorError> {
        let wrong = |at| Err(TensorError::Cut { at });
        if axis != 0 {
            return wrong(range.start);
        }
        if !range.start.is_multiple_of(ROWS) {
            return wrong(range.start);
        }
        if !range.end.is_multiple_of(ROWS) && range.end != self.shape[0] {
            return wrong(range.end);
        }
        Ok(range.start / ROWS * packing.group_bytes(self.shape[1]))
    }

    /// Refuses what only a tensor of single numbers can do.
    fn plain(&self) -> Result<(), TensorError> {
        match self.dtype {
            Dtype::Ternary(_) => Err(TensorError::Dtype {
                dtype: self.dtype,
                asked: "single numbers",
            }),
            _ => Ok(()),
        }
    }

    fn element_bytes(&self) -> usize {
        self.dtype.bytes(1, 1).unwrap_or(1)
    }

    fn range<T: Element>(&self) -> Result<Range<usize>, TensorError> {
        if !T::is(self.dtype) {
            return Err(TensorError::Dtype {
                dtype: self.dtype,
                asked: T::NAME,
            });
        }
        self.side_by_side()
    }

    fn side_by_side(&self) -> Result<Range<usize>, TensorError> {
        if !self.is_contiguous() {
            return Err(TensorError::Scattered {
                shape: self.shape.to_vec(),
            });
        }
        Ok(self.start..self.start + bytes_of(self.dtype, &self.shape)?)
    }
}

/// Bytes of a tensor whose numbers lie side by side.
fn bytes_of(dtype: Dtype, shape: &Sizes) -> Result<usize, TensorError> {
    shape.product()?;
    let (cols, rows) = match (dtype, &**shape) {
        (Dtype::Ternary(_), [rows, cols]) => (*cols, *rows),
        (Dtype::Ternary(_), shape) => {
            return Err(TensorError::Shape {
                shape: shape.to_vec(),
                asked: vec![0, 0],
            });
        }
        (_, shape) => (shape.iter().product(), 1),
    };
    dtype
        .bytes(rows, cols)
        .ok_or_else(|| TensorError::TooLarge {
            shape: shape.to_vec(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MappedFiles, PoolConfig};

    const TAG: Tag = Tag::of("test");

    fn counting(pool: &MemoryPool, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let numbers: Vec<f32> = (0..count).map(|n| n as f32).collect();
        Tensor::of(pool, Dtype::F32, &numbers, shape, TAG).expect("memory")
    }

    fn read(tensor: &Tensor) -> Vec<f32> {
        let mut out = vec![-1.0; tensor.len()];
        tensor.read(&mut out).expect("plain numbers");
        out
    }

    #[test]
    fn views_are_parts_of_the_same_memory() {
        let pool = MemoryPool::new(PoolConfig::small());
        let all = counting(&pool, &[2, 3, 4]);
        let used = pool.metrics().live_bytes;
        let part = all.slice(1, 1..3).expect("within");
        assert_eq!(
            (part.shape(), part.strides()),
            (&[2, 2, 4][..], &[12, 4, 1][..])
        );
        assert_eq!(
            read(&part),
            [
                4., 5., 6., 7., 8., 9., 10., 11., 16., 17., 18., 19., 20., 21., 22., 23.
            ]
        );
        let column = all
            .slice(2, 3..4)
            .expect("within")
            .index(1, 2)
            .expect("within");
        assert_eq!(
            (column.shape(), read(&column)),
            (&[2, 1][..], vec![11., 23.])
        );
        assert!(matches!(
            column.numbers::<f32>(),
            Err(TensorError::Scattered { .. })
        ));
        let row = all
            .index(0, 1)
            .expect("within")
            .index(0, 0)
            .expect("within");
        assert_eq!(
            row.numbers::<f32>().expect("side by side"),
            [12., 13., 14., 15.]
        );
        let one = row.index(0, 3).expect("within");
        assert_eq!((one.shape().len(), read(&one)), (0, vec![15.]));
        assert_eq!(pool.metrics().live_bytes, used);
        // The memory lives as long as its last view.
        drop((all, part, column, row));
        assert_eq!(read(&one), [15.]);
        drop(one);
        assert_eq!(pool.metrics().live_bytes, 0);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let pool = MemoryPool::new(PoolConfig::small());
        let tensor = counting(&pool, &[2, 3]);
        assert!(matches!(
            tensor.slice(2, 0..1),
            Err(TensorError::Axis { axis: 2, .. })
        ));
        assert!(matches!(
            tensor.slice(1, 2..4),
            Err(TensorError::Range { end: 4, .. })
        ));
        assert!(matches!(
            tensor.index(0, usize::MAX),
            Err(TensorError::Range { .. })
        ));
        assert!(matches!(
            tensor.numbers::<i8>(),
            Err(TensorError::Dtype { asked: "i8", .. })
        ));
        assert!(matches!(
            Tensor::zeros(&pool, Dtype::F32, &[1; 7], TAG),
            Err(TensorError::Axes { axes: 7 })
        ));
        assert!(matches!(
            Tensor::zeros(&pool, Dtype::F32, &[usize::MAX, 2], TAG),
            Err(TensorError::TooLarge { .. })
        ));
        assert!(matches!(
            Tensor::zeros(&pool, Dtype::F32, &[usize::MAX / 2], TAG),
            Err(TensorError::TooLarge { .. })
        ));
        let memory = tensor.memory().clone();
        let beyond = Tensor::of_block(memory.clone(), 4, Dtype::F32, &[6]);
        assert!(matches!(
            beyond,
            Err(TensorError::Bytes {
                needed: 24,
                start: 4,
                ..
            })
        ));
        let odd = Tensor::of_block(memory, 2, Dtype::F32, &[1]);
        assert!(matches!(odd, Err(TensorError::Alignment { start: 2, .. })));
        let empty = Tensor::zeros(&pool, Dtype::Bf16, &[3, 0], TAG).expect("nothing");
        assert!(empty.is_empty() && read(&empty).is_empty());
    }

    #[test]
    fn memory_that_others_see_is_not_written() {
        let pool = MemoryPool::new(PoolConfig::small());
        let mut tensor = counting(&pool, &[4]);
        tensor.numbers_mut::<f32>().expect("its own")[1] = 9.0;
        let view = tensor.slice(0, 1..2).expect("within");
        assert!(matches!(
            tensor.numbers_mut::<f32>(),
            Err(TensorError::Shared)
        ));
        assert_eq!(read(&view), [9.0]);
        drop(view);
        assert!(tensor.numbers_mut::<f32>().is_ok());
    }

    #[test]
    fn packed_weights_are_cut_between_groups() {
        let pool = MemoryPool::new(PoolConfig::small());
        let dtype = Dtype::Ternary(Packing::Trits);
        let tensor = Tensor::zeros(&pool, dtype, &[70, 30], TAG).expect("memory");
        // Three groups of two blocks of 128 bytes.
        assert_eq!(tensor.bytes().expect("side by side").len(), 3 * 2 * 128);
        let last = tensor.slice(0, 64..70).expect("a group");
        assert_eq!(last.bytes().expect("side by side").len(), 2 * 128);
        assert!(matches!(
            tensor.slice(0, 0..33),
            Err(TensorError::Cut { at: 33 })
        ));
        assert!(matches!(
            tensor.slice(0, 1..32),
            Err(TensorError::Cut { at: 1 })
        ));
        assert!(matches!(
            tensor.slice(1, 0..16),
            Err(TensorError::Cut { .. })
        ));
        assert!(matches!(
            tensor.index(0, 0),
            Err(TensorError::Cut { .. } | TensorError::Dtype { .. })
        ));
        assert!(matches!(
            tensor.read(&mut [0.0; 70 * 30]),
            Err(TensorError::Dtype { .. })
        ));
    }

    #[test]
    #[cfg(not(miri))]
    fn a_file_is_memory_too() {
        let path = std::env::temp_dir().join(format!("bitcost-tensor-{}", std::process::id()));
        std::fs::write(&path, [0u8, 0, 0x80, 0x3f, 0, 0x40, 0x40, 0xc0]).expect("a file");
        let files = MappedFiles::new();
        let block = files
            .map(&std::fs::File::open(&path).expect("a file"), 0..8, TAG)
            .expect("a map");
        let mut tensor =
            Tensor::of_block(Arc::new(block), 2, Dtype::Bf16, &[3]).expect("three numbers");
        std::fs::remove_file(&path).expect("the file");
        assert_eq!(read(&tensor), [1.0, 2.0, -3.0]);
        assert!(tensor.numbers_mut::<u16>().is_err());
    }
}
