//! What the tensors of a class are called on disk, where that differs from the tree.
//!
//! The keys `stored`, `stored_paths` and `stored_extra` of an entry, and the table `$stored` for all entries, parsed. All
//! paths are relative to the module whose entry they stand in; the join tries the names of the tree first.
//!
//! ```text
//! "stored_paths": {"mlp.": "block_sparse_moe."}             a prefix in the tree -> the prefix on disk
//! "stored": {"gate_up_proj": {"from": ["experts.*.w1.weight", "experts.*.w3.weight"], "join": "stack 0, concat 1"},
//!            "gate_proj.weight": {"from": ["weights_in.weight"], "join": "chunk 0 of 2"}}
//! "stored_extra": {"model.layers.{num_hidden_layers}.*": "a layer for multi-token prediction"}
//! ```

use super::error::DbError;
use crate::formula::Formula;
use crate::value::{Object, Value};
use std::sync::Arc;

/// A name in the tree and one on disk, or a pattern and what it is.
type Pair = (Arc<str>, Arc<str>);

/// Names on disk of what one class owns and contains.
#[derive(Clone, Debug, Default)]
pub struct OnDisk {
    /// Prefixes in the tree and on disk.
    pub paths: Vec<Pair>,
    /// Tensors that are put together from others, or are parts of another.
    pub assembled: Vec<Assembled>,
    /// Tensors that may stand in the file and belong to no module.
    pub extra: Vec<Extra>,
}

/// A tensor of the tree that the file holds in another form.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// Its path in the tree.
    pub tensor: Arc<str>,
    /// Paths on disk; a `*` stands for the numbers from 0 on.
    pub from: Vec<Arc<str>>,
    /// How they become the tensor.
    pub join: Join,
}

/// How stored tensors become a tensor of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The one tensor, under another name.
    Same,
    /// The one tensor with its last two dimensions exchanged.
    Transposed,
    /// Tensors numbered by `*` become the items of a new first dimension; several paths are concatenated along `concat`.
    Stacked {
        /// The dimension of the result along which the paths are concatenated.
        concat: Option<usize>,
        /// The last two dimensions of each tensor are exchanged first.
        transposed: bool,
    },
    /// The paths one after the other along a dimension.
    Concatenated(usize),
    /// One of several equal parts along the first dimension.
    Chunk {
        /// Which, from 0.
        number: u64,
        /// Of how many.
        of: u64,
    },
}

/// Tensors that may stand in a file and belong to no module of the tree.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Their path, with `*` for anything.
    pub pattern: Vec<Piece>,
    /// What they are.
    pub what: Arc<str>,
}

/// A part of a pattern.
#[derive(Clone, Debug)]
pub enum Piece {
    /// As it stands; `*` matches anything.
    Text(Arc<str>),
    /// A formula of the entry: `{num_hidden_layers}`.
    Value(Formula),
}

/// The table `$stored`: what holds for the files of all models.
#[derive(Clone, Debug, Default)]
pub struct Conventions {
    /// Endings in the tree and on disk.
    pub endings: Vec<Pair>,
    /// Tensors that may stand in any file.
    pub extra: Vec<Extra>,
}

/// Reads the three keys of an entry.
pub(super) fn read(entry: &str, source: &Object) -> Result<OnDisk, DbError> {
    Ok(OnDisk {
        paths: strings(entry, source, "stored_paths")?,
        assembled: object(entry, source, "stored")?.map_or(Ok(Vec::new()), |object| {
            object
                .0
                .iter()
                .map(|(tensor, value)| assembled(entry, tensor, value))
                .collect()
        })?,
        extra: extras(entry, source, "stored_extra")?,
    })
}

/// Reads the table `$stored`.
pub(super) fn conventions(table: &Object) -> Result<Conventions, DbError> {
    const TABLE: &str = "$stored";
    if let Some((unknown, _)) = table
        .0
        .iter()
        .find(|(key, _)| !["doc", "endings", "extra"].contains(&&**key))
    {
        return Err(DbError::schema(TABLE, unknown.to_string(), "unknown key"));
    }
    Ok(Conventions {
        endings: strings(TABLE, table, "endings")?,
        extra: extras(TABLE, table, "extra")?,
    })
}

fn object<'o>(entry: &str, source: &'o Object, key: &str) -> Result<Option<&'o Object>, DbError> {
    match source.get(key) {
        None | Some(Value::None) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(DbError::schema(
            entry,
            key,
            format!("needs an object, got {}", other.describe()),
        )),
    }
}

/// Strings under strings.
fn strings(entry: &str, source: &Object, key: &str) -> Result<Vec<Pair>, DbError> {
    let Some(object) = object(entry, source, key)? else {
        return Ok(Vec::new());
    };
    let pair = |(name, value): &(Arc<str>, Value)| match value {
        Value::Str(text) => Ok((name.clone(), text.clone())),
        other => Err(DbError::schema(
            entry,
            format!("{key}.{name}"),
            format!("needs a string, got {}", other.describe()),
        )),
    };
    object.0.iter().map(pair).collect()
}

fn extras(entry: &str, source: &Object, key: &str) -> Result<Vec<Extra>, DbError> {
    let extra = |(pattern, what): Pair| {
        let pattern = pieces(entry, &format!("{key}.{pattern}"), &pattern)?;
        Ok(Extra { pattern, what })
    };
    strings(entry, source, key)?
        .into_iter()
        .map(extra)
        .collect()
}

/// Splits `model.layers.{num_hidden_layers}.*` into texts and formulas.
fn pieces(entry: &str, field: &str, pattern: &str) -> Result<Vec<Piece>, DbError> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((formula, behind)) = after.split_once('}') else {
            return Err(DbError::schema(entry, field, "a `{` without its `}`"));
        };
        let parsed =
            Formula::parse(formula).map_err(|e| DbError::syntax(entry, field, formula, &e))?;
        pieces.push(Piece::Text(before.into()));
        pieces.push(Piece::Value(parsed.of_field(field)));
        rest = behind;
    }
    pieces.push(Piece::Text(rest.into()));
    Ok(pieces)
}

fn assembled(entry: &str, tensor: &Arc<str>, value: &Value) -> Result<Assembled, DbError> {
    let field = format!("stored.{tensor}");
    let wrong = |reason: &str| DbError::schema(entry, &*field, reason);
    let parts = value
        .as_object()
        .ok_or_else(|| wrong("needs {from, join}"))?;
    let from = match parts.get("from") {
        Some(Value::List(paths)) if !paths.is_empty() => paths
            .iter()
            .map(|path| {
                path.as_str()
                    .map(Arc::from)
                    .ok_or_else(|| wrong("`from` lists paths"))
            })
            .collect::<Result<Vec<Arc<str>>, _>>()?,
        _ => return Err(wrong("`from` lists the paths on disk")),
    };
    let text = parts.get("join").and_then(Value::as_str).unwrap_or("same");
    let join = join(text).ok_or_else(|| {
        wrong("`join` is \"same\", \"transpose\", \"stack 0\", \"stack 0, concat 1\", \"transpose, stack 0, concat 2\", \"concat 0\" or \"chunk 0 of 2\"")
    })?;
    let stars = from.iter().filter(|path| path.contains('*')).count();
    let fits = match join {
        Join::Stacked { .. } => stars == from.len(),
        Join::Concatenated(_) => stars == 0,
        Join::Same | Join::Transposed | Join::Chunk { .. } => stars == 0 && from.len() == 1,
    };
    if !fits {
        return Err(wrong(
            "`stack` needs one `*` in each path of `from`, the others none; only `stack` and `concat` take several paths",
        ));
    }
    Ok(Assembled {
        tensor: tensor.clone(),
        from,
        join,
    })
}

fn join(text: &str) -> Option<Join> {
    let mut steps: Vec<&str> = text.split(',').map(str::trim).collect();
    let transposed = steps.first() == Some(&"transpose");
    if transposed {
        steps.remove(0);
    }
    let number = |step: &str, verb: &str| step.strip_prefix(verb)?.trim().parse::<usize>().ok();
    match (steps.as_slice(), transposed) {
        ([], true) => Some(Join::Transposed),
        (["same"], false) => Some(Join::Same),
        (["stack 0"], transposed) => Some(Join::Stacked {
            concat: None,
            transposed,
        }),
        (["stack 0", concat], transposed) => {
            let concat = Some(number(concat, "concat")?);
            Some(Join::Stacked { concat, transposed })
        }
        ([step], false) if step.starts_with("concat") => {
            number(step, "concat").map(Join::Concatenated)
        }
        ([step], false) => {
            let (part, of) = step.strip_prefix("chunk")?.split_once(" of ")?;
            let (part, of) = (part.trim().parse().ok()?, of.trim().parse().ok()?);
            (part < of).then_some(Join::Chunk { number: part, of })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Join>) {
        assert_eq!(join(text), expected);
    }

    #[test]
    fn joins_are_read() {
        check("same", Some(Join::Same));
        check("transpose", Some(Join::Transposed));
        check(
            "stack 0",
            Some(Join::Stacked {
                concat: None,
                transposed: false,
            }),
        );
        check(
            "stack 0, concat 1",
            Some(Join::Stacked {
                concat: Some(1),
                transposed: false,
            }),
        );
        check(
            "transpose, stack 0, concat 2",
            Some(Join::Stacked {
                concat: Some(2),
                transposed: true,
            }),
        );
        check("concat 0", Some(Join::Concatenated(0)));
        check("chunk 1 of 3", Some(Join::Chunk { number: 1, of: 3 }));
    }

    #[test]
    fn other_words_are_no_join() {
        for text in [
            "",
            "stack 1",
            "chunk 3 of 3",
            "concat",
            "stack 0, stack 0",
            "transpose, chunk 0 of 2",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn formulas_stand_in_braces() {
        let pieces = pieces("e", "f", "model.layers.{n + 1}.*").expect("a pattern");
        assert!(
            matches!(&pieces[..], [Piece::Text(a), Piece::Value(f), Piece::Text(b)] if &**a == "model.layers." && &*f.text == "n + 1" && &**b == ".*")
        );
        assert!(super::pieces("e", "f", "a.{n").is_err());
    }
}
