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

    /// A text of the settings.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.object.get(key)?.as_str()
    }

    /// A natural number of the settings.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        number(&self.object, key)
    }

    /// Whether a setting is there and true.
    pub(super) fn is(&self, key: &str) -> bool {
        matches!(self.object.get(key), Some(Value::Bool(true)))
    }

    /// An object of the settings: of one module, of sparsity.
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
