//! A folder with a config.json, or the file itself.

use super::{MAX_CONFIG_BYTES, ModelFiles, SourceError, SourceKind};
use crate::json;
use crate::value::Value;
use std::fs;
use std::io::Read;
use std::path::Path;

/// The model at a path; `None` if the path does not exist and does not look like one.
pub(super) fn open(id: &str) -> Result<Option<ModelFiles>, SourceError> {
    let path = Path::new(id);
    let file = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => path.join("config.json"),
        Ok(_) => path.to_path_buf(),
        // What is spelled as a path is meant as one.
        Err(e) if id.ends_with(".json") || id.starts_with(['.', '/', '~']) => {
            return Err(SourceError::Unreadable {
                path: path.into(),
                reason: e.to_string(),
            });
        }
        Err(_) => return Ok(None),
    };
    if path.is_dir() && !file.exists() {
        return Err(SourceError::NoConfig(path.into()));
    }
    let unreadable = |e: std::io::Error| SourceError::Unreadable {
        path: file.clone(),
        reason: e.to_string(),
    };
    let handle = fs::File::open(&file).map_err(unreadable)?;
    let bytes = handle.metadata().map_err(unreadable)?.len();
    if bytes > MAX_CONFIG_BYTES {
        return Err(SourceError::TooLarge { path: file, bytes });
    }
    let mut content = Vec::new();
    // The limit holds for pipes and growing files too.
    handle
        .take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if content.len() as u64 > MAX_CONFIG_BYTES {
        return Err(SourceError::TooLarge {
            path: file,
            bytes: content.len() as u64,
        });
    }
    let text = String::from_utf8(content).map_err(|_| SourceError::Unreadable {
        path: file.clone(),
        reason: "not UTF-8 text".into(),
    })?;
    let value = json::read(&text).map_err(|error| SourceError::Json {
        path: file.clone(),
        error,
    })?;
    let Value::Object(config) = value else {
        return Err(SourceError::NotAnObject {
            path: file,
            found: value.describe(),
        });
    };
    Ok(Some(ModelFiles {
        id: id.into(),
        revision: None,
        source: SourceKind::Local,
        config,
        root: None,
        file: file.display().to_string(),
    }))
}
