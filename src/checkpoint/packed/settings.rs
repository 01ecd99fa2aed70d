//! The quantization settings of a model, and where they stand.
//!
//! Config and files in, the one object that holds the settings out. They fill gaps that tensors leave (which version of a
//! format, which of two equally wide groups) and are never believed against the tensors.

use super::super::CheckpointError;
use crate::json;
use crate::source::Files;
use crate::value::Object;
use crate::value::Value;
use std::sync::Arc;

/// Where settings stand in a config, by who writes it there: transformers, vision language models, old llm-compressor, MLX.
const PLACES: &[&[&str]] = &[
    &["quantization_config"],
    &["text_config", "quantization_config"],
    &["compression_config"],
    &["quantization"],
];

/// Files of their own, by who writes them: modelopt, AutoGPTQ, AutoAWQ, exllamav3.
const FILES: &[&str] = &[
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
    "quantization_config.json",
];

/// Algorithms of modelopt that quantize activations, and how wide.
const ALGORITHMS: &[(&str, u32)] = &[
    ("FP8", 8),
    ("FP8_PER_CHANNEL_PER_TOKEN", 8),
    ("MXFP8", 8),
    ("W4A8_AWQ", 8),
    ("NVFP4", 4),
    ("NVFP4_AWQ", 4),
    ("MXFP4", 4),
];

/// The quantization settings of a model.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    object: Arc<Object>,
    /// Where they stand: `quantization_config`, `quantize_config.json`; `None` where a model has none.
    pub place: Option<&'static str>,
}

impl Settings {
    /// Looks for settings in the config, else in the files that hold nothing else.
    pub fn find(
        config: Option<&Object>,
        files: Option<&dyn Files>,
    ) -> Result<Settings, CheckpointError> {
        if let Some(found) = config.and_then(in_config) {
            return Ok(found);
        }
        match files {
            Some(files) => in_files(files),
            None => Ok(Settings::default()),
        }
    }

    /// The name of the method that a model was quantized with, as its settings call it.
    pub fn method(&self) -> Option<&str> {
        self.text("quant_method")
    }

    /// Whether the file holds floats that are quantized when they are used.
    pub(super) fn is_online(&self) -> bool {
        self.text("quantization_mode") == Some("online")
    }

    /// A text of the settings.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.object.get(key)?.as_str()
    }

    /// A natural number of the settings.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        number(&self.object, key)
    }

    /// An object of the settings.
    pub(super) fn object(&self, key: &str) -> Option<&Object> {
        self.object.get(key)?.as_object()
    }

    /// Numbers per group, if it is a number of them; -1 and `null` mean the whole row.
    pub(super) fn group_size(&self) -> Option<u64> {
        self.number("group_size")
            .or_else(|| self.number("q_group_size"))
    }

    /// Bits per code.
    pub(super) fn bits(&self) -> Option<u64> {
        self.number("bits").or_else(|| self.number("w_bit"))
    }

    /// Bits per code and numbers per group of a module that has an entry of its own, else of all.
    pub(super) fn module_group(&self, module: &str) -> Option<(u64, u64)> {
        let of = |object: &Object| Some((number(object, "bits")?, number(object, "group_size")?));
        let own = self.object.get(module).and_then(Value::as_object);
        own.and_then(of).or_else(|| of(&self.object))
    }

    /// Bits per code and numbers per group, as HQQ nests them.
    pub(super) fn nested_group(&self) -> (Option<u64>, Option<u64>) {
        let params = self.object.get("quant_config").and_then(Value::as_object);
        let params = params.and_then(|p| p.get("weight_quant_params")?.as_object());
        let of = |key: &str| number(params?, key);
        (of("nbits"), of("group_size"))
    }

    /// Bits per code of a module, where entries name parts of paths.
    pub(super) fn module_bits(&self, module: &str) -> Option<u64> {
        let own = self.object.get("module_quant_configs");
        let entries = own.and_then(Value::as_object).map(|o| &*o.0);
        let mut named = entries.unwrap_or_default().iter();
        named
            .find(|(name, _)| module.contains(&**name))
            .and_then(|(_, entry)| number(entry.as_object()?, "num_bits"))
            .or_else(|| self.number("num_bits"))
    }

    /// Rows and columns of a block that shares a scale.
    pub(super) fn block(&self) -> (Option<u64>, Option<u64>) {
        let groups = self.groups("").into_iter();
        let mut written =
            groups.filter_map(|g| g.get("weights")?.as_object()?.get("block_structure"));
        let block = self
            .object
            .get("weight_block_size")
            .or_else(|| written.next());
        match block {
            Some(Value::List(sides)) => {
                let side = |at: usize| u64::try_from(sides.get(at)?.as_int()?).ok();
                (side(0), side(1))
            }
            _ => (None, None),
        }
    }

    /// Width of the activations that meet a weight of codes of `bits` bits, where settings fix it and name one for it.
    pub(super) fn activation_bits(&self, weight: &str, bits: u32, is_float: bool) -> Option<u32> {
        let mut groups = self.groups(weight);
        if !groups.is_empty() {
            // A group with other codes is not this weight's.
            let is_same = |group: &&Object| {
                let weights = group.get("weights").and_then(Value::as_object);
                weights.is_some_and(|w| {
                    let kind = w.get("type").and_then(Value::as_str);
                    number(w, "num_bits") == Some(bits.into())
                        && kind.is_none_or(|kind| (kind == "float") == is_float)
                })
            };
            groups.retain(is_same);
            let width = |group: &&Object| -> Option<u64> {
                number(group.get("input_activations")?.as_object()?, "num_bits")
            };
            return same(groups.iter().map(width))?.try_into().ok();
        }
        if let Some(algorithm) = self.algorithm(weight) {
            let row = ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
            return row.map(|(_, bits)| *bits);
        }
        let quantized = match self.method()? {
            "fp8" => self.object.get("activation_scheme").is_some(),
            "fbgemm_fp8" => true,
            _ => false,
        };
        quantized.then_some(8)
    }

    /// What modelopt calls the way that a weight was quantized, in the entry of its module or for all.
    fn algorithm(&self, weight: &str) -> Option<&str> {
        let module = weight.strip_suffix(".weight").unwrap_or(weight);
        let layers = self
            .object
            .get("quantized_layers")
            .and_then(Value::as_object);
        let own = layers.and_then(|layers| layers.get(module)?.as_object()?.get("quant_algo"));
        own.or_else(|| self.object.get("quant_algo"))?.as_str()
    }

    /// Width of the integers of a weight, where settings name one width for it.
    pub(super) fn weight_bits(&self, weight: &str) -> Option<u32> {
        let groups = self.weight_groups(weight);
        same(groups.iter().map(|(bits, _)| Some(*bits)))
    }

    /// Widths and group sizes that the integers of a weight may have.
    pub(super) fn weight_groups(&self, weight: &str) -> Vec<(u32, Option<u64>)> {
        let groups = self.groups(weight);
        let weights = groups.iter().filter_map(|g| g.get("weights")?.as_object());
        weights
            .filter(|w| w.get("type").and_then(Value::as_str) != Some("float"))
            .filter_map(|w| {
                let bits = number(w, "num_bits")?.try_into().ok()?;
                Some((bits, number(w, "group_size")))
            })
            .collect()
    }

    /// Whether integers were packed before codes crossed words: compressed-tensors up to 0.12.
    pub(super) fn packs_whole_words(&self) -> bool {
        let version = self.text("version").unwrap_or_default();
        let mut parts = version.split('.').map(|part| part.parse::<u32>());
        matches!((parts.next(), parts.next()), (Some(Ok(0)), Some(Ok(minor))) if minor < 15)
    }

    /// The groups of settings that a weight may belong to: the one that names its module, else all that name no module. What
    /// names a pattern is among them: which modules it means is not asked, tensors say more.
    fn groups(&self, weight: &str) -> Vec<&Object> {
        let module = weight.strip_suffix(".weight").unwrap_or(weight);
        let groups = self.object.get("config_groups").and_then(Value::as_object);
        let groups: Vec<&Object> = groups
            .map(|groups| groups.0.iter().filter_map(|(_, g)| g.as_object()).collect())
            .unwrap_or_default();
        let names = |group: &&&Object| match group.get("targets") {
            Some(Value::List(targets)) => targets.iter().any(|t| t.as_str() == Some(module)),
            _ => false,
        };
        match groups.iter().find(names) {
            Some(own) => vec![own],
            None => groups,
        }
    }
}

/// What all say, if they say the same.
fn same<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first))
        .then_some(first)
}

/// A natural number of an object.
pub(super) fn number(object: &Object, key: &str) -> Option<u64> {
    object.get(key)?.as_int()?.try_into().ok()
}

fn in_config(config: &Object) -> Option<Settings> {
    PLACES.iter().find_map(|path| {
        let [.., place] = path else { return None };
        let mut at = config.get(path.first()?)?;
        for key in path.iter().skip(1) {
            at = at.as_object()?.get(key)?;
        }
        match at {
            Value::Object(object) => Some(Settings {
                object: object.clone(),
                place: Some(place),
            }),
            _ => None,
        }
    })
}

fn in_files(files: &dyn Files) -> Result<Settings, CheckpointError> {
    let names = files.names()?;
    let has = |name: &&&str| names.iter().any(|n| n == **name);
    let Some(name) = FILES.iter().find(has) else {
        return Ok(Settings::default());
    };
    let wrong = |reason: String| CheckpointError::Data {
        file: files.label(name),
        reason,
    };
    let Some(bytes) = files.read(name)? else {
        return Ok(Settings::default());
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".into()))?;
    let Value::Object(object) = json::read(&text).map_err(|e| wrong(e.to_string()))? else {
        return Err(wrong("quantization settings are an object".into()));
    };
    // modelopt wraps its settings, beside who produced them.
    let object = match object.get("quantization") {
        Some(Value::Object(inner)) => inner.clone(),
        _ => object,
    };
    Ok(Settings {
        object,
        place: Some(name),
    })
}
