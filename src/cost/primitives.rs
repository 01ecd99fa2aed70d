//! One method of the register for every primitive: operands in, a line of the log, the operand that comes out.
//!
//! Layers are held by the register's precision; gains, shifts and parameters are as wide as accumulators.
//! Sequences are `[.., positions, features]`, images `[.., channels, height, width]`; sides before those are a batch.

use super::element::Element;
use super::operand::width;
use super::register::{Bias, BitCostRegister, Weights};
use super::{CostError, Fault, Operand, Shape};

/// The part of a product that a mask leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// So many pairs
    pub kept: u128,
    /// of so many.
    pub of: u128,
}

impl Share {
    /// All pairs.
    pub const ALL: Share = Share { kept: 1, of: 1 };

    fn part(self, whole: u128) -> Option<u128> {
        whole.checked_mul(self.kept)?.checked_div(self.of)
    }
}

/// How a convolution goes over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Output channels.
    pub outputs: u64,
    /// Side of the kernel.
    pub kernel: u64,
    /// Step.
    pub stride: u64,
    /// Zeros on each side; none asks for as many as keep the size at a step of 1.
    pub padding: Option<u64>,
    /// Distance of the kernel's taps.
    pub dilation: u64,
    /// Groups of channels.
    pub groups: u64,
    /// Whether it has a bias.
    pub biased: bool,
}

impl Default for Convolution {
    fn default() -> Convolution {
        Convolution {
            outputs: 1,
            kernel: 3,
            stride: 1,
            padding: None,
            dilation: 1,
            groups: 1,
            biased: true,
        }
    }
}

/// A window of a pooling, which goes over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the window.
    pub kernel: u64,
    /// Step.
    pub stride: u64,
    /// Zeros on each side.
    pub padding: u64,
}

impl Convolution {
    /// How many positions a side of the input gives.
    fn positions(&self, side: u64) -> Result<u64, Fault> {
        if self.stride == 0 {
            return Err(Fault::Zero("a stride"));
        }
        let wide = Fault::Overflow("the positions of a window");
        let reach = self
            .kernel
            .checked_sub(1)
            .ok_or(Fault::Zero("a kernel"))?
            .checked_mul(self.dilation)
            .ok_or(wide.clone())?;
        let Some(padding) = self.padding else {
            return Ok(side.div_ceil(self.stride));
        };
        let padded = padding
            .checked_mul(2)
            .and_then(|both| both.checked_add(side))
            .ok_or(wide)?;
        let room = padded
            .checked_sub(1)
            .and_then(|last| last.checked_sub(reach));
        let room = room.ok_or_else(|| {
            Fault::Invalid(format!(
                "a kernel that reaches over {} does not fit into {padded} positions, padding included",
                reach.saturating_add(1)
            ))
        })?;
        Ok(room / self.stride + 1)
    }
}

impl BitCostRegister {
    fn at<T>(&self, name: &str, result: Result<T, Fault>) -> Result<T, CostError> {
        result.map_err(|fault| self.error(name, fault))
    }

    fn fits(&self, name: &str, number: Option<u128>) -> Result<u128, CostError> {
        self.at(name, number.ok_or(Fault::Overflow("its operations")))
    }

    /// What a layer does to its input: it quantizes it, multiplies, scales back, adds the bias, each where it has to.
    fn weighted(
        &mut self,
        (layer, name): (usize, &'static str),
        x: Operand,
        result: Shape,
        (macs, terms): (u128, u128),
    ) -> Result<Operand, CostError> {
        let (shape, precision, biased) = {
            let layer = &self.layers()[layer];
            (layer.shape, layer.precision, layer.biased)
        };
        let x = match precision.input_bits() {
            Some(bits) => self.requantized(Some(layer), x, bits)?,
            None => x,
        };
        let weight = Operand {
            shape,
            bits: precision.weight_bits(),
        };
        let of = (Some(layer), name);
        let mut y = self.multiplied(of, (x, weight), result, (macs, terms), precision.kept())?;
        if precision.scales() > 0 {
            y = self.one(Some(layer), Element::Rescale, y)?;
        }
        if biased && self.conventions().bias == Bias::Added {
            y = self.one(Some(layer), Element::Bias, y)?;
        }
        Ok(y)
    }

    fn requantized(
        &mut self,
        layer: Option<usize>,
        x: Operand,
        bits: u32,
    ) -> Result<Operand, CostError> {
        let bits = self.at("quantize", width(bits))?;
        self.one(layer, Element::Quantize, x)?;
        Ok(Operand { bits, ..x })
    }

    /// An operation on each element of one operand.
    fn one(
        &mut self,
        layer: Option<usize>,
        element: Element,
        x: Operand,
    ) -> Result<Operand, CostError> {
        let elements = self.at(element.name(), x.elements())?;
        self.elementwise(
            (layer, element.name(), element),
            (x, None),
            x,
            (elements, 0),
        )
    }

    /// An operation on the elements of two operands, as wide as the wider of them.
    fn two(&mut self, element: Element, a: Operand, b: Operand) -> Result<Operand, CostError> {
        let shape = self.at(element.name(), a.shape.broadcast(&b.shape))?;
        let elements = self.at(element.name(), shape.elements())?;
        let result = Operand {
            shape,
            bits: a.bits.max(b.bits),
        };
        let of = (None, element.name(), element);
        self.elementwise(of, (a, Some(b)), result, (elements, 0))
    }

    /// A linear layer of its own, which is inserted and run.
    pub fn linear(
        &mut self,
        name: &str,
        x: Operand,
        outputs: u64,
        biased: bool,
    ) -> Result<Operand, CostError> {
        let layer = self.insert_linear(name, x.shape.last(), outputs, biased)?;
        self.run_linear(layer, x)
    }

    /// Inserts a linear layer, which may run several times, as tied ones do.
    pub fn insert_linear(
        &mut self,
        name: &str,
        inputs: u64,
        outputs: u64,
        biased: bool,
    ) -> Result<usize, CostError> {
        let shape = self.at(name, Shape::new(&[inputs, outputs]))?;
        self.insert(
            name,
            Weights {
                kind: "linear",
                shape,
                bias: if biased { outputs } else { 0 },
                precision: Some(self.conventions().precision),
            },
        )
    }

    /// Runs a linear layer on the last side.
    pub fn run_linear(&mut self, layer: usize, x: Operand) -> Result<Operand, CostError> {
        let weight = self.layers()[layer].shape;
        let &[inputs, outputs] = weight.sides() else {
            return self.at(
                "linear",
                Err(Fault::rank(
                    weight,
                    "the weight of a linear layer has two sides",
                )),
            );
        };
        if x.shape.last() != inputs {
            let need = format!("the layer takes {inputs} features");
            return self.at("linear", Err(Fault::shapes(x.shape, weight, need)));
        }
        let result = self.at("linear", x.shape.with_last(&[outputs]))?;
        let elements = self.at("linear", x.elements())?;
        let macs = self.fits("linear", elements.checked_mul(outputs.into()))?;
        self.weighted((layer, "linear"), x, result, (macs, inputs.into()))
    }

    /// A convolution of sequences `[.., positions, channels]`.
    pub fn conv1d(
        &mut self,
        name: &str,
        x: Operand,
        how: Convolution,
    ) -> Result<Operand, CostError> {
        let &[.., length, channels] = x.shape.sides() else {
            let need = "a convolution of sequences takes positions x channels";
            return self.at(name, Err(Fault::rank(x.shape, need)));
        };
        let positions = self.at(name, how.positions(length))?;
        let result = self.at(name, x.shape.with_last(&[positions, how.outputs]))?;
        let kernel = (&[how.kernel][..], "conv1d");
        self.convolved(name, x, channels, how, result, kernel)
    }

    /// A convolution of images `[.., channels, height, width]`.
    pub fn conv2d(
        &mut self,
        name: &str,
        x: Operand,
        how: Convolution,
    ) -> Result<Operand, CostError> {
        let [channels, height, width] = self.image(name, x)?;
        let sides = [
            how.outputs,
            self.at(name, how.positions(height))?,
            self.at(name, how.positions(width))?,
        ];
        let result = self.at(name, x.shape.with_last(&sides))?;
        let kernel = (&[how.kernel, how.kernel][..], "conv2d");
        self.convolved(name, x, channels, how, result, kernel)
    }

    fn image(&self, name: &str, x: Operand) -> Result<[u64; 3], CostError> {
        match x.shape.sides() {
            &[.., channels, height, width] => Ok([channels, height, width]),
            _ => self.at(
                name,
                Err(Fault::rank(
                    x.shape,
                    "an image has channels x height x width",
                )),
            ),
        }
    }

    fn convolved(
        &mut self,
        name: &str,
        x: Operand,
        channels: u64,
        how: Convolution,
        result: Shape,
        (kernel, kind): (&[u64], &'static str),
    ) -> Result<Operand, CostError> {
        for (what, size) in [
            ("input channels", channels),
            ("output channels", how.outputs),
        ] {
            if how.groups == 0 {
                return self.at(name, Err(Fault::Zero("groups")));
            }
            if !size.is_multiple_of(how.groups) {
                return self.at(
                    name,
                    Err(Fault::Divides {
                        what,
                        size,
                        parts_of: "groups",
                        parts: how.groups,
                    }),
                );
            }
        }
        let inputs = channels / how.groups;
        let shape = self.at(name, Shape::new(&[&[how.outputs, inputs], kernel].concat()))?;
        let layer = self.insert(
            name,
            Weights {
                kind,
                shape,
                bias: if how.biased { how.outputs } else { 0 },
                precision: Some(self.conventions().precision),
            },
        )?;
        let terms = self.at(name, Shape::new(&[&[inputs], kernel].concat()))?;
        let terms = self.at(name, terms.elements())?;
        let outputs = self.at(name, result.elements())?;
        let macs = self.fits(name, outputs.checked_mul(terms))?;
        self.weighted((layer, kind), x, result, (macs, terms))
    }

    /// A product of two operands: `[.., m, k]` by `[.., k, n]`; a vector counts as one row.
    pub fn matmul(&mut self, a: Operand, b: Operand) -> Result<Operand, CostError> {
        self.matmul_share(a, b, Share::ALL)
    }

    /// The part of a product that a mask leaves.
    pub fn matmul_share(
        &mut self,
        a: Operand,
        b: Operand,
        share: Share,
    ) -> Result<Operand, CostError> {
        let misfit = |need: &str| Fault::shapes(a.shape, b.shape, need);
        let &[.., rows, inner] = &[&[1], a.shape.sides()].concat()[..] else {
            return self.at("matmul", Err(misfit("a product needs two sides")));
        };
        let &[.., other, columns] = b.shape.sides() else {
            return self.at(
                "matmul",
                Err(misfit("the right of a product needs two sides")),
            );
        };
        if inner != other {
            let need = format!("the inner sides of a product are equal, not {inner} and {other}");
            return self.at("matmul", Err(misfit(&need)));
        }
        let product = || -> Result<Shape, Fault> {
            let left = match a.shape.sides() {
                [_] => Shape::new(&[1, columns])?,
                _ => a.shape.with_last(&[rows, columns])?,
            };
            let right = b.shape.with_last(&[1, 1])?;
            let whole = left.broadcast(&right)?;
            match (a.shape.sides(), whole.sides()) {
                ([_], [1, columns]) => Shape::new(&[*columns]),
                _ => Ok(whole),
            }
        };
        let result = self.at(
            "matmul",
            product().map_err(|_| misfit("the sides before the last two have to be equal or 1")),
        )?;
        let outputs = self.at("matmul", result.elements())?;
        let macs = outputs
            .checked_mul(inner.into())
            .and_then(|all| share.part(all));
        let macs = self.fits("matmul", macs)?;
        self.multiplied(
            (None, "matmul"),
            (a, b),
            result,
            (macs, inner.into()),
            (1, 1),
        )
    }

    /// A sum, sides broadcast.
    pub fn add(&mut self, a: Operand, b: Operand) -> Result<Operand, CostError> {
        self.two(Element::Add, a, b)
    }

    /// A difference, sides broadcast.
    pub fn sub(&mut self, a: Operand, b: Operand) -> Result<Operand, CostError> {
        self.two(Element::Sub, a, b)
    }

    /// A product of elements, sides broadcast.
    pub fn mul(&mut self, a: Operand, b: Operand) -> Result<Operand, CostError> {
        self.two(Element::Mul, a, b)
    }

    /// A product with one number, or a gain per feature.
    pub fn scale(&mut self, x: Operand, share: Share) -> Result<Operand, CostError> {
        self.part(Element::Scale, x, share)
    }

    /// Softmax over the last side.
    pub fn softmax(&mut self, x: Operand, share: Share) -> Result<Operand, CostError> {
        self.part(Element::Softmax, x, share)
    }

    fn part(&mut self, element: Element, x: Operand, share: Share) -> Result<Operand, CostError> {
        let elements = self.at(element.name(), x.elements())?;
        let elements = self.fits(element.name(), share.part(elements))?;
        let of = (None, element.name(), element);
        self.elementwise(of, (x, None), x, (elements, 0))
    }

    /// A pointwise function: relu, sigmoid, exp, a power, ..
    pub fn pointwise(&mut self, element: Element, x: Operand) -> Result<Operand, CostError> {
        self.one(None, element, x)
    }

    /// `e ** x`.
    pub fn exp(&mut self, x: Operand) -> Result<Operand, CostError> {
        self.one(None, Element::Exp, x)
    }

    /// `x ** n`, for n of 1 or more.
    pub fn pow(&mut self, x: Operand, exponent: u32) -> Result<Operand, CostError> {
        if exponent == 0 {
            return self.at("pow", Err(Fault::Zero("an exponent")));
        }
        self.one(None, Element::Pow(exponent), x)
    }

    /// The n-th root, for n of 1 or more.
    pub fn root(&mut self, x: Operand, exponent: u32) -> Result<Operand, CostError> {
        if exponent == 0 {
            return self.at("root", Err(Fault::Zero("an exponent")));
        }
        self.one(None, Element::Root(exponent), x)
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, x: Operand) -> Result<Operand, CostError> {
        self.one(None, Element::Sigmoid, x)
    }

    /// The hyperbolic tangent.
    pub fn tanh(&mut self, x: Operand) -> Result<Operand, CostError> {
        self.one(None, Element::Tanh, x)
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, x: Operand) -> Result<Operand, CostError> {
        self.one(None, Element::Relu, x)
    }

    /// `x * Phi(x)`.
    pub fn gelu(&mut self, x: Operand) -> Result<Operand, CostError> {
        self.one(None, Element::Gelu, x)
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&mut self, x: Operand) -> Result<Operand, CostError> {
        self.one(None, Element::Silu, x)
    }

    /// LayerNorm over the last side, with gain and shift.
    pub fn layer_norm(&mut self, name: &str, x: Operand) -> Result<Operand, CostError> {
        let features = x.shape.last();
        self.norm(name, Element::LayerNorm, x, features, 2)
    }

    /// RMSNorm over the last side, with a gain.
    pub fn rms_norm(&mut self, name: &str, x: Operand) -> Result<Operand, CostError> {
        let features = x.shape.last();
        self.norm(name, Element::RmsNorm, x, features, 1)
    }

    /// BatchNorm of an image in evaluation: its statistics are folded into gain and shift.
    pub fn batch_norm(&mut self, name: &str, x: Operand) -> Result<Operand, CostError> {
        let [channels, _, _] = self.image(name, x)?;
        self.norm(name, Element::BatchNorm, x, channels, 2)
    }

    fn norm(
        &mut self,
        name: &str,
        element: Element,
        x: Operand,
        features: u64,
        vectors: u64,
    ) -> Result<Operand, CostError> {
        let shape = match vectors {
            1 => Shape::new(&[features]),
            _ => Shape::new(&[vectors, features]),
        };
        let shape = self.at(name, shape)?;
        let layer = self.insert(
            name,
            Weights {
                kind: element.name(),
                shape,
                bias: 0,
                precision: None,
            },
        )?;
        let elements = self.at(name, x.elements())?;
        self.elementwise(
            (Some(layer), element.name(), element),
            (x, None),
            x,
            (elements, features.into()),
        )
    }

    /// A recurrence over positions: from `[.., positions, a, b]` of factors and of updates, at each position the state is
    /// multiplied by a factor and takes up an update. Gives the states of all positions.
    pub fn scan(&mut self, factors: Operand, updates: Operand) -> Result<Operand, CostError> {
        if factors.shape != updates.shape {
            let need = "a scan takes as many factors as updates";
            return self.at(
                "scan",
                Err(Fault::shapes(factors.shape, updates.shape, need)),
            );
        }
        let &[.., positions, a, b] = factors.shape.sides() else {
            let need = "a scan needs positions and two sides of a state";
            return self.at("scan", Err(Fault::rank(factors.shape, need)));
        };
        let sides = factors.shape.sides();
        let state = [&sides[..sides.len() - 3], &[a, b]].concat();
        let state = self.at("scan", Shape::new(&state))?;
        self.repeat("scan", positions, |register| {
            let before = factors.shaped(state);
            let kept = register.mul(factors.shaped(state), before)?;
            register.add(kept, updates.shaped(state))
        })?;
        let bits = factors.bits.max(updates.bits);
        Ok(Operand {
            shape: factors.shape,
            bits,
        })
    }

    /// Rotates positions into the last `rotated` of the features.
    pub fn rope(&mut self, x: Operand, rotated: Share) -> Result<Operand, CostError> {
        self.part(Element::Rope, x, rotated)
    }

    /// Zeros before and behind the positions of `[.., positions, features]`.
    pub fn pad(&mut self, x: Operand, zeros: u64) -> Result<Operand, CostError> {
        let &[.., positions, features] = x.shape.sides() else {
            let need = "padding needs positions x features";
            return self.at("pad", Err(Fault::rank(x.shape, need)));
        };
        let padded = positions
            .checked_add(zeros)
            .ok_or(Fault::Overflow("padded positions"));
        let padded = self.at("pad", padded)?;
        let shape = self.at("pad", x.shape.with_last(&[padded, features]))?;
        self.moved("pad", (x, None), x.shaped(shape))
    }

    /// Joins two operands along the positions.
    pub fn concat(&mut self, a: Operand, b: Operand) -> Result<Operand, CostError> {
        let joined = match (a.shape.sides(), b.shape.sides()) {
            ([outer_a @ .., s, f], [outer_b @ .., t, g]) if outer_a == outer_b && f == g => {
                s.checked_add(*t).map(|positions| [positions, *f])
            }
            _ => {
                let need = "joined operands differ in their positions only";
                return self.at("concat", Err(Fault::shapes(a.shape, b.shape, need)));
            }
        };
        let joined = self.at("concat", joined.ok_or(Fault::Overflow("joined positions")))?;
        let result = Operand {
            shape: self.at("concat", a.shape.with_last(&joined))?,
            bits: a.bits.max(b.bits),
        };
        self.moved("concat", (a, Some(b)), result)
    }

    /// A row of a table for each index.
    pub fn lookup(
        &mut self,
        name: &str,
        indices: Operand,
        rows: u64,
        features: u64,
    ) -> Result<Operand, CostError> {
        let shape = self.at(name, Shape::new(&[rows, features]))?;
        let precision = self.conventions().precision;
        self.insert(
            name,
            Weights {
                kind: "lookup",
                shape,
                bias: 0,
                precision: Some(precision),
            },
        )?;
        let sides = [indices.shape.sides(), &[features]].concat();
        let result = Operand {
            shape: self.at(name, Shape::new(&sides))?,
            bits: self.conventions().accumulator_bits,
        };
        self.moved("lookup", (indices, None), result)
    }

    fn moved(
        &mut self,
        name: &'static str,
        from: (Operand, Option<Operand>),
        result: Operand,
    ) -> Result<Operand, CostError> {
        self.elementwise((None, name, Element::Move), from, result, (0, 0))
    }

    /// The largest or the mean of each window of an image; a window of the whole image for none.
    pub fn pool(
        &mut self,
        element: Element,
        x: Operand,
        window: Option<Window>,
    ) -> Result<Operand, CostError> {
        let [channels, height, width] = self.image("pool", x)?;
        let sides = match window {
            None => [channels, 1, 1],
            Some(window) => {
                let how = Convolution {
                    kernel: window.kernel,
                    stride: window.stride,
                    padding: Some(window.padding),
                    ..Convolution::default()
                };
                let height = self.at("pool", how.positions(height))?;
                [channels, height, self.at("pool", how.positions(width))?]
            }
        };
        let shape = self.at("pool", x.shape.with_last(&sides))?;
        // One comparison or addition for each input, however windows overlap.
        let elements = self.at("pool", x.elements())?;
        let of = (None, element.name(), element);
        self.elementwise(of, (x, None), x.shaped(shape), (elements, 0))
    }

    /// A division by a scale, to integers of so many bits.
    pub fn quantize(&mut self, x: Operand, bits: u32) -> Result<Operand, CostError> {
        self.requantized(None, x, bits)
    }

    /// A product with a scale, back to the width of the accumulator.
    pub fn rescale(&mut self, x: Operand) -> Result<Operand, CostError> {
        let bits = self.conventions().accumulator_bits;
        self.one(None, Element::Rescale, x)?;
        Ok(Operand { bits, ..x })
    }

    /// Inserts learned numbers that belong to no layer, such as decays.
    pub fn parameter(&mut self, name: &str, sides: &[u64]) -> Result<Operand, CostError> {
        let shape = self.at(name, Shape::new(sides))?;
        self.insert(
            name,
            Weights {
                kind: "parameter",
                shape,
                bias: 0,
                precision: None,
            },
        )?;
        Ok(Operand {
            shape,
            bits: self.conventions().accumulator_bits,
        })
    }
}
