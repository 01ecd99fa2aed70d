//! From a config to a tree of modules, by the database alone.
//!
//! [`Model::load`] finds the root class of a config; [`Model::expand`] builds the frozen tree of [`Node`]s for one
//! [`Workload`]. Nothing here knows a model by name.
//!
//! - `scope.rs`: where a name in a formula comes from
//! - `shape.rs`: what flows between modules, and the primitives of `forward`
//! - `expand.rs`: the expansion: calls, children
//! - `lists.rs`: lists, and their equal items
//! - `forward.rs`: which children run, how often, on what
//! - `work.rs`: what a module does itself
//! - `node.rs`: its result
//! - `workload.rs`: what is asked
//! - `evaluate.rs`: one class under arguments, without a model
//! - `quantity.rs`: `{Class}(...)` inside a formula
//! - `explain.rs`: how a number came about

mod evaluate;
mod expand;
mod explain;
mod forward;
mod lists;
mod load;
mod node;
mod quantity;
mod scope;
mod shape;
mod work;
mod workload;

pub(crate) use evaluate::template_value;
pub use evaluate::{entry_of, expand_class};
pub use expand::{MAX_MODULES, MAX_NESTING};
pub use explain::{Step, explain_class, explain_module};
pub use load::{Asked, Model, ModelError, Tree, stub};
pub use node::{
    ExpertUse, Moved, Node, Status, Stored, Tensor, Tied, WeightRead, Work, path_below,
};
pub use quantity::Quantity;
pub(crate) use scope::Evaluator;
pub use scope::{RESERVED, Scope, WORKLOAD_NAMES};
pub(crate) use shape::{Arg, apply as apply_primitive};
pub use shape::{Flow, PRIMITIVES, Primitive};
pub(crate) use work::{find_tensor, operand_tensor};
pub use workload::{Phase, TERNARY_BITS, Widths, Workload};
