//! The config of the packed model: the text of the old one with another `quantization_config`.
//!
//! Every other key keeps its text, so that nothing is lost that this program does not understand.

use super::super::args::LinearClassArg;
use super::super::{Failure, input};
use crate::json::read_index;
use crate::value::{Object, Value};

/// The key that tells loaders how weights are stored.
const KEY: &str = "quantization_config";

/// The method whose settings are written.
const METHOD: &str = "bitnet";

/// What a config says of quantization before it is packed.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Its keys, with their text.
    keys: Vec<(String, String)>,
    /// The class of its layers.
    pub(super) class: Option<LinearClassArg>,
    /// The modules that it spares.
    pub(super) spared: Vec<String>,
}

impl Before {
    /// Settings of float weights that are rounded when they are used go on to hold; those of another method mean that the
    /// weights are no floats.
    pub(super) fn read(config: &Object, text: &str, file: &str) -> Result<Before, Failure> {
        let settings = match config.get(KEY) {
            None | Some(Value::None) => return Ok(Before::default()),
            Some(Value::Object(settings)) => settings,
            Some(_) => return Err(input(format!("{file}: `{KEY}` is no object"))),
        };
        let method = settings.get("quant_method").and_then(Value::as_str);
        if method != Some(METHOD) {
            return Err(input(format!(
                "{file}: the model is quantized already, by `{}`; deploy packs float weights",
                crate::units::clipped(method.unwrap_or("a method without a name"), 80)
            )));
        }
        let class = settings.get("linear_class").and_then(Value::as_str);
        let class = class.and_then(LinearClassArg::named);
        let spared = match settings.get("modules_to_not_convert") {
            Some(Value::List(names)) => names
                .iter()
                .filter_map(Value::as_str)
                .map(String::from)
                .collect(),
            _ => Vec::new(),
        };
        let wrong = |e: crate::json::JsonError| input(format!("{file}: {e}"));
        let all = read_index(text).map_err(wrong)?;
        let raw = all
            .iter()
            .find(|(key, _)| **key == *KEY)
            .map_or("{}", |(_, raw)| raw);
        let keys = read_index(raw).map_err(wrong)?;
        Ok(Before {
            keys: keys
                .into_iter()
                .map(|(key, raw)| (key.to_string(), raw.trim().to_string()))
                .collect(),
            class,
            spared,
        })
    }

    /// The text of a config with the settings of packed weights.
    pub(super) fn packed(
        &self,
        text: &str,
        file: &str,
        class: LinearClassArg,
        spared: &[String],
    ) -> Result<String, Failure> {
        let spared: Vec<String> = spared.iter().map(|name| quoted(name)).collect();
        let mut settings = vec![
            ("quant_method".to_string(), quoted(METHOD)),
            ("linear_class".to_string(), quoted(class.name())),
            ("quantization_mode".to_string(), quoted("offline")),
            (
                "modules_to_not_convert".to_string(),
                format!("[\n      {}\n    ]", spared.join(",\n      ")),
            ),
        ];
        let known: Vec<String> = settings.iter().map(|(key, _)| key.clone()).collect();
        let others = self.keys.iter().filter(|(key, _)| !known.contains(key));
        settings.extend(others.cloned());
        let settings = object(&settings, "    ");
        let keys = read_index(text).map_err(|e| input(format!("{file}: {e}")))?;
        let mut keys: Vec<(String, String)> = keys
            .into_iter()
            .map(|(key, raw)| (key.to_string(), raw.trim().to_string()))
            .collect();
        match keys.iter_mut().find(|(key, _)| key == KEY) {
            Some((_, raw)) => *raw = settings,
            None => keys.push((KEY.into(), settings)),
        }
        Ok(object(&keys, "  ") + "\n")
    }
}

/// An object whose keys stand so far in.
fn object(keys: &[(String, String)], indent: &str) -> String {
    let keys: Vec<String> = keys
        .iter()
        .map(|(key, raw)| format!("{indent}{}: {raw}", quoted(key)))
        .collect();
    format!("{{\n{}\n{}}}", keys.join(",\n"), &indent[2..])
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
