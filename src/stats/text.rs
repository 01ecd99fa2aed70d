//! Statistics as JSON, `bitcost.stats/1`, and back. The same statistics give the same bytes: keys stand in the order of the
//! fields, numbers are written with the fewest digits that read as the same number.

use super::{Facts, Held, Stats};
use crate::json::Escaped;
use serde::{Deserialize, Serialize};
use std::io::Write;

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

/// Writes statistics weight by weight, so that nobody has to hold them all.
pub struct Writer<'o> {
    out: &'o mut dyn Write,
    /// What stands between weights, where they have lines of their own.
    line_break: &'static str,
    is_first: bool,
}

impl<'o> Writer<'o> {
    /// One JSON object with a line for each weight; with the file that it is about, one in one line.
    pub fn begin(out: &'o mut dyn Write, file: Option<&str>) -> std::io::Result<Writer<'o>> {
        let mut head = to_bytes(&Head {
            file,
            schema: SCHEMA,
            tool: Tool {
                name: "bitcost",
                version: env!("CARGO_PKG_VERSION"),
            },
        })?;
        head.pop();
        let line_break = if file.is_some() { "" } else { "\n" };
        out.write_all(&head)?;
        write!(out, ",{line_break}\"weights\":[")?;
        Ok(Writer {
            out,
            line_break,
            is_first: true,
        })
    }

    /// The next weight, as [`to_bytes`] makes it. They come by name.
    pub fn weight(&mut self, weight: &[u8]) -> std::io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.out.write_all(b",")?;
        }
        self.out.write_all(self.line_break.as_bytes())?;
        self.out.write_all(weight)
    }

    /// The tensors that are no weight, and the end.
    pub fn finish(mut self, others: &[Held]) -> std::io::Result<()> {
        write!(self.out, "],{}\"others\":[", self.line_break)?;
        self.is_first = true;
        for held in others {
            self.weight(&to_bytes(held)?)?;
        }
        self.out.write_all(b"]}\n")
    }
}

/// A part of statistics as JSON.
pub fn to_bytes(part: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let text = serde_json::to_vec(part)?;
    // Only names can hold what needs an escape.
    if text.is_ascii() && !text.contains(&0x7f) {
        return Ok(text);
    }
    let mut escaped = Vec::with_capacity(text.len());
    Escaped(&mut escaped)
        .write_all(&text)
        .map_err(serde_json::Error::io)?;
    Ok(escaped)
}

/// Writes statistics that are known as a whole, as [`Writer`] does.
pub fn write(stats: &Stats, out: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = Writer::begin(out, None)?;
    for facts in &stats.weights {
        writer.weight(&to_bytes(facts)?)?;
    }
    writer.finish(&stats.others)
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
