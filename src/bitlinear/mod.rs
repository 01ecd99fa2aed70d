//! A linear layer with weights in {-1, 0, 1} and 8-bit activations, from its training to its deployment.
//!
//! A layer has three lives, and each is a type:
//!
//! ```text
//! BitLinear           float weights. train(x) quantizes both sides for the product and gives a Pass,
//!    |   |            whose backward(..) gives gradients as if nothing had been quantized
//!    |   +- eval() --> Evaluating      codes, made once. It borrows the layer: weights cannot change
//!    |                                 while it lives, and its end drops the codes
//!    +---- deploy() -> PackedBitLinear codes, scales and bias alone; the float weights are gone
//! ```
//!
//! [`Evaluating`] is a [`PackedBitLinear`] with a lease, so both give the same bits: there is one forward.
//!
//! Weights that change while they are evaluated do not compile, and neither does a deployed layer that is trained:
//!
//! ```compile_fail,E0502
//! # use bitcost::{bitlinear::*, kernels::*, random::Random};
//! # let mut layer = BitLinear::new(4, 2, true, Init::default(), QuantConfig::default(), &mut Random::seeded(1))?;
//! let evaluating = layer.eval(Packing::Planes)?;
//! layer.weight_mut()[0] = 0.5;
//! evaluating.forward(&[1.0; 4], best(Packing::Planes, 1), &Pool::alone())?;
//! # Ok::<(), LayerError>(())
//! ```
//!
//! ```compile_fail,E0382
//! # use bitcost::{bitlinear::*, kernels::*, random::Random};
//! # let layer = BitLinear::new(4, 2, true, Init::default(), QuantConfig::default(), &mut Random::seeded(1))?;
//! let deployed = layer.deploy(Packing::Planes)?;
//! layer.train(&[1.0; 4])?;
//! # Ok::<(), LayerError>(())
//! ```
//!
//! In the order that is meant:
//!
//! ```
//! # use bitcost::{bitlinear::*, kernels::*, random::Random};
//! let mut layer = BitLinear::new(4, 2, true, Init::default(), QuantConfig::default(), &mut Random::seeded(1))?;
//! let pass = layer.train(&[1.0, -2.0, 0.5, 0.0])?;
//! let gradients = pass.backward(&[0.1, -0.1])?;
//! layer.weight_mut().iter_mut().zip(&gradients.weight).for_each(|(weight, gradient)| *weight -= 0.1 * gradient);
//! let (kernel, pool) = (best(Packing::Planes, 1), Pool::alone());
//! let evaluated = layer.eval(Packing::Planes)?.forward(&[1.0; 4], kernel, &pool)?;
//! let deployed = layer.deploy(Packing::Planes)?;
//! assert_eq!(deployed.forward(&[1.0; 4], kernel, &pool)?, evaluated);
//! # Ok::<(), LayerError>(())
//! ```
//!
//! - `ternary.rs`: float weights to codes and scales
//! - `dequantize.rs`: what a stored scale means, and numbers from sums of codes
//! - `config.rs`: what shares a scale, by the names that configs use
//! - `init.rs`: the weights that training begins with
//! - `layer.rs`: the layer as it is trained
//! - `product.rs`: products of float matrices, for training
//! - `packed.rs`: the layer as it is deployed
//! - `stored.rs`: its codes and scale as files have them
//! - `error.rs`: why a layer cannot be made or run

mod config;
mod dequantize;
mod error;
mod init;
mod layer;
mod packed;
mod product;
mod stored;
mod ternary;

pub use config::{ActivationDtype, QuantConfig, WeightGranularity};
pub use dequantize::{Dequantization, Multipliers};
pub use error::LayerError;
pub use init::Init;
pub use layer::{BitLinear, Evaluating, Gradients, Pass};
pub use packed::PackedBitLinear;
pub use stored::{StoredCodes, StoredError};
pub use ternary::{ABSMEAN_FLOOR, AbsMean, NotFinite, Ternary, codes};
