//! A whole model and its texts.
//!
//! - `prompts.rs`: what goes in
//! - `fit.rs`: how much memory it takes, and what would take less
//! - `predict.rs`: what the analyzer says of its steps

mod fit;
mod predict;
mod prompts;

use super::super::args::{DbFormat, HeadBitsArg, KvBitsArg, RunArgs};
use super::super::progress::WorkBar;
use super::super::{Exit, Failure, Outcome, database, input, model_failure, to_json, usage};
use super::load::Opened;
use super::{kernel, tensors};
use crate::bitlinear::Dequantization;
use crate::bitnet::{
    CacheBits, Decoder, Ended, GenerateError, Generated, HeadBits, Limits, Needed, Plan, RunError,
    Session, Settings, Source, generate,
};
use crate::device::Device;
use crate::kernels::measure::{Shape, median};
use crate::kernels::probe::{peak_gmac_s, read_gb_s};
use crate::kernels::{Packing, Pool, Runnable};
use crate::memory::{MemoryPool, PoolConfig};
use crate::model::{Asked, Model, ModelError};
use crate::report::generate::{Figures, Memory, Sequence, json, profile, summary};
use crate::source::{self, ModelFiles, Settings as From};
use crate::text::{Sampler, Sampling};
use prompts::Prompts;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

impl std::convert::From<RunError> for Failure {
    fn from(e: RunError) -> Failure {
        Failure {
            exit: match e {
                RunError::Context { .. } => Exit::Usage,
                _ => Exit::Input,
            },
            error: e.into(),
        }
    }
}

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

pub(super) fn run(args: &RunArgs) -> Outcome {
    let sampling = Sampling {
        temperature: args.text.temperature,
        top_k: args.text.top_k,
        top_p: args.text.top_p,
        seed: args.seed,
    };
    let mut sampler = Sampler::new(sampling).map_err(|e| usage(e.to_string()))?;
    let device = Device::here();
    let db = database(&args.module_db)?;
    let from = From::from_env();
    let wanted = super::super::inspect::wanted(&args.source, args.quiet);
    let opened = match args.text.random_weights {
        true => None,
        false => Some(Opened::open(args)?),
    };
    let own;
    let files: &ModelFiles = match &opened {
        Some(opened) => &opened.files,
        None => {
            own = source::open(args.id(), &wanted, &from)?;
            &own
        }
    };
    let config = files.config.clone().ok_or_else(|| {
        input(format!(
            "{}: there is no config.json, and a whole model runs only with one",
            files.file
        ))
    })?;
    let failed = |e| model_failure(&db, &files.file, e);
    let model = Model::load(&db, config, files.root.as_deref()).map_err(failed)?;
    let tree = model
        .expand(&model.workload(&Asked::default()).map_err(failed)?)
        .map_err(failed)?;
    let named = |e: RunError| Failure {
        exit: Exit::Input,
        error: anyhow::Error::new(e).context(files.file.clone()),
    };
    let plan = Plan::of(&model, &tree).map_err(named)?;
    let prompts = Prompts::read(args, files, &wanted, &from, plan.shape.vocabulary)?;
    let source = match &opened {
        None => Source::Random { seed: args.seed },
        Some(opened) => Source::Checkpoint {
            checkpoint: &opened.headers.checkpoint,
            weights: &opened.headers.weights,
            rule: rule(opened, args)?,
        },
    };
    let context = context(args, &plan, &prompts)?;
    if let Some(path) = &args.text.logits {
        apart(path, opened.as_ref())?;
    }

    let pool = Pool::new(args.threads.unwrap_or(device.cores));
    let (rows, cols) = plan.weight(crate::bitnet::Role::Gate);
    let shape = Shape {
        m: 1,
        n: 2 * rows,
        k: cols,
    };
    let mut settings = Settings {
        packing: args.packing.unwrap_or(Packing::Planes),
        head: match args.text.head_bits {
            HeadBitsArg::Sixteen => HeadBits::Stored,
            HeadBitsArg::Eight => HeadBits::Eight,
        },
        cache: match args.text.kv_bits {
            KvBitsArg::ThirtyTwo => CacheBits::F32,
            KvBitsArg::Sixteen => CacheBits::F16,
            KvBitsArg::Eight => CacheBits::I8,
        },
        context,
    };
    let limit = fit::limit(args, &device);
    fit::check(&plan, source, &settings, limit)?;
    let kernel = kernel(args, shape, &device, &pool)?;
    settings.packing = kernel.packing;
    let needed = fit::check(&plan, source, &settings, limit)?;

    let memory = MemoryPool::new(PoolConfig::default());
    let loading = Instant::now();
    let decoder = load(&memory, plan, source, &settings, &needed, args.quiet)?;
    let load_time = loading.elapsed();
    let mut session = Session::new(&memory, &decoder, &settings, kernel, &pool)?;
    // Without a handler the program ends, which is what Ctrl-C is for too.
    let _ = ctrlc::set_handler(interrupted);

    let limits = Limits {
        most: args.text.max_new_tokens,
        stop: &prompts.stop,
    };
    let mut exit = Exit::Ok;
    let several = prompts.ids.len() > 1;
    for (number, ids) in prompts.ids.iter().enumerate() {
        if several {
            // Each text is what it would be alone.
            sampler = Sampler::new(sampling).map_err(|e| usage(e.to_string()))?;
        }
        let mut writer = Streamed::new(args, &prompts);
        let mut rows: Vec<f32> = Vec::new();
        let mut each = |of_token: &[f32]| rows.extend_from_slice(of_token);
        let logits: Option<crate::bitnet::Logits<'_>> = match args.text.logits {
            Some(_) => Some(&mut each),
            None => None,
        };
        let made = generate(&mut session, ids, &mut sampler, limits, logits, &mut |id| {
            writer.token(id)
        });
        let made = made.map_err(|e| match e {
            GenerateError::Run(e) => e.into(),
            GenerateError::Sampling(e) => input(e.to_string()),
        })?;
        if writer.closed {
            return Ok(Exit::Ok);
        }
        let text = writer.finish()?;
        if let Some(path) = &args.text.logits {
            let shape = [ids.len(), decoder.plan.shape.vocabulary];
            tensors::write("--logits", path, "logits", &shape, &rows)?;
        }
        let measured = memory.metrics();
        let sequence = Sequence {
            model: files.id.clone(),
            random: args.text.random_weights,
            kernel,
            threads: pool.threads(),
            context,
            kv_bits: settings.cache.bits(),
            head_bits: if settings.head == HeadBits::Eight {
                8
            } else {
                16
            },
            ternary_bytes: decoder.ternary_bytes(),
            head_bytes: decoder.head_bytes(),
            prompt_ids: ids,
            text: text.as_deref(),
            load_seconds: load_time.as_secs_f64(),
            made: &made,
            memory: Memory {
                needed,
                measured: &measured,
            },
            figures: match args.text.profile {
                true => Some(figures(
                    &model,
                    opened.as_ref(),
                    &decoder,
                    &pool,
                    &settings,
                    kernel,
                    &made,
                )?),
                false => None,
            },
        };
        if args.format == DbFormat::Json {
            let object = json(&sequence);
            let text = match several {
                // One object a line.
                true => serde_json::to_string(&object).map_err(|e| input(e.to_string()))?,
                false => to_json(&object)?,
            };
            super::super::write_out(&text, None)?;
        } else if !args.quiet {
            if several {
                anstream::eprintln!("prompt {} of {}", number + 1, prompts.ids.len());
            }
            anstream::eprint!("{}", summary(&sequence));
            if args.text.profile {
                anstream::eprint!("{}", profile(&sequence));
            }
        }
        if made.ended == Ended::Interrupted {
            exit = Exit::Interrupted;
            break;
        }
    }
    Ok(exit)
}

/// The first Ctrl-C ends a text at its next token; who cannot wait for a long prompt presses it again.
fn interrupted() {
    if STOP.swap(true, Ordering::Relaxed) {
        #[allow(clippy::exit)] // The main thread is in the middle of a prompt.
        std::process::exit(Exit::Interrupted as i32);
    }
}

/// How the scale of stored codes is meant; a checkpoint of floats stores none.
fn rule(opened: &Opened, args: &RunArgs) -> Result<Dequantization, Failure> {
    opened.only_rounds()?;
    match opened.has_codes() {
        true => opened.linear_class(args),
        false => Ok(Dequantization::Online),
    }
}

/// Room for tokens: what was asked for, or what the prompts and their texts take.
fn context(args: &RunArgs, plan: &Plan, prompts: &Prompts) -> Result<usize, Failure> {
    let longest = prompts.ids.iter().map(Vec::len).max().unwrap_or(0);
    let context = match args.text.context {
        Some(asked) if asked > plan.positions => {
            return Err(usage(format!(
                "--context {asked}: the model is made for {} positions",
                plan.positions
            )));
        }
        Some(asked) => asked,
        None => plan
            .positions
            .min(longest.saturating_add(args.text.max_new_tokens)),
    };
    match longest > context {
        true => Err(RunError::Context {
            tokens: longest,
            context,
            positions: plan.positions,
        }
        .into()),
        false => Ok(context),
    }
}

/// Refuses to write over what is read.
fn apart(path: &std::path::Path, opened: Option<&Opened>) -> Result<(), Failure> {
    let Ok(out) = std::fs::canonicalize(path) else {
        return Ok(());
    };
    let files = opened
        .iter()
        .flat_map(|opened| &opened.headers.checkpoint.files);
    let mut read = files.filter_map(|file| file.path.clone());
    match read.any(|path| std::fs::canonicalize(path).is_ok_and(|path| path == out)) {
        true => Err(usage(format!(
            "--logits {} is what is read; name another file",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// Loads the model with a bar.
fn load(
    memory: &MemoryPool,
    plan: Plan,
    source: Source<'_>,
    settings: &Settings,
    needed: &Needed,
    quiet: bool,
) -> Result<Decoder, Failure> {
    let bar = WorkBar::new("packing", needed.weights, quiet).map(|bar| Mutex::new((bar, 0u64)));
    let progress = |done: usize, all: usize| {
        let Some(bar) = &bar else { return };
        // Who meets another here leaves it to the next call.
        if let Ok(mut bar) = bar.try_lock() {
            let bytes = (needed.weights as u128 * done as u128 / all.max(1) as u128) as u64;
            let more = bytes.saturating_sub(bar.1);
            bar.0.done(more);
            bar.1 += more;
        }
    };
    Ok(Decoder::load(memory, plan, source, settings, &progress)?)
}

/// A text on its way to standard output.
struct Streamed<'p> {
    prompts: &'p Prompts,
    stream: Option<crate::text::TextStream<'p>>,
    /// Whether it is shown as it comes.
    shown: bool,
    text: String,
    /// Whether nobody reads standard output any more.
    closed: bool,
    failed: Option<Failure>,
}

impl<'p> Streamed<'p> {
    fn new(args: &RunArgs, prompts: &'p Prompts) -> Streamed<'p> {
        Streamed {
            prompts,
            stream: prompts
                .tokenizer
                .as_ref()
                .map(|tokenizer| tokenizer.stream()),
            shown: args.format == DbFormat::Table,
            text: String::new(),
            closed: false,
            failed: None,
        }
    }

    /// Takes a token; gives whether more are wanted.
    fn token(&mut self, id: u32) -> bool {
        if self.prompts.stop.contains(&id) {
            return true;
        }
        let piece = match &mut self.stream {
            Some(stream) => stream.step(id),
            None => Ok(Some(match self.text.is_empty() {
                true => id.to_string(),
                false => format!(",{id}"),
            })),
        };
        match piece {
            Ok(piece) => self.show(piece),
            Err(e) => {
                self.failed = Some(e.into());
                return false;
            }
        }
        !STOP.load(Ordering::Relaxed) && !self.closed
    }

    fn show(&mut self, piece: Option<String>) {
        let Some(piece) = piece else { return };
        self.text.push_str(&piece);
        if self.shown {
            let mut out = std::io::stdout().lock();
            // Control characters that a model makes up are not for a terminal.
            let piece = match out.is_terminal() {
                true => crate::units::visible_lines(&piece),
                false => piece,
            };
            if write!(out, "{piece}").and_then(|()| out.flush()).is_err() {
                self.closed = true;
            }
        }
    }

    /// The text, where tokens have one.
    fn finish(mut self) -> Result<Option<String>, Failure> {
        if let Some(stream) = self.stream.take() {
            let rest = stream.finish()?;
            self.show(rest);
            if self.shown {
                self.shown = false;
                let _ = writeln!(std::io::stdout());
            }
            return match self.failed {
                Some(failure) => Err(failure),
                None => Ok(Some(self.text)),
            };
        }
        if self.shown {
            let _ = writeln!(std::io::stdout());
        }
        Ok(None)
    }
}

/// What was predicted of the steps, and what this machine reaches in the same moments.
fn figures(
    model: &Model<'_>,
    opened: Option<&Opened>,
    decoder: &Decoder,
    pool: &Pool,
    settings: &Settings,
    kernel: Runnable,
    made: &Generated,
) -> Result<Figures, Failure> {
    const ROUNDS: usize = 5;
    let mut reads = [(); ROUNDS].map(|()| read_gb_s(decoder.region(), pool));
    let peaks = (0..ROUNDS).filter_map(|_| peak_gmac_s(kernel.isa, pool));
    let mut peaks: Vec<f64> = peaks.collect();
    let headers = opened.map(|opened| &opened.headers);
    let failed = |e: ModelError| input(e.to_string());
    let kv_bits = settings.cache.bits();
    Ok(Figures {
        read_gb_s: median(&mut reads),
        peak_gmac_s: (!peaks.is_empty()).then(|| median(&mut peaks)),
        prompt: predict::prompt(model, headers, decoder, kv_bits, made).map_err(failed)?,
        decode: predict::decode(model, headers, decoder, kv_bits, made).map_err(failed)?,
    })
}
