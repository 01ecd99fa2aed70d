//! Feed-forward blocks.

use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::element::Element;
use crate::cost::{BitCostRegister, CostError, Operand};

/// Options of [`mlp`].
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// Features between the layers.
    pub hiddens: Vec<u64>,
    /// Features that come out; as many as go in for none.
    pub outputs: Option<u64>,
    /// What stands between the layers.
    pub act: Element,
}

impl Default for Mlp {
    fn default() -> Mlp {
        Mlp {
            hiddens: vec![40],
            outputs: None,
            act: Element::Relu,
        }
    }
}

impl Mlp {
    pub(super) fn read(a: &mut Arguments) -> Result<Mlp, ArgumentError> {
        let usual = Mlp::default();
        Ok(Mlp {
            hiddens: a.sizes("hiddens", &usual.hiddens)?,
            outputs: a.optional("outputs", "as many as go in")?,
            act: a.activation("act", usual.act)?,
        })
    }
}

/// Linear layers with an activation behind each but the last.
pub fn mlp(x: Operand, o: &Mlp, register: &mut BitCostRegister) -> Result<Operand, CostError> {
    let outputs = o.outputs.unwrap_or(x.shape.last());
    register.scope("mlp", |r| {
        let mut h = x;
        for &features in &o.hiddens {
            h = r.linear("layer", h, features, true)?;
            h = r.pointwise(o.act, h)?;
        }
        r.linear("layer", h, outputs, true)
    })
}

/// Options of [`gated_mlp`].
#[derive(Clone, Debug, PartialEq)]
pub struct GatedMlp {
    /// Features in between; four times those that go in for none.
    pub hidden: Option<u64>,
    /// What the gate goes through.
    pub act: Element,
    /// Whether the layers have biases.
    pub biased: bool,
}

impl Default for GatedMlp {
    fn default() -> GatedMlp {
        GatedMlp {
            hidden: None,
            act: Element::Silu,
            biased: false,
        }
    }
}

impl GatedMlp {
    pub(super) fn read(a: &mut Arguments) -> Result<GatedMlp, ArgumentError> {
        let usual = GatedMlp::default();
        Ok(GatedMlp {
            hidden: a.optional("hidden", "4 x features")?,
            act: a.activation("act", usual.act)?,
            biased: a.flag("mlp_bias", usual.biased)?,
        })
    }
}

/// `down(act(gate(x)) * up(x))`.
pub fn gated_mlp(
    x: Operand,
    o: &GatedMlp,
    register: &mut BitCostRegister,
) -> Result<Operand, CostError> {
    let features = x.shape.last();
    let hidden = o.hidden.unwrap_or(features.saturating_mul(4));
    register.scope("gated_mlp", |r| {
        let gate = r.linear("gate", x, hidden, o.biased)?;
        let gate = r.pointwise(o.act, gate)?;
        let up = r.linear("up", x, hidden, o.biased)?;
        let h = r.mul(gate, up)?;
        r.linear("down", h, features, o.biased)
    })
}
