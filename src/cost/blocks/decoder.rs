//! The decoder block of today's language models.

use super::attention::{Attention, attend};
use super::mlp::{GatedMlp, Mlp, gated_mlp, mlp};
use super::transformer::checked_features;
use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::{BitCostRegister, CostError, Operand};

/// Options of [`decoder`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// Features that flow in, which are checked; any for none.
    pub model_dim: Option<u64>,
    /// Its attention.
    pub attention: Attention,
    /// Its MLP.
    pub mlp: GatedMlp,
    /// Whether the MLP has a gate.
    pub gated: bool,
    /// Whether its norms are LayerNorms instead of RMSNorms.
    pub layer_norm: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            model_dim: None,
            attention: Attention {
                rope: true,
                biased: false,
                ..Attention::default()
            },
            mlp: GatedMlp::default(),
            gated: true,
            layer_norm: false,
        }
    }
}

impl Decoder {
    pub(super) fn read(a: &mut Arguments) -> Result<Decoder, ArgumentError> {
        let usual = Decoder::default();
        Ok(Decoder {
            model_dim: a.optional("model_dim", "features")?,
            attention: Attention::read_with(a, &usual.attention)?,
            mlp: GatedMlp::read(a)?,
            gated: a.flag("gated", usual.gated)?,
            layer_norm: a.choice("norm", "rms", &["rms", "layer"])? == "layer",
        })
    }
}

/// `h = x + attention(norm(x))`, then `h + mlp(norm(h))`.
pub fn decoder(
    x: Operand,
    o: &Decoder,
    register: &mut BitCostRegister,
) -> Result<Operand, CostError> {
    let features = checked_features(x, o.model_dim)?;
    let heads = o.attention.heads(features)?;
    let norm = |r: &mut BitCostRegister, x| {
        if o.layer_norm {
            r.layer_norm("norm", x)
        } else {
            r.rms_norm("norm", x)
        }
    };
    register.scope("decoder", |r| {
        let h = norm(r, x)?;
        let h = r.scope("attention", |r| attend(h, heads, r))?;
        let x = r.add(x, h)?;
        let h = norm(r, x)?;
        let h = if o.gated {
            gated_mlp(h, &o.mlp, r)?
        } else {
            let plain = Mlp {
                hiddens: vec![o.mlp.hidden.unwrap_or(features.saturating_mul(4))],
                outputs: None,
                act: o.mlp.act,
            };
            mlp(h, &plain, r)?
        };
        r.add(x, h)
    })
}
