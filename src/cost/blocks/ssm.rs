//! State space layers as the original composes them.

use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::element::Element;
use crate::cost::primitives::Convolution;
use crate::cost::{BitCostRegister, CostError, Fault, Operand};

/// Options of [`ssm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssm {
    /// Size of the state of a feature.
    pub state: u64,
}

impl Default for Ssm {
    fn default() -> Ssm {
        Ssm { state: 16 }
    }
}

impl Ssm {
    pub(super) fn read(a: &mut Arguments) -> Result<Ssm, ArgumentError> {
        Ok(Ssm {
            state: a.size("state", Ssm::default().state)?,
        })
    }
}

/// A, B and C of the state, D and the step size of the features, all from the input; a scan; a product with C; the skip D.
pub fn ssm(x: Operand, o: &Ssm, register: &mut BitCostRegister) -> Result<Operand, CostError> {
    let [outer @ .., positions, features] = x.shape.sides() else {
        return Err(Fault::rank(x.shape, "a state space layer needs positions x features").into());
    };
    let (positions, features) = (*positions, *features);
    let with = |operand: Operand, sides: [u64; 3]| operand.reshape(&[outer, &sides].concat());
    register.scope("ssm", |r| {
        let a = r.linear("a", x, o.state, true)?;
        let b = r.linear("b", x, o.state, true)?;
        let c = r.linear("c", x, o.state, true)?;
        let d = r.linear("d", x, features, true)?;
        let step = r.linear("delta", x, features, true)?;
        let step = r.sigmoid(step)?;
        let (a, b) = (
            with(a, [positions, 1, o.state])?,
            with(b, [positions, 1, o.state])?,
        );
        let c = with(c, [positions, o.state, 1])?;
        let step = with(step, [positions, features, 1])?;
        // How far the input moves the state at each position, and how much of the state is kept.
        let moved = r.mul(b, step)?;
        let moved = r.mul(moved, with(x, [positions, features, 1])?)?;
        let kept = r.mul(step, a)?;
        let states = r.scan(kept, moved)?;
        let y = r.matmul(states, c)?;
        let y = y.reshape(x.shape.sides())?;
        r.add(y, d)
    })
}

/// Options of [`mamba`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mamba {
    /// How many times wider the inside is.
    pub expand: u64,
    /// Taps of the convolution.
    pub patch: u64,
    /// What stands behind the convolution and the gate.
    pub act: Element,
    /// The layer inside.
    pub ssm: Ssm,
}

impl Default for Mamba {
    fn default() -> Mamba {
        Mamba {
            expand: 2,
            patch: 4,
            act: Element::Relu,
            ssm: Ssm::default(),
        }
    }
}

impl Mamba {
    pub(super) fn read(a: &mut Arguments) -> Result<Mamba, ArgumentError> {
        let usual = Mamba::default();
        Ok(Mamba {
            expand: a.size("expand", usual.expand)?,
            patch: a.size("patch", usual.patch)?,
            act: a.activation("act", usual.act)?,
            ssm: Ssm::read(a)?,
        })
    }
}

/// Input and gate, a convolution over all channels that keeps the positions, an activation and a norm, the state space
/// layer, the gate, the output, its residual and a norm.
pub fn mamba(x: Operand, o: &Mamba, register: &mut BitCostRegister) -> Result<Operand, CostError> {
    let features = x.shape.last();
    let inner = features.checked_mul(o.expand);
    let inner = inner.ok_or(Fault::Overflow("the features inside"))?;
    register.scope("mamba", |r| {
        let h = r.linear("input", x, inner, true)?;
        let convolution = Convolution {
            outputs: inner,
            kernel: o.patch,
            ..Convolution::default()
        };
        let h = r.conv1d("conv", h, convolution)?;
        let h = r.pointwise(o.act, h)?;
        let h = r.rms_norm("norm", h)?;
        let h = ssm(h, &o.ssm, r)?;
        let gate = r.linear("gate", x, inner, true)?;
        let gate = r.pointwise(o.act, gate)?;
        let h = r.mul(h, gate)?;
        let h = r.linear("output", h, features, true)?;
        let h = r.add(h, x)?;
        r.rms_norm("norm", h)
    })
}
