//! What each primitive of `forward` does to null channels.
//!
//! What is known of the arguments in, what is known of the result out. A rule that needs weights asks for them by path; what
//! a rule does not say is not known.

use super::known::Known;
use super::{Form, Rule, Weights};
use crate::channels::Channels;
use crate::value::Value;

/// An argument of a primitive.
pub(super) enum Given<'a> {
    /// What flows, and over how many positions of an image.
    Signal {
        known: &'a Known,
        positions: Option<usize>,
    },
    /// The path of a tensor of the module, and its shape.
    Tensor { path: String, shape: Vec<u64> },
    /// Anything else.
    Value(&'a Value),
}

/// What a primitive found out about a layer on the way.
pub(super) struct Seen {
    pub tensor: String,
    pub form: Form,
    pub null_in: Channels,
    pub null_out: Channels,
}

/// What is known of `name(args)`, which has `width` channels, and the layer if it is one.
pub(super) fn apply<W: Weights>(
    name: &str,
    args: &[Given<'_>],
    width: usize,
    rule: Rule,
    weights: &mut W,
) -> Result<(Known, Option<Seen>), W::Error> {
    let none = || Ok((Known::nothing(width), None));
    let Some(Given::Signal { known, positions }) = args.first() else {
        return none();
    };
    let x: &Channels = &known.nulls;
    let int = |at: usize| match args.get(at) {
        Some(Given::Value(value)) => value.as_int().and_then(|n| usize::try_from(n).ok()),
        _ => None,
    };
    let fitting = |nulls: Channels| {
        if nulls.width() == width {
            nulls.into()
        } else {
            Known::nothing(width)
        }
    };
    match name {
        "linear" => layer(x, args, 2, Form::MATRIX, rule, weights),
        "linear_transposed" => layer(x, args, 2, turned(Form::MATRIX), rule, weights),
        "linear_stacked" => layer(x, args, 2, stack(args), rule, weights),
        "linear_stacked_transposed" => layer(x, args, 2, turned(stack(args)), rule, weights),
        "conv1d" => layer(x, args, 7, grouped(int(5)), rule, weights),
        "conv2d" => layer(x, args, 7, grouped(int(6)), rule, weights),
        // f(0) = 0, or zeros among zeros.
        "keep" | "mean" | "pool2d" | "resize" | "subsample" | "at" | "length" | "tokens"
        | "grid" | "pad2d" => Ok((fitting(x.clone()), None)),
        "relu" if x.width() == width => {
            let negative = |channel| known.number(channel).filter(|n| *n < 0.0);
            let cut = Channels::of(width, |channel| negative(channel).is_some());
            Ok((fitting(x.or(&cut)), None))
        }
        "batch_norm" if rule == Rule::Weights => Ok((fitting(x.clone()), None)),
        "batch_norm" if x.width() == width => Ok((batch_norm(known, args, weights)?, None)),
        "scale" => Ok((
            fitting(x.or(&zeros(args.get(1), x.width(), weights)?)),
            None,
        )),
        // Mean and deviation are taken over the channels, so a zero among them does not stay one.
        "layer_norm" => {
            let mut nulls = zeros(args.get(1), width, weights)?;
            if let Some(shift @ Given::Tensor { .. }) = args.get(2) {
                nulls = nulls.and(&zeros(Some(shift), width, weights)?);
            }
            Ok((fitting(nulls), None))
        }
        "pad_channels" => {
            let (Some(before), Some(after)) = (int(1), int(2)) else {
                return none();
            };
            let parts = [Channels::all(before), x.clone(), Channels::all(after)];
            Ok((fitting(Channels::concat(&parts)), None))
        }
        "concat" => {
            let part = |given: &Given<'_>| match given {
                Given::Signal { known, .. } => Some(known.nulls.clone()),
                _ => None,
            };
            let parts: Option<Vec<Channels>> = args.iter().map(part).collect();
            Ok((
                parts.map_or_else(
                    || Known::nothing(width),
                    |parts| fitting(Channels::concat(&parts)),
                ),
                None,
            ))
        }
        "part" => {
            let (Some(i), Some(of)) = (int(1), int(2)) else {
                return none();
            };
            Ok((fitting(x.part(i, of)), None))
        }
        "slice" => {
            let (Some(first), Some(count)) = (int(1), int(2)) else {
                return none();
            };
            let runs = int(3).unwrap_or(1);
            // Of channels that are not known, no part is.
            if runs == 0 || first.saturating_add(count) > x.width() / runs {
                return none();
            }
            Ok((fitting(x.slice(first, count, runs)), None))
        }
        "repeat" if is_times(width, x.width(), int(1)) => {
            Ok((x.repeat_runs(x.width(), width / x.width()).into(), None))
        }
        // A sum is zero where all of its addends are.
        "sum_runs" if is_times(x.width(), width, int(1)) => {
            let n = x.width() / width;
            let runs = (0..n).map(|run| x.part(run, n));
            let nulls = runs.reduce(|sum, run| sum.and(&run));
            Ok((nulls.map_or_else(|| Known::nothing(width), fitting), None))
        }
        // A reshape to the channels there are is none.
        "channels" => Ok((fitting(x.clone()), None)),
        "flatten" => Ok((fitting(x.each(positions.unwrap_or(1))), None)),
        "attention" => {
            let (Some(Given::Signal { known, .. }), Some(heads), Some(kv_heads)) =
                (args.get(2), int(3), int(4))
            else {
                return none();
            };
            let v = &known.nulls;
            // Rows of scores sum values over positions, channel by channel; queries and keys make no channel null.
            if kv_heads == 0 || heads % kv_heads != 0 || v.width() % kv_heads != 0 {
                return none();
            }
            Ok((
                fitting(v.repeat_runs(v.width() / kv_heads, heads / kv_heads)),
                None,
            ))
        }
        // Lookups, constants, and functions that are not 0 at 0.
        _ => none(),
    }
}

/// Whether `whole` channels are `n` runs of so many.
fn is_times(whole: usize, run: usize, n: Option<usize>) -> bool {
    run > 0 && n.and_then(|n| run.checked_mul(n)) == Some(whole)
}

/// Where the vector of an argument is 0; nowhere if there is no such vector of that width at hand.
fn zeros<W: Weights>(
    given: Option<&Given<'_>>,
    width: usize,
    weights: &mut W,
) -> Result<Channels, W::Error> {
    let numbers = match given {
        Some(Given::Tensor { path, .. }) => weights.vector(path)?,
        _ => None,
    };
    Ok(match numbers.filter(|numbers| numbers.len() == width) {
        Some(numbers) => Channels::of(width, |channel| numbers[channel] == 0.0),
        None => Channels::none(width),
    })
}

/// The form of a convolution.
fn grouped(groups: Option<usize>) -> Form {
    Form {
        groups: groups.unwrap_or(1).max(1),
        ..Form::MATRIX
    }
}

/// The form of several matrices that are one tensor, which stands in argument 1.
fn stack(args: &[Given<'_>]) -> Form {
    let blocks = match args.get(1) {
        Some(Given::Tensor { shape, .. }) => shape.first().copied(),
        _ => None,
    };
    let blocks = blocks.and_then(|blocks| usize::try_from(blocks).ok());
    Form {
        stacked: true,
        ..grouped(blocks)
    }
}

/// The same with inputs before rows.
fn turned(form: Form) -> Form {
    Form {
        transposed: true,
        ..form
    }
}

/// A layer: weights in argument 1, a bias in argument `bias_at`.
fn layer<W: Weights>(
    x: &Channels,
    args: &[Given<'_>],
    bias_at: usize,
    form: Form,
    rule: Rule,
    weights: &mut W,
) -> Result<(Known, Option<Seen>), W::Error> {
    let Some(Given::Tensor { path, shape }) = args.get(1) else {
        return Ok((Known::nothing(0), None));
    };
    let Some((rows, inputs)) = form.sides(shape) else {
        return Ok((Known::nothing(0), None));
    };
    let null_in = if x.width() == inputs {
        x.clone()
    } else {
        Channels::none(inputs)
    };
    let null_out = weights.null_rows(path, &null_in, form)?;
    let passed = match (rule, args.get(bias_at)) {
        // A row of zeros leaves its bias everywhere.
        (Rule::Exact, Some(Given::Tensor { path, .. })) if !null_out.is_empty() => {
            let bias = weights.vector(path)?.unwrap_or_default();
            let left = |row| bias.get(row).copied().filter(|_| null_out.contains(row));
            Known::of(rows, left)
        }
        _ => null_out.clone().into(),
    };
    let seen = Seen {
        tensor: path.clone(),
        form,
        null_in,
        null_out,
    };
    Ok((passed, Some(seen)))
}

/// `batch_norm(x, weight, bias, running_mean, running_var, eps)` by the exact rule: a channel that is the number n
/// everywhere becomes beta + gamma * (n - mean) / sqrt(var + eps), and with a gain of 0 any channel becomes beta.
fn batch_norm<W: Weights>(
    x: &Known,
    args: &[Given<'_>],
    weights: &mut W,
) -> Result<Known, W::Error> {
    let width = x.nulls.width();
    let mut vectors = Vec::new();
    for at in 1..=4 {
        let vector = match args.get(at) {
            Some(Given::Tensor { path, .. }) => weights.vector(path)?,
            _ => None,
        };
        match vector.filter(|numbers| numbers.len() == width) {
            Some(numbers) => vectors.push(numbers),
            None => return Ok(Known::nothing(width)),
        }
    }
    let eps = match args.get(5) {
        Some(Given::Value(value)) => value.to_f64().unwrap_or(0.0),
        _ => 0.0,
    };
    Ok(Known::of(width, |channel| {
        let [gamma, beta, mean, var] = [0, 1, 2, 3].map(|which: usize| vectors[which][channel]);
        if gamma == 0.0 {
            return Some(beta);
        }
        let number = x.number(channel)?;
        Some(beta + gamma * (number - mean) / (var + eps).sqrt())
    }))
}
