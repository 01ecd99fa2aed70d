//! The join: what a checkpoint says of its tensors, laid onto the tree of a model.
//!
//! A tree and the weights of a checkpoint go in; the same tree comes out with the stored form of every tensor, the widths of
//! its rows as stored, and findings where the two disagree: a parameter that the file lacks, a tensor that no module has,
//! another shape. Equal modules stay one node where the file holds them alike, and come apart where it does not.
//!
//! - `names.rs`: under which names a file may hold a tensor
//! - `find.rs`: what it holds there
//! - `lay.rs`: the tree anew, with what was found
//! - `estimate.rs`: modules from names and shapes alone, where the database has no entry

mod estimate;
mod find;
mod lay;
mod names;

use crate::checkpoint::packed::{Padding, Settings, Weights, weights};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::db::{Conventions, DbError, Piece};
use crate::model::{Asked, Model, ModelError, Node, Stored, Tree, path_below};
use crate::source::Files;
use crate::units;
use crate::value::Object;
pub use find::{Extent, Part};
use find::{Finder, Found};
use names::{Level, Place, places};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// A checkpoint, read as far as its headers: its tensors and what they mean.
#[derive(Debug)]
pub struct Headers {
    /// The tensors.
    pub checkpoint: Checkpoint,
    /// The weights that they make up.
    pub weights: Weights,
}

impl Headers {
    /// Reads what the files of a model say of its weights; `None` where there are no weights.
    pub fn read(
        files: &dyn Files,
        config: Option<&Object>,
    ) -> Result<Option<Headers>, CheckpointError> {
        let Some(checkpoint) = Checkpoint::open(files)? else {
            return Ok(None);
        };
        let settings = Settings::find(config, Some(files))?;
        let weights = weights(&checkpoint, &settings);
        Ok(Some(Headers {
            checkpoint,
            weights,
        }))
    }

    /// Width of most of the floating-point numbers that are stored as they are.
    pub fn float_bits(&self) -> Option<u32> {
        let mut by_width: BTreeMap<u32, u128> = BTreeMap::new();
        for tensor in self
            .checkpoint
            .tensors
            .iter()
            .filter(|t| t.dtype.is_float() && t.dtype.bits >= 16)
        {
            *by_width.entry(tensor.dtype.bits).or_default() += u128::from(tensor.elements());
        }
        by_width
            .into_iter()
            .max_by_key(|(_, elements)| *elements)
            .map(|(bits, _)| bits)
    }
}

/// A tree with what a checkpoint says.
#[derive(Debug)]
pub struct Joined<'e> {
    /// The tree.
    pub tree: Tree<'e>,
    /// Where tree and file disagree, and what is remarkable.
    pub findings: Vec<Finding>,
}

/// Something that tree and file disagree on, or that the reader should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A short stable name.
    pub code: &'static str,
    /// The first module or tensor it is about.
    pub path: String,
    /// What was found.
    pub message: String,
    /// Whether tree and file contradict each other.
    pub mismatch: bool,
}

/// Codes of the findings that say that tree and file contradict each other.
pub const MISMATCHES: [&str; 3] = ["missing_in_file", "not_in_model", "shape"];

/// A pattern of tensors that a file may hold besides the model's, and what they are.
type Extra = (String, Arc<str>);

/// Names that one finding spells out.
const SHOWN_NAMES: usize = 4;

/// Lays a checkpoint onto a tree. `tokens` is how many positions a layer works on whose module nobody described.
pub fn join<'e>(
    model: &Model<'e>,
    tree: Tree<'e>,
    headers: &Headers,
    tokens: u128,
) -> Result<Joined<'e>, ModelError> {
    let children: Vec<&str> = tree.root.children.iter().map(|(name, _)| &**name).collect();
    let mut finder = Finder::new(&headers.weights, &children);
    let mut survey = Survey::new(model, &mut finder)?;
    survey.node(&tree.root, "", &mut String::new(), &mut Vec::new())?;
    let Survey {
        mut found,
        paths,
        shapes,
        mut extras,
        conventions,
        ..
    } = survey;
    // Patterns for the files of all models have no formulas: there is no config that all share.
    for extra in &conventions.extra {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.to_string(),
            Piece::Value(formula) => formula.text.to_string(),
        };
        extras.push((extra.pattern.iter().map(text).collect(), extra.what.clone()));
    }
    share_tied(&tree, &paths, &mut found);
    let missing: Vec<&str> = paths
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(path, _)| path.as_str())
        .collect();
    let mut findings = Vec::new();
    findings.extend(mismatch(
        "missing_in_file",
        &missing,
        "the model has and the checkpoint lacks",
        "parameter",
    ));
    findings.extend(shape_findings(&shapes));
    let (tree, estimated) = lay::tree(tree, found, &mut finder, &extras, tokens)?;
    findings.extend(estimated);
    findings.extend(left_over(&extras, &finder));
    Ok(Joined { tree, findings })
}

/// What speaks against a model being the one of a checkpoint: parameters that are not there or in another shape, tensors
/// besides.
pub fn contradictions(model: &Model<'_>, headers: &Headers) -> Result<Vec<Finding>, ModelError> {
    let tree = model.expand(&model.workload(&Asked::default())?)?;
    let mut findings = join(model, tree, headers, 1)?.findings;
    findings.retain(|finding| finding.mismatch);
    Ok(findings)
}

/// Which weights of a checkpoint hold each tensor and buffer of a tree, by path. Several hold a tensor that the file has in
/// parts, none one that it lacks; tied tensors share theirs.
pub fn locate(
    model: &Model<'_>,
    tree: &Tree<'_>,
    headers: &Headers,
) -> Result<HashMap<String, Vec<Part>>, ModelError> {
    let children: Vec<&str> = tree.root.children.iter().map(|(name, _)| &**name).collect();
    let mut finder = Finder::new(&headers.weights, &children);
    let mut survey = Survey::new(model, &mut finder)?;
    survey.node(&tree.root, "", &mut String::new(), &mut Vec::new())?;
    let tensors = survey.paths.into_iter().zip(survey.parts);
    let mut places: HashMap<String, Vec<Part>> = tensors.chain(survey.buffers).collect();
    for _ in 0..tree.tied.len() {
        for (tensor, original) in &tree.tied {
            let held = |path: &str| places.get(path).filter(|parts| !parts.is_empty()).cloned();
            match (held(tensor), held(original)) {
                (None, Some(parts)) => places.insert(tensor.to_string(), parts),
                (Some(parts), None) => places.insert(original.to_string(), parts),
                _ => None,
            };
        }
    }
    Ok(places)
}

/// The first walk: looks for every tensor of every module, in tree order.
struct Survey<'s, 'w, 'e> {
    finder: &'s mut Finder<'w>,
    conventions: &'s Conventions,
    found: Vec<Option<Rc<Stored>>>,
    paths: Vec<String>,
    /// The weights that hold each tensor, and those of the buffers that are found.
    parts: Vec<Vec<Part>>,
    buffers: Vec<(String, Vec<Part>)>,
    /// Path, shape in the model, shape in the file.
    shapes: Vec<(String, Vec<u128>, String)>,
    /// Patterns of tensors that the file may hold besides, with what they are.
    extras: Vec<Extra>,
    known_extras: HashSet<String>,
    model: &'s Model<'e>,
}

impl<'s, 'w, 'e> Survey<'s, 'w, 'e> {
    fn new(
        model: &'s Model<'e>,
        finder: &'s mut Finder<'w>,
    ) -> Result<Survey<'s, 'w, 'e>, DbError> {
        Ok(Survey {
            model,
            finder,
            conventions: model.db.stored_conventions()?,
            found: Vec::new(),
            paths: Vec::new(),
            parts: Vec::new(),
            buffers: Vec::new(),
            shapes: Vec::new(),
            extras: Vec::new(),
            known_extras: HashSet::new(),
        })
    }

    fn node<'n>(
        &mut self,
        node: &'n Node<'e>,
        name: &'n str,
        path: &mut String,
        levels: &mut Vec<Level<'n>>,
    ) -> Result<(), ModelError> {
        let on_disk = node.entry.map(|entry| &entry.on_disk);
        levels.push(Level { name, on_disk });
        for tensor in &node.tensors {
            let mut found = self
                .finder
                .find(&places(levels, &tensor.name, self.conventions));
            let whole = path_below(path, &tensor.name);
            if let Some(found) = &mut found
                && let Some(other) = other_shape(found, &tensor.shape, tensor.elements)
            {
                found.forget_extents();
                self.shapes
                    .push((whole.clone(), tensor.shape.clone(), other));
            }
            self.parts.push(
                found
                    .as_ref()
                    .map_or_else(Vec::new, |found| found.parts.clone()),
            );
            self.found.push(found.map(|found| found.stored));
            self.paths.push(whole);
        }
        // Buffers may be left out of files; those that are there are expected.
        for buffer in &node.buffers {
            let found = self
                .finder
                .find(&places(levels, &buffer.name, self.conventions));
            if let Some(found) = found.filter(|found| found.parts.len() == 1) {
                self.buffers
                    .push((path_below(path, &buffer.name), found.parts));
            }
        }
        self.extras_of(node, levels)?;
        for (name, child) in &node.children {
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            self.node(child, name, path, levels)?;
            path.truncate(length);
        }
        levels.pop();
        Ok(())
    }

    /// What the file may hold besides the tensors of a module; items of lists share their patterns.
    fn extras_of(&mut self, node: &Node<'e>, levels: &[Level<'_>]) -> Result<(), ModelError> {
        let Some(entry) = node.entry.filter(|entry| !entry.on_disk.extra.is_empty()) else {
            return Ok(());
        };
        let any_item = |level: &Level<'_>| level.name.bytes().all(|b| b.is_ascii_digit());
        let starred: Vec<Level<'_>> = levels
            .iter()
            .map(|level| Level {
                name: if any_item(level) && !level.name.is_empty() {
                    "*"
                } else {
                    level.name
                },
                ..*level
            })
            .collect();
        for extra in &entry.on_disk.extra {
            let mut pattern = String::new();
            for piece in &extra.pattern {
                match piece {
                    Piece::Text(text) => pattern.push_str(text),
                    Piece::Value(formula) => {
                        pattern.push_str(&self.model.value_at(node, formula)?.to_string());
                    }
                }
            }
            for place in places(&starred, &pattern, self.conventions) {
                if let Place::Named(pattern) = place
                    && self.known_extras.insert(pattern.clone())
                {
                    self.extras.push((pattern, extra.what.clone()));
                }
            }
        }
        Ok(())
    }
}

/// How the file's shape is written, where it is another than the model's.
fn other_shape(found: &Found, shape: &[u128], elements: u128) -> Option<String> {
    let Some(stored) = &found.shape else {
        let same = found.stored.elements == elements;
        return (!same).then(|| format!("{} elements", found.stored.elements));
    };
    let last = shape.len().saturating_sub(1);
    let padded = |(at, (stored, wanted)): (usize, (&u128, &u128))| {
        let more = match found.padding {
            Padding::Rows(most) if at == 0 => most,
            Padding::Columns(most) if at == last => most,
            _ => 0,
        };
        (*wanted..=wanted.saturating_add(more.into())).contains(stored)
    };
    let same = stored.len() == shape.len() && stored.iter().zip(shape).enumerate().all(padded);
    (!same).then(|| format!("{stored:?} in {}", shown(&found.name)))
}

/// A tied tensor that the file holds at one owner is stored at all of them.
fn share_tied(tree: &Tree<'_>, paths: &[String], found: &mut [Option<Rc<Stored>>]) {
    if tree.tied.is_empty() {
        return;
    }
    let places: HashMap<&str, usize> = paths
        .iter()
        .enumerate()
        .map(|(at, path)| (path.as_str(), at))
        .collect();
    // Ties may form chains, so each round may find the next link.
    for _ in 0..tree.tied.len() {
        for (tensor, original) in &tree.tied {
            let (Some(a), Some(b)) = (places.get(&**tensor), places.get(&**original)) else {
                continue;
            };
            match (&found[*a], &found[*b]) {
                (None, Some(stored)) => found[*a] = Some(stored.clone()),
                (Some(stored), None) => found[*b] = Some(stored.clone()),
                _ => {}
            }
        }
    }
}

/// One finding for names that contradict; none without names.
fn mismatch(code: &'static str, names: &[&str], what: &str, thing: &str) -> Option<Finding> {
    let path = names.first()?.to_string();
    let message = format!(
        "{} that {what}: {}",
        units::counted(names.len() as u128, thing),
        listed(names)
    );
    Some(Finding {
        code,
        path,
        message,
        mismatch: true,
    })
}

fn shape_findings(shapes: &[(String, Vec<u128>, String)]) -> Option<Finding> {
    let (first, model, file) = shapes.first()?;
    let names: Vec<&str> = shapes.iter().map(|(path, ..)| path.as_str()).collect();
    let message = format!(
        "{} with another shape in the checkpoint: {}; {} has {model:?} in the model and {file}",
        units::counted(names.len() as u128, "parameter"),
        listed(&names),
        shown(first)
    );
    Some(Finding {
        code: "shape",
        path: first.clone(),
        message,
        mismatch: true,
    })
}

/// A name from a file as messages show it: on one line, of bearable length.
fn shown(name: &str) -> String {
    units::clipped(name, 160)
}

/// Names with their numbers taken together: `model.layers.*.mlp.up_proj.weight (32)`.
fn listed(names: &[&str]) -> String {
    let mut patterns: Vec<(String, usize)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for name in names {
        let pattern = numberless(name);
        match known.get(&pattern) {
            Some(at) => patterns[*at].1 += 1,
            None => {
                known.insert(pattern.clone(), patterns.len());
                patterns.push((pattern, 1));
            }
        }
    }
    let first = patterns
        .iter()
        .take(SHOWN_NAMES)
        .map(|(pattern, count)| match count {
            // One name is written as it is.
            1 => names
                .iter()
                .find(|name| numberless(name) == *pattern)
                .map_or(pattern.clone(), |name| name.to_string()),
            _ => format!("{pattern} ({count})"),
        });
    let mut text = first
        .map(|name| shown(&name))
        .collect::<Vec<_>>()
        .join(", ");
    if patterns.len() > SHOWN_NAMES {
        let rest: usize = patterns[SHOWN_NAMES..].iter().map(|(_, count)| count).sum();
        text.push_str(&format!(" and {rest} more"));
    }
    text
}

fn numberless(name: &str) -> String {
    let numbered = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = name
        .split('.')
        .map(|part| if numbered(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

/// What no module asked for: known extras as remarks, the rest as a contradiction.
fn left_over(extras: &[Extra], finder: &Finder<'_>) -> Vec<Finding> {
    let mut known: Vec<(&str, Vec<&str>, u128)> = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    for (_, weight) in finder.left() {
        let Some((_, what)) = extras
            .iter()
            .find(|(pattern, _)| finder.fits(pattern, &weight.name))
        else {
            unknown.push(&weight.name);
            continue;
        };
        let at = known
            .iter()
            .position(|(known, ..)| *known == &**what)
            .unwrap_or_else(|| {
                known.push((what, Vec::new(), 0));
                known.len() - 1
            });
        known[at].1.push(&weight.name);
        known[at].2 += u128::from(weight.bytes);
    }
    let mut findings = Vec::new();
    for (what, names, bytes) in &known {
        let message = format!(
            "not counted, but in the checkpoint ({}): {what}: {}",
            units::binary(*bytes),
            listed(names)
        );
        let path = names
            .first()
            .map_or_else(String::new, |name| name.to_string());
        findings.push(Finding {
            code: "extra",
            path,
            message,
            mismatch: false,
        });
    }
    findings.extend(mismatch(
        "not_in_model",
        &unknown,
        "the checkpoint has and the model lacks",
        "tensor",
    ));
    findings
}
