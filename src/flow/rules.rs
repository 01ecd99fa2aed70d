//! What each primitive of `forward` does to null channels.
//!
//! Signals in, the null channels of the result out. A rule that needs weights asks for them by path; what a rule does not
//! say is not null.

use super::{Rule, Weights};
use crate::channels::Channels;
use crate::value::Value;

/// What flows, in this domain: its channels and those that are null.
pub(super) type Signal = Channels;

/// An argument of a primitive.
pub(super) enum Given<'a> {
    /// What flows, and over how many positions of an image.
    Signal {
        nulls: &'a Signal,
        positions: Option<usize>,
    },
    /// The path of a tensor of the module, and its shape.
    Tensor { path: String, shape: Vec<usize> },
    /// Anything else.
    Value(&'a Value),
}

/// What a primitive found out about a layer on the way.
pub(super) struct Seen {
    pub tensor: String,
    pub groups: usize,
    pub transposed: bool,
    pub null_in: Channels,
    pub null_out: Channels,
}

/// The null channels of `name(args)`, which has `width` channels, and the layer if it is one.
pub(super) fn apply<W: Weights>(
    name: &str,
    args: &[Given<'_>],
    width: usize,
    rule: Rule,
    weights: &mut W,
) -> Result<(Signal, Option<Seen>), W::Error> {
    let none = || Ok((Channels::none(width), None));
    let Some(Given::Signal { nulls, positions }) = args.first() else {
        return none();
    };
    let x: &Channels = nulls;
    let int = |at: usize| match args.get(at) {
        Some(Given::Value(value)) => value.as_int().and_then(|n| usize::try_from(n).ok()),
        _ => None,
    };
    let fitting = |nulls: Signal| {
        if nulls.width() == width {
            nulls
        } else {
            Channels::none(width)
        }
    };
    match name {
        "linear" => layer(x, args, 2, 1, false, rule, weights),
        "linear_transposed" => layer(x, args, 2, 1, true, rule, weights),
        "conv1d" => layer(x, args, 7, int(5).unwrap_or(1), false, rule, weights),
        "conv2d" => layer(x, args, 7, int(6).unwrap_or(1), false, rule, weights),
        // f(0) = 0, or zeros among zeros.
        "keep" | "mean" | "pool2d" | "resize" | "subsample" | "at" | "length" | "tokens"
        | "grid" | "pad2d" => Ok((fitting(x.clone()), None)),
        "batch_norm" => Ok((fitting(batch_norm(x, args, rule, weights)?), None)),
        "scale" => {
            let mut nulls = x.clone();
            if let Some(Given::Tensor { path, .. }) = args.get(1)
                && let Some(gains) = weights.vector(path)?
                && gains.len() == nulls.width()
            {
                nulls = nulls.or(&Channels::of(gains.len(), |channel| gains[channel] == 0.0));
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
                Given::Signal { nulls, .. } => Some((*nulls).clone()),
                _ => None,
            };
            let parts: Option<Vec<Channels>> = args.iter().map(part).collect();
            Ok((
                parts.map_or_else(
                    || Channels::none(width),
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
        // A reshape to the channels there are is none.
        "channels" => Ok((fitting(x.clone()), None)),
        "flatten" => Ok((fitting(x.each(positions.unwrap_or(1))), None)),
        "attention" => {
            let (Some(Given::Signal { nulls: v, .. }), Some(heads), Some(kv_heads)) =
                (args.get(2), int(3), int(4))
            else {
                return none();
            };
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

/// A layer: weights in argument 1, a bias in argument `bias_at`.
fn layer<W: Weights>(
    x: &Signal,
    args: &[Given<'_>],
    bias_at: usize,
    groups: usize,
    transposed: bool,
    rule: Rule,
    weights: &mut W,
) -> Result<(Signal, Option<Seen>), W::Error> {
    let Some(Given::Tensor { path, shape }) = args.get(1) else {
        return Ok((Channels::none(0), None));
    };
    let (rows, inputs) = match (transposed, shape.first(), shape.get(1)) {
        (false, Some(rows), Some(inputs)) => (*rows, inputs.saturating_mul(groups)),
        (true, Some(inputs), Some(rows)) => (*rows, *inputs),
        _ => return Ok((Channels::none(0), None)),
    };
    let null_in = if x.width() == inputs {
        x.clone()
    } else {
        Channels::none(inputs)
    };
    let null_out = weights.null_rows(path, &null_in, groups, transposed)?;
    let passed = match (rule, args.get(bias_at)) {
        (Rule::Exact, Some(Given::Tensor { path, .. })) => match weights.vector(path)? {
            Some(bias) => null_out.and(&Channels::of(rows, |row| bias.get(row) == Some(&0.0))),
            None => Channels::none(rows),
        },
        _ => null_out.clone(),
    };
    let seen = Seen {
        tensor: path.clone(),
        groups,
        transposed,
        null_in,
        null_out,
    };
    Ok((passed, Some(seen)))
}

/// `batch_norm(x, weight, bias, running_mean, running_var, eps)`: by the exact rule a null channel stays null if the norm
/// shifts it by nothing: beta - gamma * mean / sqrt(var + eps) = 0.
fn batch_norm<W: Weights>(
    x: &Signal,
    args: &[Given<'_>],
    rule: Rule,
    weights: &mut W,
) -> Result<Signal, W::Error> {
    if rule == Rule::Weights || x.is_empty() {
        return Ok(x.clone());
    }
    let mut vectors = Vec::new();
    for at in 1..=4 {
        match args.get(at) {
            Some(Given::Tensor { path, .. }) => match weights.vector(path)? {
                Some(values) => vectors.push(values),
                None => return Ok(Channels::none(x.width())),
            },
            _ => return Ok(Channels::none(x.width())),
        }
    }
    let eps = match args.get(5) {
        Some(Given::Value(value)) => value.to_f64().unwrap_or(0.0),
        _ => 0.0,
    };
    let still = Channels::of(x.width(), |channel| {
        let at = |which: usize| vectors[which].get(channel).copied();
        match (at(0), at(1), at(2), at(3)) {
            (Some(gamma), Some(beta), Some(mean), Some(var)) => {
                beta - gamma * mean / (var + eps).sqrt() == 0.0
            }
            _ => false,
        }
    });
    Ok(x.and(&still))
}
