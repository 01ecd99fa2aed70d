//! What can be wrong with the database, always with the place.

use crate::formula::{EvalError, EvalErrorKind, SyntaxError};
use crate::value::ValueError;
use std::sync::Arc;

/// A fault of the database, at the place where it stands.
#[derive(Clone, Debug)]
pub struct DbError {
    /// The entry's key, empty where the file itself is wrong.
    pub entry: Arc<str>,
    /// The field inside the entry: `rows.matmul`, `children.q_proj`.
    pub field: String,
    /// The formula's text and the byte of it that is meant.
    pub formula: Option<(Arc<str>, usize)>,
    /// What is wrong, and if known, the remedy.
    pub reason: String,
    /// Config values that the formula read, as `key = value`.
    pub config: Vec<String>,
    /// The kind of fault, for callers that treat one specially.
    pub kind: Fault,
}

/// Kinds of fault that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An entry is not as the schema says.
    Schema,
    /// A class has no entry.
    UnknownClass,
    /// A formula reads a name that nothing defines.
    UnknownName,
    /// A formula's value does not fit.
    Overflow,
    /// A formula has no value for another reason.
    Evaluation,
}

impl DbError {
    /// An entry that is not as the schema says.
    pub fn schema(entry: &str, field: impl Into<String>, reason: impl Into<String>) -> DbError {
        DbError {
            entry: entry.into(),
            field: field.into(),
            formula: None,
            reason: reason.into(),
            config: Vec::new(),
            kind: Fault::Schema,
        }
    }

    /// A formula that does not parse.
    pub(crate) fn syntax(entry: &str, field: &str, text: &str, error: &SyntaxError) -> DbError {
        let formula = Some((text.into(), error.at));
        DbError {
            formula,
            ..DbError::schema(entry, field, error.to_string())
        }
    }

    /// A formula that has no value. An error that comes from another formula inside keeps its own place.
    pub(crate) fn eval(entry: &str, field: &str, text: &Arc<str>, error: EvalError) -> DbError {
        if let EvalErrorKind::Inner(inner) = &error.kind
            && let Some(inner) = inner.downcast_ref::<DbError>()
        {
            return inner.clone();
        }
        let formula = Some((text.clone(), error.at as usize));
        let kind = match &error.kind {
            EvalErrorKind::UnknownName { .. } => Fault::UnknownName,
            EvalErrorKind::Value(ValueError::Overflow(_)) => Fault::Overflow,
            _ => Fault::Evaluation,
        };
        DbError {
            formula,
            kind,
            ..DbError::schema(entry, field, error.kind.to_string())
        }
    }

    /// The error as the reason of a formula that needed this one.
    pub(crate) fn inner(self) -> EvalErrorKind {
        EvalErrorKind::Inner(Arc::new(self))
    }
}

impl std::error::Error for DbError {}

impl std::fmt::Display for DbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.entry.is_empty() {
            write!(f, "entry `{}`", self.entry)?;
            if !self.field.is_empty() {
                write!(f, ", field `{}`", self.field)?;
            }
            if let Some((_, at)) = &self.formula {
                write!(f, ", column {}", at + 1)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)?;
        if !self.config.is_empty() {
            write!(f, " (from {})", self.config.join(", "))?;
        }
        if let Some((text, at)) = self.formula.as_ref().filter(|(text, _)| text.len() <= 160) {
            let column = text.get(..*at).map_or(*at, |before| before.chars().count());
            write!(f, "\n    {text}\n    {:column$}^", "")?;
        }
        Ok(())
    }
}
