//! Statistics as JSON, `bitcost.stats/1`, and back. The same statistics give the same bytes: keys stand in the order of the
//! fields, numbers are written with the fewest digits that read as the same number.

use super::{Facts, Held, Stats};
use serde::{Deserialize, Serialize};

/// What the output calls itself.
const SCHEMA: &str = "bitcost.stats/1";

#[derive(Serialize)]
struct Head<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'s str>,
    schema: &'static str,
    tool: Tool,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Line<'s> {
    #[serde(flatten)]
    head: Head<'s>,
    weights: &'s [Facts],
    others: &'s [Held],
}

fn head(file: Option<&str>) -> Head<'_> {
    Head {
        file,
        schema: SCHEMA,
        tool: Tool {
            name: "bitcost",
            version: env!("CARGO_PKG_VERSION"),
        },
    }
}

/// One JSON object with a line for each weight.
pub fn to_text(stats: &Stats) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(&head(None))?;
    text.pop();
    for (key, lines) in [
        ("weights", lines(&stats.weights)?),
        ("others", lines(&stats.others)?),
    ] {
        text += &format!(",\n\"{key}\":[{lines}]");
    }
    Ok(text + "}\n")
}

fn lines<T: Serialize>(items: &[T]) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for (number, item) in items.iter().enumerate() {
        text += if number == 0 { "\n" } else { ",\n" };
        text += &serde_json::to_string(item)?;
    }
    Ok(text)
}

/// One JSON object in one line, with the file that it is about.
pub fn to_line(file: &str, stats: &Stats) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Line {
        head: head(Some(file)),
        weights: &stats.weights,
        others: &stats.others,
    })
}

/// Why a text is not statistics.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// JSON of another form.
    #[error("not what `bitcost stats` writes: {0}")]
    Json(#[from] serde_json::Error),
    /// Another schema.
    #[error("its schema is `{0}`, not `{SCHEMA}`")]
    Schema(String),
    /// A line of a file that could not be read.
    #[error("it has no statistics of {file}: {error}")]
    Failed {
        /// The file.
        file: String,
        /// Why.
        error: String,
    },
    /// A text without an object.
    #[error("it is empty")]
    Empty,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    file: String,
    error: Option<String>,
    #[serde(default)]
    schema: String,
    #[serde(default)]
    weights: Vec<Facts>,
    #[serde(default)]
    others: Vec<Held>,
}

/// Whether a text calls itself statistics, as far as its beginning tells.
pub fn is_stats(start: &[u8]) -> bool {
    let name = SCHEMA.as_bytes();
    start.windows(name.len()).any(|part| part == name)
}

/// Reads all objects of a text.
pub fn read(text: &[u8]) -> Result<Vec<Stats>, ReadError> {
    let mut all = Vec::new();
    for written in serde_json::Deserializer::from_slice(text).into_iter::<Written>() {
        let written = written?;
        if let Some(error) = written.error {
            let file = written.file;
            return Err(ReadError::Failed { file, error });
        }
        if written.schema != SCHEMA {
            return Err(ReadError::Schema(crate::units::clipped(
                &written.schema,
                160,
            )));
        }
        all.push(Stats {
            weights: written.weights,
            others: written.others,
        });
    }
    if all.is_empty() {
        return Err(ReadError::Empty);
    }
    Ok(all)
}
