//! One analysis, several formats: each file here holds one format and no numbers of its own.

pub mod bench;
pub mod column;
pub mod compare;
pub mod csv;
pub mod db;
pub mod deploy;
pub mod device;
pub mod estimate;
pub mod explain;
pub mod generate;
pub mod json;
pub mod run;
pub mod table;
mod tool;

use serde::Serialize;

/// Where an analysis comes from.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The model as asked for.
    pub id: String,
    /// Its commit.
    pub revision: Option<String>,
    /// The source that answered.
    pub source: &'static str,
    /// The class at the root.
    pub architecture: String,
    /// The config's `model_type`.
    pub model_type: Option<String>,
    /// The kind of model: `causal`, `seq2seq`, `encoder`, `vision`, `vision_text`, `audio`.
    pub kind: &'static str,
    /// Whether it keeps a cache.
    pub generates: bool,
    /// SHA-256 of the embedded database and the overlays after it.
    pub db_sha256: String,
    /// Overlay files.
    pub overlays: Vec<String>,
}

/// The conventions that every report states.
#[derive(Clone, Debug, Serialize)]
pub struct Conventions {
    /// `full` or `causal`.
    pub attention: &'static str,
    /// `all` or `last`.
    pub logits: &'static str,
    /// `all` or `matmul`.
    pub counted: &'static str,
    /// How BOPs are counted.
    pub bops: &'static str,
    /// Width of a ternary weight.
    pub ternary_bits: u32,
    /// Weight and activation width that savings are measured against.
    pub baseline_bits: u32,
}
