//! `bitcost bench-kernel`: each kernel of this machine checked, then timed beside what the machine can do.

use super::args::{BenchKernelArgs, FormatArg};
use super::progress::StepBar;
use super::{Exit, Failure, Outcome, database, input, model_failure, to_json, usage, write_out};
use crate::db::Db;
use crate::device::Device;
use crate::kernels::measure::{self, Honesty, Mode, Shape, Timing};
use crate::kernels::{
    Activations, Granularity, KernelError, Packed, Packing, Pool, Runnable, available, by_name,
};
use crate::model::{Asked, Model, Node};
use crate::report::bench::{self, Bench};
use crate::source::{self, Settings};

/// The linear layers of BitNet-2B-4T and of Llama-7B, as rows and columns.
const DEFAULT_SHAPES: [(usize, usize); 7] = [
    (640, 2560),
    (2560, 2560),
    (6912, 2560),
    (2560, 6912),
    (4096, 4096),
    (11008, 4096),
    (4096, 11008),
];

/// Tokens that layers are measured with: one that is generated, a few, a prompt.
const DEFAULT_TOKENS: [usize; 3] = [1, 8, 128];

/// How far the read of memory may move before a note says so.
const MOVED: f64 = 1.10;

impl From<KernelError> for Failure {
    fn from(e: KernelError) -> Failure {
        Failure {
            exit: match e {
                KernelError::Unknown { .. } | KernelError::Lacking { .. } => Exit::Usage,
                _ => Exit::Input,
            },
            error: e.into(),
        }
    }
}

pub(super) fn run(args: &BenchKernelArgs) -> Outcome {
    if args.baseline && args.format == FormatArg::Csv {
        return Err(usage(
            "--format csv has a line for each kernel and no place for --baseline; --format json has",
        ));
    }
    if args.baseline && !cfg!(feature = "baseline") {
        return Err(usage(
            "this bitcost was built without the feature `baseline`, which has the other library",
        ));
    }
    let device = Device::here();
    let shapes = distinct(shapes(args)?);
    let kernels = distinct(kernels(args)?);
    let mut notes = Vec::new();
    let threads = threads(args, device.cores, &mut notes);
    let bar = StepBar::new(
        (shapes.len() * kernels.len() * threads.len()) as u64,
        args.quiet,
    );
    let cold_bytes = args.cold_mib.map_or_else(
        || measure::cold_bytes(device.last_cache_bytes()),
        |mib| mib << 20,
    );
    let mut timings = Vec::new();
    let mut honesty: Vec<(usize, Honesty)> = Vec::new();
    let pools: Vec<Pool> = threads.iter().map(|threads| Pool::new(*threads)).collect();
    let layers: Vec<(usize, usize)> = distinct(shapes.iter().map(|s| (s.n, s.k)).collect());
    for (n, k) in layers {
        for packing in Packing::ALL {
            let of_packing: Vec<Runnable> = kernels
                .iter()
                .copied()
                .filter(|kernel| kernel.packing == packing)
                .collect();
            if of_packing.is_empty() {
                continue;
            }
            let one = measure::sample_weights(packing, n, k)?;
            let many = one.repeat(measure::copies(one.bytes().len(), cold_bytes))?;
            drop(one);
            for pool in &pools {
                let threads = pool.threads();
                if honesty.iter().all(|(known, _)| *known != threads) {
                    honesty.push((
                        threads,
                        Honesty::of(many[0].region(), device.last_cache_bytes(), pool),
                    ));
                }
                let probes = &honesty
                    .iter()
                    .find(|(known, _)| *known == threads)
                    .expect("pushed above")
                    .1;
                for shape in shapes.iter().filter(|shape| (shape.n, shape.k) == (n, k)) {
                    for kernel in &of_packing {
                        bar.step(&format!("{} {}x{n}x{k}", kernel.name, shape.m));
                        timings.extend(timed(*kernel, &many, *shape, pool, probes)?);
                    }
                }
            }
        }
    }
    drop(bar);
    // As asked for: shape after shape, kernels beside each other.
    let place = |shape: &Shape| shapes.iter().position(|known| known == shape);
    timings.sort_by_key(|timing| {
        (
            timing.threads,
            place(&timing.shape),
            timing.mode == Mode::Hot,
        )
    });
    notes.extend(remarks(
        &timings,
        &honesty,
        cold_bytes,
        device.last_cache_bytes(),
    ));
    let baselines = match args.baseline {
        true => super::baseline::run(&shapes, &threads, cold_bytes)?,
        false => Vec::new(),
    };
    let mut isas: Vec<&str> = available().iter().map(|kernel| kernel.isa.name()).collect();
    isas.dedup();
    let bench = Bench {
        device,
        isas,
        honesty,
        timings,
        baselines,
        notes,
    };
    let text = match args.format {
        FormatArg::Json => to_json(&bench::json(&bench))?,
        FormatArg::Csv => bench::csv(&bench),
        format => bench::table(&bench, format == FormatArg::Markdown),
    };
    write_out(&text, args.output.as_deref())?;
    if args.format == FormatArg::Csv {
        // Lines of values have no place for them.
        for (code, message) in &bench.notes {
            eprintln!("note [{code}] {message}");
        }
    }
    Ok(Exit::Ok)
}

/// Each once, in the order in which they are first named.
fn distinct<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut once: Vec<T> = Vec::new();
    for it in all {
        if !once.contains(&it) {
            once.push(it);
        }
    }
    once
}

/// One kernel over one shape: checked, then timed cold and hot.
fn timed(
    kernel: Runnable,
    weights: &[Packed],
    shape: Shape,
    pool: &Pool,
    probes: &Honesty,
) -> Result<Vec<Timing>, Failure> {
    let first = &weights[0];
    let x = measure::sample_activations(shape.m, shape.k);
    let x = Activations::quantize(&x, shape.k, Granularity::Token, pool)?;
    let checked = measure::check(kernel, first, &x, pool)?;
    if let Some(row) = checked.wrong {
        return Err(input(format!(
            "kernel {} computes row {row} of {}x{}x{} otherwise than the scalar kernel: this is a fault of bitcost, \
             please report it with the name of your processor",
            kernel.name, shape.m, shape.n, shape.k
        )));
    }
    let mut timings = Vec::new();
    for mode in [Mode::Cold, Mode::Hot] {
        let speed = measure::time(kernel, weights, shape.m, mode, pool, (&checked, probes))?;
        if speed.is_none() && mode == Mode::Hot {
            continue;
        }
        timings.push(Timing {
            kernel,
            shape,
            threads: pool.threads(),
            mode,
            checked_rows: checked.rows,
            packed_bytes: first.bytes().len(),
            page_kib: first.page_kib(),
            speed,
        });
    }
    Ok(timings)
}

fn kernels(args: &BenchKernelArgs) -> Result<Vec<Runnable>, Failure> {
    let named = args.kernel.iter().map(|name| by_name(name));
    let named: Vec<Runnable> = named.collect::<Result<_, _>>()?;
    let all = if named.is_empty() {
        available().to_vec()
    } else {
        named
    };
    let chosen = all
        .into_iter()
        .filter(|k| args.packing.is_none_or(|packing| k.packing == packing));
    let chosen: Vec<Runnable> = chosen.collect();
    if chosen.is_empty() {
        return Err(usage(
            "no kernel that was named reads the packing that was named",
        ));
    }
    Ok(chosen)
}

/// The numbers of threads that were asked for; without, one and all cores.
fn threads(
    args: &BenchKernelArgs,
    cores: usize,
    notes: &mut Vec<(&'static str, String)>,
) -> Vec<usize> {
    let mut threads = args.threads.clone();
    if threads.is_empty() {
        threads = vec![1, cores];
    }
    threads.sort_unstable();
    threads.dedup();
    if let Some(most) = threads.last().filter(|most| **most > cores) {
        notes.push((
            "more_threads_than_cores",
            format!("{most} threads share {cores} cores; they wait for each other"),
        ));
    }
    threads
}

/// The products to measure: named, a model's own, or usual ones.
fn shapes(args: &BenchKernelArgs) -> Result<Vec<Shape>, Failure> {
    let layers = match &args.model_id {
        Some(id) => linears(id, args)?,
        None if !args.shape.is_empty() => return Ok(args.shape.clone()),
        None => DEFAULT_SHAPES.to_vec(),
    };
    let of_layer = |(n, k): (usize, usize)| DEFAULT_TOKENS.map(|m| Shape { m, n, k });
    Ok(layers.into_iter().flat_map(of_layer).collect())
}

/// The distinct sizes of a model's linear layers; only of its ternary ones where it has such.
fn linears(id: &str, args: &BenchKernelArgs) -> Result<Vec<(usize, usize)>, Failure> {
    let db: Db = database(&args.module_db)?;
    let wanted = super::inspect::wanted(&args.source, args.quiet);
    let files = source::open(id, &wanted, &Settings::from_env())?;
    let Some(config) = files.config.clone() else {
        return Err(input(format!("{}: there is no config.json", files.file)));
    };
    let fail = |e| model_failure(&db, &files.file, e);
    let model = Model::load(&db, config, files.root.as_deref()).map_err(fail)?;
    let workload = model.workload(&Asked::default()).map_err(fail)?;
    let tree = model.expand(&workload).map_err(fail)?;
    let mut found = Vec::new();
    gather(&tree.root, &mut found);
    let ternary = found
        .iter()
        .any(|(_, bits)| *bits == Some(crate::model::TERNARY_BITS));
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    for (size, bits) in found {
        if (!ternary || bits == Some(crate::model::TERNARY_BITS)) && !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    if sizes.is_empty() {
        return Err(input(format!(
            "{}: no linear layer is known of it",
            files.file
        )));
    }
    Ok(sizes)
}

/// Rows, columns and width of all matrices that modules multiply.
fn gather(node: &Node<'_>, found: &mut Vec<((usize, usize), Option<u32>)>) {
    for tensor in node.tensors.iter().filter(|tensor| tensor.multiplied) {
        if let [rows, cols] = tensor.shape[..]
            && let (Ok(rows), Ok(cols)) = (usize::try_from(rows), usize::try_from(cols))
        {
            found.push(((rows, cols), node.weight_bits));
        }
    }
    for (_, child) in &node.children {
        gather(child, found);
    }
}

/// What the reader has to know of the numbers.
fn remarks(
    timings: &[Timing],
    honesty: &[(usize, Honesty)],
    cold_bytes: u64,
    last_cache_bytes: Option<u64>,
) -> Vec<(&'static str, String)> {
    let with = |threads: usize| crate::units::counted(threads as u128, "thread");
    let mut notes = Vec::new();
    for (threads, probes) in honesty {
        if !probes.of_reads() {
            notes.push((
                "read_probe",
                format!(
                    "with {} the read probe reached {:.3} of a plain read: ratios to it are not told",
                    with(*threads),
                    probes.read_over_plain
                ),
            ));
        }
        if let Some(over) = probes.peak_over_clock.filter(|_| !probes.of_peaks()) {
            notes.push((
                "peak_probe",
                format!(
                    "with {} the peak probe reached {over:.3} of two products a cycle: the machine is busy or has one such \
                     unit, and ratios to the peak are not told",
                    with(*threads)
                ),
            ));
        }
    }
    let moved = timings
        .iter()
        .filter_map(|t| Some((t, t.speed.as_ref()?.probe_moved?)));
    let moved: Vec<(&Timing, f64)> = moved.filter(|(_, moved)| *moved > MOVED).collect();
    if let Some((worst, most)) = moved.iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
        notes.push((
            "probe_moved",
            format!(
                "the read of memory moved by more than 10 % during {} of {} measurements, most during {} with {} \
                 ({:.0} %): the machine does other things too",
                moved.len(),
                timings.len(),
                worst.kernel.name,
                with(worst.threads),
                (most - 1.0) * 100.0
            ),
        ));
    }
    if cold_bytes < measure::cold_bytes(last_cache_bytes) {
        notes.push((
            "not_cold",
            "cold calls go through fewer bytes than four times the last cache, or than 512 MiB: some of them come from the \
             cache, and no ratio to a read of memory is told"
                .into(),
        ));
    }
    if timings
        .iter()
        .any(|t| t.page_kib.is_none_or(|kib| kib < 2048))
    {
        notes.push((
            "small_pages",
            "some weights lie on small pages, which costs a quarter of the bandwidth: no ratio to the read is told for \
             them; /sys/kernel/mm/transparent_hugepage/enabled should say madvise or always"
                .into(),
        ));
    }
    notes
}
