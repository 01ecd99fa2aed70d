//! Products of random shapes. Every kernel of this machine gives the integers of the scalar kernel, whatever the packing, the
//! number of tokens and of threads, and the scalar kernel gives those of the plain sum.
//!
//! The first five bytes of the input are rows, columns, tokens and threads; those that follow are weights and activations, used
//! again from the beginning when they end.

#![no_main]

use bitcost::kernels::{Activations, Packed, Packing, Pool, accumulate, available, by_name};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The most products of an input. 40 rows of 17 tokens keep 24 columns: a block of either packing, and a tail.
const PRODUCTS: usize = 1 << 14;

/// Pools of 1 to 4 threads, made once.
static POOLS: LazyLock<Vec<Pool>> = LazyLock::new(|| (1..=4).map(Pool::new).collect());

fuzz_target!(|input: &[u8]| {
    let Some(([rows, cols, more_cols, tokens, threads], codes)) = input.split_first_chunk() else {
        return;
    };
    let Some(last) = codes.len().checked_sub(1) else {
        return;
    };
    let (rows, tokens) = (1 + usize::from(*rows) % 40, 1 + usize::from(*tokens) % 17);
    // Few columns often, and sometimes so many that what is too narrow is full; but no more products than a moment takes.
    let cols = 1 + usize::from(*cols) + usize::from(*more_cols / 32) * 256;
    let cols = cols.min(PRODUCTS / (rows * tokens));
    let pool = &POOLS[usize::from(*threads) % POOLS.len()];
    let weight = |at: usize| (codes[at % codes.len()] % 3) as i8 - 1;
    let weights: Vec<i8> = (0..rows * cols).map(weight).collect();
    // From the end, so that weights and activations are not the same.
    let code = |at: usize| codes[last - at % codes.len()] as i8;
    let x: Vec<i8> = (0..tokens * cols).map(code).collect();

    let plain: Vec<i32> = x
        .chunks_exact(cols)
        .flat_map(|x| {
            let product = |row: &[i8]| {
                row.iter()
                    .zip(x)
                    .map(|(w, x)| i32::from(*w) * i32::from(*x))
                    .sum()
            };
            weights
                .chunks_exact(cols)
                .map(product)
                .collect::<Vec<i32>>()
        })
        .collect();
    let x = Activations::of_codes(&x, cols).expect("tokens of so many codes");
    for packing in Packing::ALL {
        let fill = |row: usize, out: &mut [i8]| out.copy_from_slice(&weights[row * cols..][..cols]);
        let packed = Packed::pack(packing, rows, cols, fill).expect("a matrix that can be packed");
        let sums = |kernel, pool: &Pool| {
            let mut sums = vec![i32::MIN; rows * tokens];
            accumulate(kernel, &packed, &x, pool, &mut sums).expect("shapes that fit");
            sums
        };
        let name = format!("scalar-{}", packing.name());
        let scalar = sums(by_name(&name).expect("it runs everywhere"), &Pool::alone());
        assert!(scalar == plain, "{name}: {rows} x {cols}, {tokens} tokens");
        for kernel in available()
            .iter()
            .filter(|kernel| kernel.packing == packing)
        {
            assert!(
                sums(*kernel, pool) == scalar,
                "{}: {rows} x {cols}, {tokens} tokens, {} threads",
                kernel.name,
                pool.threads()
            );
        }
    }
});
