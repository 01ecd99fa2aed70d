//! How many tokens a text has by a model's tokenizer: the sequence length that `--tokenize` asks for.

use super::{Failure, input, read_text};
use crate::analysis::Note;
use crate::source::{self, ModelFiles, Settings, SmallFile, SourceKind, Wanted};
use crate::text::{TOKENIZER, TextError, Tokenizer};
use crate::units;
use crate::value::{Object, Value};
use std::path::Path;

impl From<TextError> for Failure {
    fn from(e: TextError) -> Failure {
        input(e.to_string())
    }
}

/// A text whose tokens are counted.
pub(super) struct Text {
    label: String,
    text: String,
}

impl Text {
    /// The text of a file, or of standard input where it is called `-`.
    pub(super) fn read(path: &Path) -> Result<Text, Failure> {
        let label = match path.to_str() {
            Some("-") => "standard input".into(),
            _ => path.display().to_string(),
        };
        let text = read_text(path)?;
        Ok(Text { label, text })
    }

    /// How many tokens a model gets of it, and a note that says so. `tokenizer` names whose; without, the model's own.
    pub(super) fn count(
        &self,
        files: &ModelFiles,
        tokenizer: Option<&str>,
        wanted: &Wanted,
        settings: &Settings,
    ) -> Result<(u64, Note), Failure> {
        let file = match tokenizer {
            // What is wanted of the model, such as a revision, is not of another repository.
            Some(id) => {
                let wanted = Wanted {
                    source: None,
                    revision: None,
                    ..wanted.clone()
                };
                source::read(id, TOKENIZER, &wanted, settings)?
            }
            None => own(files, wanted, settings)?,
        };
        let tokenizer = Tokenizer::parse(&file.label, &file.bytes)?;
        let ids = tokenizer.encode(&self.text, true)?;
        if let Some(vocab_size) = files.config.as_deref().and_then(vocab_size) {
            let checked = tokenizer.check(&ids, vocab_size);
            checked.map_err(|e| input(format!("{}: {e}", file.label)))?;
        }
        if ids.is_empty() {
            let label = &self.label;
            return Err(input(format!(
                "{label}: the text has no tokens, and a sequence has at least one"
            )));
        }
        let count = ids.len() as u64;
        let note = Note {
            code: "tokens".into(),
            path: String::new(),
            message: format!(
                "seq-len {} is how many tokens {} has by {}, with those that it puts around a text",
                units::grouped(u128::from(count)),
                self.label,
                file.label
            ),
        };
        Ok((count, note))
    }
}

/// The tokenizer beside the model, or in its repository where the model was found in the cache or in the catalog.
pub(super) fn own(
    files: &ModelFiles,
    wanted: &Wanted,
    settings: &Settings,
) -> Result<SmallFile, Failure> {
    if let Some(place) = &files.files
        && let Some(bytes) = place.read(TOKENIZER)?
    {
        let label = place.label(TOKENIZER);
        return Ok(SmallFile { label, bytes });
    }
    let may_be_elsewhere = match files.source {
        SourceKind::Catalog => true,
        SourceKind::Cache => wanted.source.is_none(),
        SourceKind::Local | SourceKind::Hub => false,
    };
    if !may_be_elsewhere {
        return Err(input(format!(
            "{}: there is no {TOKENIZER} beside it; --tokenizer names a folder or a model that has one",
            files.file
        )));
    }
    let wanted = Wanted {
        revision: files.revision.clone(),
        ..wanted.clone()
    };
    Ok(source::read(&files.id, TOKENIZER, &wanted, settings)?)
}

/// Rows of the embedding, where the config says it; models of several parts say it of the one that reads text.
fn vocab_size(config: &Object) -> Option<u64> {
    let size = |config: &Object| config.get("vocab_size")?.as_int();
    let of_text = || size(config.get("text_config").and_then(Value::as_object)?);
    u64::try_from(size(config).or_else(of_text)?).ok()
}
