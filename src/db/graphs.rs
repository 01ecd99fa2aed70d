//! Models that are recognised by the names of their tensors, where a checkpoint comes without a config that names a class.
//!
//! The table `$graphs`: name -> the class, tensors that must be there, and what the config of the class would say, counted
//! from the tensors: `{"items": ["layer1", "layer2"]}` counts the items of lists, `{"size": ["linear.weight", 0]}` takes a
//! dimension of a tensor.

use super::error::DbError;
use crate::value::{Object, Value};
use std::sync::Arc;

/// A model that its tensors tell.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What users call it.
    pub name: Arc<str>,
    /// Its class.
    pub class: Arc<str>,
    /// Tensors that must be there.
    pub when: Vec<Arc<str>>,
    /// Keys of its config.
    pub config: Vec<(Arc<str>, Derived)>,
}

/// A value of a config that tensors tell.
#[derive(Clone, Debug)]
pub enum Derived {
    /// How many items each of these lists has.
    Items(Vec<Arc<str>>),
    /// A dimension of a tensor.
    Size(Arc<str>, usize),
}

/// Reads the table.
pub(super) fn read(table: &Object) -> Result<Vec<Graph>, DbError> {
    table
        .0
        .iter()
        .filter(|(name, _)| &**name != "doc")
        .map(|(name, value)| graph(name, value))
        .collect()
}

fn graph(name: &Arc<str>, value: &Value) -> Result<Graph, DbError> {
    let wrong = |reason: &str| DbError::schema("$graphs", name.to_string(), reason);
    let object = value.as_object().ok_or_else(|| wrong("needs an object"))?;
    let texts = |value: Option<&Value>, reason: &str| match value {
        Some(Value::List(items)) => items
            .iter()
            .map(|item| item.as_str().map(Arc::from).ok_or_else(|| wrong(reason)))
            .collect::<Result<Vec<Arc<str>>, DbError>>(),
        _ => Err(wrong(reason)),
    };
    let class = object
        .get("class")
        .and_then(Value::as_str)
        .ok_or_else(|| wrong("lacks `class`"))?;
    let when = texts(object.get("when"), "`when` lists names of tensors")?;
    let mut config = Vec::new();
    for (key, value) in object
        .get("config")
        .and_then(Value::as_object)
        .iter()
        .flat_map(|o| o.0.iter())
    {
        let reason =
            "a value of `config` is {\"items\": [lists]} or {\"size\": [tensor, dimension]}";
        let value = value.as_object().ok_or_else(|| wrong(reason))?;
        let derived = match (value.get("items"), value.get("size")) {
            (items @ Some(_), None) => Derived::Items(texts(items, reason)?),
            (None, Some(Value::List(size))) => match &size[..] {
                [Value::Str(tensor), Value::Int(dimension)] => {
                    let dimension = usize::try_from(*dimension).map_err(|_| wrong(reason))?;
                    Derived::Size(tensor.clone(), dimension)
                }
                _ => return Err(wrong(reason)),
            },
            _ => return Err(wrong(reason)),
        };
        config.push((key.clone(), derived));
    }
    Ok(Graph {
        name: name.clone(),
        class: class.into(),
        when,
        config,
    })
}

impl Graph {
    /// The config that tensors tell, given as names with shapes; `None` where a tensor is missing.
    pub fn config_of<'t>(
        &self,
        shape: impl Fn(&str) -> Option<&'t [u64]>,
        names: &[&str],
    ) -> Option<Object> {
        if !self.when.iter().all(|tensor| shape(tensor).is_some()) {
            return None;
        }
        let items = |list: &str| {
            let numbers = names.iter().filter_map(|name| {
                let item = name
                    .strip_prefix(list)?
                    .strip_prefix('.')?
                    .split('.')
                    .next()?;
                item.parse::<u32>().ok()
            });
            numbers.max().map_or(0, |last| i128::from(last) + 1)
        };
        let mut config = Vec::new();
        for (key, derived) in &self.config {
            let value = match derived {
                Derived::Items(lists) => {
                    Value::List(lists.iter().map(|list| Value::Int(items(list))).collect())
                }
                Derived::Size(tensor, dimension) => {
                    Value::Int(i128::from(*shape(tensor)?.get(*dimension)?))
                }
            };
            config.push((key.clone(), value));
        }
        Some(Object(config))
    }
}
