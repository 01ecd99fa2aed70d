//! What the tensors of a checkpoint mean: codes, scales and zero points of a packed format joined into logical weights.
//!
//! Headers and settings in, [`Weights`] out: every tensor is part of exactly one weight or stands in [`Weights::others`].
//! Names and dtypes of tensors decide what a weight is; settings fill gaps, and where both speak and differ a note says so.
//! Of the data only three kinds of small tensors are read, and only if it is here: the description of a bitsandbytes weight,
//! the shape of a compressed-tensors weight, the bit width of a trained quantizer.
//!
//! [`zeros()`] counts the weights of a tensor whose value is exactly 0, from the codes, without making the values.
//!
//! - `formats.rs`: the table, one row per format; **a format that is not a row does not exist**
//! - `seen.rs`: what a row is shown and answers
//! - `group.rs`: which tensors are shown to which row
//! - `words.rs`, `scaled.rs`, `compressed.rs`, `bitsandbytes.rs`, `mlx.rs`, `halves.rs`, `torchao.rs`, `trained.rs`,
//!   `opaque.rs`: how the rows of a family read shapes
//! - `scales.rs`: how scales lie over a weight
//! - `codes.rs`, `floats.rs`: bit orders, and what the bits of floats mean
//! - `rules.rs`: what makes a number 0
//! - `zeros.rs`: counts them
//! - `recipe.rs`: how numbers are computed from codes; `values.rs`: does it; `palettes.rs`: what codes tell without it
//! - `settings.rs`: the quantization settings of a model and where they stand

mod bitsandbytes;
mod codes;
mod compressed;
mod floats;
mod formats;
mod group;
mod halves;
mod mlx;
mod opaque;
mod palettes;
mod recipe;
mod rules;
mod scaled;
mod scales;
mod seen;
mod settings;
mod torchao;
mod trained;
mod values;
mod words;
mod zeros;

pub use formats::{SCHEMES, Scheme};
pub use settings::Settings;
pub use zeros::zeros;

pub(super) use floats::{value, zero_bits};
pub(super) use palettes::{Found as FoundByCodes, Marks};
pub(super) use values::Reader;
pub(super) use zeros::misfit;

use super::Checkpoint;
use seen::{Answer, Found, Seen, matrix};

/// A weight as the model sees it, however it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Its name in the model: `model.layers.0.self_attn.q_proj.weight` for the codes `...q_proj.qweight`.
    pub name: Box<str>,
    /// The row of the table: `plain`, `gptq`, `bitsandbytes-nf4`.
    pub scheme: &'static str,
    /// What it is, for people: `BF16`, `gptq int4 g128`, `nf4 double`.
    pub label: String,
    /// The shape of the module's parameter, `[out, in]` of a linear; `None` where only the data tells and it is not here, or
    /// where the format does not keep it.
    pub shape: Option<Box<[u64]>>,
    /// Whether the model's own shape may be a little smaller than `shape`.
    pub padding: Padding,
    /// How many numbers it has.
    pub elements: u64,
    /// Width of the codes that are multiplied; `None` where a weight has no code of its own.
    pub code_bits: Option<u32>,
    /// Width of the activations that meet it, where the format fixes it.
    pub activation_bits: Option<u32>,
    /// Bytes of codes and of everything that is needed to read them; scales of activations are not among them.
    pub bytes: u64,
    /// Its tensors in the checkpoint; the first holds the codes.
    pub parts: Vec<u32>,
    rule: rules::Rule,
}

impl Weight {
    /// A weight whose data is not here, of a format by its name; `None` where there is no such format. What is known of it
    /// otherwise is to be filled in; its numbers cannot be told.
    pub fn without_data(name: &str, scheme: &str, parts: Vec<u32>) -> Option<Weight> {
        Some(Weight {
            name: name.into(),
            scheme: SCHEMES.iter().find(|known| known.name == scheme)?.name,
            label: String::new(),
            shape: None,
            padding: Padding::None,
            elements: 0,
            code_bits: None,
            activation_bits: None,
            bytes: 0,
            parts,
            rule: rules::Rule::None("its data is not here"),
        })
    }

    /// Whether it is stored as it is: numbers of its dtype and nothing beside them.
    pub fn is_plain(&self) -> bool {
        self.scheme == formats::PLAIN
    }

    /// Whether it is floats that a quantizer of the checkpoint rounds when they are used.
    pub fn has_quantizer(&self) -> bool {
        matches!(self.rule, rules::Rule::Trained(_))
    }

    /// Stored bits per number of the model; `None` for a weight without numbers.
    pub fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.bytes as f64 * 8.0 / self.elements as f64)
    }
}

/// How far the shape that the headers give may exceed the model's own: a join takes the model's size if it lies within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// The shape is exact.
    #[default]
    None,
    /// At most so many rows too many: several rows share a byte, and the last byte may be half used.
    Rows(u64),
    /// At most so many columns too many: several columns share a word.
    Columns(u64),
}

/// The weights of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// By name.
    pub weights: Vec<Weight>,
    /// Tensors that are no weight: scales of activations and caches, side tensors whose codes are missing.
    pub others: Vec<u32>,
    /// What is odd or not known.
    pub notes: Vec<Note>,
}

/// A finding about one or more weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The first tensor or weight that it holds for; `None` where it holds for the checkpoint.
    pub tensor: Option<Box<str>>,
    /// How many others it holds for.
    pub more: u64,
    /// What was found.
    pub text: String,
}

impl Weights {
    /// The weight of a name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        let at = self
            .weights
            .binary_search_by(|w| (*w.name).cmp(name))
            .ok()?;
        self.weights.get(at)
    }
}

/// Joins the tensors of a checkpoint into weights.
pub fn weights(checkpoint: &Checkpoint, settings: &Settings) -> Weights {
    group::group(checkpoint, settings)
}
