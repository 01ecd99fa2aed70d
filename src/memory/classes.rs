//! The fixed sizes of small blocks: multiples of 64 bytes up to 512, then 8 sizes for every doubling up to 1 MiB.
//!
//! What a block wastes is at most a ninth of it from 576 bytes on. A class is found in a few shifts, without a table:
//! a request of `n + 1` lines of 64 bytes keeps the highest four bits of `n`.

use super::pool::ALIGN;
use super::store::UNIT;

/// How many sizes there are.
pub(super) const CLASSES: usize = 96;

/// From here on blocks are large.
pub(super) const LARGE: usize = 1 << 20;

/// The class of the smallest blocks that hold so many bytes at such an alignment; none where the block has to be large.
pub(super) fn class_of(bytes: usize, align: usize) -> Option<usize> {
    // Blocks lie one after the other from the start of a unit, so an alignment is had where it divides the size.
    if bytes >= LARGE || align > UNIT {
        return None;
    }
    let mut class = smallest(bytes);
    if align <= ALIGN {
        return Some(class);
    }
    while class < CLASSES && bytes_of(class) & (align - 1) != 0 {
        class += 1;
    }
    (class < CLASSES).then_some(class)
}

const fn smallest(bytes: usize) -> usize {
    let n = bytes.saturating_sub(1) / ALIGN;
    if n < 8 {
        return n;
    }
    let shift = n.ilog2() as usize - 3;
    shift * 8 + (n >> shift)
}

/// Bytes of the blocks of a class.
pub(super) const fn bytes_of(class: usize) -> usize {
    if class < 8 {
        return (class + 1) * ALIGN;
    }
    let shift = class / 8 - 1;
    (class - shift * 8 + 1) * (ALIGN << shift)
}

/// Units of the spans from which the blocks of a class are cut: the fewest of which blocks leave no more than a 64th.
pub(super) const SPAN_UNITS: [u16; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let mut units = bytes_of(class).div_ceil(UNIT);
        while (units * UNIT) % bytes_of(class) * 64 > units * UNIT {
            units += 1;
        }
        table[class] = units as u16;
        class += 1;
    }
    table
};

/// Blocks of a class in a span.
pub(super) const fn blocks_of_span(class: usize) -> usize {
    SPAN_UNITS[class] as usize * UNIT / bytes_of(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_smallest_that_holds_a_request() {
        let step = if cfg!(miri) { 6007 } else { 61 };
        let requests = (0..1200).chain((1200..LARGE).step_by(step));
        for bytes in requests.chain([LARGE - 1]) {
            let class = class_of(bytes, 1).expect("small");
            assert!(bytes_of(class) >= bytes);
            assert!(class == 0 || bytes_of(class - 1) < bytes, "{bytes}");
            assert!(bytes <= 512 || bytes_of(class) - bytes <= bytes_of(class) / 9 + 64);
        }
        assert_eq!(class_of(LARGE, 1), None);
        assert_eq!(bytes_of(CLASSES - 1), LARGE);
    }

    #[test]
    fn an_alignment_divides_the_size_of_the_class() {
        for shift in 0..17 {
            for bytes in [1, 65, 640, 4097, 70_000, 600_000, LARGE - 1] {
                let class = class_of(bytes, 1 << shift).expect("small");
                assert!(bytes_of(class) >= bytes && bytes_of(class).is_multiple_of(1 << shift));
            }
        }
        assert_eq!(class_of(64, 2 * UNIT), None);
    }

    #[test]
    fn spans_leave_little_and_have_no_more_blocks_than_a_map_of_bits() {
        for (class, units) in SPAN_UNITS.iter().enumerate() {
            let span = usize::from(*units) * UNIT;
            let used = blocks_of_span(class) * bytes_of(class);
            assert!(used <= span && (span - used) * 64 <= span && blocks_of_span(class) <= 1024);
            assert!(span <= LARGE, "a span is no more than a large block");
        }
    }
}
