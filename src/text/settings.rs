//! What a model's small files say about its tokens: `tokenizer_config.json`, `generation_config.json`, the config.

use super::{ChatTemplate, TextError};
use crate::json;
use crate::value::{Object, Value};
use std::sync::Arc;

/// The file with the names of special tokens and, mostly, the chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The file with the chat template alone, where there is one; it goes before the other.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The file that says how texts are made.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// A `tokenizer_config.json`, as far as it is used.
#[derive(Clone, Debug, Default)]
pub struct TokenizerConfig {
    /// The token that a text begins with.
    pub bos_token: Option<String>,
    /// Whether a text begins with it; `None` where the file does not say.
    pub add_bos_token: Option<bool>,
    /// The token that a text ends with.
    pub eos_token: Option<String>,
    /// How a chat is written.
    pub chat_template: Option<ChatTemplate>,
}

impl TokenizerConfig {
    /// What the bytes of the file say, and those of `chat_template.jinja` where there is one. Errors call the files by the
    /// names that are given with them.
    pub fn parse(
        config: Option<(&str, &[u8])>,
        template: Option<(&str, &[u8])>,
    ) -> Result<TokenizerConfig, TextError> {
        let (file, object) = match config {
            Some((file, bytes)) => (file, object(file, bytes)?),
            None => (TOKENIZER_CONFIG, Arc::default()),
        };
        let own = || match object.get("chat_template") {
            Some(value) => named_template(file, value),
            None => Ok(None),
        };
        let chat_template = match template {
            Some((file, bytes)) => Some((file, text(file, bytes)?.into())),
            None => own()?.map(|source| (file, source)),
        };
        Ok(TokenizerConfig {
            bos_token: token(file, &object, "bos_token")?,
            add_bos_token: match object.get("add_bos_token") {
                Some(Value::Bool(add)) => Some(*add),
                _ => None,
            },
            eos_token: token(file, &object, "eos_token")?,
            chat_template: chat_template
                .map(|(file, source)| ChatTemplate::parse(file, source))
                .transpose()?,
        })
    }
}

/// The ids that end a text: those of `generation_config.json` where it names some, else the config's.
pub fn stop_tokens(
    generation: Option<(&str, &[u8])>,
    config_file: &str,
    config: &Object,
) -> Result<Vec<u32>, TextError> {
    if let Some((file, bytes)) = generation {
        let ids = ids(file, &*object(file, bytes)?, "eos_token_id")?;
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    ids(config_file, config, "eos_token_id")
}

fn text<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, TextError> {
    std::str::from_utf8(bytes).map_err(|_| TextError::NotText { file: file.into() })
}

fn object(file: &str, bytes: &[u8]) -> Result<Arc<Object>, TextError> {
    let value = json::read(text(file, bytes)?).map_err(|error| TextError::Json {
        file: file.into(),
        error,
    })?;
    match value {
        Value::Object(object) => Ok(object),
        other => Err(setting(file, "the file", &other, "a JSON object")),
    }
}

fn setting(file: &str, key: &str, found: &Value, expected: &'static str) -> TextError {
    TextError::Setting {
        file: file.into(),
        key: key.into(),
        found: found.describe(),
        expected,
    }
}

/// A token by its text: the text itself, or an object with it.
fn token(file: &str, config: &Object, key: &str) -> Result<Option<String>, TextError> {
    let fail = |value| {
        setting(
            file,
            key,
            value,
            "a token: a string, or an object with its `content`",
        )
    };
    match config.get(key) {
        None | Some(Value::None) => Ok(None),
        Some(Value::Str(token)) => Ok(Some(token.to_string())),
        Some(value) => {
            let content = value.as_object().and_then(|token| token.get("content"));
            let content = content.and_then(Value::as_str).ok_or_else(|| fail(value))?;
            Ok(Some(content.into()))
        }
    }
}

/// A number or a list of numbers.
fn ids(file: &str, config: &Object, key: &str) -> Result<Vec<u32>, TextError> {
    let id = |value: &Value| value.as_int().and_then(|id| u32::try_from(id).ok());
    let found = match config.get(key) {
        None | Some(Value::None) => return Ok(Vec::new()),
        Some(value) => value,
    };
    let all = match found {
        Value::List(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    all.ok_or_else(|| setting(file, key, found, "the id of a token, or a list of them"))
}

/// The template of a `chat_template`: a string, or of several with names the one called `default`.
fn named_template(file: &str, value: &Value) -> Result<Option<String>, TextError> {
    let expected =
        "a template, or a list of objects with `name` and `template`, one of them named `default`";
    let fail = || setting(file, "chat_template", value, expected);
    match value {
        Value::None => Ok(None),
        Value::Str(template) => Ok(Some(template.to_string())),
        Value::List(named) => {
            let field =
                |entry: &Value, key| Some(entry.as_object()?.get(key)?.as_str()?.to_string());
            let default = named
                .iter()
                .find(|entry| field(entry, "name").as_deref() == Some("default"));
            let template = default.and_then(|entry| field(entry, "template"));
            template.ok_or_else(fail).map(Some)
        }
        _ => Err(fail()),
    }
}
