//! Composites of primitives, each a plain function of an operand, its options and the register.
//!
//! One file per family; `mod.rs` holds the table of all that can be named in a chain. A block opens a scope of its own name,
//! so that what it costs can be told apart.

mod attention;
mod convolution;
mod decoder;
mod mlp;
mod recurrent;
mod selective;
mod ssm;
mod transformer;

pub use attention::{Attention, Heads, attention};
pub use convolution::{Conv, conv};
pub use decoder::{Decoder, decoder};
pub use mlp::{GatedMlp, Mlp, gated_mlp, mlp};
pub use recurrent::{Gru, Lstm, gru, lstm};
pub use selective::{Selective, selective};
pub use ssm::{Mamba, Ssm, mamba, ssm};
pub use transformer::{Transformer, transformer};

use super::arguments::{ArgumentError, Arguments};
use super::element::{ACTIVATIONS, Element, activation};
use super::primitives::{Share, Window};
use super::{BitCostRegister, CostError, Operand};

/// What a chain runs: the operand flows in, the next one comes out.
pub type Run = Box<dyn Fn(Operand, &mut BitCostRegister) -> Result<Operand, CostError>>;

/// A block that a chain can name.
pub struct Block {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    read: fn(&mut Arguments) -> Result<Run, ArgumentError>,
}

impl Block {
    /// Reads the options of the block.
    pub fn read(&self, arguments: &mut Arguments) -> Result<Run, ArgumentError> {
        (self.read)(arguments)
    }
}

/// Every block, composites first.
pub const BLOCKS: &[Block] = &[
    Block {
        name: "mlp",
        doc: "linear layers with an activation between them",
        read: |a| Ok(run(Mlp::read(a)?, mlp)),
    },
    Block {
        name: "gated_mlp",
        doc: "down(act(gate(x)) * up(x))",
        read: |a| Ok(run(GatedMlp::read(a)?, gated_mlp)),
    },
    Block {
        name: "attention",
        doc: "projections, scores, softmax, values, output projection",
        read: |a| Ok(run(Attention::read(a)?, attention)),
    },
    Block {
        name: "transformer",
        doc: "encoder block: attention and an MLP, each with its residual and a LayerNorm behind it; depth_multiplier=2, the original's, makes heads twice as deep as usual",
        read: |a| Ok(run(Transformer::read(a)?, transformer)),
    },
    Block {
        name: "decoder",
        doc: "decoder block: grouped-query attention with rotation and a gated MLP, each behind a norm and inside a residual",
        read: |a| Ok(run(Decoder::read(a)?, decoder)),
    },
    Block {
        name: "lstm",
        doc: "LSTM cell over all positions, each linear layer on input and state together; norm=true, the original's, adds a LayerNorm",
        read: |a| Ok(run(Lstm::read(a)?, lstm)),
    },
    Block {
        name: "gru",
        doc: "GRU cell over all positions, with separate layers for input and state",
        read: |a| Ok(run(Gru::read(a)?, gru)),
    },
    Block {
        name: "ssm",
        doc: "state space layer whose every matrix is computed from the input",
        read: |a| Ok(run(Ssm::read(a)?, ssm)),
    },
    Block {
        name: "mamba",
        doc: "the original's composition: expand, convolution over all channels, ssm, gate, output, residual, RMSNorm",
        read: |a| Ok(run(Mamba::read(a)?, mamba)),
    },
    Block {
        name: "selective",
        doc: "the mixer as published and as frameworks run it: depthwise convolution, low-rank step size, decays of their own",
        read: |a| Ok(run(Selective::read(a)?, selective)),
    },
    Block {
        name: "conv",
        doc: "convolution of an image, BatchNorm, activation",
        read: |a| Ok(run(Conv::read(a)?, conv)),
    },
    Block {
        name: "linear",
        doc: "a linear layer on the last side",
        read: |a| {
            let outputs = a.required("outputs")?;
            Ok(Box::new(move |x, register| {
                register.linear("linear", x, outputs, true)
            }))
        },
    },
    Block {
        name: "conv1d",
        doc: "a convolution of positions x channels",
        read: |a| {
            let how = convolution::read(a)?;
            Ok(Box::new(move |x, register| {
                register.conv1d("conv1d", x, how)
            }))
        },
    },
    Block {
        name: "conv2d",
        doc: "a convolution of channels x height x width",
        read: |a| {
            let how = convolution::read(a)?;
            Ok(Box::new(move |x, register| {
                register.conv2d("conv2d", x, how)
            }))
        },
    },
    Block {
        name: "embedding",
        doc: "a row of a table for each index",
        read: |a| {
            let (rows, features) = (a.required("rows")?, a.required("features")?);
            Ok(Box::new(move |x, register| {
                register.lookup("embedding", x, rows, features)
            }))
        },
    },
    Block {
        name: "layer_norm",
        doc: "LayerNorm over the last side",
        read: |_| Ok(Box::new(|x, register| register.layer_norm("layer_norm", x))),
    },
    Block {
        name: "rms_norm",
        doc: "RMSNorm over the last side",
        read: |_| Ok(Box::new(|x, register| register.rms_norm("rms_norm", x))),
    },
    Block {
        name: "batch_norm",
        doc: "BatchNorm of an image",
        read: |_| Ok(Box::new(|x, register| register.batch_norm("batch_norm", x))),
    },
    Block {
        name: "softmax",
        doc: "softmax over the last side",
        read: |_| Ok(Box::new(|x, register| register.softmax(x, Share::ALL))),
    },
    Block {
        name: "max_pool",
        doc: "the largest of each window of an image",
        read: |a| pool(a, Element::MaxPool),
    },
    Block {
        name: "avg_pool",
        doc: "the mean of each window of an image",
        read: |a| pool(a, Element::AvgPool),
    },
    Block {
        name: "global_pool",
        doc: "the mean of each channel of an image",
        read: |_| {
            Ok(Box::new(|x, register| {
                register.pool(Element::AvgPool, x, None)
            }))
        },
    },
    Block {
        name: "flatten",
        doc: "channels, height and width as features, which costs nothing",
        read: |_| {
            Ok(Box::new(|x, _| {
                let sides = x.shape.sides();
                let split = sides.len().saturating_sub(3);
                let features = sides[split..]
                    .iter()
                    .try_fold(1u64, |all, side| all.checked_mul(*side))
                    .ok_or(super::Fault::Overflow("the features"))?;
                Ok(x.reshape(&[&sides[..split], &[features]].concat())?)
            }))
        },
    },
];

/// The block of a name; an activation is one too.
pub fn find(name: &str) -> Option<Found> {
    if let Some(block) = BLOCKS.iter().find(|block| block.name == name) {
        return Some(Found::Block(block));
    }
    activation(name).map(Found::Activation)
}

/// What a name in a chain stands for.
pub enum Found {
    /// A block with options.
    Block(&'static Block),
    /// A pointwise function.
    Activation(Element),
}

impl Found {
    /// Reads the options, of which an activation has none.
    pub fn read(&self, arguments: &mut Arguments) -> Result<Run, ArgumentError> {
        match *self {
            Found::Block(block) => block.read(arguments),
            Found::Activation(element) => {
                Ok(Box::new(move |x, register| register.pointwise(element, x)))
            }
        }
    }
}

/// Every name that a chain may use.
pub fn names() -> impl Iterator<Item = &'static str> {
    let blocks = BLOCKS.iter().map(|block| block.name);
    blocks.chain(ACTIVATIONS.iter().map(|(name, _)| *name))
}

/// A block function with its options.
fn run<O: 'static>(
    options: O,
    block: fn(Operand, &O, &mut BitCostRegister) -> Result<Operand, CostError>,
) -> Run {
    Box::new(move |x, register| block(x, &options, register))
}

fn pool(a: &mut Arguments, element: Element) -> Result<Run, ArgumentError> {
    let kernel = a.size("kernel", 2)?;
    let stride = a.optional("stride", "kernel")?.unwrap_or(kernel);
    let padding = a.count("padding", 0)?;
    Ok(Box::new(move |x, register| {
        let window = Window {
            kernel,
            stride,
            padding,
        };
        register.pool(element, x, Some(window))
    }))
}
