//! Dense products of another library, which stand beside the ternary ones: rten-gemm's, of 32-bit floats and of 8-bit
//! integers. It has none of bf16. Its weights are packed before, as ours are.

use super::Failure;
use crate::kernels::measure::Shape;
use crate::report::bench::Baseline;

/// Without the library there is nothing to time; the option is refused before.
#[cfg(not(feature = "baseline"))]
pub(super) fn run(_: &[Shape], _: &[usize], _: u64) -> Result<Vec<Baseline>, Failure> {
    Ok(Vec::new())
}

#[cfg(feature = "baseline")]
pub(super) fn run(
    shapes: &[Shape],
    threads: &[usize],
    cold_bytes: u64,
) -> Result<Vec<Baseline>, Failure> {
    let mut all = Vec::new();
    for threads in threads {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(*threads)
            .build();
        let pool = pool.map_err(|e| super::input(format!("{threads} threads: {e}")))?;
        for shape in shapes {
            all.push(pool.install(|| dense::<f32, f32, f32>(*shape, "f32", *threads, cold_bytes))?);
            all.push(
                pool.install(|| dense::<u8, i8, i32>(*shape, "u8 x i8", *threads, cold_bytes))?,
            );
        }
    }
    Ok(all)
}

#[cfg(feature = "baseline")]
fn dense<L, R, O>(
    shape: Shape,
    dtype: &'static str,
    threads: usize,
    cold_bytes: u64,
) -> Result<Baseline, Failure>
where
    L: rten_gemm::GemmInT,
    R: rten_gemm::GemmInT,
    O: rten_gemm::GemmOutT,
    rten_gemm::GemmExecutor<L, R, O>: Default,
{
    use crate::kernels::measure::{copies, median};
    use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
    use rten_tensor::Matrix;
    use std::time::{Duration, Instant};

    /// Calls go on at least so long.
    const LONG: Duration = Duration::from_millis(150);

    let Shape { m, n, k } = shape;
    let executor = GemmExecutor::<L, R, O>::default();
    let a = vec![L::one(); m * k];
    let a = Matrix::from_data([m, k], a.as_slice());
    let bytes = n * k * size_of::<R>();
    let b = vec![R::one(); n * k];
    let b = Matrix::from_data([k, n], b.as_slice());
    let many: Vec<_> = (0..copies(bytes, cold_bytes))
        .map(|_| executor.prepack_b(b))
        .collect();
    let mut out = vec![O::default(); m * n];
    let mut calls = Vec::new();
    let begun = Instant::now();
    for b in many.iter().cycle() {
        let start = Instant::now();
        let options = GemmOptions::default();
        executor
            .gemm(
                &mut out,
                GemmInputA::Unpacked(a),
                GemmInputB::Packed(b),
                options,
            )
            .map_err(|e| super::input(format!("rten-gemm: {e:?}")))?;
        calls.push(start.elapsed().as_nanos() as f64);
        if begun.elapsed() > LONG && calls.len() >= 3 {
            break;
        }
    }
    let each = median(&mut calls);
    Ok(Baseline {
        name: "rten-gemm 0.27",
        dtype,
        m,
        n,
        k,
        threads,
        median_us: each / 1e3,
        gmac_s: (m * n * k) as f64 / each,
    })
}
