//! Two checkpoints side by side: what pruning and quantization save in MACs, bit operations and bytes, layer by layer.
//!
//! The layers of each side come from its own weights ([`Graph`]), the counts of a layer from one scan of its data; layers
//! are joined by name. Null channels follow the model's dataflow, so a channel that nobody produces costs nothing where it
//! is consumed.
//!
//! - `layers.rs`: which weights are multiplied, with which null channels
//! - `held.rs`: the stored weights that a tensor of a model is made of
//! - `scanned.rs`: what the data says, scanned once; `told.rs`: the same from statistics
//! - `bits.rs`: widths, each with its source
//! - `counts.rs`: MACs and BOPs by every definition of [`crate::bops`]

mod bits;
mod counts;
mod held;
mod layers;
mod scanned;
mod told;

pub use crate::bops::{Bops, BopsKey};
pub use bits::{BitsRules, BitsSource};
pub use counts::Macs;
pub use scanned::Source;

use crate::channels::Channels;
use crate::checkpoint::packed::Weight;
use crate::checkpoint::scan::{weight_error, zero_kinds};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::db::Db;
use crate::flow::Rule;
use crate::join::{Headers, Part, locate};
use crate::model::{Asked, Model, ModelError, Node, Tree, path_below};
use held::Held;
use layers::{OfTree, Plan, Take};
use scanned::Scanned;
use std::collections::HashMap;

/// Where layers and their order are known from.
pub enum Graph<'m, 'e> {
    /// A model's tree, under a workload.
    Model(&'m Model<'e>, &'m Asked),
    /// The order of the file, for an input of channels, height and width.
    Sequential((u64, u64, u64)),
    /// None: every weight for itself.
    None,
}

/// How a comparison counts.
#[derive(Clone, Debug)]
pub struct Conventions {
    /// When a channel is null.
    pub rule: Rule,
    /// Which bit operations.
    pub bops: BopsKey,
    /// Width of activations.
    pub activation_bits: u32,
}

/// One checkpoint, counted.
#[derive(Clone, Debug)]
pub struct Side {
    /// Its layers.
    pub layers: Vec<Layer>,
    /// Sums over them.
    pub totals: Totals,
    /// Path and message of what could not be told.
    pub notes: Vec<(String, String)>,
    /// Layers whose null inputs the other rule sees differently, with the number of channels.
    pub differing: Vec<(String, usize)>,
}

/// A layer of one checkpoint.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name: the path of its module.
    pub name: String,
    /// The number of its weight in the checkpoint.
    pub number: usize,
    /// Its shape: [out, in of a group, taps ...]. Of matrices that are one tensor, each is a group.
    pub shape: Vec<u64>,
    /// Blocks that its channels fall into, each with weights of its own: groups of a convolution, experts.
    pub groups: usize,
    /// Height and width of its output, where it is an image.
    pub spatial: Option<(u64, u64)>,
    /// Width of its weights.
    pub weight_bits: u32,
    /// Where that is known from.
    pub bits_source: BitsSource,
    /// Non-zero weights; `None` where the format's numbers cannot be told.
    pub nnz: Option<u64>,
    /// Weights that are 0.
    pub zeros: Option<u64>,
    /// Weights that are not finite.
    pub not_finite: u64,
    /// Input channels that are null.
    pub null_in: Channels,
    /// Output channels that are null.
    pub null_out: Channels,
    /// Its MACs.
    pub macs: Macs,
    /// Its bit operations.
    pub bops: Bops,
    /// Bytes of its weight in the file.
    pub bytes: u64,
}

impl Layer {
    /// What kind of layer its shape makes it.
    pub fn kind(&self) -> &'static str {
        match self.shape.len() {
            2 => "linear",
            3 => "conv1d",
            4 => "conv2d",
            5 => "conv3d",
            _ => "other",
        }
    }
}

/// Sums over the layers of one checkpoint.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Totals {
    /// MACs by the definition that goes with the bit operations.
    pub macs: u128,
    /// Bit operations.
    pub bops: Bops,
    /// Bytes of all weights of the layers.
    pub bytes: u128,
    /// Weights of the layers.
    pub params: u128,
}

impl Totals {
    /// Sums over some layers.
    pub fn of<'l>(layers: impl IntoIterator<Item = &'l Layer>, key: BopsKey) -> Totals {
        let mut totals = Totals {
            macs: 0,
            bops: Bops::Whole(0),
            bytes: 0,
            params: 0,
        };
        for layer in layers {
            totals.macs = totals.macs.saturating_add(layer.macs.by(key));
            totals.bops = totals.bops.plus(layer.bops);
            totals.bytes += u128::from(layer.bytes);
            totals.params += layer
                .shape
                .iter()
                .map(|side| u128::from(*side))
                .product::<u128>();
        }
        totals
    }
}

/// Why a checkpoint cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Data that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tree that cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Counts one checkpoint. `watch` is told of bytes that were scanned.
pub fn count(
    db: &Db,
    source: Source<'_>,
    graph: &Graph<'_, '_>,
    conventions: &Conventions,
    bits: &BitsRules,
    watch: &dyn Fn(u64),
) -> Result<Side, CompareError> {
    let mut layers = Vec::new();
    let take: &mut Take<'_> = &mut |plan, scanned| {
        let number = plan.number;
        layers.push(layer(plan, scanned, conventions, bits)?);
        scanned.forget(number);
        Ok(())
    };
    let mut scanned = Scanned::new(source, watch);
    let mut of_tree = OfTree::default();
    match graph {
        Graph::None => layers::alone(&mut scanned, take)?,
        Graph::Sequential(input) => layers::in_sequence(&mut scanned, *input, take)?,
        Graph::Model(model, asked) => {
            let workload = model.workload(asked)?;
            let tree = model.expand(&workload)?;
            let places = locate(model, &tree, source.headers)?;
            scanned.held = held(&tree, places);
            of_tree = layers::of_tree(db, &tree, conventions.rule, &mut scanned, take)?;
        }
    }
    layers.shrink_to_fit();
    let totals = Totals::of(&layers, conventions.bops);
    let mut notes = of_tree.notes;
    for number in &scanned.undecided {
        let message =
            "its statistics do not list what every row reads; what may be null counts as live"
                .into();
        notes.push((scanned.weight(*number).name.to_string(), message));
    }
    Ok(Side {
        layers,
        totals,
        notes,
        differing: of_tree.differing,
    })
}

/// The tensors of a tree that are in a file, by path.
fn held(tree: &Tree<'_>, places: HashMap<String, Vec<Part>>) -> HashMap<String, Held> {
    let mut shapes = HashMap::new();
    shapes_of(&tree.root, "", &mut shapes);
    let places = places.into_iter();
    let held = places.filter_map(|(path, parts)| {
        let shape = shapes.remove(&path)?;
        Some((path, Held { shape, parts }))
    });
    held.collect()
}

/// The shapes of all tensors and buffers of a tree, by path.
fn shapes_of(node: &Node<'_>, path: &str, shapes: &mut HashMap<String, Box<[u64]>>) {
    for tensor in node.tensors.iter().chain(&node.buffers) {
        let shape = tensor
            .shape
            .iter()
            .map(|side| u64::try_from(*side).unwrap_or(u64::MAX));
        shapes.insert(path_below(path, &tensor.name), shape.collect());
    }
    for (name, child) in &node.children {
        shapes_of(child, &path_below(path, name), shapes);
    }
}

fn layer(
    plan: Plan,
    scanned: &mut Scanned<'_>,
    conventions: &Conventions,
    rules: &BitsRules,
) -> Result<Layer, CheckpointError> {
    let counted = scanned.counted(plan.number, &plan.meant)?;
    let counted = counted.as_deref();
    let weight = scanned.weight(plan.number);
    let (weight_bits, bits_source) = bits::bits(&plan.name, weight, counted, rules);
    let macs = counts::macs(&plan, counted);
    let bops = counts::bops(
        conventions.bops,
        &plan.shape,
        &macs,
        weight_bits,
        conventions.activation_bits,
    );
    Ok(Layer {
        number: plan.number,
        groups: plan.meant.form.groups,
        spatial: plan.spatial,
        weight_bits,
        bits_source,
        nnz: counted.map(|c| c.nnz),
        zeros: counted.map(|c| c.elements - c.nnz),
        not_finite: counted.map_or(0, |c| c.not_finite),
        macs,
        bops,
        bytes: weight.bytes,
        name: plan.name,
        shape: plan.shape,
        null_in: plan.null_in,
        null_out: plan.null_out,
    })
}

impl Side {
    /// The same layers without any zero, at one width: what a checkpoint saves against itself.
    pub fn without_zeros(&self, bits: u32, conventions: &Conventions) -> Side {
        let dense = |layer: &Layer| {
            let elements: u128 = layer.shape.iter().map(|side| u128::from(*side)).product();
            let macs = Macs {
                dense: layer.macs.dense,
                live_nnz: layer.macs.dense,
                density: layer.macs.dense,
                structured: layer.macs.dense,
            };
            let key = conventions.bops;
            Layer {
                weight_bits: bits,
                bits_source: BitsSource::FloatBits,
                nnz: u64::try_from(elements).ok(),
                zeros: Some(0),
                null_in: Channels::none(layer.null_in.width()),
                null_out: Channels::none(layer.null_out.width()),
                bops: counts::bops(key, &layer.shape, &macs, bits, conventions.activation_bits),
                bytes: u64::try_from(elements * u128::from(bits) / 8).unwrap_or(u64::MAX),
                macs,
                ..layer.clone()
            }
        };
        let layers: Vec<Layer> = self.layers.iter().map(dense).collect();
        let totals = Totals::of(&layers, conventions.bops);
        Side {
            layers,
            totals,
            notes: Vec::new(),
            differing: Vec::new(),
        }
    }
}

/// How far the weights of a layer are from the base's, and how its zeros came about; `None` where shapes differ or numbers
/// cannot be told.
pub fn apart(
    base: (&Headers, &Layer),
    other: (&Headers, &Layer),
) -> Result<Option<Apart>, CheckpointError> {
    fn weight<'h>((headers, layer): (&'h Headers, &Layer)) -> (&'h Checkpoint, &'h Weight) {
        let weight = &headers.weights.weights[layer.number];
        (&headers.checkpoint, weight)
    }
    let is_broken = other.1.not_finite > base.1.not_finite;
    let (base, other) = (weight(base), weight(other));
    let error = weight_error(base, other)?;
    let kinds = zero_kinds(base, other)?;
    Ok(error.zip(kinds).map(|(error, kinds)| {
        // A weight of floats that is below what its row keeps was pruned; one of codes was rounded to 0.
        let codes = !other.1.is_plain();
        // What became infinite, or no number at all, is infinitely far from what it was.
        let (relative_l2, max_abs, snr_db) = if is_broken {
            (f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY)
        } else {
            // 0 dB of a weight that is gone is no negative 0.
            (error.relative, error.max, error.snr_db + 0.0)
        };
        Apart {
            relative_l2,
            max_abs,
            snr_db,
            cosine: error.cosine,
            zeros: ZerosBy {
                pruned: kinds.in_base + if codes { 0 } else { kinds.below } + kinds.above,
                rounding: if codes { kinds.below } else { 0 },
                dead_scale: kinds.dead_scale,
                padding: kinds.padding,
            },
        }
    }))
}

/// How far a weight is from the base's, over the numbers that are finite in both. Infinite where the base is 0 and the other
/// is not, or has numbers that are not finite and that the base lacks; never NaN.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Apart {
    /// Length of the difference over the length of the base.
    pub relative_l2: f64,
    /// The largest difference of a number.
    pub max_abs: f64,
    /// Signal to noise in decibels.
    pub snr_db: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// How the zeros came about.
    pub zeros: ZerosBy,
}

/// Zeros of a compressed weight by how they came about.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct ZerosBy {
    /// Zero in the base too, or taken away.
    pub pruned: u64,
    /// Rounded to zero by quantization.
    pub rounding: u64,
    /// Under a scale of zero.
    pub dead_scale: u64,
    /// Stored beyond the shape.
    pub padding: u64,
}

/// `base` over `compressed`; `None` stands for infinity, where nothing is left.
pub fn ratio(base: f64, compressed: f64) -> Option<f64> {
    match (base, compressed) {
        (base, compressed) if base == compressed => Some(1.0),
        (_, 0.0) => None,
        (base, compressed) => Some(base / compressed),
    }
}
