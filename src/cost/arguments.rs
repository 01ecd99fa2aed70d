//! What stands in the parentheses of a block: values by name, read with their defaults.
//!
//! Reading an option also says that there is one: what was read is the list of options that messages and `--blocks` show,
//! so that the two never differ.

use super::element::{ACTIVATIONS, Element, activation};
use crate::formula::did_you_mean;
use crate::units;
use crate::value::Value;
use std::sync::Arc;

/// The longest list of an option.
pub(super) const MAX_ITEMS: usize = 4096;

/// An option that a block has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: &'static str,
    /// Its default, as it is written.
    pub default: String,
}

/// A fault of an argument: which one, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentError {
    /// The number of the argument, from 0; none where one is missing.
    pub argument: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

/// Values by name.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    values: Vec<(Arc<str>, Value)>,
    asked: Vec<Asked>,
}

type Read<T> = Result<T, ArgumentError>;

impl Arguments {
    /// Arguments as they were written, in order.
    pub fn new(values: Vec<(Arc<str>, Value)>) -> Arguments {
        Arguments {
            values,
            asked: Vec::new(),
        }
    }

    /// What was asked for so far.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    fn get(&mut self, name: &'static str, default: String) -> Option<(usize, Value)> {
        self.asked.push(Asked { name, default });
        let at = self.values.iter().position(|(known, _)| **known == *name)?;
        Some((at, self.values[at].1.clone()))
    }

    fn wrong<T>(&self, at: usize, wanted: &str) -> Read<T> {
        let (name, value) = &self.values[at];
        Err(ArgumentError {
            argument: Some(at),
            reason: format!(
                "`{}` has to be {wanted}, not {}",
                units::clipped(name, 40),
                units::clipped(&value.describe(), 60)
            ),
        })
    }

    /// A size of 1 or more.
    pub fn size(&mut self, name: &'static str, default: u64) -> Read<u64> {
        self.whole(name, default.to_string(), 1)?
            .map_or(Ok(default), Ok)
    }

    /// A number of 0 or more.
    pub fn count(&mut self, name: &'static str, default: u64) -> Read<u64> {
        self.whole(name, default.to_string(), 0)?
            .map_or(Ok(default), Ok)
    }

    /// A size of 1 or more that follows from others where it is not given.
    pub fn optional(&mut self, name: &'static str, otherwise: &str) -> Read<Option<u64>> {
        self.whole(name, otherwise.into(), 1)
    }

    /// A number of 0 or more that follows from others where it is not given.
    pub fn optional_count(&mut self, name: &'static str, otherwise: &str) -> Read<Option<u64>> {
        self.whole(name, otherwise.into(), 0)
    }

    /// A size that has to be given.
    pub fn required(&mut self, name: &'static str) -> Read<u64> {
        self.whole(name, String::new(), 1)?.ok_or(ArgumentError {
            argument: None,
            reason: format!("`{name}` has to be given, as `{name}=64`"),
        })
    }

    fn whole(&mut self, name: &'static str, default: String, least: u64) -> Read<Option<u64>> {
        let Some((at, value)) = self.get(name, default) else {
            return Ok(None);
        };
        let number = value.as_int().and_then(|n| u64::try_from(n).ok());
        match number.filter(|n| *n >= least) {
            Some(n) => Ok(Some(n)),
            None => self.wrong(at, &format!("a whole number from {least} to 2^64 - 1")),
        }
    }

    /// A number, whole or not, above 0.
    pub fn number(&mut self, name: &'static str, default: u64) -> Read<Value> {
        let Some((at, value)) = self.get(name, default.to_string()) else {
            return Ok(Value::Int(default.into()));
        };
        let positive = match &value {
            Value::Int(n) => *n > 0,
            Value::Ratio(ratio) => ratio.parts().0 > 0,
            _ => false,
        };
        if positive {
            Ok(value)
        } else {
            self.wrong(at, "a number above 0")
        }
    }

    /// A list of sizes; one size is a list of one.
    pub fn sizes(&mut self, name: &'static str, default: &[u64]) -> Read<Vec<u64>> {
        let shown: Vec<String> = default.iter().map(u64::to_string).collect();
        let Some((at, value)) = self.get(name, format!("[{}]", shown.join(","))) else {
            return Ok(default.to_vec());
        };
        let items = match &value {
            Value::List(items) => items.to_vec(),
            one => vec![one.clone()],
        };
        if items.len() > MAX_ITEMS {
            return Err(ArgumentError {
                argument: Some(at),
                reason: format!(
                    "`{name}` has {} items; at most {MAX_ITEMS} are read",
                    items.len()
                ),
            });
        }
        let size = |item: &Value| {
            let size = item.as_int().and_then(|n| u64::try_from(n).ok());
            size.filter(|n| *n > 0)
        };
        let sizes: Option<Vec<u64>> = items.iter().map(size).collect();
        match sizes {
            Some(sizes) => Ok(sizes),
            None => self.wrong(at, "a list of sizes of 1 or more, such as [64,64]"),
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, name: &'static str, default: bool) -> Read<bool> {
        match self.get(name, default.to_string()) {
            None => Ok(default),
            Some((_, Value::Bool(flag))) => Ok(flag),
            Some((at, _)) => self.wrong(at, "true or false"),
        }
    }

    /// One of some names.
    pub fn choice(
        &mut self,
        name: &'static str,
        default: &'static str,
        choices: &[&'static str],
    ) -> Read<&'static str> {
        let Some((at, value)) = self.get(name, default.into()) else {
            return Ok(default);
        };
        let text = value.as_str().unwrap_or_default();
        match choices.iter().find(|choice| **choice == text) {
            Some(choice) => Ok(choice),
            None => {
                let hint = did_you_mean(text, choices.iter().copied());
                self.wrong(at, &format!("one of {}{hint}", choices.join(", ")))
            }
        }
    }

    /// A pointwise function by name.
    pub fn activation(&mut self, name: &'static str, default: Element) -> Read<Element> {
        let names: Vec<&'static str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
        let chosen = self.choice(name, default.name(), &names)?;
        Ok(activation(chosen).unwrap_or(default))
    }

    /// A text that something else reads.
    pub fn text<T>(
        &mut self,
        name: &'static str,
        otherwise: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Read<Option<T>> {
        let Some((at, value)) = self.get(name, otherwise.into()) else {
            return Ok(None);
        };
        let Some(text) = value.as_str() else {
            return self.wrong(at, "a name");
        };
        read(text).map(Some).map_err(|reason| ArgumentError {
            argument: Some(at),
            reason,
        })
    }

    /// Refuses what nothing asked for.
    pub fn finish(self) -> Read<()> {
        for (at, (name, _)) in self.values.iter().enumerate() {
            let known: Vec<&str> = self.asked.iter().map(|asked| asked.name).collect();
            if !known.contains(&&**name) {
                return Err(ArgumentError {
                    argument: Some(at),
                    reason: format!(
                        "there is no option `{}`{}; there are {}",
                        units::clipped(name, 40),
                        did_you_mean(name, known.iter().copied()),
                        known.join(", ")
                    ),
                });
            }
            if self.values[..at].iter().any(|(before, _)| before == name) {
                return Err(ArgumentError {
                    argument: Some(at),
                    reason: format!("`{name}` stands twice"),
                });
            }
        }
        Ok(())
    }
}
