//! How fast kernels are: a kernel over a shape, cold and hot, beside probes of what the machine can do.
//!
//! **Cold** means that weights come from memory: a call takes the next of so many copies that none is in a cache when its turn
//! comes again. **Hot** means the same copy each time. A call is a whole layer from numbers to numbers: activations are
//! quantized, multiplied, scaled. The clock of a machine drifts and its memory is shared, so a kernel is judged round by
//! round, by probes before and after; what is told is the median of the rounds' ratios.

use super::probe::{clock_ghz, peak_gmac_s, plain_read_gb_s, read_gb_s};
use super::{
    Activations, Granularity, Isa, KernelError, Packed, Packing, Pool, RowScale, Runnable, Scaling,
    accumulate, best_of, multiply,
};
use std::time::{Duration, Instant};

/// Bytes of weights that are gone through when cold: 512 MiB, or four times the last cache.
pub fn cold_bytes(last_cache_bytes: Option<u64>) -> u64 {
    (512 << 20).max(last_cache_bytes.unwrap_or(0).saturating_mul(4))
}

/// Rounds of a measurement.
const ROUNDS: usize = 7;

/// A round lasts at least this long.
const ROUND: Duration = Duration::from_millis(12);

/// A call that takes longer is checked, and not timed.
const TOO_SLOW: Duration = Duration::from_secs(2);

/// A call that takes longer is timed once, and only cold: its weights wait for it, not it for them.
const SLOW: Duration = Duration::from_millis(100);

/// Products that a check by the scalar kernel may take.
const CHECK_MACS: usize = 64 << 20;

/// A product: tokens, rows, columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens.
    pub m: usize,
    /// Rows of the weights: features that go out.
    pub n: usize,
    /// Columns of the weights: features that come in.
    pub k: usize,
}

/// Where the weights of a call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In memory.
    Cold,
    /// In a cache, as far as they fit.
    Hot,
}

impl Mode {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Cold => "cold",
            Mode::Hot => "hot",
        }
    }
}

/// One kernel over one shape.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The kernel.
    pub kernel: Runnable,
    /// The product.
    pub shape: Shape,
    /// Threads.
    pub threads: usize,
    /// Where its weights were.
    pub mode: Mode,
    /// Rows whose sums were held against the scalar kernel's.
    pub checked_rows: usize,
    /// Bytes of its packed weights.
    pub packed_bytes: usize,
    /// Size of the pages that they lie on.
    pub page_kib: Option<u64>,
    /// How long it took; `None` where it is too slow to be timed.
    pub speed: Option<Speed>,
}

/// How long calls took, and what the machine could do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Microseconds of a call.
    pub median_us: f64,
    /// Of the call that a tenth are faster than.
    pub p10_us: f64,
    /// Of the call that a tenth are slower than.
    pub p90_us: f64,
    /// Packed bytes a nanosecond.
    pub packed_gb_s: f64,
    /// What a plain read of memory reached meanwhile, when cold.
    pub probe_gb_s: Option<f64>,
    /// Packed bytes over that read.
    pub probe_ratio: Option<f64>,
    /// The largest of the read's rates over the smallest.
    pub probe_moved: Option<f64>,
    /// Products a nanosecond.
    pub gmac_s: f64,
    /// What the kernel's instruction alone reached meanwhile.
    pub peak_gmac_s: Option<f64>,
    /// Products over that.
    pub peak_ratio: Option<f64>,
}

/// Whether the probes are what they claim to be on this machine.
#[derive(Clone, Debug)]
pub struct Honesty {
    /// Cycles a nanosecond.
    pub clock_ghz: Option<f64>,
    /// Bytes below which what is read comes from a cache.
    pub cold_bytes: u64,
    /// The read probe over a plain read, with as many threads.
    pub read_over_plain: f64,
    /// The peak of the widest products over two instructions a cycle, where that is what processors do.
    pub peak_over_clock: Option<f64>,
}

impl Honesty {
    /// Looks at the probes, which read a region of large pages.
    pub fn of(region: &[u8], last_cache_bytes: Option<u64>, pool: &Pool) -> Honesty {
        let most = |rate: &dyn Fn() -> f64| (0..5).map(|_| rate()).fold(0.0, f64::max);
        let clock = clock_ghz().map(|_| most(&|| clock_ghz().unwrap_or(0.0)));
        // Two vectors of 64 or 32 bytes a cycle; how many an aarch64 core multiplies differs from core to core.
        let mut widest = [(Isa::Avx512, 128.0), (Isa::Avx2, 64.0)].into_iter();
        let found = widest.find(|(isa, _)| peak_gmac_s(*isa, pool).is_some());
        let over = |(isa, each): (Isa, f64)| {
            let threads = pool.threads() as f64;
            Some(most(&|| peak_gmac_s(isa, pool).unwrap_or(0.0)) / (clock? * each * threads))
        };
        Honesty {
            clock_ghz: clock,
            cold_bytes: cold_bytes(last_cache_bytes),
            read_over_plain: read_over_plain(region, pool),
            peak_over_clock: found.and_then(over),
        }
    }

    /// Whether ratios to the read may be told.
    pub fn of_reads(&self) -> bool {
        self.read_over_plain >= 0.95
    }

    /// Whether ratios to the peak may be told.
    pub fn of_peaks(&self) -> bool {
        self.peak_over_clock.is_none_or(|over| over >= 0.97)
    }
}

/// The best of some reads by the probe over the best plain one. They take turns, so that what slows the machine for a moment
/// slows both.
fn read_over_plain(region: &[u8], pool: &Pool) -> f64 {
    let (mut probe, mut plain) = (0f64, 0f64);
    for _ in 0..6 {
        plain = plain.max(plain_read_gb_s(region, pool));
        probe = probe.max(read_gb_s(region, pool));
    }
    probe / plain
}

/// How many copies of so many bytes it takes to go through as many as are asked for.
pub fn copies(bytes: usize, cold_bytes: u64) -> usize {
    usize::try_from(cold_bytes.div_ceil(bytes.max(1) as u64)).unwrap_or(usize::MAX)
}

/// Weights that are the same on every machine.
pub fn sample_weights(packing: Packing, n: usize, k: usize) -> Result<Packed, KernelError> {
    Packed::pack(packing, n, k, |row, out| {
        let mut state = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for weights in out.chunks_mut(16) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut bits = state;
            for weight in weights {
                // Two bits are -1, 0, 0 and 1: half of the weights are 0.
                *weight = [-1, 0, 0, 1][(bits & 3) as usize];
                bits >>= 4;
            }
        }
    })
}

/// Activations that are the same on every machine.
pub fn sample_activations(tokens: usize, k: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let number = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..tokens * k).map(number).collect()
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Rows that were looked at.
    pub rows: usize,
    /// The first that differs.
    pub wrong: Option<usize>,
    /// How long the kernel would take over all rows.
    pub whole: Duration,
}

/// Holds a kernel's sums against the scalar kernel's. Where all rows would take too long, some groups at the begin and the
/// end are looked at.
pub fn check(
    kernel: Runnable,
    weights: &Packed,
    x: &Activations,
    pool: &Pool,
) -> Result<Checked, KernelError> {
    let groups = weights.groups();
    let of_group = x.tokens() * super::packing::ROWS * x.cols();
    let at_most = (CHECK_MACS / of_group).max(2);
    let half = at_most / 2;
    let parts = match groups <= at_most {
        true => [0..groups, groups..groups],
        false => [0..half, groups - half..groups],
    };
    let scalar = best_of(Isa::Scalar, weights.packing());
    let (mut rows, mut took, mut wrong) = (0, Duration::ZERO, None);
    for groups in parts.into_iter().filter(|groups| !groups.is_empty()) {
        let first = groups.start * super::packing::ROWS;
        let part = weights.part(groups);
        let mut sums = [(); 2].map(|()| vec![0; x.tokens() * part.rows()]);
        let start = Instant::now();
        accumulate(kernel, &part, x, pool, &mut sums[0])?;
        took += start.elapsed();
        accumulate(scalar, &part, x, pool, &mut sums[1])?;
        let differs = sums[0].iter().zip(&sums[1]).position(|(a, b)| a != b);
        wrong = wrong.or(differs.map(|at| first + at % part.rows()));
        rows += part.rows();
    }
    Ok(Checked {
        rows,
        wrong,
        whole: took.mul_f64(weights.rows() as f64 / rows as f64),
    })
}

/// A layer from numbers to numbers, as it is timed.
struct Call {
    input: Vec<f32>,
    x: Activations,
    out: Vec<f32>,
}

impl Call {
    fn new(shape: Shape, pool: &Pool) -> Result<Call, KernelError> {
        let input = sample_activations(shape.m, shape.k);
        Ok(Call {
            x: Activations::quantize(&input, shape.k, Granularity::Token, pool)?,
            out: vec![0.0; shape.m * shape.n],
            input,
        })
    }

    /// Nanoseconds of one.
    fn run(&mut self, kernel: Runnable, weights: &Packed, pool: &Pool) -> Result<f64, KernelError> {
        let scaling = Scaling {
            rows: RowScale::One(1.0),
            bias: None,
        };
        let start = Instant::now();
        self.x.requantize(&self.input, Granularity::Token, pool)?;
        multiply(kernel, weights, &self.x, &scaling, pool, &mut self.out)?;
        Ok(start.elapsed().as_nanos() as f64)
    }
}

/// Times a kernel over copies of one matrix, unless a check found it too slow.
pub fn time(
    kernel: Runnable,
    weights: &[Packed],
    tokens: usize,
    mode: Mode,
    pool: &Pool,
    (checked, honesty): (&Checked, &Honesty),
) -> Result<Option<Speed>, KernelError> {
    let [first, ..] = weights else {
        return Ok(None);
    };
    if checked.whole > TOO_SLOW {
        return Ok(None);
    }
    let (n, k) = (first.rows(), first.cols());
    let mut call = Call::new(Shape { m: tokens, n, k }, pool)?;
    let rounds = match checked.whole {
        whole if whole > SLOW && mode == Mode::Hot => return Ok(None),
        whole if whole > SLOW => 1,
        _ => ROUNDS,
    };
    if rounds > 1 {
        call.run(kernel, first, pool)?;
    }
    let peak_isa = kernel.isa;
    let bytes = first.bytes().len() as f64;
    let macs = (tokens * n * k) as f64;
    let (mut calls, mut reads, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut read_ratios, mut peak_ratios) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // From the first copy on: the read before has left the last ones in the cache.
        let mut next = weights.iter().cycle();
        let peak = (0..3)
            .filter_map(|_| peak_gmac_s(peak_isa, pool))
            .reduce(f64::max);
        let before = read(mode, first, pool);
        let begun = Instant::now();
        let mut round = Vec::new();
        while round.is_empty() || begun.elapsed() < ROUND {
            let weights = match mode {
                Mode::Cold => next.next().unwrap_or(first),
                Mode::Hot => first,
            };
            round.push(call.run(kernel, weights, pool)?);
        }
        // The faster of two reads: one that was kept waiting would flatter the kernel.
        let fastest = before
            .zip(read(mode, first, pool))
            .map(|(before, after)| before.max(after));
        let each = median(&mut round);
        if let Some(fastest) = fastest {
            read_ratios.push(bytes / each / fastest);
            reads.push(fastest);
        }
        if let Some(peak) = peak {
            peak_ratios.push(macs / each / peak);
            peaks.push(peak);
        }
        calls.append(&mut round);
    }
    let each = median(&mut calls);
    let told =
        |honest: bool, rates: &mut Vec<f64>| (honest && !rates.is_empty()).then(|| median(rates));
    let on_large_pages = first.page_kib().is_some_and(|kib| kib >= 2048);
    let from_memory = first.region().len() as u64 >= honesty.cold_bytes;
    let moved = (!reads.is_empty()).then(|| at(&mut reads, 1.0) / at(&mut reads, 0.0));
    Ok(Some(Speed {
        median_us: each / 1e3,
        p10_us: at(&mut calls, 0.1) / 1e3,
        p90_us: at(&mut calls, 0.9) / 1e3,
        packed_gb_s: bytes / each,
        probe_gb_s: told(true, &mut reads),
        probe_ratio: told(
            honesty.of_reads() && on_large_pages && from_memory,
            &mut read_ratios,
        ),
        probe_moved: moved,
        gmac_s: macs / each,
        peak_gmac_s: told(true, &mut peaks),
        peak_ratio: told(honesty.of_peaks(), &mut peak_ratios),
    }))
}

/// What a plain read of memory reaches, where weights come from memory.
fn read(mode: Mode, weights: &Packed, pool: &Pool) -> Option<f64> {
    (mode == Mode::Cold).then(|| read_gb_s(weights.region(), pool))
}

/// Bytes of weights that a choice goes through, or twice the last cache.
const CHOICE_BYTES: u64 = 64 << 20;

/// The kernel that is fastest here for a shape whose weights come from memory, of one packing or of any: found by running each
/// for some milliseconds. Where memory is slow beside the cores, fewer bits win, else simpler ones.
pub fn choose(
    shape: Shape,
    packing: Option<Packing>,
    last_cache_bytes: Option<u64>,
    pool: &Pool,
) -> Result<Runnable, KernelError> {
    let mut call = Call::new(shape, pool)?;
    let mut fastest: Option<(f64, Runnable)> = None;
    let wanted = Packing::ALL
        .into_iter()
        .filter(|known| packing.is_none_or(|only| only == *known));
    for packing in wanted {
        let mut kernels: Vec<Runnable> = super::available()
            .iter()
            .copied()
            .filter(|kernel| kernel.packing == packing && kernel.isa != Isa::Scalar)
            .collect();
        if kernels.is_empty() {
            kernels.push(best_of(Isa::Scalar, packing));
        }
        let one = sample_weights(packing, shape.n, shape.k)?;
        let bytes = CHOICE_BYTES.max(last_cache_bytes.unwrap_or(0) * 2);
        let many = one.repeat(bytes.div_ceil(one.bytes().len() as u64) as usize)?;
        for kernel in kernels {
            let mut calls = Vec::new();
            let begun = Instant::now();
            for weights in many.iter().cycle() {
                calls.push(call.run(kernel, weights, pool)?);
                if begun.elapsed() > ROUND * 2 && calls.len() >= 3 {
                    break;
                }
            }
            let each = median(&mut calls);
            if fastest.is_none_or(|(least, _)| each < least) {
                fastest = Some((each, kernel));
            }
        }
    }
    let (_, kernel) = fastest.expect("every packing has at least the scalar kernel");
    Ok(kernel)
}

/// The middle one of some numbers.
pub fn median(numbers: &mut [f64]) -> f64 {
    at(numbers, 0.5)
}

/// The number that a share of the others is below.
fn at(numbers: &mut [f64], share: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[((numbers.len() - 1) as f64 * share).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_numbers() {
        let mut numbers = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(at(&mut numbers, 0.0), 1.0);
        assert_eq!(at(&mut numbers, 0.5), 3.0);
        assert_eq!(at(&mut numbers, 1.0), 5.0);
    }

    #[test]
    fn copies_are_more_than_any_cache_holds() {
        assert_eq!(copies(1 << 20, cold_bytes(Some(32 << 20))), 512);
        assert_eq!(copies(1 << 20, cold_bytes(Some(512 << 20))), 2048);
        assert_eq!(copies(3 << 29, cold_bytes(None)), 1);
    }

    #[test]
    fn every_kernel_is_the_scalar_one() {
        let pool = Pool::alone();
        for kernel in super::super::available() {
            let weights = sample_weights(kernel.packing, 70, 100).unwrap();
            let x = sample_activations(3, 100);
            let x = Activations::quantize(&x, 100, Granularity::Token, &pool).unwrap();
            let checked = check(*kernel, &weights, &x, &pool).unwrap();
            assert_eq!((checked.rows, checked.wrong), (70, None), "{}", kernel.name);
        }
    }

    #[test]
    fn half_of_the_sample_weights_are_zero() {
        let weights = sample_weights(Packing::Planes, 64, 640).unwrap();
        let counts = weights.counts();
        let share = counts.zero as f64 / (64.0 * 640.0);
        assert!((0.48..0.52).contains(&share), "{share}");
    }
}
