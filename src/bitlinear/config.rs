//! What shares a scale, by the names that configs use.

use super::LayerError;
use crate::kernels::Granularity;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

/// How a layer quantizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantConfig {
    /// What activations become.
    pub activation_dtype: ActivationDtype,
    /// Which activations share a scale.
    pub activation_granularity: Granularity,
    /// Which weights share a scale.
    pub weight_granularity: WeightGranularity,
}

/// What activations become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationDtype {
    /// Integers of 8 bits, scaled by the largest magnitude.
    #[default]
    Int8,
}

/// Which weights of `[out, in]` share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightGranularity {
    /// All: one scale.
    #[default]
    Tensor,
    /// Those of an output: `[out]` scales.
    Row,
    /// So many neighbours of an output: `[out, ceil(in / N)]` scales. The last group of an output has what is left.
    Group(NonZeroUsize),
}

const ACTIVATION_GRANULARITIES: [(&str, Granularity); 2] = [
    ("per_token", Granularity::Token),
    ("per_tensor", Granularity::Tensor),
];

impl QuantConfig {
    /// The config of three names, such as `int8`, `per_token`, `per_tensor`.
    pub fn named(
        activation_dtype: &str,
        activation_granularity: &str,
        weight_granularity: &str,
    ) -> Result<QuantConfig, LayerError> {
        let granularity = ACTIVATION_GRANULARITIES
            .iter()
            .find(|(name, _)| *name == activation_granularity);
        let (_, granularity) = granularity.ok_or_else(|| {
            unknown(
                "activation granularity",
                activation_granularity,
                "per_token, per_tensor",
            )
        })?;
        Ok(QuantConfig {
            activation_dtype: activation_dtype.parse()?,
            activation_granularity: *granularity,
            weight_granularity: weight_granularity.parse()?,
        })
    }
}

impl fmt::Display for QuantConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granularity = ACTIVATION_GRANULARITIES
            .iter()
            .find(|(_, granularity)| *granularity == self.activation_granularity);
        let (activations, _) = granularity.expect("every granularity has a name");
        write!(
            f,
            "activations {} {activations}, weights {}",
            self.activation_dtype, self.weight_granularity
        )
    }
}

impl FromStr for ActivationDtype {
    type Err = LayerError;
    fn from_str(name: &str) -> Result<ActivationDtype, LayerError> {
        match name {
            "int8" => Ok(ActivationDtype::Int8),
            _ => Err(unknown("activation dtype", name, "int8")),
        }
    }
}

impl fmt::Display for ActivationDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ActivationDtype::Int8 => f.write_str("int8"),
        }
    }
}

impl WeightGranularity {
    /// Neighbouring weights of an output that share a scale, where it has `cols` inputs.
    pub fn group_cols(self, cols: usize) -> usize {
        match self {
            WeightGranularity::Tensor | WeightGranularity::Row => cols,
            WeightGranularity::Group(size) => size.get().min(cols),
        }
    }

    /// How many groups an output of `cols` inputs has.
    pub fn groups(self, cols: usize) -> usize {
        cols.div_ceil(self.group_cols(cols).max(1))
    }
}

impl FromStr for WeightGranularity {
    type Err = LayerError;
    fn from_str(name: &str) -> Result<WeightGranularity, LayerError> {
        let group = || {
            let size = name.strip_prefix("per_group_")?.parse().ok()?;
            Some(WeightGranularity::Group(size))
        };
        match name {
            "per_tensor" => Ok(WeightGranularity::Tensor),
            "per_row" => Ok(WeightGranularity::Row),
            _ => group().ok_or_else(|| {
                unknown(
                    "weight granularity",
                    name,
                    "per_tensor, per_row, per_group_N with N from 1",
                )
            }),
        }
    }
}

impl fmt::Display for WeightGranularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightGranularity::Tensor => f.write_str("per_tensor"),
            WeightGranularity::Row => f.write_str("per_row"),
            WeightGranularity::Group(size) => write!(f, "per_group_{size}"),
        }
    }
}

fn unknown(what: &'static str, name: &str, known: &'static str) -> LayerError {
    LayerError::Name {
        what,
        name: name.into(),
        known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_published_models() {
        let named = QuantConfig::named("int8", "per_token", "per_tensor").unwrap();
        assert_eq!(named, QuantConfig::default());
        assert_eq!(
            named.to_string(),
            "activations int8 per_token, weights per_tensor"
        );
    }

    #[test]
    fn names_of_weight_granularities_are_read_as_they_are_written() {
        for name in ["per_tensor", "per_row", "per_group_1", "per_group_128"] {
            let granularity: WeightGranularity = name.parse().unwrap();
            assert_eq!(granularity.to_string(), name);
        }
    }

    #[test]
    fn a_name_that_is_unknown_is_told_with_those_that_are() {
        for name in ["per_group_0", "per_group_", "per_group_-1", "row", ""] {
            let error = name.parse::<WeightGranularity>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("per_group_N"));
        }
        let error = QuantConfig::named("int4", "per_token", "per_tensor").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no activation dtype `int4`; there is int8"
        );
        let error = QuantConfig::named("int8", "per_row", "per_tensor").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no activation granularity `per_row`; there is per_token, per_tensor"
        );
    }

    #[test]
    fn the_last_group_has_what_is_left() {
        let group: WeightGranularity = "per_group_4".parse().unwrap();
        assert_eq!([4, 5, 8, 3].map(|cols| group.groups(cols)), [1, 2, 2, 1]);
        assert_eq!(group.group_cols(3), 3);
        assert_eq!(WeightGranularity::Row.groups(100), 1);
    }
}
