//! Exact values: what formulas compute with and what a config holds.
//!
//! Integers and ratios are checked: an operation that does not fit is an error with a name, never a wrapped number and
//! never a float. A float exists only where a function says so (`log2`, `expected_distinct`); `Infinity` and `NaN` of a
//! config are kept as [`Value::Opaque`] and are an error only when a formula uses them.

use std::fmt;
use std::sync::Arc;

/// Longest list.
pub const MAX_ITEMS: usize = 100_000;

/// An interned name: two names are equal exactly when they are the same string.
///
/// Names are compared in every look-up of a formula, so equality is one pointer comparison. The interner keeps each
/// distinct name for the life of the program; names come from the database and from configs, which are size-limited.
#[derive(Clone, Copy)]
pub struct Name(&'static str);

impl Name {
    /// The interned form of `text`.
    pub fn new(text: &str) -> Name {
        use std::collections::HashSet;
        use std::sync::{LazyLock, Mutex};
        static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
        let mut names = NAMES
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(known) = names.get(text) {
            return Name(known);
        }
        let kept: &'static str = Box::leak(text.into());
        names.insert(kept);
        Name(kept)
    }

    /// The text of the name.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}
impl Eq for Name {}
impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.0.as_ptr() as usize).hash(state);
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// A value of the formula language or of a config file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None` in a formula, `null` in a config.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An exact integer.
    Int(i128),
    /// An exact fraction that is not an integer.
    Ratio(Ratio),
    /// A result of one of the few functions that are irrational.
    Float(f64),
    /// A string.
    Str(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// An object of a config, in file order.
    Object(Arc<Object>),
    /// `Infinity`, `-Infinity`, `NaN` or a number too large to hold: carried along, an error when used.
    Opaque(Arc<str>),
}

/// An object of a config, keys in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub Vec<(Arc<str>, Value)>);

impl Object {
    /// The value of `key`, if the object has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| &**k == key).map(|(_, v)| v)
    }
}

/// An exact fraction in lowest terms with a positive denominator other than 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    num: i128,
    den: i128,
}

/// Why an operation on values has no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// `10 ** 40`: the exact result does not fit 128 bits.
    #[error("the result of `{0}` does not fit 128 bits")]
    Overflow(&'static str),
    /// Two lists joined to one of more than 100,000 items.
    #[error("a list of more than {0} items")]
    TooLong(usize),
    /// `1 // 0`.
    #[error("division by zero")]
    DivisionByZero,
    /// `'a' * 2`.
    #[error("`{op}` needs numbers, got {left} and {right}")]
    NotNumbers {
        /// The operator.
        op: &'static str,
        /// What stands on its left.
        left: String,
        /// What stands on its right.
        right: String,
    },
    /// `2 ** -1` or `2 ** (1/2)`.
    #[error("`**` needs an integer exponent from 0 to 1000, got {0}")]
    Exponent(String),
}

impl Value {
    /// The fraction `num / den`, an integer where it is one.
    pub fn ratio(num: i128, den: i128) -> Result<Value, ValueError> {
        if den == 0 {
            return Err(ValueError::DivisionByZero);
        }
        let divisor = gcd(num.unsigned_abs(), den.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| ValueError::Overflow("/"))?;
        let sign = if den < 0 { -1 } else { 1 };
        let num = (num / divisor)
            .checked_mul(sign)
            .ok_or(ValueError::Overflow("/"))?;
        let den = (den / divisor)
            .checked_mul(sign)
            .ok_or(ValueError::Overflow("/"))?;
        Ok(if den == 1 {
            Value::Int(num)
        } else {
            Value::Ratio(Ratio { num, den })
        })
    }

    /// A string value.
    pub fn str(text: &str) -> Value {
        Value::Str(text.into())
    }

    /// Python's truth: `None`, `False`, 0, `''`, `[]` and `{}` are false.
    pub fn truth(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Ratio(_) | Value::Opaque(_) => true,
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(l) => !l.is_empty(),
            Value::Object(o) => !o.0.is_empty(),
        }
    }

    /// What the value is, for messages: `the string 'abc'`, `None`, `the list [1, 2]`.
    pub fn describe(&self) -> String {
        match self {
            Value::None => "None".into(),
            Value::Str(s) => format!("the string {}", Value::str(&shortened(s))),
            Value::List(l) if l.len() > 8 => format!("a list of {}", l.len()),
            Value::List(_) => format!("the list {}", shortened(&self.to_string())),
            Value::Object(_) => "an object".into(),
            _ => shortened(&self.to_string()),
        }
    }

    /// The integer, if it is one. `True` is none: a size or a count is never a truth value.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(o) => Some(o),
            _ => None,
        }
    }

    /// Numerator and denominator of an exact number; in arithmetic `True` is 1 as in Python.
    fn parts(&self) -> Option<(i128, i128)> {
        match self {
            Value::Ratio(r) => Some((r.num, r.den)),
            Value::Int(i) => Some((*i, 1)),
            Value::Bool(b) => Some((i128::from(*b), 1)),
            _ => None,
        }
    }

    /// The number as a float, for the functions that are irrational.
    pub fn to_f64(&self) -> Option<f64> {
        match self {
            Value::Float(f) => Some(*f),
            other => other.parts().map(|(n, d)| n as f64 / d as f64),
        }
    }

    /// Rounded down to an integer.
    pub fn floor(&self) -> Option<i128> {
        match self {
            Value::Float(f) => float_to_int(f.floor()),
            other => other.parts().map(|(n, d)| n.div_euclid(d)),
        }
    }

    /// Rounded up to an integer.
    pub fn ceil(&self) -> Option<i128> {
        match self {
            Value::Float(f) => float_to_int(f.ceil()),
            other => other
                .parts()
                .map(|(n, d)| n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0)),
        }
    }

    fn numbers(op: &'static str, left: &Value, right: &Value) -> ValueError {
        ValueError::NotNumbers {
            op,
            left: left.describe(),
            right: right.describe(),
        }
    }

    /// `left + right`; lists are joined.
    pub fn add(left: &Value, right: &Value) -> Result<Value, ValueError> {
        if let (Value::List(a), Value::List(b)) = (left, right) {
            if a.len() + b.len() > MAX_ITEMS {
                return Err(ValueError::TooLong(MAX_ITEMS));
            }
            return Ok(Value::List(a.iter().chain(b.iter()).cloned().collect()));
        }
        exact_or_float(
            "+",
            left,
            right,
            |a, b| a + b,
            |(an, ad), (bn, bd)| {
                if ad == 1 && bd == 1 {
                    return Ok(Value::Int(
                        an.checked_add(bn).ok_or(ValueError::Overflow("+"))?,
                    ));
                }
                cross("+", (an, ad), (bn, bd), i128::checked_add)
            },
        )
    }

    /// `left - right`.
    pub fn sub(left: &Value, right: &Value) -> Result<Value, ValueError> {
        exact_or_float(
            "-",
            left,
            right,
            |a, b| a - b,
            |a, b| cross("-", a, b, i128::checked_sub),
        )
    }

    /// `left * right`.
    pub fn mul(left: &Value, right: &Value) -> Result<Value, ValueError> {
        exact_or_float(
            "*",
            left,
            right,
            |a, b| a * b,
            |(an, ad), (bn, bd)| {
                let num = an.checked_mul(bn).ok_or(ValueError::Overflow("*"))?;
                if ad == 1 && bd == 1 {
                    return Ok(Value::Int(num));
                }
                Value::ratio(num, ad.checked_mul(bd).ok_or(ValueError::Overflow("*"))?)
            },
        )
    }

    /// `left / right`, exactly.
    pub fn div(left: &Value, right: &Value) -> Result<Value, ValueError> {
        exact_or_float(
            "/",
            left,
            right,
            |a, b| a / b,
            |(an, ad), (bn, bd)| {
                let num = an.checked_mul(bd).ok_or(ValueError::Overflow("/"))?;
                Value::ratio(num, ad.checked_mul(bn).ok_or(ValueError::Overflow("/"))?)
            },
        )
    }

    /// `left // right`, rounded down as in Python.
    pub fn floor_div(left: &Value, right: &Value) -> Result<Value, ValueError> {
        if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
            return floor_div_int(a, b).map(Value::Int);
        }
        let quotient = Value::div(left, right)?;
        quotient
            .floor()
            .map(Value::Int)
            .ok_or(ValueError::Overflow("//"))
    }

    /// `left % right`, with the sign of `right` as in Python.
    pub fn rem(left: &Value, right: &Value) -> Result<Value, ValueError> {
        Value::sub(left, &Value::mul(&Value::floor_div(left, right)?, right)?)
    }

    /// `left ** right` for an integer exponent.
    pub fn pow(left: &Value, right: &Value) -> Result<Value, ValueError> {
        let exponent = right.as_int().filter(|e| (0..=1000).contains(e));
        let Some(exponent) = exponent else {
            return Err(ValueError::Exponent(right.describe()));
        };
        let mut result = Value::Int(1);
        for _ in 0..exponent {
            result = Value::mul(&result, left).map_err(|e| match e {
                ValueError::Overflow(_) => ValueError::Overflow("**"),
                _ => Value::numbers("**", left, right),
            })?;
        }
        Ok(result)
    }

    /// Order of two numbers, `None` where there is none.
    pub fn compare(left: &Value, right: &Value) -> Result<std::cmp::Ordering, ValueError> {
        if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
            return Ok(a.cmp(&b));
        }
        let difference = match (left, right) {
            (Value::Str(a), Value::Str(b)) => return Ok(a.cmp(b)),
            _ => Value::sub(left, right).map_err(|e| match e {
                ValueError::NotNumbers { .. } => Value::numbers("<", left, right),
                other => other,
            })?,
        };
        let sign = difference
            .to_f64()
            .filter(|d| !d.is_nan())
            .ok_or_else(|| Value::numbers("<", left, right))?;
        Ok(sign.total_cmp(&0.0))
    }

    /// Python's `==`: numbers by value (`True == 1`), everything else by kind and content.
    pub fn equal(left: &Value, right: &Value) -> bool {
        match (left.parts(), right.parts()) {
            (Some(a), Some(b)) => a == b,
            _ => match (left.to_f64(), right.to_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => left == right,
            },
        }
    }

    /// The value as it is written in a formula, so that it is read back as the same value.
    pub fn literal(&self) -> String {
        match self {
            // The language has no escapes; a string holds one kind of quote at most.
            Value::Str(s) if s.contains('\'') => format!("\"{s}\""),
            Value::Str(s) => format!("'{s}'"),
            Value::Ratio(r) => r
                .decimal()
                .unwrap_or_else(|| format!("{}/{}", r.num, r.den)),
            other => other.to_string(),
        }
    }
}

impl Ratio {
    /// Numerator and denominator.
    pub fn parts(&self) -> (i128, i128) {
        (self.num, self.den)
    }

    /// The ratio as a finite decimal, if it is one.
    fn decimal(&self) -> Option<String> {
        let (mut den, mut num, mut places) = (self.den, self.num, 0usize);
        while den != 1 {
            let step = if den % 10 == 0 {
                1
            } else if den % 2 == 0 {
                5
            } else if den % 5 == 0 {
                2
            } else {
                return None;
            };
            num = num.checked_mul(step)?;
            den = den.checked_mul(step)? / 10;
            places += 1;
        }
        let digits = format!("{:0>width$}", num.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        Some(format!(
            "{}{whole}.{fraction}",
            if num < 0 { "-" } else { "" }
        ))
    }
}

/// `a // b` rounded towards minus infinity.
pub fn floor_div_int(a: i128, b: i128) -> Result<i128, ValueError> {
    if b == 0 {
        return Err(ValueError::DivisionByZero);
    }
    let quotient = a.checked_div(b).ok_or(ValueError::Overflow("//"))?;
    Ok(if a % b != 0 && ((a < 0) != (b < 0)) {
        quotient - 1
    } else {
        quotient
    })
}

fn exact_or_float(
    op: &'static str,
    left: &Value,
    right: &Value,
    float: fn(f64, f64) -> f64,
    exact: impl Fn((i128, i128), (i128, i128)) -> Result<Value, ValueError>,
) -> Result<Value, ValueError> {
    match (left.parts(), right.parts()) {
        (Some(a), Some(b)) => exact(a, b),
        _ => match (left.to_f64(), right.to_f64()) {
            (Some(a), Some(b)) => {
                let result = float(a, b);
                if result.is_finite() {
                    Ok(Value::Float(result))
                } else if op == "/" && b == 0.0 {
                    Err(ValueError::DivisionByZero)
                } else {
                    Err(ValueError::Overflow(op))
                }
            }
            _ => Err(Value::numbers(op, left, right)),
        },
    }
}

fn cross(
    op: &'static str,
    (an, ad): (i128, i128),
    (bn, bd): (i128, i128),
    join: fn(i128, i128) -> Option<i128>,
) -> Result<Value, ValueError> {
    let left = an.checked_mul(bd).ok_or(ValueError::Overflow(op))?;
    let right = bn.checked_mul(ad).ok_or(ValueError::Overflow(op))?;
    let num = join(left, right).ok_or(ValueError::Overflow(op))?;
    Value::ratio(num, ad.checked_mul(bd).ok_or(ValueError::Overflow(op))?)
}

/// A text that a message can hold.
pub fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text.to_string(),
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

fn float_to_int(f: f64) -> Option<i128> {
    (f.abs() < 1e38).then_some(f as i128)
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Ratio(r) => write!(f, "{}/{}", r.num, r.den),
            Value::Float(x) => write!(f, "{x}"),
            Value::Str(s) => write!(f, "'{}'", s.escape_debug()),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Object(o) => {
                f.write_str("{")?;
                for (i, (key, value)) in o.0.iter().enumerate() {
                    write!(
                        f,
                        "{}'{}': {value}",
                        if i == 0 { "" } else { ", " },
                        key.escape_debug()
                    )?;
                }
                f.write_str("}")
            }
            Value::Opaque(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_kept_in_lowest_terms_and_become_integers() {
        assert_eq!(Value::ratio(6, 4).unwrap().to_string(), "3/2");
        assert_eq!(Value::ratio(6, -3).unwrap(), Value::Int(-2));
        assert_eq!(Value::ratio(1, 0), Err(ValueError::DivisionByZero));
        assert_eq!(Value::ratio(i128::MIN, -1), Err(ValueError::Overflow("/")));
    }

    #[test]
    fn floor_division_rounds_down_as_python_does() {
        let floor = |a, b| Value::floor_div(&Value::Int(a), &Value::Int(b)).unwrap();
        assert_eq!(
            (floor(7, 2), floor(-7, 2), floor(7, -2)),
            (Value::Int(3), Value::Int(-4), Value::Int(-4))
        );
        assert_eq!(
            Value::rem(&Value::Int(-7), &Value::Int(3)).unwrap(),
            Value::Int(2)
        );
    }

    #[test]
    fn nothing_wraps() {
        let big = Value::Int(i128::MAX);
        assert_eq!(
            Value::add(&big, &Value::Int(1)),
            Err(ValueError::Overflow("+"))
        );
        assert_eq!(
            Value::mul(&big, &Value::Int(2)),
            Err(ValueError::Overflow("*"))
        );
        assert_eq!(
            Value::pow(&Value::Int(10), &Value::Int(40)),
            Err(ValueError::Overflow("**"))
        );
        assert_eq!(
            Value::floor_div(&Value::Int(i128::MIN), &Value::Int(-1)),
            Err(ValueError::Overflow("//"))
        );
    }
}
