//! Starting one entry from another.
//!
//! A **family record** (key = module file, no class) with `like` and `rename` says that every class of the other file
//! exists in this one too, under the renamed name, unless it is written; a `validation` on
//! the record holds for those of them that it lists under `classes`. An **entry** with `like` starts from the other
//! entry, the family's rename applied to the class names in `{}`, then merges: the keys in [`MERGED`] key by key, each
//! value whole; every other key whole; `null` removes.

use super::{Db, DbError, class_of};
use crate::value::{Object, Value};
use std::sync::Arc;

/// Keys that are merged key by key; all others are replaced whole.
const MERGED: [&str; 15] = [
    "children",
    "config",
    "weights",
    "buffers",
    "rows",
    "let",
    "cache",
    "choose",
    "notes",
    "requires",
    "traffic",
    "precision",
    "stored",
    "stored_paths",
    "stored_extra",
];

/// Keys that an entry never takes over from the one that it is like.
const OWN: [&str; 9] = [
    "module_path",
    "aliases",
    "code_location",
    "like",
    "rename",
    "example",
    "validation",
    "doc",
    "thinking_process",
];

/// Longest chain of `like`.
const MAX_CHAIN: usize = 16;

type Renames = Vec<(Arc<str>, Arc<str>)>;

impl Db {
    /// Whether `key` is a family record: it is like another file and no class of its own.
    pub(super) fn is_family(&self, key: &str) -> bool {
        // Module files are written in lower case, classes as a rule are not; a family record always renames.
        !key.starts_with('$')
            && !class_of(key).contains(|c: char| c.is_ascii_uppercase())
            && self
                .written
                .get(key)
                .is_some_and(|w| w.text.contains("\"like\"") && w.text.contains("\"rename\""))
    }

    /// A family record's other file and its renames, old prefix first.
    fn family(&self, file: &str) -> Result<Option<(Arc<str>, Renames)>, DbError> {
        let Some(written) = self.written.get(file).filter(|_| self.is_family(file)) else {
            return Ok(None);
        };
        let record = self.read(file, written)?;
        let like = record
            .as_object()
            .and_then(|o| o.get("like"))
            .and_then(Value::as_str);
        let Some(like) = like else { return Ok(None) };
        let like = super::key_of_path(like).into();
        Ok(Some((like, renames(file, record.as_object())?)))
    }

    /// The key that class `class` of the family `file` is derived from, and the renames that derive it.
    pub(super) fn source_of(
        &self,
        file: &str,
        class: &str,
        depth: usize,
    ) -> Option<(Arc<str>, Renames)> {
        if depth > MAX_CHAIN {
            return None;
        }
        let (other, renames) = self.family(file).ok()??;
        let counterpart = renames.iter().find_map(|(old, new)| {
            class
                .strip_prefix(&**new)
                .map(|rest| format!("{old}{rest}"))
        });
        // A class that the family renames is not here under its old name.
        let own_name = (!renames.iter().any(|(old, _)| class.starts_with(&**old))).then_some(class);
        for name in counterpart.iter().map(String::as_str).chain(own_name) {
            let key = format!("{other}__{name}");
            if let Some((key, _)) = self.written.get_key_value(key.as_str()) {
                return Some((key.clone(), renames));
            }
            if self.source_of(&other, name, depth + 1).is_some() {
                return Some((key.into(), renames));
            }
        }
        None
    }

    /// Every class of a module file, written and derived.
    pub(super) fn classes_of_file(&self, file: &str, depth: usize) -> Vec<String> {
        let prefix = format!("{file}__");
        let written = self
            .order
            .iter()
            .filter_map(|key| key.strip_prefix(prefix.as_str()))
            .filter(|c| !c.contains("__"));
        let mut classes: Vec<String> = written
            .filter(|c| c.contains(|c: char| c.is_ascii_uppercase()))
            .map(String::from)
            .collect();
        if depth > MAX_CHAIN {
            return classes;
        }
        if let Ok(Some((other, renames))) = self.family(file) {
            for class in self.classes_of_file(&other, depth + 1) {
                let renamed = renames.iter().find_map(|(old, new)| {
                    class
                        .strip_prefix(&**old)
                        .map(|rest| format!("{new}{rest}"))
                });
                let class = renamed.unwrap_or(class);
                if !classes.contains(&class) {
                    classes.push(class);
                }
            }
        }
        classes
    }

    /// The JSON object of an entry with everything that `like` brings, and the overlay it stands in.
    pub(super) fn merged(
        &self,
        key: &str,
        depth: usize,
    ) -> Result<(Arc<Object>, Option<Arc<str>>), DbError> {
        if depth > MAX_CHAIN {
            return Err(DbError::schema(
                key,
                "like",
                format!("a chain of more than {MAX_CHAIN} entries, or a cycle"),
            ));
        }
        let (file, class) = split(key);
        let Some(written) = self.written.get(key) else {
            let (source, renames) = self
                .source_of(file, class, 0)
                .ok_or_else(|| self.unknown(key))?;
            let (base, overlay) = self.merged(&source, depth + 1)?;
            let kept = |key: &str| !OWN.contains(&key) || key == "doc";
            let fields = base.0.iter().filter(|(k, _)| kept(k));
            let mut fields: Vec<_> = fields
                .map(|(k, v)| (k.clone(), renamed(v, &renames)))
                .collect();
            // What the family record says of its validation holds for the classes that it derives.
            if let Some(record) = self.written.get(file) {
                let record = self.read(file, record)?;
                let validation = record.as_object().and_then(|o| o.get("validation"));
                let validation = validation.and_then(Value::as_object);
                let listed = |v: &&Object| match v.get("classes") {
                    Some(Value::List(classes)) => classes.iter().any(|c| c.as_str() == Some(class)),
                    _ => true,
                };
                let validation = validation
                    .filter(listed)
                    .map(|v| Value::Object(Arc::new(v.clone())));
                fields.extend(validation.map(|v| ("validation".into(), v)));
            }
            return Ok((Arc::new(Object(fields)), overlay));
        };
        let own = match self.read(key, written)? {
            Value::Object(own) => own,
            other => {
                return Err(DbError::schema(
                    key,
                    "",
                    format!("an entry is an object, not {}", other.describe()),
                ));
            }
        };
        let like = match own.get("like") {
            None => return Ok((own, written.overlay.clone())),
            Some(Value::Str(like)) => like,
            Some(other) => {
                return Err(DbError::schema(
                    key,
                    "like",
                    format!("needs a string, got {}", other.describe()),
                ));
            }
        };
        let base_key = self
            .like_target(like, file)
            .map_err(|e| DbError::schema(key, "like", e.reason))?;
        let (base, _) = self.merged(&base_key, depth + 1)?;
        let renames = match own.get("rename") {
            Some(_) => renames(key, Some(&own))?,
            None => self.implied_renames(key, &base_key)?,
        };
        Ok((
            Arc::new(merge(&base, &own, &renames)),
            written.overlay.clone(),
        ))
    }

    /// What `like` names: a class of the same file's families, nearest first, or the one entry of that name.
    fn like_target(&self, like: &str, file: &str) -> Result<Arc<str>, DbError> {
        let mut family = self.family(file)?;
        for _ in 0..MAX_CHAIN {
            let Some((other, _)) = family else { break };
            if let Some(key) = self.in_file(like, &other) {
                return Ok(key);
            }
            family = self.family(&other)?;
        }
        self.resolve(like, file)
    }

    /// The renames of the families between two files; without a family, the difference of the two class names.
    fn implied_renames(&self, key: &str, base: &str) -> Result<Renames, DbError> {
        let ((file, class), (base_file, base_class)) = (split(key), split(base));
        let mut chain: Renames = Vec::new();
        let mut at: Arc<str> = file.into();
        for _ in 0..MAX_CHAIN {
            if &*at == base_file {
                return Ok(chain);
            }
            let Some((other, renames)) = self.family(&at)? else {
                break;
            };
            // A rename further down the chain produces what one nearer up replaces again: Llama -> Qwen3 -> Qwen3Moe.
            for (old, new) in renames {
                let target = chain
                    .iter()
                    .find(|(o, _)| *o == new)
                    .map_or(new, |(_, n)| n.clone());
                chain.push((old, target));
            }
            at = other;
        }
        if file == base_file {
            return Ok(Vec::new());
        }
        // The common ending begins at a capital: `MixtralExperts`, `GptOssExperts` -> `Experts`.
        let ending = class.char_indices().map(|(i, _)| &class[i..]).find(|end| {
            end.starts_with(|c: char| c.is_ascii_uppercase()) && base_class.ends_with(end)
        });
        let Some(ending) = ending else {
            return Ok(Vec::new());
        };
        let (new, old) = (
            &class[..class.len() - ending.len()],
            &base_class[..base_class.len() - ending.len()],
        );
        Ok(if old.is_empty() || new.is_empty() {
            Vec::new()
        } else {
            vec![(old.into(), new.into())]
        })
    }
}

/// Module file and class of a key.
fn split(key: &str) -> (&str, &str) {
    let class = class_of(key);
    (
        key.strip_suffix(class).unwrap_or("").trim_end_matches('_'),
        class,
    )
}

fn renames(entry: &str, object: Option<&Object>) -> Result<Renames, DbError> {
    let wrong = || {
        DbError::schema(
            entry,
            "rename",
            "needs an object of strings: {\"Old\": \"New\"}",
        )
    };
    match object.and_then(|o| o.get("rename")) {
        None => Ok(Vec::new()),
        Some(Value::Object(pairs)) => {
            let pair = |(old, new): &(Arc<str>, Value)| {
                Ok((old.clone(), Arc::from(new.as_str().ok_or_else(wrong)?)))
            };
            pairs.0.iter().map(pair).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The value with the prefixes of class names in `{}` replaced.
fn renamed(value: &Value, renames: &Renames) -> Value {
    match value {
        Value::Str(text) if text.contains('{') => Value::Str(rename_text(text, renames).into()),
        Value::List(items) => {
            Value::List(items.iter().map(|item| renamed(item, renames)).collect())
        }
        Value::Object(o) => Value::Object(Arc::new(Object(
            o.0.iter()
                .map(|(k, v)| (k.clone(), renamed(v, renames)))
                .collect(),
        ))),
        other => other.clone(),
    }
}

fn rename_text(text: &str, renames: &Renames) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (i, part) in text.split_inclusive('{').enumerate() {
        // Each part after the first begins right behind a brace.
        let rename = renames
            .iter()
            .find(|(old, _)| i > 0 && part.starts_with(&**old));
        match rename {
            Some((old, new)) => {
                out.push_str(new);
                out.push_str(&part[old.len()..]);
            }
            None => out.push_str(part),
        }
    }
    out
}

fn merge(base: &Object, own: &Object, renames: &Renames) -> Object {
    let mut fields: Vec<(Arc<str>, Value)> = Vec::new();
    for (key, value) in base.0.iter().filter(|(k, _)| !OWN.contains(&&**k)) {
        let value = renamed(value, renames);
        match own.get(key) {
            None => fields.push((key.clone(), value)),
            Some(Value::None) => {}
            Some(Value::Object(mine)) if MERGED.contains(&&**key) => {
                let theirs = value.as_object().cloned().unwrap_or_default();
                fields.push((
                    key.clone(),
                    Value::Object(Arc::new(merge_object(theirs, mine))),
                ));
            }
            Some(mine) => fields.push((key.clone(), mine.clone())),
        }
    }
    for (key, value) in &own.0 {
        if *value != Value::None && !fields.iter().any(|(k, _)| k == key) {
            let value = match value {
                // A removal has nothing to remove here, but must not be read as a value either.
                Value::Object(o) if MERGED.contains(&&**key) => {
                    Value::Object(Arc::new(merge_object(Object::default(), o)))
                }
                other => other.clone(),
            };
            fields.push((key.clone(), value));
        }
    }
    Object(fields)
}

fn merge_object(mut theirs: Object, mine: &Object) -> Object {
    for (key, value) in &mine.0 {
        let place = theirs.0.iter().position(|(k, _)| k == key);
        match (place, value) {
            (Some(i), Value::None) => {
                theirs.0.remove(i);
            }
            (None, Value::None) => {}
            (Some(i), _) => theirs.0[i].1 = value.clone(),
            (None, _) => theirs.0.push((key.clone(), value.clone())),
        }
    }
    theirs
}
