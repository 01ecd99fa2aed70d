//! `bitcost run`: one layer of a checkpoint through the ternary kernels, or a whole model, beside what the analyzer predicts.
//!
//! - `whole/`: a whole model and its texts
//! - `load.rs`: a weight of a checkpoint as a packed layer
//! - `predict.rs`: what the analyzer says of that module
//! - `tensors.rs`: inputs from a file, outputs into one

mod load;
mod predict;
mod tensors;
mod whole;

use super::args::{DbFormat, MAX_NUMBERS, RunArgs};
use super::{Exit, Failure, Outcome, database, to_json, usage, write_out};
use crate::bitlinear::LayerError;
use crate::device::Device;
use crate::kernels::measure::{Shape, choose, median};
use crate::kernels::{Activations, Isa, Packing, Pool, Runnable, TOKENS, best, best_of, by_name};
use crate::random::Random;
use crate::report::run::{Run, Verified, json, table};
use load::{Loaded, Opened};
use std::time::{Duration, Instant};

/// Calls are repeated at least so long for their median.
const LONG: Duration = Duration::from_millis(200);

impl From<LayerError> for Failure {
    fn from(e: LayerError) -> Failure {
        Failure {
            exit: Exit::Input,
            error: e.into(),
        }
    }
}

pub(super) fn run(args: &RunArgs) -> Outcome {
    if args.text.is_asked() {
        return whole::run(args);
    }
    let device = Device::here();
    let db = database(&args.module_db)?;
    let opened = Opened::open(args)?;
    let found = opened.find(args)?;
    tensors::apart(args, &opened)?;
    let x = input_numbers(args, found.cols)?;
    let shape = Shape {
        m: x.numbers.len() / found.cols,
        n: found.rows,
        k: found.cols,
    };
    fits(shape)?;
    let (predicted, mut notes) = predict::of(&db, &opened, &found.path, shape.m);
    let pool = Pool::new(args.threads.unwrap_or(device.cores));
    if pool.threads() > device.cores {
        notes.push((
            "more_threads_than_cores",
            format!(
                "{} threads share {} cores; they wait for each other",
                pool.threads(),
                device.cores
            ),
        ));
    }
    let kernel = kernel(args, shape, &device, &pool)?;
    let loaded = found.load(args, kernel.packing)?;
    let (out, time_us) = timed(&loaded, &x.numbers, kernel, &pool)?;
    let verified = match args.layer.verify {
        true => Some(verify(&loaded, &x.numbers, &out, kernel, &pool)?),
        false => None,
    };
    let run = Run {
        layer: found.path.clone(),
        checkpoint: opened.id(),
        source: loaded.source,
        kernel,
        threads: pool.threads(),
        tokens: shape.m,
        rows: shape.n,
        cols: shape.k,
        counts: loaded.layer.counts(),
        scales: loaded.layer.scales().to_vec(),
        rule: loaded.rule,
        packed_bytes: loaded.layer.bytes(),
        time_us,
        predicted,
        verified,
        notes,
    };
    if let Some(path) = &args.layer.out {
        let mut shape = x.shape;
        if let Some(last) = shape.last_mut() {
            *last = found.rows;
        }
        tensors::write("--out", path, "y", &shape, &out)?;
    }
    if !args.quiet {
        let text = match args.format {
            DbFormat::Json => to_json(&json(&run))?,
            DbFormat::Table => table(&run),
        };
        write_out(&text, None)?;
    }
    match run.verified {
        Some(Verified { equal: false, .. }) => {
            eprintln!(
                "verify: {} gives other numbers than the scalar kernel: this is a fault of bitcost",
                kernel.name
            );
            Ok(Exit::Failed)
        }
        _ => Ok(Exit::Ok),
    }
}

/// Whether input and output are of a size that anybody means.
fn fits(shape: Shape) -> Result<(), Failure> {
    let most = MAX_NUMBERS;
    for (what, sides) in [
        ("input", (shape.m, shape.k)),
        ("output", (shape.m, shape.n)),
    ] {
        if sides
            .0
            .checked_mul(sides.1)
            .is_none_or(|count| count > most)
        {
            return Err(usage(format!(
                "an {what} of {} x {} numbers is more than {most}; take fewer tokens",
                sides.0, sides.1
            )));
        }
    }
    Ok(())
}

/// What goes in: the numbers of a file, or such as a seed gives.
fn input_numbers(args: &RunArgs, cols: usize) -> Result<tensors::Input, Failure> {
    if let Some(path) = &args.layer.input {
        return tensors::read(path, cols);
    }
    fits(Shape {
        m: args.layer.tokens,
        n: 1,
        k: cols,
    })?;
    let mut random = Random::seeded(args.seed);
    Ok(tensors::Input {
        shape: vec![args.layer.tokens, cols],
        numbers: (0..args.layer.tokens * cols)
            .map(|_| random.normal())
            .collect(),
    })
}

/// The kernel that was asked for, or the one that is fastest here for such a product.
fn kernel(args: &RunArgs, shape: Shape, device: &Device, pool: &Pool) -> Result<Runnable, Failure> {
    let Some(name) = &args.kernel else {
        return Ok(match shape.m {
            // A whole block of tokens is bound by multipliers, which are known; fewer by memory, which is not.
            TOKENS.. => best(args.packing.unwrap_or(Packing::Planes), shape.m),
            _ => choose(shape, args.packing, device.last_cache_bytes(), pool)?,
        });
    };
    let kernel = by_name(name)?;
    match args.packing {
        Some(packing) if packing != kernel.packing => Err(usage(format!(
            "kernel {name}, of --kernel or BITCOST_KERNEL, reads weights of {} bits, --packing asks for {}",
            kernel.packing.name(),
            packing.name()
        ))),
        _ => Ok(kernel),
    }
}

/// The output, and the median of the microseconds that it takes.
fn timed(
    loaded: &Loaded,
    x: &[f32],
    kernel: Runnable,
    pool: &Pool,
) -> Result<(Vec<f32>, f64), Failure> {
    let layer = &loaded.layer;
    let mut codes = Activations::quantize(x, layer.in_features(), loaded.activations, pool)
        .map_err(LayerError::from)?;
    let mut out = vec![0.0; codes.tokens() * layer.out_features()];
    let mut calls = Vec::new();
    let begun = Instant::now();
    while calls.len() < 3 || begun.elapsed() < LONG {
        let start = Instant::now();
        codes
            .requantize(x, loaded.activations, pool)
            .map_err(LayerError::from)?;
        layer.multiply(&codes, kernel, pool, &mut out)?;
        calls.push(start.elapsed().as_nanos() as f64 / 1e3);
        if begun.elapsed() > LONG * 50 {
            break;
        }
    }
    Ok((out, median(&mut calls)))
}

/// Computes the output again with the scalar kernel, and how far quantized weights are from floats.
fn verify(
    loaded: &Loaded,
    x: &[f32],
    out: &[f32],
    kernel: Runnable,
    pool: &Pool,
) -> Result<Verified, Failure> {
    let scalar = best_of(Isa::Scalar, kernel.packing);
    let again = loaded.layer.forward(x, scalar, pool)?;
    // Sums are integers and what follows is the same for all kernels, so the bits have to be the same.
    let differs = out
        .iter()
        .zip(&again)
        .position(|(a, b)| a.to_bits() != b.to_bits());
    Ok(Verified {
        equal: differs.is_none() && out.len() == again.len(),
        weight_error: loaded.weight_error,
    })
}
