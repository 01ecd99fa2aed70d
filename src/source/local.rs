//! A folder, a config file, or a safetensors file.

use super::files::read_whole;
use super::head;
use super::{
    CONFIG, Files, Folder, MAX_CONFIG_BYTES, MAX_SMALL_FILE_BYTES, ModelFiles, SmallFile,
    SourceError, SourceKind,
};
use crate::json;
use crate::value::{Object, Value};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The model at a path; `None` if the path does not exist and does not look like one.
pub(super) fn open(id: &str) -> Result<Option<ModelFiles>, SourceError> {
    let path = Path::new(id);
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => folder(id, path).map(Some),
        Ok(_) => file(id, path).map(Some),
        // What is spelled as a path is meant as one.
        Err(e) if is_spelled_as_path(id) => Err(SourceError::unreadable(path, e)),
        Err(_) => Ok(None),
    }
}

/// The file `name` of a folder, or the file at a path; `None` if the path does not exist and does not look like one.
pub(super) fn read(id: &str, name: &str) -> Result<Option<SmallFile>, SourceError> {
    let path = Path::new(id);
    let file = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let missing = || SourceError::NoFile {
                place: id.into(),
                name: name.into(),
                advice: String::new(),
            };
            let folder = Folder::open(path)?;
            SmallFile {
                bytes: folder.read(name)?.ok_or_else(missing)?,
                label: folder.label(name),
            }
        }
        Ok(_) => SmallFile {
            bytes: read_whole(path, MAX_SMALL_FILE_BYTES)?,
            label: id.into(),
        },
        // What is spelled as a path is meant as one.
        Err(e) if is_spelled_as_path(id) => return Err(SourceError::unreadable(path, e)),
        Err(_) => return Ok(None),
    };
    Ok(Some(file))
}

/// Whether an id can only be a path.
pub(super) fn is_spelled_as_path(id: &str) -> bool {
    id.starts_with(['.', '/', '~'])
        || id.ends_with(".json")
        || id.ends_with(".safetensors")
        || head::is_other_format(id)
}

/// A folder with a config, or at least with weights.
pub(super) fn folder(id: &str, path: &Path) -> Result<ModelFiles, SourceError> {
    let files = Folder::open(path)?;
    let config_file = path.join(CONFIG);
    let config = config_in(path)?;
    // What weights of other formats are worth without a config is told where they are looked at.
    let weights = |name: &String| name.ends_with(".safetensors") || head::is_other_format(name);
    if config.is_none() && !files.names()?.iter().any(weights) {
        return Err(SourceError::NoConfig(path.into()));
    }
    let file = if config.is_some() {
        config_file.as_path()
    } else {
        path
    };
    Ok(found(id, file, config, Some(files)))
}

/// The config in a folder. A link to nowhere is an error; a pipe would be waited for, for ever.
fn config_in(folder: &Path) -> Result<Option<Arc<Object>>, SourceError> {
    let file = folder.join(CONFIG);
    if fs::symlink_metadata(&file).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let meta = fs::metadata(&file).map_err(|e| SourceError::unreadable(&file, e))?;
    if !meta.is_file() {
        return Err(SourceError::Unreadable {
            path: file,
            reason: "not a regular file".into(),
        });
    }
    read_config(&file).map(Some)
}

fn file(id: &str, path: &Path) -> Result<ModelFiles, SourceError> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if name.ends_with(".safetensors.index.json") {
        return folder(id, parent);
    }
    if is_weights(path)? {
        let config = config_in(parent)?;
        return Ok(found(id, path, config, Some(Folder::of_file(path)?)));
    }
    if let Some(error) = head::other_format_by_name(name) {
        return Err(SourceError::Frame {
            file: path.display().to_string(),
            error,
        });
    }
    let config = read_config(path)?;
    // A config of any other name says nothing about what lies beside it.
    let files = if name == CONFIG {
        Some(Folder::open(parent)?)
    } else {
        None
    };
    Ok(found(id, path, Some(config), files))
}

fn found(id: &str, file: &Path, config: Option<Arc<Object>>, files: Option<Folder>) -> ModelFiles {
    ModelFiles {
        id: id.into(),
        revision: None,
        source: SourceKind::Local,
        config,
        root: None,
        file: file.display().to_string(),
        notes: Vec::new(),
        files: files.map(|files| Arc::new(files) as Arc<dyn Files>),
    }
}

/// Whether a file holds weights; formats that are not read are told by what they begin with.
fn is_weights(path: &Path) -> Result<bool, SourceError> {
    if path.extension().is_some_and(|e| e == "safetensors") {
        return Ok(true);
    }
    let mut start = Vec::new();
    let file = fs::File::open(path).map_err(|e| SourceError::unreadable(path, e))?;
    // A pipe gives its bytes once, and the config is among them.
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(false);
    }
    file.take(24)
        .read_to_end(&mut start)
        .map_err(|e| SourceError::unreadable(path, e))?;
    match head::header_bytes(&start, u64::MAX) {
        Err(error @ head::FrameError::OtherFormat(..)) => Err(SourceError::Frame {
            file: path.display().to_string(),
            error,
        }),
        Ok(_) => Ok(start.get(8) == Some(&b'{')),
        Err(_) => Ok(false),
    }
}

/// The object in a config file.
pub(super) fn read_config(file: &Path) -> Result<Arc<Object>, SourceError> {
    let content = read_whole(file, MAX_CONFIG_BYTES)?;
    parse_config(&file.display().to_string(), content)
}

/// The object that the bytes of a config are.
pub(super) fn parse_config(file: &str, content: Vec<u8>) -> Result<Arc<Object>, SourceError> {
    let text = String::from_utf8(content).map_err(|_| SourceError::Unreadable {
        path: file.into(),
        reason: "not UTF-8 text".into(),
    })?;
    let value = json::read(&text).map_err(|error| SourceError::Json {
        path: file.into(),
        error,
    })?;
    match value {
        Value::Object(config) => Ok(config),
        other => Err(SourceError::NotAnObject {
            path: file.into(),
            found: other.describe(),
        }),
    }
}
