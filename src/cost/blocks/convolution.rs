//! Convolutions of images.

use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::element::Element;
use crate::cost::primitives::Convolution;
use crate::cost::{BitCostRegister, CostError, Operand};

/// Options of [`conv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// The convolution; its bias is left out where a norm follows.
    pub convolution: Convolution,
    /// Whether a BatchNorm follows.
    pub norm: bool,
    /// What stands behind it.
    pub act: Element,
}

/// How a convolution is written.
pub(super) fn read(a: &mut Arguments) -> Result<Convolution, ArgumentError> {
    let usual = Convolution::default();
    Ok(Convolution {
        outputs: a.required("outputs")?,
        kernel: a.size("kernel", usual.kernel)?,
        stride: a.size("stride", usual.stride)?,
        padding: a.optional_count("padding", "as many as keep the size")?,
        dilation: a.size("dilation", usual.dilation)?,
        groups: a.size("groups", usual.groups)?,
        biased: true,
    })
}

impl Conv {
    pub(super) fn read(a: &mut Arguments) -> Result<Conv, ArgumentError> {
        let convolution = read(a)?;
        let norm = a.flag("norm", true)?;
        Ok(Conv {
            convolution: Convolution {
                biased: !norm,
                ..convolution
            },
            norm,
            act: a.activation("act", Element::Relu)?,
        })
    }
}

/// A convolution, its norm, an activation.
pub fn conv(x: Operand, o: &Conv, register: &mut BitCostRegister) -> Result<Operand, CostError> {
    register.scope("conv", |r| {
        let mut h = r.conv2d("conv2d", x, o.convolution)?;
        if o.norm {
            h = r.batch_norm("norm", h)?;
        }
        r.pointwise(o.act, h)
    })
}
