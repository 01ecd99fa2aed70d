//! What `tokenizers` takes for granted of a file and panics without, checked before it is relied on.
//!
//! Files come from strangers, and input never panics us. Each check names what the library would do otherwise.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file, as far as it must be looked at before the library reads it.
#[derive(Deserialize)]
struct Outline {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    continuing_subword_prefix: Option<String>,
}

/// The merges too, which are many.
#[derive(Deserialize)]
struct WithMerges {
    model: Merges,
}

#[derive(Deserialize)]
struct Merges {
    #[serde(default)]
    merges: Vec<Merge>,
}

/// `"a b"`, as it was once, or `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair([String; 2]),
}

/// What is wrong with the bytes of a file. Whether they are a tokenizer at all is told by the library.
pub(super) fn before(json: &[u8]) -> Result<(), String> {
    // The library cuts the prefix off the second half of every merge, without looking.
    let Ok(outline) = serde_json::from_slice::<Outline>(json) else {
        return Ok(());
    };
    let prefix = outline.model.continuing_subword_prefix.unwrap_or_default();
    if prefix.is_empty() {
        return Ok(());
    }
    let read = serde_json::from_slice::<WithMerges>(json).map_err(|e| e.to_string())?;
    let halves = read.model.merges.iter().map(|merge| match merge {
        Merge::Text(text) => text.split_once(' ').map_or("", |(_, second)| second),
        Merge::Pair([_, second]) => second,
    });
    for second in halves {
        if !second.starts_with(&prefix) {
            return Err(format!(
                "a merge goes on with `{second}`, which does not begin with the prefix `{prefix}` of such tokens"
            ));
        }
    }
    Ok(())
}

/// What is wrong with the parts of a tokenizer that was read.
pub(super) fn after(tokenizer: &tokenizers::Tokenizer) -> Result<(), String> {
    look(tokenizer.get_post_processor(), &template)?;
    look(tokenizer.get_decoder(), &strip)?;
    look(tokenizer.get_pre_tokenizer(), &length)
}

/// Looks at a part, and at all parts that it is made of, as they are written.
fn look(
    part: Option<&impl Serialize>,
    check: &dyn Fn(&Value) -> Result<(), String>,
) -> Result<(), String> {
    let mut left = vec![serde_json::to_value(part).map_err(|e| e.to_string())?];
    while let Some(value) = left.pop() {
        check(&value)?;
        match value {
            Value::Object(fields) => left.extend(fields.into_iter().map(|(_, value)| value)),
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    Ok(())
}

/// A template is filled with one text and its own special tokens; the library looks neither up before it takes them.
fn template(part: &Value) -> Result<(), String> {
    let Some(pieces) = part.get("single").and_then(Value::as_array) else {
        return Ok(());
    };
    for piece in pieces {
        let name = |kind: &str| piece.get(kind)?.get("id")?.as_str();
        if let Some(token) = name("SpecialToken")
            && part["special_tokens"].get(token).is_none()
        {
            return Err(format!("its template has no special token `{token}`"));
        }
        if name("Sequence").is_some_and(|text| text != "A") {
            return Err("its template for one text asks for a second".into());
        }
    }
    Ok(())
}

/// The library looks beyond the beginning of a text that is shorter than what is cut off its end.
fn strip(part: &Value) -> Result<(), String> {
    match part.get("stop").and_then(Value::as_u64) {
        Some(stop) if stop > 0 => {
            Err("its decoder cuts off the ends of texts, which is not supported".into())
        }
        _ => Ok(()),
    }
}

/// Pieces without a length have no end.
fn length(part: &Value) -> Result<(), String> {
    match part.get("length").and_then(Value::as_u64) {
        Some(0) => Err("it splits texts into pieces of length 0".into()),
        _ => Ok(()),
    }
}
