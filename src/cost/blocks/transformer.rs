//! The encoder block, as the original composes it.

use super::attention::{Heads, attend};
use super::mlp::{Mlp, mlp};
use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::{BitCostRegister, CostError, Fault, Operand};
use crate::value::Value;

/// Options of [`transformer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Transformer {
    /// Features that flow in, which are checked; any for none.
    pub model_dim: Option<u64>,
    /// Heads.
    pub heads: u64,
    /// How many times features / heads a head is deep, rounded up: 2 in the original, 1 in frameworks.
    pub depth_multiplier: Value,
    /// The MLP, which gives as many features as go in.
    pub mlp: Mlp,
}

impl Default for Transformer {
    fn default() -> Transformer {
        Transformer {
            model_dim: None,
            heads: 4,
            depth_multiplier: Value::Int(2),
            mlp: Mlp::default(),
        }
    }
}

impl Transformer {
    pub(super) fn read(a: &mut Arguments) -> Result<Transformer, ArgumentError> {
        let usual = Transformer::default();
        Ok(Transformer {
            model_dim: a.optional("model_dim", "features")?,
            heads: a.size("heads", usual.heads)?,
            depth_multiplier: a.number("depth_multiplier", 2)?,
            mlp: Mlp {
                hiddens: a.sizes("hiddens", &usual.mlp.hiddens)?,
                outputs: None,
                act: a.activation("act", usual.mlp.act)?,
            },
        })
    }

    /// `ceil(features / heads * multiplier)`.
    fn depth(&self, features: u64) -> Result<u64, Fault> {
        if self.heads == 0 {
            return Err(Fault::Zero("heads"));
        }
        if !features.is_multiple_of(self.heads) {
            return Err(Fault::Divides {
                what: "model_dim",
                size: features,
                parts_of: "heads",
                parts: self.heads,
            });
        }
        let whole = |n: u64| Value::Int(n.into());
        let depth = Value::div(&whole(features), &whole(self.heads))
            .and_then(|depth| Value::mul(&depth, &self.depth_multiplier));
        let depth = depth.ok().and_then(|depth| depth.ceil());
        let depth = depth.and_then(|depth| u64::try_from(depth).ok());
        depth.ok_or(Fault::Overflow("the features of a head"))
    }
}

/// Checks that as many features flow in as an option says.
pub(super) fn checked_features(x: Operand, model_dim: Option<u64>) -> Result<u64, Fault> {
    let features = x.shape.last();
    match model_dim {
        Some(wanted) if wanted != features => Err(Fault::shapes(
            x.shape,
            x.shape.with_last(&[wanted])?,
            format!("model_dim is {wanted}, and {features} features flow in"),
        )),
        _ => Ok(features),
    }
}

/// Attention and an MLP, each with its residual and a LayerNorm behind it. Heads see all positions.
pub fn transformer(
    x: Operand,
    o: &Transformer,
    register: &mut BitCostRegister,
) -> Result<Operand, CostError> {
    let features = checked_features(x, o.model_dim)?;
    let heads = Heads {
        queries: o.heads,
        keys: o.heads,
        depth: o.depth(features)?,
        past: 0,
        causal: false,
        rope: false,
        biased: (true, true),
    };
    let inner = Mlp {
        outputs: Some(features),
        ..o.mlp.clone()
    };
    register.scope("transformer", |r| {
        let attended = r.scope("attention", |r| attend(x, heads, r))?;
        let h = r.add(x, attended)?;
        let h = r.layer_norm("norm", h)?;
        let out = mlp(h, &inner, r)?;
        let out = r.add(h, out)?;
        r.layer_norm("norm", out)
    })
}
