//! What a kernel computes, one weight after the other. Runs everywhere, and every other kernel is held against it.

use super::packing::{BLOCK_BYTES, Packing, ROWS};

/// The sums of one group for a single token.
pub(super) fn one<const TRITS: bool>(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    some::<TRITS>(group, x, 1, out);
}

/// The sums of one group for some tokens: `out` is `[tokens][32]`, `x` is `[columns / 4][tokens][4]` over whole blocks.
///
/// A product is at most 2 * 128; `MAX_COLS` of them are far from the limit of 32 bits.
pub(super) fn some<const TRITS: bool>(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    let packing = if TRITS {
        Packing::Trits
    } else {
        Packing::Planes
    };
    out.fill(0);
    for (number, block) in group.chunks_exact(BLOCK_BYTES).enumerate() {
        for plane in 0..packing.planes() {
            let fours = &x[(number * packing.planes() + plane) * tokens * 4..][..tokens * 4];
            for (row, bytes) in block.chunks_exact(4).enumerate() {
                for (token, four) in fours.chunks_exact(4).enumerate() {
                    for (byte, x) in bytes.iter().zip(four) {
                        let code = packing.code(*byte, plane);
                        out[token * ROWS + row] += i32::from(code) * i32::from(*x);
                    }
                }
            }
        }
    }
}
