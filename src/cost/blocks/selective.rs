//! The selective state space mixer as it was published and as frameworks run it without a cache.

use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::element::Element;
use crate::cost::primitives::{Convolution, Share};
use crate::cost::{BitCostRegister, CostError, Fault, Operand};

/// Options of [`selective`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selective {
    /// Features inside; twice those that flow in for none.
    pub inner: Option<u64>,
    /// Size of the state of a feature.
    pub state: u64,
    /// Taps of the convolution.
    pub kernel: u64,
    /// Numbers that the step size is computed from; a sixteenth of the features for none.
    pub rank: Option<u64>,
    /// What stands behind the convolution and the gate.
    pub act: Element,
    /// Whether the convolution has a bias, and whether the projections in and out have.
    pub biased: (bool, bool),
}

impl Default for Selective {
    fn default() -> Selective {
        Selective {
            inner: None,
            state: 16,
            kernel: 4,
            rank: None,
            act: Element::Silu,
            biased: (true, false),
        }
    }
}

impl Selective {
    pub(super) fn read(a: &mut Arguments) -> Result<Selective, ArgumentError> {
        let usual = Selective::default();
        Ok(Selective {
            inner: a.optional("inner", "2 x features")?,
            state: a.size("state", usual.state)?,
            kernel: a.size("kernel", usual.kernel)?,
            rank: a.optional("rank", "features / 16")?,
            act: a.activation("act", usual.act)?,
            biased: (
                a.flag("conv_bias", usual.biased.0)?,
                a.flag("projection_bias", usual.biased.1)?,
            ),
        })
    }
}

/// Input and gate from one projection; a depthwise convolution padded on both sides, whose tail is cut off; step size and
/// directions from the input; decays of their own; a scan; a product with C; skip and gate; the output.
pub fn selective(
    x: Operand,
    o: &Selective,
    register: &mut BitCostRegister,
) -> Result<Operand, CostError> {
    let [outer @ .., positions, features] = x.shape.sides() else {
        return Err(Fault::rank(x.shape, "a state space layer needs positions x features").into());
    };
    let (positions, features) = (*positions, *features);
    let reach = o.kernel.checked_sub(1).ok_or(Fault::Zero("a kernel"))?;
    let too_many = || Fault::Overflow("the features inside");
    let inner = o.inner.or(features.checked_mul(2)).ok_or_else(too_many)?;
    let both = inner.checked_mul(2).ok_or_else(too_many)?;
    let rank = o.rank.unwrap_or(features.div_ceil(16));
    let directions = o.state.checked_mul(2).and_then(|n| n.checked_add(rank));
    let directions = directions.ok_or_else(too_many)?;
    let with = |operand: Operand, sides: &[u64]| -> Result<Operand, Fault> {
        Operand::new(&[outer, sides].concat(), operand.bits)
    };
    register.scope("selective", |r| {
        let projected = r.linear("in_proj", x, both, o.biased.1)?;
        let (mut h, gate) = (
            with(projected, &[positions, inner])?,
            with(projected, &[positions, inner])?,
        );
        // Fewer positions than taps are padded to as many before the convolution pads once more.
        if positions < o.kernel {
            h = r.pad(h, o.kernel - positions)?;
        }
        let length = positions.max(o.kernel);
        let convolution = Convolution {
            outputs: inner,
            kernel: o.kernel,
            padding: Some(reach),
            groups: inner,
            biased: o.biased.0,
            ..Convolution::default()
        };
        let h = r.conv1d("conv1d", h, convolution)?;
        let h = r.pointwise(o.act, with(h, &[length, inner])?)?;
        let h = with(h, &[positions, inner])?;

        let found = r.linear("x_proj", h, directions, false)?;
        let step = r.linear("dt_proj", with(found, &[positions, rank])?, inner, true)?;
        let step = r.pointwise(Element::Softplus, step)?;
        let decay = r.parameter("decay", &[inner, o.state])?;
        let decay = r.exp(decay)?;
        let decay = r.scale(decay, Share::ALL)?;
        let step = with(step, &[positions, inner, 1])?;
        let row = with(found, &[positions, 1, o.state])?;
        let kept = r.mul(step, decay)?;
        let kept = r.exp(kept)?;
        let moved = r.mul(step, row)?;
        let moved = r.mul(moved, with(h, &[positions, inner, 1])?)?;
        let states = r.scan(kept, moved)?;
        let y = r.matmul(states, with(found, &[positions, o.state, 1])?)?;
        let y = with(y, &[positions, inner])?;

        let skip = r.parameter("skip", &[inner])?;
        let skipped = r.mul(h, skip)?;
        let y = r.add(y, skipped)?;
        let gate = r.pointwise(o.act, gate)?;
        let y = r.mul(y, gate)?;
        r.linear("out_proj", y, features, o.biased.1)
    })
}
