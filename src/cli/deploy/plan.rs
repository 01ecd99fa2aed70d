//! Which layers become ternary.
//!
//! Where there is a config whose class the database knows, **the layers are those that the packed model will have**: the tree is
//! expanded from the very config that is written, and its ternary layers are looked up in the file. Linear layers that stay
//! as they are stand in `modules_to_not_convert` with their paths, so that a loader comes to the same layers. Without a config
//! names and shapes decide.

use super::super::args::{DeployArgs, LinearClassArg};
use super::super::{Failure, input, model_failure};
use super::config::Before;
use super::pack::scale_name;
use super::place::Kind;
use super::{CONFIG, Input};
use crate::checkpoint::Tensor;
use crate::checkpoint::packed::Weight;
use crate::db::Db;
use crate::formula::{Budget, did_you_mean};
use crate::glob::matches;
use crate::join::{Part, locate};
use crate::model::{Asked, Model, ModelError, Node, Status, Tree, path_below};
use crate::units::{clipped, counted};
use crate::value::{Object, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What becomes of a model.
pub(super) struct Plan {
    /// How the layers use their scale.
    pub(super) class: LinearClassArg,
    /// Layers that become ternary, in the order of the model.
    pub(super) layers: Vec<Layer>,
    /// Linear layers that stay as they are, and why.
    pub(super) kept: Vec<(String, String)>,
    /// The config to write; `None` where only a file is packed.
    pub(super) config: Option<String>,
}

/// A layer that becomes ternary.
pub(super) struct Layer {
    /// Its path in the model.
    pub(super) path: String,
    /// The number of its weight among the weights of the checkpoint.
    pub(super) weight: usize,
    /// The number of the tensor that holds the weight.
    pub(super) tensor: usize,
    /// The number of the tensor that holds its bias.
    pub(super) bias: Option<usize>,
}

/// The layer that every loader keeps.
const HEAD: &str = "lm_head";

/// Rows of a weight that share a byte: a loader knows no packed layer of another number of rows.
const ROWS: u64 = 4;

/// Number formats of weights that can be rounded.
const FLOATS: [&str; 4] = ["F64", "F32", "F16", "BF16"];

/// What a name says when its tensor is no layer of a model without a config.
const NO_LAYERS: [&str; 9] = [
    "embed",
    "embedding",
    "embeddings",
    "emb",
    "wte",
    "wpe",
    "norm",
    "ln",
    "head",
];

pub(super) fn plan(args: &DeployArgs, db: &Db, source: &Input) -> Result<Plan, Failure> {
    already_packed(source)?;
    let plan = match &source.files.config {
        Some(config) => by_config(args, db, source, config)?,
        None if source.kind == Kind::Folder => {
            return Err(input(format!(
                "{}: there is no {CONFIG}, so no loader would learn that weights are packed; add it, or name the safetensors file to pack that alone",
                source.files.file
            )));
        }
        None => by_names(args, source)?,
    };
    if plan.layers.is_empty() {
        return Err(nothing(args, source, &plan));
    }
    for layer in &plan.layers {
        let name = scale_name(&source.checkpoint().tensors[layer.tensor].name);
        if tensor_of(source, &name).is_some() {
            return Err(input(format!(
                "{}: `{}` is there already; deploy takes float weights",
                source.files.file,
                clipped(&name, 160)
            )));
        }
    }
    Ok(plan)
}

/// Refuses a checkpoint that holds packed weights: what was rounded once is not rounded again.
fn already_packed(source: &Input) -> Result<(), Failure> {
    let weights = &source.headers.weights.weights;
    match weights.iter().find(|weight| !weight.is_plain()) {
        None => Ok(()),
        Some(weight) => Err(input(format!(
            "{}: `{}` is packed already ({}); deploy takes float weights",
            source.files.file,
            clipped(&weight.name, 160),
            weight.scheme
        ))),
    }
}

/// Why nothing is left to do.
fn nothing(args: &DeployArgs, source: &Input, plan: &Plan) -> Failure {
    let hint = match (args.layers.first(), plan.kept.as_slice()) {
        (Some(layers), kept) if !kept.is_empty() => {
            let names = kept.iter().map(|(path, _)| path.as_str());
            format!(
                "; of {} none matches --layers and can be packed{}",
                counted(kept.len() as u128, "linear layer"),
                did_you_mean(layers, names)
            )
        }
        (None, [(path, why), ..]) => format!("; `{}` stays as it is: {why}", clipped(path, 160)),
        _ => "; --layers PATTERN names them".into(),
    };
    input(format!(
        "{}: there is no linear layer to pack{hint}",
        source.files.file
    ))
}

/// Whether the user wants a layer, and if not why.
fn unwanted(args: &DeployArgs, path: &str) -> Option<&'static str> {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
    if !args.layers.is_empty() && !any(&args.layers) {
        return Some("--layers does not match it");
    }
    any(&args.keep).then_some("--keep matches it")
}

/// Why a weight cannot be packed, if it cannot.
fn unfit(tensor: &Tensor) -> Option<String> {
    let [rows, cols] = *tensor.shape else {
        return Some("its weight has no two dimensions".into());
    };
    if !FLOATS.contains(&tensor.dtype.name) {
        return Some(format!("its weight is {}", tensor.dtype));
    }
    if rows % ROWS != 0 {
        return Some(format!("its {rows} rows are no multiple of {ROWS}"));
    }
    (rows == 0 || cols == 0).then(|| "its weight is empty".into())
}

/// Layers by the names and shapes of tensors.
fn by_names(args: &DeployArgs, source: &Input) -> Result<Plan, Failure> {
    let mut plan = Plan {
        class: args.linear_class.unwrap_or(LinearClassArg::Autobitlinear),
        layers: Vec::new(),
        kept: Vec::new(),
        config: None,
    };
    for (number, weight) in source.headers.weights.weights.iter().enumerate() {
        let tensor = &source.checkpoint().tensors[weight.parts[0] as usize];
        let Some(path) = tensor.name.strip_suffix(".weight") else {
            continue;
        };
        if tensor.shape.len() != 2 || !tensor.dtype.is_float() {
            continue;
        }
        // Whoever names layers knows what they are.
        let other = args.layers.is_empty() && is_no_layer(path);
        let why = unwanted(args, path)
            .or(other.then_some("it is called as embeddings, norms and heads are"))
            .map(String::from)
            .or_else(|| unfit(tensor));
        match why {
            Some(why) => plan.kept.push((path.into(), why)),
            None => plan.layers.push(Layer {
                path: path.into(),
                weight: number,
                tensor: weight.parts[0] as usize,
                bias: tensor_of(source, &format!("{path}.bias")),
            }),
        }
    }
    Ok(plan)
}

/// Whether a word of a name belongs to embeddings, norms and heads.
fn is_no_layer(path: &str) -> bool {
    path.split(['.', '_']).any(|word| {
        let word = word.trim_end_matches(|c: char| c.is_ascii_digit());
        NO_LAYERS.contains(&word.to_lowercase().as_str())
    })
}

fn tensor_of(source: &Input, name: &str) -> Option<usize> {
    let tensors = &source.checkpoint().tensors;
    tensors
        .binary_search_by(|tensor| (*tensor.name).cmp(name))
        .ok()
}

/// Layers by the model that a config describes.
fn by_config(
    args: &DeployArgs,
    db: &Db,
    source: &Input,
    config: &Arc<Object>,
) -> Result<Plan, Failure> {
    let file = &source.files.file;
    let text = match source.place.read(CONFIG)? {
        Some(text) => {
            String::from_utf8(text).map_err(|_| input(format!("{file}: not UTF-8 text")))?
        }
        None => return Err(input(format!("{file}: {CONFIG} is not there"))),
    };
    let before = Before::read(config, &text, file)?;
    let class = args.linear_class.or(before.class);
    let class = class.unwrap_or(LinearClassArg::Autobitlinear);
    let mut spared = before.spared.clone();
    if !spared.iter().any(|name| name == HEAD) {
        spared.push(HEAD.into());
    }
    let packed = |spared: &[String]| before.packed(&text, file, class, spared);
    let found = Candidates::of(args, db, source, &packed(&spared)?)?;
    let mut kept: BTreeMap<usize, String> = BTreeMap::new();
    let mut layers: BTreeMap<usize, Layer> = BTreeMap::new();
    for (number, linear) in found.linears.iter().enumerate() {
        // Whoever names a head means it.
        let is_head = linear.is_head && args.layers.is_empty();
        let why = unwanted(args, &linear.path)
            .or(is_head.then_some("it is a head of the model"))
            .or(linear.is_tied.then_some("its weight is tied to another"));
        match why {
            Some(why) => {
                kept.insert(number, why.into());
            }
            None => match layer(source, linear, &found.places)? {
                Ok(layer) => {
                    layers.insert(number, layer);
                }
                Err(why) => {
                    kept.insert(number, why);
                }
            },
        }
    }
    spared.extend(found.unknown.iter().cloned());
    spared.extend(
        kept.keys()
            .map(|number| found.linears[*number].path.clone()),
    );
    // A name that is spared spares what begins or ends with it.
    let also: Vec<usize> = layers
        .iter()
        .filter(|(_, layer)| spared.iter().any(|name| spares(name, &layer.path)))
        .map(|(number, _)| *number)
        .collect();
    for number in also {
        let name = spared
            .iter()
            .find(|name| spares(name, &found.linears[number].path));
        let name = name.map_or("", |name| name.as_str());
        layers.remove(&number);
        kept.insert(
            number,
            format!("`{name}`, which is kept, is a part of its name"),
        );
    }
    let path = |number: usize| found.linears[number].path.clone();
    let mut kept: Vec<(String, String)> = kept.into_iter().map(|(n, why)| (path(n), why)).collect();
    kept.extend(
        found
            .spared
            .into_iter()
            .map(|path| (path, "the config spares it".into())),
    );
    let unknown = found.unknown.into_iter();
    kept.extend(unknown.map(|path| (path, "the database does not describe its class".into())));
    Ok(Plan {
        class,
        layers: layers.into_values().collect(),
        kept,
        config: match source.kind {
            Kind::Folder => Some(packed(&spared)?),
            Kind::File => None,
        },
    })
}

/// Whether transformers leaves a module as it is for a name in `modules_to_not_convert`: a path that begins with the name and
/// goes on with a new part, or ends with it.
fn spares(name: &str, path: &str) -> bool {
    let begins = path
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || name.ends_with('.'));
    begins || path.ends_with(name)
}

/// A layer with what the file holds of it, or why it cannot be packed.
fn layer(
    source: &Input,
    linear: &Linear,
    places: &HashMap<String, Vec<Part>>,
) -> Result<Result<Layer, String>, Failure> {
    let name = path_below(&linear.path, "weight");
    let parts = places.get(&name).map_or(&[][..], Vec::as_slice);
    let weights = &source.headers.weights.weights;
    let [Part { number, .. }] = *parts else {
        if parts.is_empty() && source.kind == Kind::Folder {
            return Err(input(format!(
                "{}: the model has the parameter `{}`, and no file holds it; --keep {} leaves the layer as it is",
                source.files.file,
                clipped(&name, 160),
                clipped(&linear.path, 160)
            )));
        }
        let why = if parts.is_empty() {
            "its weight is in no file"
        } else {
            "its weight is stored in parts"
        };
        return Ok(Err(why.into()));
    };
    let weight: &Weight = &weights[number];
    let tensor = weight.parts[0] as usize;
    let stored = &source.checkpoint().tensors[tensor];
    // A file may call the model by a prefix, or leave it out; any other name is of a tensor that is put together.
    if !stored.name.ends_with(&name) && !name.ends_with(&*stored.name) {
        return Ok(Err(format!(
            "its weight is stored as a part of `{}`",
            clipped(&stored.name, 160)
        )));
    }
    let shape = [linear.shape.0, linear.shape.1];
    if stored.shape.iter().map(|side| u128::from(*side)).ne(shape) {
        return Err(input(format!(
            "{}: `{}` is {:?} in the file and {shape:?} in the model",
            source.files.file,
            clipped(&stored.name, 160),
            stored.shape
        )));
    }
    if let Some(why) = unfit(stored) {
        return Ok(Err(why));
    }
    let bias = places.get(&path_below(&linear.path, "bias"));
    let bias = match bias.map_or(&[][..], Vec::as_slice) {
        [bias] => Some(weights[bias.number].parts[0] as usize),
        _ => None,
    };
    Ok(Ok(Layer {
        path: linear.path.clone(),
        weight: number,
        tensor,
        bias,
    }))
}

/// The linear layers of a model that would be ternary, and what is known of them.
struct Candidates {
    linears: Vec<Linear>,
    /// Linear layers that the config spares.
    spared: Vec<String>,
    /// Modules whose class nobody described: their layers cannot be told.
    unknown: Vec<String>,
    /// Which weights of the checkpoint hold each tensor.
    places: HashMap<String, Vec<Part>>,
}

/// A linear layer of the tree.
struct Linear {
    path: String,
    /// Its rows and columns.
    shape: (u128, u128),
    /// Whether it is what a task adds to the body of a model: a child of the root.
    is_head: bool,
    /// Whether its weight is that of another module too.
    is_tied: bool,
}

impl Candidates {
    /// Reads the tree that a config of packed weights describes.
    fn of(args: &DeployArgs, db: &Db, source: &Input, config: &str) -> Result<Candidates, Failure> {
        let file = &source.files.file;
        let fail = |e: ModelError| model_failure(db, file, e);
        let config = match crate::json::read(config) {
            Ok(Value::Object(config)) => config,
            Ok(_) => return Err(input(format!("{file}: a config is a JSON object"))),
            Err(e) => return Err(input(format!("{file}: {e}"))),
        };
        let rule = db.quantization()?.rule(&config, &mut Budget::default())?;
        let rule = rule.ok_or_else(|| {
            input("the module database has no rule for packed ternary weights".to_string())
        })?;
        let class = args.class.as_deref().or(source.files.root.as_deref());
        let model = Model::load(db, config, class).map_err(fail)?;
        let workload = model.workload(&Asked::default()).map_err(fail)?;
        let tree = model.expand(&workload).map_err(fail)?;
        let mut found = Candidates {
            linears: Vec::new(),
            spared: Vec::new(),
            unknown: Vec::new(),
            places: locate(&model, &tree, &source.headers).map_err(fail)?,
        };
        let (plain, packed) = rule.classes.iter().cloned().unzip();
        let classes = Classes { plain, packed };
        found.node(&tree.root, &mut String::new(), &classes);
        if found.unknown.iter().any(String::is_empty) {
            return Err(input(format!(
                "{file}: the database does not know the class {}, so its layers cannot be told; describe it with --module-db, or name a safetensors file without a {CONFIG} beside it and --layers",
                clipped(&model.architecture, 160)
            )));
        }
        found.mark_tied(&tree);
        Ok(found)
    }

    fn node(&mut self, node: &Node<'_>, path: &mut String, classes: &Classes) {
        if node.status != Status::Resolved {
            self.unknown.push(path.clone());
            return;
        }
        if classes.packed.contains(&node.class)
            && let Some(weight) = node.tensors.iter().find(|tensor| &*tensor.name == "weight")
            && let [rows, cols] = *weight.shape
        {
            self.linears.push(Linear {
                path: path.clone(),
                shape: (rows, cols),
                is_head: !path.contains('.'),
                is_tied: false,
            });
        } else if classes.plain.contains(&node.class) {
            self.spared.push(path.clone());
        }
        for (name, child) in &node.children {
            let length = path.len();
            *path = path_below(path, name);
            self.node(child, path, classes);
            path.truncate(length);
        }
    }

    fn mark_tied(&mut self, tree: &Tree<'_>) {
        let tied: HashSet<&str> = tree.tied.iter().flat_map(|(a, b)| [&**a, &**b]).collect();
        for linear in &mut self.linears {
            linear.is_tied = tied.contains(path_below(&linear.path, "weight").as_str());
        }
    }
}

/// Classes that quantization replaces, and those that it puts in their place.
struct Classes {
    plain: Vec<Arc<str>>,
    packed: Vec<Arc<str>>,
}
