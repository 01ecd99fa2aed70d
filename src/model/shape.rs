//! What flows between modules when a `forward` is read for sizes, and what each primitive does to it.
//!
//! A [`Flow`] carries those of `S H W C` that apply: tokens have S and C, images H, W and C. Leaves state what they do by
//! a primitive (`conv2d(x, weight, 3, 1, 1)`), so that parents need no arithmetic. The same table names the primitives
//! for the null channels of `compare`.

use crate::formula::did_you_mean;
use crate::value::{Value, floor_div_int};

/// Sizes of a value on its way through a model; what is not known or does not apply is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Sequence positions.
    pub s: Option<i128>,
    /// Height.
    pub h: Option<i128>,
    /// Width.
    pub w: Option<i128>,
    /// Channels.
    pub c: Option<i128>,
    /// Straight from the input: nothing before it has parameters, so training needs no gradient for it.
    pub data: bool,
}

impl Flow {
    pub(super) fn get(&self, name: &str) -> Option<i128> {
        match name {
            "S" => self.s,
            "H" => self.h,
            "W" => self.w,
            "C" => self.c,
            _ => None,
        }
    }

    /// Whether every size is one.
    fn fits(&self) -> bool {
        let sizes = [self.s, self.h, self.w, self.c];
        sizes
            .into_iter()
            .flatten()
            .all(|size| (0..=MAX_SIZE).contains(&size))
    }

    /// The sizes of a sum or product: where both know a size, 1 gives way to the other.
    pub(crate) fn broadcast(self, other: Flow) -> Flow {
        let join = |a: Option<i128>, b: Option<i128>| match (a, b) {
            (Some(1), Some(b)) => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        };
        Flow {
            s: join(self.s, other.s),
            h: join(self.h, other.h),
            w: join(self.w, other.w),
            c: join(self.c, other.c),
            data: self.data && other.data,
        }
    }
}

/// Largest size that flows.
pub(super) const MAX_SIZE: i128 = 1 << 60;

/// One argument of a primitive.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Flow(Flow),
    Value(Value),
    /// A tensor's shape.
    Tensor(Vec<i128>),
}

/// A primitive of the `forward` language.
pub struct Primitive {
    /// Its name.
    pub name: &'static str,
    /// What it does, with its arguments.
    pub doc: &'static str,
    shape: fn(&Args<'_>) -> Result<Flow, String>,
}

/// Every primitive.
pub const PRIMITIVES: &[Primitive] = &[
    Primitive {
        name: "at",
        doc: "at(x, i): one position of the sequence",
        shape: |a| {
            Ok(Flow {
                s: Some(1),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "attention",
        doc: "attention(q, k, v, heads, kv_heads): v's channels, repeated per query head",
        shape: attention,
    },
    Primitive {
        name: "batch_norm",
        doc: "batch_norm(x, weight, bias, mean, var, eps): same sizes",
        shape: same,
    },
    Primitive {
        name: "channels",
        doc: "channels(x, c): a reshape that leaves c channels",
        shape: |a| {
            Ok(Flow {
                c: Some(a.int(1)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "concat",
        doc: "concat(a, b, ...): channels side by side",
        shape: concat,
    },
    Primitive {
        name: "conv1d",
        doc: "conv1d(x, weight, kernel, stride, padding, groups, dilation, bias)",
        shape: conv1d,
    },
    Primitive {
        name: "conv2d",
        doc: "conv2d(x, weight, kernel, stride, padding, dilation, groups, bias)",
        shape: conv2d,
    },
    Primitive {
        name: "embedding",
        doc: "embedding(x, weight): a row of the weight per position",
        shape: |a| {
            Ok(Flow {
                c: Some(a.dim(1, 1)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "flatten",
        doc: "flatten(x): H * W * C channels",
        shape: flatten,
    },
    Primitive {
        name: "grid",
        doc: "grid(x, h, w): tokens laid out as an image",
        shape: |a| {
            Ok(Flow {
                s: Some(1),
                h: Some(a.int(1)?),
                w: Some(a.int(2)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "input",
        doc: "input(h, w, c): the images that arrive; --image-size replaces h and w",
        shape: |a| {
            Ok(Flow {
                s: Some(1),
                h: Some(a.int(0)?),
                w: Some(a.int(1)?),
                c: Some(a.int(2)?),
                data: true,
            })
        },
    },
    Primitive {
        name: "keep",
        doc: "keep(x): an activation with f(0) = 0",
        shape: same,
    },
    Primitive {
        name: "layer_norm",
        doc: "layer_norm(x, weight, bias): mean and deviation over the channels, then gain and shift",
        shape: same,
    },
    Primitive {
        name: "length",
        doc: "length(x, s): a sequence of s positions",
        shape: |a| {
            Ok(Flow {
                s: Some(a.int(1)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "linear",
        doc: "linear(x, weight, bias): weight is [out, in]",
        shape: |a| {
            Ok(Flow {
                c: Some(a.dim(1, 0)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "linear_stacked",
        doc: "linear_stacked(x, weight, bias): weight is [n, out, in], a matrix for each of n equal runs of channels",
        shape: |a| stacked(a, 1),
    },
    Primitive {
        name: "linear_stacked_transposed",
        doc: "linear_stacked_transposed(x, weight, bias): weight is [n, in, out]",
        shape: |a| stacked(a, 2),
    },
    Primitive {
        name: "linear_transposed",
        doc: "linear_transposed(x, weight, bias): weight is [in, out]",
        shape: |a| {
            Ok(Flow {
                c: Some(a.dim(1, 1)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "mean",
        doc: "mean(x): over H and W, or over the sequence",
        shape: mean,
    },
    Primitive {
        name: "pad2d",
        doc: "pad2d(x, rows, columns): zero rows and columns added",
        shape: pad2d,
    },
    Primitive {
        name: "pad_channels",
        doc: "pad_channels(x, before, after): zero channels added",
        shape: pad_channels,
    },
    Primitive {
        name: "part",
        doc: "part(x, i, n): the i-th of n equal runs of channels",
        shape: part,
    },
    Primitive {
        name: "pool2d",
        doc: "pool2d(x, kernel, stride, padding, ceil_mode)",
        shape: pool2d,
    },
    Primitive {
        name: "positions",
        doc: "positions(): a constant addend",
        shape: |_| Ok(Flow::default()),
    },
    Primitive {
        name: "prepend",
        doc: "prepend(x, n): n more positions",
        shape: |a| {
            Ok(Flow {
                s: Some(a.size(a.flow(0)?.s, "S")? + a.int(1)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "relu",
        doc: "relu(x): an activation that is 0 for 0 and below",
        shape: same,
    },
    Primitive {
        name: "repeat",
        doc: "repeat(x, n): the channels n times, side by side",
        shape: repeat,
    },
    Primitive {
        name: "resize",
        doc: "resize(x, h, w)",
        shape: |a| {
            Ok(Flow {
                h: Some(a.int(1)?),
                w: Some(a.int(2)?),
                ..a.flow(0)?
            })
        },
    },
    Primitive {
        name: "same",
        doc: "same(x): same sizes, no null channel passes",
        shape: same,
    },
    Primitive {
        name: "scale",
        doc: "scale(x, weight): each channel times a gain",
        shape: same,
    },
    Primitive {
        name: "sigmoid",
        doc: "sigmoid(x): f(0) is not 0",
        shape: same,
    },
    Primitive {
        name: "signal",
        doc: "signal(s, c): the audio or features that arrive, s positions of c channels",
        shape: |a| {
            Ok(Flow {
                s: Some(a.int(0)?),
                c: Some(a.int(1)?),
                data: true,
                ..Flow::default()
            })
        },
    },
    Primitive {
        name: "slice",
        doc: "slice(x, first, count, runs): count channels from the first on, of each of so many equal runs (1)",
        shape: slice,
    },
    Primitive {
        name: "softmax",
        doc: "softmax(x)",
        shape: same,
    },
    Primitive {
        name: "subsample",
        doc: "subsample(x, n): every n-th row and column",
        shape: subsample,
    },
    Primitive {
        name: "sum_runs",
        doc: "sum_runs(x, n): n equal runs of channels added up",
        shape: sum_runs,
    },
    Primitive {
        name: "tokens",
        doc: "tokens(x): the H * W positions of an image as a sequence",
        shape: tokens,
    },
];

/// The primitive of that name.
pub(super) fn primitive(name: &str) -> Option<&'static Primitive> {
    PRIMITIVES.iter().find(|p| p.name == name)
}

/// The sizes that `name(args)` gives.
pub(crate) fn apply(name: &str, args: &[Arg]) -> Result<Flow, String> {
    let Some(primitive) = primitive(name) else {
        let hint = did_you_mean(name, PRIMITIVES.iter().map(|p| p.name));
        return Err(format!("`{name}` is neither a child nor a primitive{hint}"));
    };
    let applied = (primitive.shape)(&Args { primitive, args }).and_then(|flow| {
        // Bounded sizes keep every sum and product of two of them within 128 bits.
        if flow.fits() {
            Ok(flow)
        } else {
            Err("a size does not fit".into())
        }
    });
    applied.map_err(|e| format!("`{}`: {e}", primitive.doc.split(':').next().unwrap_or(name)))
}

struct Args<'a> {
    primitive: &'a Primitive,
    args: &'a [Arg],
}

impl Args<'_> {
    fn get(&self, i: usize) -> Result<&Arg, String> {
        self.args
            .get(i)
            .ok_or_else(|| format!("argument {} is missing ({})", i + 1, self.primitive.doc))
    }

    fn flow(&self, i: usize) -> Result<Flow, String> {
        match self.get(i)? {
            Arg::Flow(flow) if flow.fits() => Ok(*flow),
            Arg::Flow(_) => Err(format!(
                "what flows into argument {} has a size outside 0 to 2 ** 60",
                i + 1
            )),
            _ => Err(format!("argument {} has to be what flows", i + 1)),
        }
    }

    fn int(&self, i: usize) -> Result<i128, String> {
        match self.get(i)? {
            Arg::Value(v) => v
                .as_int()
                .filter(|n| (0..=1 << 60).contains(n))
                .ok_or_else(|| {
                    format!(
                        "argument {} has to be an integer of 0 or more, not {}",
                        i + 1,
                        v.describe()
                    )
                }),
            _ => Err(format!("argument {} has to be an integer", i + 1)),
        }
    }

    fn int_or(&self, i: usize, default: i128) -> Result<i128, String> {
        if i < self.args.len() {
            self.int(i)
        } else {
            Ok(default)
        }
    }

    /// Dimension `d` of the tensor that is argument `i`.
    fn dim(&self, i: usize, d: usize) -> Result<i128, String> {
        match self.get(i)? {
            Arg::Tensor(shape) => shape
                .get(d)
                .copied()
                .ok_or_else(|| format!("the tensor has no dimension {d}")),
            _ => Err(format!(
                "argument {} has to be a tensor of the entry",
                i + 1
            )),
        }
    }

    fn size(&self, size: Option<i128>, name: &str) -> Result<i128, String> {
        size.ok_or_else(|| {
            format!("{name} is not known here; the module before it needs a `forward`")
        })
    }

    fn conv(
        &self,
        size: Option<i128>,
        name: &str,
        kernel: i128,
        stride: i128,
        padding: i128,
        dilation: i128,
    ) -> Result<i128, String> {
        let size = self.size(size, name)?;
        if stride < 1 || kernel < 1 || dilation < 1 {
            return Err("kernel, stride and dilation are 1 or more".into());
        }
        let span = size + 2 * padding - dilation.saturating_mul(kernel - 1) - 1;
        if span < 0 {
            return Err(format!(
                "an input of {size} is smaller than the kernel of {kernel} (padding {padding})"
            ));
        }
        floor_div_int(span, stride)
            .map(|n| n + 1)
            .map_err(|e| e.to_string())
    }
}

fn same(a: &Args<'_>) -> Result<Flow, String> {
    a.flow(0)
}

fn attention(a: &Args<'_>) -> Result<Flow, String> {
    let (q, v) = (a.flow(0)?, a.flow(2)?);
    let (heads, kv_heads) = (a.int(3)?, a.int(4)?);
    // Each key-value head serves heads / kv_heads query heads, so v's channels repeat that often.
    let c =
        v.c.filter(|_| kv_heads > 0)
            .and_then(|c| c.checked_mul(heads))
            .map(|c| c / kv_heads);
    Ok(Flow { c, ..q })
}

fn concat(a: &Args<'_>) -> Result<Flow, String> {
    let mut sum = a.flow(0)?;
    for i in 1..a.args.len() {
        sum.c = sum.c.zip(a.flow(i)?.c).map(|(x, y)| x + y);
    }
    Ok(sum)
}

fn conv1d(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    let s = a.conv(x.s, "S", a.int(2)?, a.int(3)?, a.int(4)?, a.int_or(6, 1)?)?;
    Ok(Flow {
        s: Some(s),
        c: Some(a.dim(1, 0)?),
        ..x
    })
}

fn conv2d(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    let (kernel, stride, padding, dilation) = (a.int(2)?, a.int(3)?, a.int(4)?, a.int_or(5, 1)?);
    let h = a.conv(x.h, "H", kernel, stride, padding, dilation)?;
    let w = a.conv(x.w, "W", kernel, stride, padding, dilation)?;
    Ok(Flow {
        h: Some(h),
        w: Some(w),
        c: Some(a.dim(1, 0)?),
        ..x
    })
}

fn flatten(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    let positions = x.h.unwrap_or(1).checked_mul(x.w.unwrap_or(1));
    let c = x.c.zip(positions).and_then(|(c, p)| c.checked_mul(p));
    Ok(Flow {
        h: None,
        w: None,
        c,
        ..x
    })
}

fn mean(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    Ok(if x.h.is_some() {
        Flow {
            h: Some(1),
            w: Some(1),
            ..x
        }
    } else {
        Flow { s: Some(1), ..x }
    })
}

fn pad2d(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    Ok(Flow {
        h: Some(a.size(x.h, "H")? + a.int(1)?),
        w: Some(a.size(x.w, "W")? + a.int(2)?),
        ..x
    })
}

fn pad_channels(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    Ok(Flow {
        c: Some(a.size(x.c, "C")? + a.int(1)? + a.int(2)?),
        ..x
    })
}

fn part(a: &Args<'_>) -> Result<Flow, String> {
    let (x, parts) = (a.flow(0)?, a.int(2)?);
    if parts < 1 || a.int(1)? >= parts {
        return Err("needs 0 <= i < n".into());
    }
    Ok(Flow {
        c: x.c.map(|c| c / parts),
        ..x
    })
}

fn pool2d(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    let (kernel, stride, padding) = (a.int(1)?, a.int(2)?, a.int_or(3, 0)?);
    let ceil = matches!(a.args.get(4), Some(Arg::Value(v)) if v.truth());
    let side = |size: Option<i128>, name: &str| -> Result<i128, String> {
        // Rounding up lets the last window hang over the edge by less than a stride.
        let size = if ceil {
            Some(a.size(size, name)? + stride - 1)
        } else {
            size
        };
        a.conv(size, name, kernel, stride, padding, 1)
    };
    Ok(Flow {
        h: Some(side(x.h, "H")?),
        w: Some(side(x.w, "W")?),
        ..x
    })
}

fn slice(a: &Args<'_>) -> Result<Flow, String> {
    let (x, first, count, runs) = (a.flow(0)?, a.int(1)?, a.int(2)?, a.int_or(3, 1)?);
    let fits = |c: i128| runs > 0 && c % runs == 0 && c / runs - first >= count;
    match x.c {
        Some(c) if !fits(c) => Err(format!(
            "{c} channels are not {runs} runs of {first} + {count} or more"
        )),
        _ => Ok(Flow {
            c: runs.checked_mul(count),
            ..x
        }),
    }
}

fn subsample(a: &Args<'_>) -> Result<Flow, String> {
    let (x, n) = (a.flow(0)?, a.int(1)?);
    if n < 1 {
        return Err("n is 1 or more".into());
    }
    let every = |size: i128| (size + n - 1) / n;
    Ok(Flow {
        h: x.h.map(every),
        w: x.w.map(every),
        ..x
    })
}

fn repeat(a: &Args<'_>) -> Result<Flow, String> {
    let (x, n) = (a.flow(0)?, a.int(1)?);
    Ok(Flow {
        c: x.c.map(|c| c * n),
        ..x
    })
}

/// A linear layer of several matrices; `rows` is the dimension of their outputs.
fn stacked(a: &Args<'_>, rows: usize) -> Result<Flow, String> {
    let sides = [a.dim(1, 0)?, a.dim(1, 1)?, a.dim(1, 2)?];
    let c = sides[0].checked_mul(sides[rows]);
    Ok(Flow {
        c: Some(c.ok_or("too many channels")?),
        ..a.flow(0)?
    })
}

fn sum_runs(a: &Args<'_>) -> Result<Flow, String> {
    let (x, n) = (a.flow(0)?, a.int(1)?);
    match x.c {
        Some(c) if n < 1 || c % n != 0 => Err(format!("{c} channels are not {n} equal runs")),
        c => Ok(Flow {
            c: c.map(|c| c / n),
            ..x
        }),
    }
}

fn tokens(a: &Args<'_>) -> Result<Flow, String> {
    let x = a.flow(0)?;
    let s = a
        .size(x.h, "H")?
        .checked_mul(a.size(x.w, "W")?)
        .ok_or("too many positions")?;
    Ok(Flow {
        s: Some(s),
        h: None,
        w: None,
        ..x
    })
}
