//! Configs of published models, embedded, each with the parameter count that its publisher states.

use super::{ModelFiles, SourceKind};
use crate::formula::nearest;
use crate::json;
use crate::value::{Object, Value};
use std::sync::Arc;

const EMBEDDED: &str = include_str!("catalog.json");

/// The embedded configs, in the order of their ids.
pub struct Catalog {
    index: Vec<(Arc<str>, &'static str)>,
}

/// One published model.
#[derive(Clone, Debug)]
pub struct CatalogModel {
    /// Its id on the Hub, or `torchvision/..`, `cifar/..`.
    pub id: Arc<str>,
    /// Its config.
    pub config: Arc<Object>,
    /// The root class, for models whose config does not name it.
    pub root: Option<Arc<str>>,
    /// What its publisher says.
    pub published: Published,
}

/// A published parameter count.
#[derive(Clone, Debug)]
pub struct Published {
    /// The count.
    pub params: u128,
    /// Significant digits of a count that was published rounded; `None`: exact.
    pub digits: Option<u32>,
    /// Where it was published.
    pub source: Arc<str>,
}

impl Catalog {
    /// The embedded catalog. Only the ids are read.
    pub fn embedded() -> Catalog {
        let index =
            json::read_index(EMBEDDED).expect("the embedded catalog is JSON, as a test checks");
        Catalog { index }
    }

    /// Every id.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.index.iter().map(|(id, _)| &**id)
    }

    /// One model, by its id in any case.
    pub fn get(&self, id: &str) -> Option<CatalogModel> {
        let exact = self.index.iter().find(|(known, _)| **known == *id);
        let (id, text) = exact.or_else(|| {
            self.index
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(id))
        })?;
        let Ok(Value::Object(entry)) = json::read(text) else {
            return None;
        };
        let Some(Value::Object(config)) = entry.get("config") else {
            return None;
        };
        let published = entry.get("published").and_then(Value::as_object)?;
        Some(CatalogModel {
            id: id.clone(),
            config: config.clone(),
            root: entry.get("root").and_then(Value::as_str).map(Arc::from),
            published: Published {
                params: published
                    .get("params")
                    .and_then(Value::as_int)
                    .and_then(|n| u128::try_from(n).ok())?,
                digits: published
                    .get("digits")
                    .and_then(Value::as_int)
                    .and_then(|n| u32::try_from(n).ok()),
                source: published
                    .get("source")
                    .and_then(Value::as_str)
                    .unwrap_or("")
                    .into(),
            },
        })
    }

    pub(super) fn open(&self, id: &str) -> Option<ModelFiles> {
        let model = self.get(id)?;
        Some(ModelFiles {
            file: format!("the catalog's config of {}", model.id),
            id: model.id.to_string(),
            revision: None,
            source: SourceKind::Catalog,
            config: Some(model.config),
            root: model.root,
            notes: Vec::new(),
            files: None,
        })
    }

    /// `, did you mean ...?` for an id that is not there, or nothing.
    pub(super) fn hint(&self, id: &str) -> String {
        let lower = id.to_ascii_lowercase();
        let bare = |id: &str| id.rsplit('/').next().unwrap_or(id).to_ascii_lowercase();
        // People leave the organization out more often than they mistype the name.
        let named = self.ids().find(|known| bare(known) == bare(id));
        let lowered: Vec<(String, &str)> = self
            .ids()
            .map(|known| (known.to_ascii_lowercase(), known))
            .collect();
        let close = || {
            nearest(&lower, lowered.iter().map(|(l, _)| l.as_str())).and_then(|found| {
                lowered
                    .iter()
                    .find(|(l, _)| l == found)
                    .map(|(_, known)| *known)
            })
        };
        named
            .or_else(close)
            .map_or_else(String::new, |known| format!(", did you mean `{known}`?"))
    }
}
