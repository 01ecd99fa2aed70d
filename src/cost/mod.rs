//! What blocks cost bit by bit, operation by operation: the second derivation of every number, made without the database.
//!
//! An [`Operand`] is a shape with a width. A [`BitCostRegister`] has a method for every primitive; each logs what it did and
//! returns the operand that comes out. A block is a plain function that takes operands and the register and returns an
//! operand, so whatever returns one can stand inside another.
//!
//! ```
//! use bitcost::cost::blocks::{self, Mlp, Transformer};
//! use bitcost::cost::{BitCostRegister, Conventions, Operand};
//!
//! let mut register = BitCostRegister::new(Conventions::default());
//! let x = Operand::new(&[128, 32], 32)?;
//! let y = blocks::mlp(x, &Mlp { hiddens: vec![64, 64], ..Mlp::default() }, &mut register)?;
//! blocks::transformer(y, &Transformer { heads: 4, ..Transformer::default() }, &mut register)?;
//! let totals = register.totals();
//! assert_eq!(totals.bops.to_string(), "5451612160");
//! assert_eq!(totals.storage_bits, 624_896);
//! # Ok::<(), bitcost::cost::CostError>(())
//! ```
//!
//! - `operand.rs`: shapes, widths, and what changes one without costing anything
//! - `precision.rs`: how the weights of a layer are held and multiplied
//! - `element.rs`: what one element of an elementwise operation costs: a table
//! - `register.rs`: the log, its scopes and totals; `primitives.rs`: one method per operation
//! - `blocks/`: composites, one file per family, and the table of all that can be named
//! - `chain.rs`: blocks written as text or JSON; `arguments.rs`: what stands in their parentheses

mod arguments;
pub mod blocks;
mod chain;
mod element;
mod error;
mod operand;
mod precision;
mod primitives;
mod register;

pub use arguments::{ArgumentError, Arguments, Asked};
pub use chain::{Chain, ChainError, ChainFile, MAX_BLOCKS, options};
pub use element::{ACTIVATIONS, Element, Widths, activation};
pub use error::{CostError, Fault};
pub use operand::{MAX_RANK, Operand, Shape};
pub use precision::{Precision, Pruned};
pub use primitives::{Convolution, Share, Window};
pub use register::{
    BIAS, Bias, BitCostRegister, Conventions, KEYS, Layer, Operation, Scope, Totals, Weights,
    bops_key,
};
