//! The log of all operations, in nested scopes, with totals that are checked as they grow.
//!
//! - A **layer** is what is learned: inserted once under a unique id, with its storage in bits.
//! - An **operation** says what it took, what came out, and what that cost.
//! - A **scope** is a part of the whole with a name. One that repeats multiplies the operations in it, not the layers.
//!
//! The first thing of a name in its scope is called just so, the next `name_2`.

use super::element::{Element, Widths};
use super::operand::width;
use super::{CostError, Fault, Operand, Precision, Shape};
use crate::bops::{ACCUMULATOR_BITS, Bops, BopsKey, Multiplied};
use crate::formula::did_you_mean;
use crate::units;
use std::collections::HashMap;
use std::sync::Arc;

/// What becomes of the bias of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// Stored and not counted as work: the original's way.
    #[default]
    Stored,
    /// Stored and added, as frameworks do.
    Added,
    /// Not there.
    None,
}

/// The ways of a bias by name.
pub const BIAS: [(&str, Bias); 3] = [
    ("stored", Bias::Stored),
    ("added", Bias::Added),
    ("none", Bias::None),
];

impl Bias {
    /// Its name.
    pub fn name(self) -> &'static str {
        let found = BIAS.iter().find(|(_, bias)| *bias == self);
        found.map_or("", |(name, _)| name)
    }
}

impl Bias {
    /// Reads its name.
    pub fn parse(text: &str) -> Result<Bias, String> {
        let found = BIAS.iter().find(|(name, _)| *name == text);
        found.map(|(_, bias)| *bias).ok_or_else(|| {
            let names = BIAS.map(|(name, _)| name);
            format!(
                "`{}` is no way of a bias{}; there are {}",
                units::clipped(text, 40),
                did_you_mean(text, names),
                names.join(", ")
            )
        })
    }
}

/// The definitions of bit operations that need no data of weights.
pub const KEYS: [BopsKey; 5] = [
    BopsKey::Accum,
    BopsKey::Product,
    BopsKey::Density,
    BopsKey::Uniq,
    BopsKey::Psqs,
];

/// Reads the name of a definition of bit operations.
pub fn bops_key(text: &str) -> Result<BopsKey, String> {
    let found = KEYS.iter().find(|key| key.name() == text);
    found.copied().ok_or_else(|| {
        let names = KEYS.map(BopsKey::name);
        let text = units::clipped(text, 40);
        if BopsKey::ALL.iter().any(|(name, _)| *name == text) {
            return format!(
                "`{text}` counts what the data of weights says, as `bitcost compare` does; here the definitions are {}",
                names.join(", ")
            );
        }
        let hint = did_you_mean(&text, names);
        format!("`{text}` is no definition of bit operations{hint}; there are {}", names.join(", "))
    })
}

/// How things are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// The definition of bit operations.
    pub bops: BopsKey,
    /// What becomes of biases.
    pub bias: Bias,
    /// Precision of layers of which nothing else is said.
    pub precision: Precision,
    /// Width of accumulators, and so of what products give, of biases and of scales.
    pub accumulator_bits: u32,
}

impl Default for Conventions {
    fn default() -> Conventions {
        Conventions {
            bops: BopsKey::Accum,
            bias: Bias::default(),
            precision: Precision::default(),
            accumulator_bits: ACCUMULATOR_BITS,
        }
    }
}

/// What something costs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Totals {
    /// Learned numbers.
    pub params: u128,
    /// Bits that they take.
    pub storage_bits: u128,
    /// Multiply-accumulates of products and convolutions.
    pub macs: u128,
    /// FLOPs of elementwise work.
    pub elementwise: u128,
    /// Both: 2 for each MAC.
    pub flops: u128,
    /// Bit operations.
    pub bops: Bops,
    /// Those of products and convolutions.
    pub bops_of_macs: Bops,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals {
            params: 0,
            storage_bits: 0,
            macs: 0,
            elementwise: 0,
            flops: 0,
            bops: Bops::Whole(0),
            bops_of_macs: Bops::Whole(0),
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Totals) -> Option<()> {
        let sum = |a: &mut u128, b: u128| -> Option<()> {
            *a = a.checked_add(b)?;
            Some(())
        };
        sum(&mut self.params, other.params)?;
        sum(&mut self.storage_bits, other.storage_bits)?;
        sum(&mut self.macs, other.macs)?;
        sum(&mut self.elementwise, other.elementwise)?;
        sum(&mut self.flops, other.flops)?;
        self.bops = self.bops.checked_plus(other.bops)?;
        self.bops_of_macs = self.bops_of_macs.checked_plus(other.bops_of_macs)?;
        Some(())
    }
}

/// A part of the whole.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Names from the outside in, joined by dots; empty for the whole.
    pub path: Arc<str>,
    /// The scope around it.
    pub parent: Option<usize>,
    /// How often it runs, repetitions around it included.
    pub times: u128,
    /// All that is in it.
    pub totals: Totals,
}

/// What is learned.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its unique id.
    pub id: Arc<str>,
    /// What it is.
    pub kind: &'static str,
    /// The shape of its weight.
    pub shape: Shape,
    /// How that is held.
    pub precision: Precision,
    /// Whether it has a bias.
    pub biased: bool,
    /// Its numbers, bias included.
    pub params: u128,
    /// Bits that it takes: weights, masks, bias, scales.
    pub storage_bits: u128,
    /// Its MACs.
    pub macs: u128,
    /// Bit operations of the layer: its MACs, and what is done to its input and output.
    pub bops: Bops,
}

/// One line of the log; counts are those of all repetitions together.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The number of its scope.
    pub scope: usize,
    /// The number of its layer, if it belongs to one.
    pub layer: Option<usize>,
    /// What it is.
    pub name: &'static str,
    /// What it takes.
    pub left: Operand,
    /// What that meets.
    pub right: Option<Operand>,
    /// What comes out.
    pub result: Operand,
    /// Multiply-accumulates.
    pub macs: u128,
    /// FLOPs of elementwise work.
    pub elementwise: u128,
    /// Bit operations.
    pub bops: Bops,
}

impl Operation {
    /// 2 for each MAC, and elementwise work.
    pub fn flops(&self) -> u128 {
        2 * self.macs + self.elementwise
    }
}

/// The weights of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// What the layer is.
    pub kind: &'static str,
    /// The shape of its weight.
    pub shape: Shape,
    /// How many numbers its bias has; 0 for none.
    pub bias: u64,
    /// How it is held: none for numbers that are never quantized, such as gains.
    pub precision: Option<Precision>,
}

/// The log: primitives go in, totals come out.
#[derive(Clone, Debug)]
pub struct BitCostRegister {
    conventions: Conventions,
    scopes: Vec<Scope>,
    open: usize,
    layers: Vec<Layer>,
    operations: Vec<Operation>,
    /// How often each path was asked for.
    names: HashMap<Arc<str>, u32>,
}

impl BitCostRegister {
    /// An empty log.
    pub fn new(conventions: Conventions) -> BitCostRegister {
        let whole = Scope {
            path: "".into(),
            parent: None,
            times: 1,
            totals: Totals::default(),
        };
        BitCostRegister {
            conventions,
            scopes: vec![whole],
            open: 0,
            layers: Vec::new(),
            operations: Vec::new(),
            names: HashMap::new(),
        }
    }

    /// How things are counted here.
    pub fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    /// All of it; what is in a scope counts once the scope is closed.
    pub fn totals(&self) -> &Totals {
        &self.scopes[0].totals
    }

    /// Every scope, outer ones first; the first is the whole.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Every layer in order of insertion.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Every operation in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Runs something in a scope of its own.
    pub fn scope<T>(
        &mut self,
        name: &str,
        run: impl FnOnce(&mut Self) -> Result<T, CostError>,
    ) -> Result<T, CostError> {
        self.repeat(name, 1, run)
    }

    /// Runs something in a scope whose operations happen so many times.
    pub fn repeat<T>(
        &mut self,
        name: &str,
        times: u64,
        run: impl FnOnce(&mut Self) -> Result<T, CostError>,
    ) -> Result<T, CostError> {
        let around = self.open;
        let path = self.unique(name);
        let times = self.scopes[around].times.checked_mul(times.into());
        let times = times.ok_or_else(|| self.error(name, Fault::Overflow("the repetitions")))?;
        self.scopes.push(Scope {
            path,
            parent: Some(around),
            times,
            totals: Totals::default(),
        });
        self.open = self.scopes.len() - 1;
        let out = run(self);
        let closed = std::mem::replace(&mut self.open, around);
        let out = out?;
        let totals = self.scopes[closed].totals;
        self.account(name, &totals)?;
        Ok(out)
    }

    /// Runs something under other conventions for the precision of layers and their biases.
    pub fn with<T>(
        &mut self,
        precision: Option<Precision>,
        bias: Option<Bias>,
        run: impl FnOnce(&mut Self) -> Result<T, CostError>,
    ) -> Result<T, CostError> {
        let before = self.conventions;
        self.conventions.precision = precision.unwrap_or(before.precision);
        self.conventions.bias = bias.unwrap_or(before.bias);
        let out = run(self);
        self.conventions = before;
        out
    }

    /// Where something of a name would stand.
    fn path(&self, name: &str) -> String {
        match &*self.scopes[self.open].path {
            "" => name.into(),
            path => format!("{path}.{name}"),
        }
    }

    /// The name itself the first time it stands in a scope, then `name_2` and so on.
    fn unique(&mut self, name: &str) -> Arc<str> {
        let path: Arc<str> = self.path(name).into();
        let mut number = match self.names.get_mut(&path) {
            None => {
                self.names.insert(Arc::clone(&path), 1);
                return path;
            }
            Some(seen) => {
                *seen += 1;
                *seen
            }
        };
        // `name_2` may be taken by something that was called just so.
        loop {
            let id: Arc<str> = format!("{path}_{number}").into();
            if !self.names.contains_key(&id) {
                self.names.insert(Arc::clone(&id), 1);
                self.names.insert(path, number);
                return id;
            }
            number += 1;
        }
    }

    pub(super) fn error(&self, name: &str, fault: Fault) -> CostError {
        CostError {
            scope: self.path(name),
            fault,
        }
    }

    /// Adds to the scope that is open; the scopes around it take it up when it is closed.
    fn account(&mut self, name: &str, cost: &Totals) -> Result<(), CostError> {
        let added = self.scopes[self.open].totals.add(cost);
        added.ok_or_else(|| self.error(name, Fault::Overflow("the totals")))
    }

    /// Inserts what is learned, under a unique id.
    pub fn insert(&mut self, name: &str, weights: Weights) -> Result<usize, CostError> {
        let id = self.unique(name);
        let wide = u128::from(self.conventions.accumulator_bits);
        let stored_bias = match self.conventions.bias {
            Bias::None => 0,
            _ => u128::from(weights.bias),
        };
        let precision = weights.precision.unwrap_or(Precision::Dense {
            weight: self.conventions.accumulator_bits,
        });
        width(precision.weight_bits()).map_err(|fault| self.error(name, fault))?;
        let numbers = weights
            .shape
            .elements()
            .map_err(|fault| self.error(name, fault))?;
        let bits = || {
            let held = numbers.checked_mul(precision.stored_bits().into())?;
            let beside = (stored_bias + u128::from(precision.scales())).checked_mul(wide)?;
            Some((numbers.checked_add(stored_bias)?, held.checked_add(beside)?))
        };
        let (params, storage_bits) =
            bits().ok_or_else(|| self.error(name, Fault::Overflow("the bits of a layer")))?;
        self.account(
            name,
            &Totals {
                params,
                storage_bits,
                ..Totals::default()
            },
        )?;
        self.layers.push(Layer {
            id,
            kind: weights.kind,
            shape: weights.shape,
            precision,
            biased: stored_bias > 0,
            params,
            storage_bits,
            macs: 0,
            bops: Bops::Whole(0),
        });
        Ok(self.layers.len() - 1)
    }

    /// Logs an operation on its counts of one run.
    fn log(&mut self, operation: Operation) -> Result<Operand, CostError> {
        let name = operation.name;
        let times = self.scopes[self.open].times;
        let counted = || {
            let macs = operation.macs.checked_mul(times)?;
            let elementwise = operation.elementwise.checked_mul(times)?;
            let flops = macs.checked_mul(2)?.checked_add(elementwise)?;
            Some((macs, elementwise, flops, operation.bops.times(times)?))
        };
        let (macs, elementwise, flops, bops) =
            counted().ok_or_else(|| self.error(name, Fault::Overflow("its operations")))?;
        let bops_of_macs = if macs > 0 { bops } else { Bops::Whole(0) };
        self.account(
            name,
            &Totals {
                macs,
                elementwise,
                flops,
                bops,
                bops_of_macs,
                ..Totals::default()
            },
        )?;
        if let Some(layer) = operation.layer {
            // A layer may run in scopes that are not summed up yet.
            let so_far = &self.layers[layer];
            let sums = so_far.macs.checked_add(macs);
            let sums = sums.zip(so_far.bops.checked_plus(bops));
            let (macs, bops) =
                sums.ok_or_else(|| self.error(name, Fault::Overflow("the totals of a layer")))?;
            let layer = &mut self.layers[layer];
            (layer.macs, layer.bops) = (macs, bops);
        }
        let result = operation.result;
        self.operations.push(Operation {
            scope: self.open,
            macs,
            elementwise,
            bops,
            ..operation
        });
        Ok(result)
    }

    /// Logs multiply-accumulates. `share` of them, as numerator and denominator, is done.
    pub(super) fn multiplied(
        &mut self,
        (layer, name): (Option<usize>, &'static str),
        (left, right): (Operand, Operand),
        result: Shape,
        (macs, terms): (u128, u128),
        (kept, of): (u128, u128),
    ) -> Result<Operand, CostError> {
        let accumulator_bits = self.conventions.accumulator_bits;
        let key = self.conventions.bops;
        let counted = || {
            let (live, all) = (macs.checked_mul(kept)?, macs.checked_mul(of)?);
            // Pruned MACs are not run. UNIQ knows no pruning; Ps and Qs spares the products and not the sums.
            let (products, sums) = match key {
                BopsKey::Uniq => (all, all),
                BopsKey::Psqs => (live, all),
                _ => (live, live),
            };
            let multiplied = Multiplied {
                products,
                sums,
                terms: terms as f64,
                weight_bits: right.bits,
                activation_bits: left.bits,
                accumulator_bits,
            };
            Some(multiplied.bops(key)?.over(of))
        };
        let bops =
            counted().ok_or_else(|| self.error(name, Fault::Overflow("its bit operations")))?;
        let result = Operand {
            shape: result,
            bits: accumulator_bits,
        };
        self.log(Operation {
            scope: self.open,
            layer,
            name,
            left,
            right: Some(right),
            result,
            macs,
            elementwise: 0,
            bops,
        })
    }

    /// Logs an elementwise operation on so many elements, and on so many features of a norm.
    pub(super) fn elementwise(
        &mut self,
        (layer, name, element): (Option<usize>, &'static str, Element),
        (left, right): (Operand, Option<Operand>),
        result: Operand,
        (elements, features): (u128, u128),
    ) -> Result<Operand, CostError> {
        let widths = Widths {
            left: left.bits,
            right: right.map_or(left.bits, |operand| operand.bits),
            wide: self.conventions.accumulator_bits,
        };
        let counted = || {
            let flops = elements.checked_mul(element.flops())?;
            // The other definitions are of multiply-accumulates alone.
            if self.conventions.bops != BopsKey::Accum {
                return Some((flops, Bops::Whole(0)));
            }
            let of_features = features.checked_mul(element.bops_of_feature(widths))?;
            let of_elements = element.bops(widths).times(elements)?;
            Some((flops, of_elements.checked_plus(Bops::Whole(of_features))?))
        };
        let (elementwise, bops) =
            counted().ok_or_else(|| self.error(name, Fault::Overflow("its bit operations")))?;
        self.log(Operation {
            scope: self.open,
            layer,
            name,
            left,
            right,
            result,
            macs: 0,
            elementwise,
            bops,
        })
    }
}
