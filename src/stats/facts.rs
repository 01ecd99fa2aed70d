//! The facts of one weight: what its header says, and what one pass over its data says.

use super::edge::Line;
use crate::checkpoint::packed::Padding;
use crate::checkpoint::scan::{Levels, MOST_LEVELS, Reads, Statistics, Supports};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Its name in the model.
    pub name: String,
    /// How it is stored: `plain`, `gptq`.
    pub scheme: String,
    /// The same for people.
    pub label: String,
    /// Its shape, where it is known.
    pub shape: Option<Vec<u64>>,
    /// How far that may exceed the model's.
    pub padding: Option<Padded>,
    /// How many numbers it has.
    pub elements: u64,
    /// Bytes of all that is needed to read it.
    pub bytes: u64,
    /// Width of its codes.
    pub code_bits: Option<u32>,
    /// Width of the activations that meet it, where the format fixes it.
    pub activation_bits: Option<u32>,
    /// Its tensors; the first holds the codes.
    pub tensors: Vec<Held>,
    /// What its data says; `None` where its numbers cannot be told.
    pub data: Option<Told>,
}

/// Longest side of a weight that somebody else tells of.
const MOST_SIDE: u64 = 1 << 32;

/// Most bytes of such a weight.
const MOST_BYTES: u64 = 1 << 48;

impl Facts {
    /// What the data says where a model gives the weight this shape; `None` where that is not its own, and not its own
    /// without padding.
    pub fn data_in(&self, shape: &[u64]) -> Option<Cow<'_, Told>> {
        match &self.data {
            Some(told) if *told.shape == *shape => Some(Cow::Borrowed(told)),
            _ => super::edge::cut(self, shape).map(Cow::Owned),
        }
    }

    /// Whether counts agree with each other, and sums and products of them fit: they may come from anywhere.
    pub(super) fn is_sound(&self) -> bool {
        let fits = |shape: &[u64]| {
            let product = shape
                .iter()
                .try_fold(1u64, |all, side| all.checked_mul((*side).max(1)));
            product.is_some() && shape.iter().all(|side| *side <= MOST_SIDE)
        };
        let sound = |told: &Told| {
            let adds_up = |counts: &[u64]| {
                let sum = counts.iter().try_fold(0u64, |all, n| all.checked_add(*n));
                counts.is_empty() || sum == Some(told.nnz)
            };
            let elements = told.shape.iter().product::<u64>();
            fits(&told.shape)
                && told.nnz <= elements
                && told
                    .nan
                    .checked_add(told.infinite)
                    .is_some_and(|n| n <= told.nnz)
                && adds_up(&told.per_row)
                && adds_up(&told.per_input)
                && told.edge.iter().flatten().all(|line| {
                    let longest = told.shape.iter().max().copied();
                    line.is_sound(longest.unwrap_or(0))
                })
        };
        self.shape.as_deref().is_none_or(fits)
            && self.elements <= MOST_BYTES
            && self.bytes <= MOST_BYTES
            && self
                .data
                .as_ref()
                .is_none_or(|told| fits(&told.shape) && sound(told))
    }
}

/// A stored tensor, by its header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub bytes: u64,
}

/// How far a shape may exceed the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padded {
    /// In dimension 0.
    Rows(u64),
    /// In the last dimension.
    Columns(u64),
}

impl Padded {
    pub(super) fn of(padding: Padding) -> Option<Padded> {
        match padding {
            Padding::None => None,
            Padding::Rows(n) => Some(Padded::Rows(n)),
            Padding::Columns(n) => Some(Padded::Columns(n)),
        }
    }

    pub(super) fn padding(padded: Option<Padded>) -> Padding {
        match padded {
            None => Padding::None,
            Some(Padded::Rows(n)) => Padding::Rows(n),
            Some(Padded::Columns(n)) => Padding::Columns(n),
        }
    }
}

/// What the data of a weight says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The shape that was counted by.
    pub shape: Vec<u64>,
    /// Numbers that are not 0.
    pub nnz: u64,
    /// Numbers that are none.
    pub nan: u64,
    /// Numbers that are infinite.
    pub infinite: u64,
    /// Non-zeros of each row.
    pub per_row: Vec<u64>,
    /// Non-zeros that read each input.
    pub per_input: Vec<u64>,
    /// Which inputs each row reads; `None` where rows or inputs are not told apart.
    pub supports: Option<Vec<RowReads>>,
    /// Distinct finite values.
    pub levels: Level,
    /// Sums and extremes over finite numbers.
    pub moments: Sums,
    /// All numbers of a short vector.
    pub values: Option<Vec<Real>>,
    /// Rows or columns that may be padding, the last first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<Vec<Line>>,
}

/// The inputs that a row reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RowReads {
    /// Each of them, ascending.
    Listed(Vec<Listed>),
    /// How many, where they are more than 64.
    Many(u64),
}

/// An input, and how many non-zeros of the row read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed(pub u32, pub u32);

/// Distinct values: all of them, or that they are many.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Level {
    /// Ascending.
    All(Vec<Real>),
    /// `">256"`.
    More(String),
}

/// Sums and extremes; `min` and `max` of no number are infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// How many numbers are finite.
    pub count: u64,
    /// Their sum.
    pub sum: Real,
    /// The sum of their magnitudes.
    pub sum_magnitudes: Real,
    /// The sum of their squares.
    pub sum_squares: Real,
    /// The smallest.
    pub min: Real,
    /// The largest.
    pub max: Real,
}

/// A number, equal to itself whatever it is; JSON has no word for those that are not finite, so they are texts there.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Real) -> bool {
        self.0.to_bits() == other.0.to_bits() || (self.0.is_nan() && other.0.is_nan())
    }
}

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            x if x.is_nan() => serializer.serialize_str("nan"),
            f64::INFINITY => serializer.serialize_str("inf"),
            f64::NEG_INFINITY => serializer.serialize_str("-inf"),
            x => serializer.serialize_f64(x),
        }
    }
}

// Values of two forms are told apart as they are read: there are millions, and serde's own `untagged` keeps a copy of each.

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Real, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Real;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"nan\", \"inf\" or \"-inf\"")
            }

            fn visit_f64<E: de::Error>(self, x: f64) -> Result<Real, E> {
                Ok(Real(x))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Real, E> {
                Ok(Real(n as f64))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Real, E> {
                Ok(Real(n as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Real, E> {
                match text {
                    "nan" => Ok(Real(f64::NAN)),
                    "inf" => Ok(Real(f64::INFINITY)),
                    "-inf" => Ok(Real(f64::NEG_INFINITY)),
                    other => Err(E::custom(format!("`{other}` is no number"))),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for RowReads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RowReads, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = RowReads;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of inputs, or how many there are")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<RowReads, E> {
                Ok(RowReads::Many(count))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RowReads, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(RowReads::Listed)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Level;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or a text where they are many")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Level, E> {
                Ok(Level::More(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Level, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Level::All)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl Told {
    /// As a scan tells it; `values` are those of a short vector, `edge` the lines that may be padding.
    pub(super) fn of(
        statistics: Statistics,
        values: Option<Vec<f32>>,
        edge: Option<Vec<Line>>,
    ) -> Told {
        let moments = statistics.moments;
        let moment = |get: fn(&crate::checkpoint::scan::Moments) -> f64, none: f64| {
            Real(moments.as_ref().map_or(none, get))
        };
        Told {
            shape: statistics.shape.into_vec(),
            nnz: statistics.nnz,
            nan: statistics.nan,
            infinite: statistics.infinite,
            per_row: statistics.per_row,
            per_input: statistics.per_input,
            supports: statistics.supports.as_ref().map(row_reads),
            levels: match statistics.levels {
                Levels::All(levels) => Level::All(levels.into_iter().map(Real).collect()),
                Levels::More => Level::More(format!(">{MOST_LEVELS}")),
            },
            moments: Sums {
                count: moments.map_or(0, |m| m.count),
                sum: moment(|m| m.sum, 0.0),
                sum_magnitudes: moment(|m| m.sum_magnitudes, 0.0),
                sum_squares: moment(|m| m.sum_squares, 0.0),
                min: moment(|m| m.min, f64::INFINITY),
                max: moment(|m| m.max, f64::NEG_INFINITY),
            },
            values: values.map(|all| all.into_iter().map(|x| Real(x.into())).collect()),
            edge,
        }
    }
}

fn row_reads(supports: &Supports) -> Vec<RowReads> {
    let rows = (0..supports.rows()).filter_map(|row| supports.row(row));
    rows.map(|reads| match reads {
        Reads::Listed(list) => RowReads::Listed(
            list.iter()
                .map(|(input, count)| Listed(*input, *count))
                .collect(),
        ),
        Reads::Many(size) => RowReads::Many(size),
    })
    .collect()
}
