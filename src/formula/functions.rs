//! The small fixed set of functions, one row each: name, number of arguments, what it does, code.

use super::eval::{Budget, EvalErrorKind, Names};
use super::suggest::did_you_mean;
use crate::value::{MAX_ITEMS, Name, Value, ValueError, floor_div_int};
use std::ops::RangeInclusive;

/// A function of the formula language.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// How many arguments it takes.
    pub arity: RangeInclusive<usize>,
    /// What it gives, for `bitcost db language`.
    pub doc: &'static str,
    code: Code,
}

/// Most functions are values in, value out; two read a convention of the workload.
enum Code {
    Pure(fn(&[Value]) -> Result<Value, EvalErrorKind>),
    Reads(
        &'static str,
        fn(&[Value], bool) -> Result<Value, EvalErrorKind>,
    ),
}

use Code::{Pure, Reads};

/// Every function there is.
pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "abs",
        arity: 1..=1,
        doc: "abs(x): x without its sign",
        code: Pure(abs),
    },
    Function {
        name: "ceil",
        arity: 1..=1,
        doc: "ceil(x): rounded up to an integer",
        code: Pure(|a| rounded("ceil", &a[0], Value::ceil)),
    },
    Function {
        name: "ceil_div",
        arity: 2..=2,
        doc: "ceil_div(a, b): a / b rounded up",
        code: Pure(ceil_div),
    },
    Function {
        name: "conv_out",
        arity: 4..=5,
        doc: "conv_out(size, kernel, stride, padding[, dilation]): output positions of a convolution or pooling",
        code: Pure(conv_out),
    },
    Function {
        name: "expected_distinct",
        arity: 3..=3,
        doc: "expected_distinct(E, k, T): experts touched by T tokens that each choose k of E at random, E * (1 - (1 - k/E) ** T); a float",
        code: Pure(expected_distinct),
    },
    Function {
        name: "flat",
        arity: 1..=1,
        doc: "flat(list): the lists of a list, one after the other",
        code: Pure(flat),
    },
    Function {
        name: "floor",
        arity: 1..=1,
        doc: "floor(x): rounded down to an integer",
        code: Pure(|a| rounded("floor", &a[0], Value::floor)),
    },
    Function {
        name: "int",
        arity: 1..=1,
        doc: "int(x): rounded towards zero",
        code: Pure(int),
    },
    Function {
        name: "len",
        arity: 1..=1,
        doc: "len(list, string or object)",
        code: Pure(len),
    },
    Function {
        name: "log2",
        arity: 1..=1,
        doc: "log2(x): a float unless x is a power of two",
        code: Pure(log2),
    },
    Function {
        name: "logits",
        arity: 1..=1,
        doc: "logits(S): positions of S whose logits are computed: S, or 1 under --logits last",
        code: Reads("last_logits", |a, last| {
            Ok(if last { Value::Int(1) } else { a[0].clone() })
        }),
    },
    Function {
        name: "make_divisible",
        arity: 1..=2,
        doc: "make_divisible(v[, d = 8]): the multiple of d nearest to v that loses at most a tenth of it",
        code: Pure(make_divisible),
    },
    Function {
        name: "max",
        arity: 1..=16,
        doc: "max(a, b, ...) or max(list)",
        code: Pure(|a| extreme("max", a, std::cmp::Ordering::Greater)),
    },
    Function {
        name: "min",
        arity: 1..=16,
        doc: "min(a, b, ...) or min(list)",
        code: Pure(|a| extreme("min", a, std::cmp::Ordering::Less)),
    },
    Function {
        name: "pairs",
        arity: 2..=3,
        doc: "pairs(S, past[, window = None]): query-key pairs under the stated convention, --attention full or causal",
        code: Reads("causal", pairs),
    },
    Function {
        name: "prod",
        arity: 1..=1,
        doc: "prod(list): the product of its items",
        code: Pure(|a| fold("prod", &a[0], 1, Value::mul)),
    },
    Function {
        name: "split",
        arity: 2..=2,
        doc: "split(text, separator): a list of strings",
        code: Pure(split),
    },
    Function {
        name: "sum",
        arity: 1..=1,
        doc: "sum(list): the sum of its items",
        code: Pure(|a| fold("sum", &a[0], 0, Value::add)),
    },
];

/// Calls `function`.
pub(super) fn call(
    function: Name,
    args: &[Value],
    names: &mut dyn Names,
    budget: &mut Budget,
) -> Result<Value, EvalErrorKind> {
    let Some(found) = find(function.as_str()) else {
        let hint = did_you_mean(function.as_str(), FUNCTIONS.iter().map(|f| f.name));
        return Err(EvalErrorKind::UnknownFunction {
            name: function,
            hint,
        });
    };
    if !found.arity.contains(&args.len()) {
        return Err(EvalErrorKind::Arity {
            function: found.name.into(),
            takes: range(&found.arity),
            got: args.len(),
        });
    }
    match &found.code {
        Pure(code) => code(args),
        Reads(convention, code) => {
            let convention = names.name(Name::new(convention), budget)?.truth();
            code(args, convention)
        }
    }
}

/// The function of that name.
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

/// `3`, or `3 to 5`.
pub(crate) fn range(arity: &RangeInclusive<usize>) -> String {
    if arity.start() == arity.end() {
        arity.start().to_string()
    } else {
        format!("{} to {}", arity.start(), arity.end())
    }
}

fn wrong(function: &str, needs: &str, got: &Value) -> EvalErrorKind {
    EvalErrorKind::Argument(format!(
        "`{function}` needs {needs}, got {}",
        got.describe()
    ))
}

fn integer(function: &str, value: &Value) -> Result<i128, EvalErrorKind> {
    value
        .as_int()
        .ok_or_else(|| wrong(function, "an integer", value))
}

fn overflow(function: &'static str) -> EvalErrorKind {
    EvalErrorKind::Value(crate::value::ValueError::Overflow(function))
}

fn rounded(
    function: &str,
    value: &Value,
    round: fn(&Value) -> Option<i128>,
) -> Result<Value, EvalErrorKind> {
    round(value)
        .map(Value::Int)
        .ok_or_else(|| wrong(function, "a number", value))
}

fn abs(args: &[Value]) -> Result<Value, EvalErrorKind> {
    if Value::compare(&args[0], &Value::Int(0))? == std::cmp::Ordering::Less {
        return Ok(Value::sub(&Value::Int(0), &args[0])?);
    }
    Ok(args[0].clone())
}

fn int(args: &[Value]) -> Result<Value, EvalErrorKind> {
    let negative = Value::compare(&args[0], &Value::Int(0))? == std::cmp::Ordering::Less;
    rounded(
        "int",
        &args[0],
        if negative { Value::ceil } else { Value::floor },
    )
}

fn ceil_div(args: &[Value]) -> Result<Value, EvalErrorKind> {
    rounded("ceil_div", &Value::div(&args[0], &args[1])?, Value::ceil)
}

fn conv_out(args: &[Value]) -> Result<Value, EvalErrorKind> {
    let mut numbers = [0, 0, 1, 0, 1];
    for (number, arg) in numbers.iter_mut().zip(args) {
        *number = integer("conv_out", arg)?;
    }
    let [size, kernel, stride, padding, dilation] = numbers;
    if stride < 1 || kernel < 1 || dilation < 1 || padding < 0 {
        return Err(EvalErrorKind::Argument(format!(
            "`conv_out` needs kernel, stride and dilation of 1 or more and no negative padding, got kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}"
        )));
    }
    // positions = floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
    let reach = (kernel - 1)
        .checked_mul(dilation)
        .and_then(|r| r.checked_add(1));
    let padded = padding.checked_mul(2).and_then(|p| p.checked_add(size));
    let span = padded
        .zip(reach)
        .and_then(|(p, r)| p.checked_sub(r))
        .ok_or_else(|| overflow("conv_out"))?;
    if span < 0 {
        return Err(EvalErrorKind::Argument(format!(
            "an input of {size} is smaller than the kernel of {kernel} (padding {padding}, dilation {dilation})"
        )));
    }
    Ok(Value::Int(floor_div_int(span, stride)? + 1))
}

/// Experts touched by T tokens that each choose k of E at random: `[E, k, T]`.
pub(crate) fn expected_distinct(args: &[Value]) -> Result<Value, EvalErrorKind> {
    let number = |i: usize| {
        args[i]
            .to_f64()
            .ok_or_else(|| wrong("expected_distinct", "numbers", &args[i]))
    };
    let (experts, chosen, tokens) = (number(0)?, number(1)?, number(2)?);
    if experts < 1.0 || chosen < 0.0 || chosen > experts || tokens < 0.0 {
        return Err(EvalErrorKind::Argument(format!(
            "`expected_distinct` needs E >= 1, 0 <= k <= E and T >= 0, got E = {}, k = {}, T = {}",
            args[0], args[1], args[2]
        )));
    }
    Ok(Value::Float(
        experts * (1.0 - (1.0 - chosen / experts).powf(tokens)),
    ))
}

fn flat(args: &[Value]) -> Result<Value, EvalErrorKind> {
    let Value::List(lists) = &args[0] else {
        return Err(wrong("flat", "a list of lists", &args[0]));
    };
    let mut items = Vec::new();
    for list in lists.iter() {
        let Value::List(list) = list else {
            return Err(wrong("flat", "a list of lists", list));
        };
        if items.len() + list.len() > MAX_ITEMS {
            return Err(ValueError::TooLong(MAX_ITEMS).into());
        }
        items.extend(list.iter().cloned());
    }
    Ok(Value::List(items.into()))
}

fn len(args: &[Value]) -> Result<Value, EvalErrorKind> {
    let length = match &args[0] {
        Value::List(l) => l.len(),
        Value::Str(s) => s.chars().count(),
        Value::Object(o) => o.0.len(),
        other => return Err(wrong("len", "a list, a string or an object", other)),
    };
    Ok(Value::Int(length as i128))
}

fn log2(args: &[Value]) -> Result<Value, EvalErrorKind> {
    match args[0].as_int() {
        Some(i) if i > 0 && i.count_ones() == 1 => Ok(Value::Int(i128::from(i.trailing_zeros()))),
        _ => match args[0].to_f64() {
            Some(x) if x > 0.0 => Ok(Value::Float(x.log2())),
            _ => Err(wrong("log2", "a positive number", &args[0])),
        },
    }
}

fn make_divisible(args: &[Value]) -> Result<Value, EvalErrorKind> {
    let divisor = args.get(1).cloned().unwrap_or(Value::Int(8));
    let d = integer("make_divisible", &divisor)?;
    if d < 1 {
        return Err(wrong("make_divisible", "a positive divisor", &divisor));
    }
    let half = Value::ratio(d, 2)?;
    let nearest = Value::floor_div(&Value::add(&args[0], &half)?, &divisor)?;
    let width = Value::mul(&nearest, &divisor)?
        .as_int()
        .ok_or_else(|| overflow("make_divisible"))?
        .max(d);
    // Rounding down must not lose more than a tenth: 10 width < 9 v, in exact arithmetic.
    let ten = Value::mul(&Value::Int(10), &Value::Int(width))?;
    let nine = Value::mul(&Value::Int(9), &args[0])?;
    let lost = Value::compare(&ten, &nine)? == std::cmp::Ordering::Less;
    Ok(Value::Int(if lost {
        width
            .checked_add(d)
            .ok_or_else(|| overflow("make_divisible"))?
    } else {
        width
    }))
}

fn extreme(
    function: &str,
    args: &[Value],
    side: std::cmp::Ordering,
) -> Result<Value, EvalErrorKind> {
    let items = match args {
        [Value::List(items)] => items,
        _ => args,
    };
    let mut items = items.iter();
    let mut best = items
        .next()
        .ok_or_else(|| EvalErrorKind::Argument(format!("`{function}` of an empty list")))?;
    for item in items {
        if Value::compare(item, best)? == side {
            best = item;
        }
    }
    Ok(best.clone())
}

fn fold(
    function: &str,
    list: &Value,
    start: i128,
    join: fn(&Value, &Value) -> Result<Value, crate::value::ValueError>,
) -> Result<Value, EvalErrorKind> {
    let Value::List(items) = list else {
        return Err(wrong(function, "a list", list));
    };
    let mut total = Value::Int(start);
    for item in items.iter() {
        total = join(&total, item)?;
    }
    Ok(total)
}

fn split(args: &[Value]) -> Result<Value, EvalErrorKind> {
    match (&args[0], &args[1]) {
        (Value::Str(text), Value::Str(separator)) if !separator.is_empty() => Ok(Value::List(
            text.split(&**separator).map(Value::str).collect(),
        )),
        (Value::Str(_), separator) => Err(wrong(
            "split",
            "a separator that is a text and not empty",
            separator,
        )),
        (text, _) => Err(wrong("split", "a text", text)),
    }
}

/// Query-key pairs of `S` new positions that follow `past` cached ones.
///
/// - full: what an eager implementation computes: every query against everything that the cache still holds,
///   `S * (S + past)`, where a window keeps `window - 1` past positions.
/// - causal: query i (0-based) sees `past + i + 1` positions, at most `window`: a triangle with a flat top.
fn pairs(args: &[Value], causal: bool) -> Result<Value, EvalErrorKind> {
    let (s, past) = (integer("pairs", &args[0])?, integer("pairs", &args[1])?);
    let window = match args.get(2) {
        None | Some(Value::None) => None,
        Some(w) => Some(integer("pairs", w)?),
    };
    if s < 0 || past < 0 || window.is_some_and(|w| w < 1) {
        return Err(EvalErrorKind::Argument(format!(
            "`pairs` needs S and past of 0 or more and a window of 1 or more, got S = {s}, past = {past}, window = {}",
            args.get(2).unwrap_or(&Value::None)
        )));
    }
    let count = if causal {
        // Queries that still see less than the window form the triangle; the others see `window` each.
        let growing = window.map_or(s, |w| (w - past).clamp(0, s));
        let triangle = growing
            .checked_add(1)
            .and_then(|next| growing.checked_mul(next))
            .map(|t| t / 2)
            .and_then(|t| t.checked_add(growing.checked_mul(past)?));
        let flat = (s - growing).checked_mul(window.unwrap_or(0));
        triangle.zip(flat).and_then(|(t, f)| t.checked_add(f))
    } else {
        let kept = window.map_or(past, |w| past.min(w - 1));
        s.checked_add(kept).and_then(|keys| s.checked_mul(keys))
    };
    count.map(Value::Int).ok_or_else(|| overflow("pairs"))
}
