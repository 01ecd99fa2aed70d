//! The formula language of the module database.
//!
//! A string goes in ([`Formula::parse`]), an exact [`Value`](crate::value::Value) comes out ([`eval()`]). The language
//! knows no model: names and modules are looked up through [`Names`], which the layers above implement.
//!
//! ```text
//! formula   = or [ "if" or "else" formula ]
//! or        = and { "or" and }          and = not { "and" not }          not = [ "not" ] compare
//! compare   = sum [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in" | "is" | "is" "not" ) sum ]
//! sum       = term { ( "+" | "-" ) term }
//! term      = unary { ( "*" | "/" | "//" | "%" ) unary }
//! unary     = [ "-" ] unary | power     power = postfix [ "**" unary ]
//! postfix   = atom { "[" formula "]" | "." key }
//! atom      = integer | decimal | 'string' | "True" | "False" | "None" | name | "${" name "}"
//!           | name "(" arguments ")" | "{" Class "}" "(" arguments ")" | "(" formula ")" | list
//! arguments = [ argument { "," argument } ]                              argument = [ name "=" ] formula
//! list      = "[" [ formula { "," formula } ] "]"
//!           | "[" formula "for" name { "," name } "in" formula "]"       an integer n after "in" means 0 .. n-1
//! statement = [ name "=" ] formula                                       (of a `forward`)
//! ```
//!
//! Precedence is Python's. `${hidden_size}` and `hidden_size` are the same thing. `and`, `or` and `if` do not evaluate
//! the side they do not need. `x[-1]` counts from the end. `/` is exact, `//` rounds down, decimals are ratios.
//! `{Class}(...)` is the asked-for quantity of another entry (in `children`: the child itself). Named arguments are for
//! modules only. What a `name(...)` means in a `forward` (a child, a primitive) is decided in [`crate::model`]; in every
//! other formula it is one of [`functions::FUNCTIONS`].
//!
//! **Nothing is ever silently 0**: an unknown name, a wrong type, an overflow or a division by zero is an error with a
//! column. **Nothing runs for ever**: length, depth, list length and steps are bounded by named limits.

mod ast;
mod eval;
pub mod functions;
mod lex;
mod parse;
mod suggest;

pub use ast::{Binary, Compare, Expr, For, Formula, Kind, Module as ModuleCall, Statement};
pub use eval::{Budget, EvalError, EvalErrorKind, Names, eval};
pub(crate) use eval::{bind, items_of};
pub use lex::{Expect, SyntaxError};
pub use suggest::{did_you_mean, nearest};

/// Longest formula in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;
/// Deepest nesting of a formula.
pub const MAX_DEPTH: usize = 64;
/// Most levels of a syntax tree: nesting and the length of chains such as `1 + 1 + ..` together.
pub const MAX_HEIGHT: usize = 160;
pub use crate::value::MAX_ITEMS;
/// Most list items that one analysis makes.
pub const MAX_ITEMS_TOTAL: u64 = 2_000_000;
/// Deepest chain of names that are defined by names.
pub const MAX_LOOKUPS: usize = 100;
/// Most evaluation steps of one analysis.
pub const MAX_STEPS: u64 = 5_000_000;
