//! The module database: one flat JSON object of entries, embedded in the binary and overlaid with files.
//!
//! [`Db::embedded`] indexes the keys of `module_db.json` and reads an entry only when something asks for it: a model
//! touches a few dozen of several hundred. [`Db::overlay`] puts a file's entries above the ones that are there; an
//! overlay entry replaces the whole entry of its path. [`Db::entry`] gives a parsed [`Entry`], [`Db::resolve`] finds the
//! key that a class name means. Entries that nobody wrote exist all the same where a family record (`like` + `rename` on
//! a module file) derives them; `like.rs` merges.
//!
//! Keys that begin with `$` are tables for all entries: `$elementwise` (FLOPs and traffic per element), `$quantization`
//! (what a `quantization_config` does to classes and widths), `$stored` (what any file may call its tensors), `$graphs`
//! (models that their tensors tell).

mod entry;
mod error;
mod graphs;
mod like;
mod quantization;
mod stored;

pub use entry::{
    Children, Config, ConfigRule, Entry, EntryNote, Example, Experts, FlopAnalysis, KEYS,
    MemoryAnalysis, Parameter, Precision, Row, RowKind, Task, Tie, Traffic,
};
pub use error::{DbError, Fault};
pub use graphs::{Graph, Tensors};
pub use quantization::{Quantization, Rule};
pub use stored::{Assembled, Conventions, Extra, Join, OnDisk, Piece};

use crate::formula::did_you_mean;
use crate::json;
use crate::value::{Object, Value};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

/// The database that the binary carries.
pub const EMBEDDED: &str = include_str!("../../module_db.json");

/// The database: what is written, and what has been asked for so far.
pub struct Db {
    /// Every written key with the text of its value, later layers above earlier ones.
    written: HashMap<Arc<str>, Written>,
    /// Written keys in file order.
    order: Vec<Arc<str>>,
    /// Keys whose value is null: classes that a family would derive and that do not exist.
    removed: BTreeSet<Arc<str>>,
    /// Last part of a key -> the written keys that end in it.
    by_class: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Overlay files, in the order given.
    overlays: Vec<Overlay>,
    /// Parsed entries; append-only, so that a model can borrow them for as long as it borrows the database.
    entries: elsa::sync::FrozenMap<Arc<str>, Box<Entry>>,
    /// Class name and the file it was named in -> the key it means.
    resolved: Mutex<HashMap<Named, Arc<str>>>,
    elementwise: OnceLock<Vec<(Arc<str>, Elementwise)>>,
    quantization: OnceLock<Quantization>,
    conventions: OnceLock<Conventions>,
}

/// A class name and the module file that names it.
type Named = (Arc<str>, Arc<str>);

/// A file laid over the database.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The name it was given by.
    pub name: Arc<str>,
    /// Its keys as written.
    pub keys: Vec<Arc<str>>,
    /// Its text.
    pub text: String,
}

#[derive(Debug, Clone)]
struct Written {
    text: Cow<'static, str>,
    /// The key as written, where it differs from the canonical one.
    key: Arc<str>,
    overlay: Option<Arc<str>>,
}

/// What one elementwise operation costs per output element.
#[derive(Clone, Copy, Debug)]
pub struct Elementwise {
    /// FLOPs.
    pub flops: i128,
    /// Elements read.
    pub reads: i128,
    /// Elements written.
    pub writes: i128,
}

impl Db {
    /// The embedded database alone.
    pub fn embedded() -> Result<Db, DbError> {
        let mut db = Db::empty();
        db.add(Cow::Borrowed(EMBEDDED), None)?;
        Ok(db)
    }

    /// A database without entries.
    pub fn empty() -> Db {
        Db {
            written: HashMap::new(),
            order: Vec::new(),
            removed: BTreeSet::new(),
            by_class: HashMap::new(),
            overlays: Vec::new(),
            entries: elsa::sync::FrozenMap::new(),
            resolved: Mutex::default(),
            elementwise: OnceLock::new(),
            quantization: OnceLock::new(),
            conventions: OnceLock::new(),
        }
    }

    /// Lays the entries of a file above what is there. `name` is how messages call it.
    pub fn overlay(&mut self, name: &str, text: &str) -> Result<(), DbError> {
        let name: Arc<str> = name.into();
        self.add(Cow::Owned(text.to_owned()), Some(name.clone()))?;
        self.entries = elsa::sync::FrozenMap::new();
        self.resolved = Mutex::default();
        self.elementwise = OnceLock::new();
        self.quantization = OnceLock::new();
        self.conventions = OnceLock::new();
        Ok(())
    }

    fn add(&mut self, text: Cow<'static, str>, overlay: Option<Arc<str>>) -> Result<(), DbError> {
        let unreadable = |e: json::JsonError| {
            let file = overlay.as_deref().unwrap_or("the embedded database");
            DbError::schema("", "", format!("{file}: {e}"))
        };
        let index: Vec<(Arc<str>, Cow<'static, str>)> = match &text {
            Cow::Borrowed(text) => {
                let index = json::read_index(text).map_err(unreadable)?;
                index
                    .into_iter()
                    .map(|(key, value)| (key, Cow::Borrowed(value)))
                    .collect()
            }
            Cow::Owned(text) => {
                let index = json::read_index(text).map_err(unreadable)?;
                index
                    .into_iter()
                    .map(|(key, value)| (key, Cow::Owned(value.to_owned())))
                    .collect()
            }
        };
        let mut keys = Vec::new();
        let mut seen = BTreeSet::new();
        for (key, value) in index {
            let canonical = if let Some(file) = &overlay {
                canonical_key(&key, &value).map_err(|e| DbError {
                    reason: format!("{file}: {}", e.reason),
                    ..e
                })?
            } else {
                key.clone()
            };
            let wrong = |reason: &str| {
                let file = overlay.as_deref().unwrap_or("the embedded database");
                DbError::schema(&key, "", format!("{file}: {reason}"))
            };
            if class_of(&canonical).is_empty() {
                return Err(wrong("the key names no class"));
            }
            if !seen.insert(canonical.clone()) {
                return Err(wrong("two keys of the file are the same entry"));
            }
            keys.push(key.clone());
            if value.trim() == "null" {
                self.remove(canonical);
                continue;
            }
            self.removed.remove(&canonical);
            let written = Written {
                text: value,
                key,
                overlay: overlay.clone(),
            };
            if self.written.insert(canonical.clone(), written).is_none() {
                let class = class_of(&canonical);
                self.by_class
                    .entry(class.into())
                    .or_default()
                    .push(canonical.clone());
                self.order.push(canonical);
            }
        }
        if let Some(name) = overlay {
            self.overlays.push(Overlay {
                name,
                keys,
                text: text.into_owned(),
            });
        }
        Ok(())
    }

    fn remove(&mut self, key: Arc<str>) {
        self.written.remove(&key);
        self.order.retain(|known| *known != key);
        if let Some(known) = self.by_class.get_mut(class_of(&key)) {
            known.retain(|known| *known != key);
        }
        self.removed.insert(key);
    }

    /// The overlay file that an entry stands in.
    pub fn overlay_of(&self, key: &str) -> Option<&str> {
        self.written.get(key).and_then(|w| w.overlay.as_deref())
    }

    /// The tables: keys that begin with `$`.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.order
            .iter()
            .map(|key| &**key)
            .filter(|key| key.starts_with('$'))
    }

    /// The overlay files, in the order given.
    pub fn overlays(&self) -> &[Overlay] {
        &self.overlays
    }

    /// Every written key of an entry (no tables, no family records), in file order.
    pub fn written_keys(&self) -> Vec<Arc<str>> {
        self.order
            .iter()
            .filter(|key| !key.starts_with('$') && !self.is_family(key))
            .cloned()
            .collect()
    }

    /// Every key there is: the written ones, then those that family records derive, each family in the order of the
    /// family it follows.
    pub fn keys(&self) -> Vec<Arc<str>> {
        let mut keys = self.written_keys();
        let mut seen: BTreeSet<Arc<str>> = keys.iter().cloned().collect();
        for family in self.order.iter().filter(|key| self.is_family(key)) {
            for class in self.classes_of_file(family, 0) {
                let key: Arc<str> = format!("{family}__{class}").into();
                if !self.removed.contains(&key) && seen.insert(key.clone()) {
                    keys.push(key);
                }
            }
        }
        keys
    }

    /// The key as it is written, which may differ from the canonical one.
    pub fn key_as_written(&self, key: &str) -> Option<&str> {
        self.written.get(key).map(|w| &*w.key)
    }

    /// The entry of a canonical key.
    pub fn entry(&self, key: &str) -> Result<&Entry, DbError> {
        if let Some(entry) = self.entries.get(key) {
            return Ok(entry);
        }
        let (source, overlay) = self.merged(key, 0)?;
        let path = match source.get("module_path") {
            Some(Value::Str(path)) => path.clone(),
            Some(other) => {
                return Err(DbError::schema(
                    key,
                    "module_path",
                    format!("needs a string, got {}", other.describe()),
                ));
            }
            None => path_of(key).into(),
        };
        let entry = entry::build(key, &path, source, overlay)?;
        Ok(self.entries.insert(key.into(), Box::new(entry)))
    }

    /// How the entry reads a config: its own rules, or those of the class that it names.
    pub fn config_rules(
        &self,
        entry: &Entry,
    ) -> Result<&[(crate::value::Name, ConfigRule)], DbError> {
        let mut at = self.entry(&entry.key)?;
        for _ in 0..16 {
            match &at.config {
                None => return Ok(&[]),
                Some(Config::Rules(rules)) => return Ok(rules),
                Some(Config::Of(class)) => {
                    let key = self
                        .resolve(class, &at.file)
                        .map_err(|e| DbError::schema(&at.key, "config", e.reason))?;
                    at = self.entry(&key)?;
                }
            }
        }
        Err(DbError::schema(
            &entry.key,
            "config",
            "names classes in a circle",
        ))
    }

    /// The canonical key that `class` means when it is named inside module file `file`.
    ///
    /// In order: a full key or dotted path; a class of the same file, written or derived; the one entry with that class
    /// name. Two candidates are an error that names both.
    pub fn resolve(&self, class: &str, file: &str) -> Result<Arc<str>, DbError> {
        let asked = (Arc::from(class), Arc::from(file));
        if let Some(key) = lock(&self.resolved).get(&asked) {
            return Ok(key.clone());
        }
        let key = self.find(class, file)?;
        lock(&self.resolved).insert(asked, key.clone());
        Ok(key)
    }

    fn find(&self, class: &str, file: &str) -> Result<Arc<str>, DbError> {
        if class.is_empty() || class.starts_with('$') {
            return Err(self.unknown(class));
        }
        let dotted = class.contains('.').then(|| class.replace('.', "__"));
        let class = dotted.as_deref().unwrap_or(class);
        if let Some((file, class)) = class
            .rsplit_once("__")
            .filter(|(file, _)| self.is_family(file))
            && let Some(key) = self.in_file(class, file)
        {
            return Ok(key);
        }
        // A full key means one entry; a bare class name means its own file first, whatever other entries are called.
        if !class.contains("__")
            && let Some(key) = self.in_file(class, file)
        {
            return Ok(key);
        }
        if let Some((key, _)) = self.written.get_key_value(class)
            && !self.is_family(key)
        {
            return Ok(key.clone());
        }
        match self.by_class.get(class).map(Vec::as_slice) {
            Some([only]) => return Ok(only.clone()),
            Some(several @ [_, _, ..]) => {
                let keys = several
                    .iter()
                    .map(|k| format!("`{k}`"))
                    .collect::<Vec<_>>()
                    .join(" and ");
                return Err(DbError::schema(
                    "",
                    "",
                    format!("`{class}` can mean {keys}; write the full key"),
                ));
            }
            _ => {}
        }
        let derived: Vec<Arc<str>> = self
            .families()
            .filter_map(|family| self.in_file(class, family))
            .collect();
        match derived.as_slice() {
            [only] => Ok(only.clone()),
            [] => self.by_alias(class),
            several => {
                let keys = several
                    .iter()
                    .map(|k| format!("`{k}`"))
                    .collect::<Vec<_>>()
                    .join(" and ");
                Err(DbError::schema(
                    "",
                    "",
                    format!("`{class}` can mean {keys}; write the full key"),
                ))
            }
        }
    }

    /// The entry that has `class` among its aliases. Only entries that have some are read.
    fn by_alias(&self, class: &str) -> Result<Arc<str>, DbError> {
        for key in self.written_keys() {
            let Some(written) = self.written.get(&key) else {
                continue;
            };
            if !written.text.contains("\"aliases\"") {
                continue;
            }
            // Aliases are never inherited, so what the entry is like need not be found.
            let entry = self.read(&key, written)?;
            let aliases = entry.as_object().and_then(|o| o.get("aliases"));
            if let Some(Value::List(aliases)) = aliases
                && aliases
                    .iter()
                    .filter_map(Value::as_str)
                    .any(|a| key_of_path(a) == class)
            {
                return Ok(key);
            }
        }
        Err(self.unknown(class))
    }

    fn unknown(&self, class: &str) -> DbError {
        let keys = self.keys();
        let class = &crate::value::shortened(class);
        let short = class_of(class);
        let hint = did_you_mean(short, keys.iter().map(|k| class_of(k)));
        DbError {
            kind: Fault::UnknownClass,
            ..DbError::schema("", "", format!("no entry for the class `{class}`{hint}"))
        }
    }

    /// The class of that name in one file, written or derived.
    fn in_file(&self, class: &str, file: &str) -> Option<Arc<str>> {
        if file.is_empty() {
            return None;
        }
        let key = format!("{file}__{class}");
        if let Some((key, _)) = self.written.get_key_value(key.as_str()) {
            return Some(key.clone());
        }
        if self.removed.contains(key.as_str()) {
            return None;
        }
        self.source_of(file, class, 0).map(|_| key.into())
    }

    fn families(&self) -> impl Iterator<Item = &str> {
        self.order
            .iter()
            .map(|key| &**key)
            .filter(|key| self.is_family(key))
    }

    /// The row of the `$elementwise` table.
    pub fn elementwise(&self, kind: &str) -> Result<Elementwise, DbError> {
        let kinds = self.elementwise_kinds()?;
        kinds
            .iter()
            .find(|(name, _)| **name == *kind)
            .map(|(_, row)| *row)
            .ok_or_else(|| {
                let hint = did_you_mean(kind, kinds.iter().map(|(k, _)| &**k));
                let reason =
                    format!("no such kind of row{hint} (or weight_mac, act_mac, elementwise)");
                DbError::schema("$elementwise", kind, reason)
            })
    }

    /// The whole `$elementwise` table.
    pub fn elementwise_kinds(&self) -> Result<&[(Arc<str>, Elementwise)], DbError> {
        match self.elementwise.get() {
            Some(table) => Ok(table),
            None => {
                let table = self.read_elementwise()?;
                Ok(self.elementwise.get_or_init(|| table))
            }
        }
    }

    fn read_elementwise(&self) -> Result<Vec<(Arc<str>, Elementwise)>, DbError> {
        let table = self.table("$elementwise")?;
        let row = |(kind, value): &(Arc<str>, Value)| {
            let number = |key: &str| {
                let value = value
                    .as_object()
                    .and_then(|row| row.get(key))
                    .and_then(Value::as_int);
                value
                    .filter(|n| (0..=1_000_000).contains(n))
                    .ok_or_else(|| {
                        let reason = format!("`{key}` needs a number from 0 to 1000000");
                        DbError::schema("$elementwise", kind.to_string(), reason)
                    })
            };
            let row = Elementwise {
                flops: number("flops")?,
                reads: number("reads")?,
                writes: number("writes")?,
            };
            Ok((kind.clone(), row))
        };
        table.0.iter().map(row).collect()
    }

    /// What the database says about quantized checkpoints.
    pub fn quantization(&self) -> Result<&Quantization, DbError> {
        match self.quantization.get() {
            Some(rules) => Ok(rules),
            None => {
                let rules = quantization::read(self)?;
                Ok(self.quantization.get_or_init(|| rules))
            }
        }
    }

    /// What holds for the files of all models.
    pub fn stored_conventions(&self) -> Result<&Conventions, DbError> {
        match self.conventions.get() {
            Some(conventions) => Ok(conventions),
            None => {
                let conventions = stored::conventions(&*self.table("$stored")?)?;
                Ok(self.conventions.get_or_init(|| conventions))
            }
        }
    }

    /// Models that are recognised by their tensors.
    pub fn graphs(&self) -> Result<Vec<Graph>, DbError> {
        graphs::read(&*self.table("$graphs")?)
    }

    fn table(&self, key: &str) -> Result<Arc<Object>, DbError> {
        match self.written.get(key) {
            None => Ok(Arc::default()),
            Some(written) => match self.read(key, written)? {
                Value::Object(o) => Ok(o),
                other => Err(DbError::schema(
                    key,
                    "",
                    format!("needs an object, got {}", other.describe()),
                )),
            },
        }
    }

    fn read(&self, key: &str, written: &Written) -> Result<Value, DbError> {
        json::read(&written.text).map_err(|e| DbError::schema(key, "", format!("not JSON, {e}")))
    }
}

/// Locks a cache; a cache that a panicking thread held is still a cache.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The last part of a key: its class.
pub(crate) fn class_of(key: &str) -> &str {
    match key.rsplit_once("__") {
        // `parametrize___WeightNorm` is the class `_WeightNorm`.
        Some((file, class)) if file.ends_with('_') => &key[key.len() - class.len() - 1..],
        Some((_, class)) => class,
        None => key,
    }
}

/// The dotted path of a key.
fn path_of(key: &str) -> String {
    let class = class_of(key);
    let file = key.strip_suffix(class).unwrap_or(key);
    format!("{}{class}", file.replace("__", "."))
}

/// The key that a dotted path has.
pub(crate) fn key_of_path(path: &str) -> String {
    path.replace('.', "__")
}

/// An overlay entry is who its `module_path` says, whatever its key.
fn canonical_key(key: &Arc<str>, text: &str) -> Result<Arc<str>, DbError> {
    if key.starts_with('$') {
        return Ok(key.clone());
    }
    let value = json::read(text).map_err(|e| DbError::schema(key, "", format!("not JSON, {e}")))?;
    let path = value
        .as_object()
        .and_then(|o| o.get("module_path"))
        .and_then(Value::as_str);
    Ok(path.map_or_else(|| key_of_path(key).into(), |path| key_of_path(path).into()))
}
