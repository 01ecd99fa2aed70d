//! Threads over many things: small ones side by side, a large one by all threads together.
//!
//! A scan has threads for one weight; that pays where the weight is large. A checkpoint of a hundred thousand tiny tensors is
//! worked on in batches instead. What comes of it comes in the order of the things, however many threads there are.

use rayon::prelude::*;

/// Bytes of the things of a batch. A larger thing is a batch of its own.
const BATCH_BYTES: u64 = 1 << 20;

/// Most things of a batch.
const MOST: usize = 1 << 8;

/// Runs of things that are small together, in their order.
pub fn batches<I>(things: &[I], bytes: impl Fn(&I) -> u64) -> impl Iterator<Item = &[I]> {
    let mut rest = things;
    std::iter::from_fn(move || {
        let mut sum = 0u64;
        let fits = |thing: &&I| {
            sum = sum.saturating_add(bytes(thing));
            sum <= BATCH_BYTES
        };
        let count = rest.iter().take(MOST).take_while(fits).count();
        let (batch, others) = rest.split_at(count.max(1).min(rest.len()));
        rest = others;
        (!batch.is_empty()).then_some(batch)
    })
}

/// What `make` makes of the things of a batch, in their order.
pub fn made<I: Sync, T: Send>(batch: &[I], make: impl Fn(&I) -> T + Send + Sync) -> Vec<T> {
    match batch {
        [one] => vec![make(one)],
        many => many.par_iter().map(make).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(sizes: &[u64]) -> Vec<usize> {
        batches(sizes, |size| *size).map(<[u64]>::len).collect()
    }

    #[test]
    fn small_things_share_a_batch_and_a_large_one_has_its_own() {
        let whole = BATCH_BYTES;
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1, 1, 1]), [3]);
        assert_eq!(lengths(&[whole, 1, whole - 1, 1]), [1, 2, 1]);
        assert_eq!(lengths(&[1, 2 * whole, 1]), [1, 1, 1]);
        assert_eq!(lengths(&[u64::MAX, u64::MAX]), [1, 1]);
        assert_eq!(lengths(&vec![0; MOST + 1]), [MOST, 1]);
    }

    #[test]
    fn what_is_made_stands_in_the_order_of_the_things() {
        let things: Vec<u32> = (0..1000).collect();
        assert_eq!(
            made(&things, |n| n * 2),
            (0..1000).map(|n| n * 2).collect::<Vec<_>>()
        );
        assert_eq!(made(&[7], |n| n + 1), [8]);
    }
}
