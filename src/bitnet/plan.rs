//! What a model has to be so that it runs: sizes, numbers, and which of its modules is what.
//!
//! All of it is told by the `decoder` of the root's entry in the database and by the tree: paths of modules, of which those of a
//! layer are relative to the layer, and numbers of the config. Here it is only held against what the arithmetic can do.

use super::RunError;
use crate::formula::did_you_mean;
use crate::model::{Model, Node, TERNARY_BITS, Tree, find_tensor, path_below};
use crate::tensor::ops::Activation;
use crate::value::Value;
use std::sync::Arc;

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Features between layers.
    pub hidden: usize,
    /// Features inside an MLP.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
}

impl Shape {
    /// Features of all query heads.
    pub fn attention(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Features of all heads of keys, or of values.
    pub fn kv(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// What a module of a decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Tokens to features.
    Embedding,
    /// Before attention.
    AttentionNorm,
    /// To queries.
    Query,
    /// To keys.
    Key,
    /// To values.
    Value,
    /// Between attention and its output.
    AttentionSubNorm,
    /// From heads to features.
    Output,
    /// Before the MLP.
    MlpNorm,
    /// To what the activation sees.
    Gate,
    /// To what it is multiplied with.
    Up,
    /// Before the MLP's last product.
    MlpSubNorm,
    /// Back to features.
    Down,
    /// After the last layer.
    Norm,
    /// Features to logits.
    Head,
}

impl Role {
    /// All of them, as the database calls them.
    const NAMES: [(&'static str, Role); 14] = [
        ("embedding", Role::Embedding),
        ("attention_norm", Role::AttentionNorm),
        ("query", Role::Query),
        ("key", Role::Key),
        ("value", Role::Value),
        ("attention_sub_norm", Role::AttentionSubNorm),
        ("output", Role::Output),
        ("mlp_norm", Role::MlpNorm),
        ("gate", Role::Gate),
        ("up", Role::Up),
        ("mlp_sub_norm", Role::MlpSubNorm),
        ("down", Role::Down),
        ("norm", Role::Norm),
        ("head", Role::Head),
    ];

    fn name(self) -> &'static str {
        let named = Role::NAMES.iter().find(|(_, role)| *role == self);
        named.map_or("", |(name, _)| name)
    }

    /// Whether every layer has one.
    fn is_of_layer(self) -> bool {
        !matches!(self, Role::Embedding | Role::Norm | Role::Head)
    }

    /// Whether a model may have none.
    fn may_be_missing(self) -> bool {
        matches!(self, Role::AttentionSubNorm | Role::MlpSubNorm)
    }
}

/// A model that can run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its sizes.
    pub shape: Shape,
    /// The longest sequence that it was made for.
    pub positions: usize,
    /// What norms add under the root.
    pub norm_eps: f32,
    /// The base of the rotary frequencies.
    pub rope_theta: f32,
    /// What gates do.
    pub activation: Activation,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    layers: Arc<str>,
    modules: Vec<(Role, Arc<str>)>,
    /// Roles whose class rounds floats to ternary weights when they are used.
    rounds: Vec<Role>,
}

/// Other names of a `decoder`.
const OTHERS: [&str; 7] = [
    "layers",
    "heads",
    "kv_heads",
    "norm_eps",
    "rope_type",
    "rope_theta",
    "activation",
];

impl Plan {
    /// What a model says of itself, if this can run it.
    pub fn of(model: &Model<'_>, tree: &Tree<'_>) -> Result<Plan, RunError> {
        let told = model
            .decoder()
            .map_err(|e| RunError::Model(e.to_string()))?;
        if told.is_empty() {
            return Err(RunError::NotADecoder {
                architecture: model.architecture.to_string(),
                matrices: matrices(tree),
            });
        }
        let fault =
            |reason: String| RunError::Model(format!("{}: decoder: {reason}", model.architecture));
        let known = || Role::NAMES.iter().map(|(name, _)| *name).chain(OTHERS);
        if let Some((name, _)) = told
            .iter()
            .find(|(name, _)| !known().any(|known| *known == **name))
        {
            return Err(fault(format!(
                "unknown name `{name}`{}",
                did_you_mean(name, known())
            )));
        }
        let get = |name: &str| {
            told.iter()
                .find(|(n, _)| **n == *name)
                .map(|(_, value)| value)
        };
        let path = |name: &str| match get(name) {
            Some(Value::Str(path)) => Ok(Some(path.clone())),
            None | Some(Value::None) => Ok(None),
            Some(other) => Err(fault(format!(
                "`{name}` is {}, not a path",
                other.describe()
            ))),
        };
        let number = |name: &str| {
            let value = get(name).and_then(Value::to_f64);
            value
                .filter(|x| *x > 0.0)
                .ok_or_else(|| fault(format!("`{name}` is no number above 0")))
        };
        let count = |name: &str| {
            let value = get(name)
                .and_then(Value::as_int)
                .and_then(|n| usize::try_from(n).ok());
            value
                .filter(|n| *n > 0)
                .ok_or_else(|| fault(format!("`{name}` is no count")))
        };
        let word = |name: &str| {
            get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string()
        };
        let rope_type = word("rope_type");
        if rope_type != "default" {
            return Err(RunError::Rope { kind: rope_type });
        }
        let named = word("activation");
        let activation = Activation::NAMES.iter().find(|(name, _)| *name == named);
        let activation = activation
            .map(|(_, activation)| *activation)
            .ok_or_else(|| RunError::Activation {
                name: named.clone(),
                known: Activation::NAMES.iter().map(|(name, _)| *name).collect(),
            })?;
        let layers = path("layers")?.ok_or_else(|| fault("lacks `layers`".into()))?;
        let mut modules = Vec::new();
        for (name, role) in Role::NAMES {
            match path(name)? {
                Some(path) => modules.push((role, path)),
                None if role.may_be_missing() => {}
                None => return Err(fault(format!("lacks `{name}`"))),
            }
        }
        let items = node_at(&tree.root, &layers).map_or(0, |node| node.children.len());
        if items == 0 {
            return Err(fault(format!("there are no layers at `{layers}`")));
        }
        let mut plan = Plan {
            shape: Shape {
                vocabulary: 0,
                hidden: 0,
                intermediate: 0,
                layers: items,
                heads: count("heads")?,
                kv_heads: count("kv_heads")?,
                head_dim: 0,
            },
            positions: 0,
            norm_eps: number("norm_eps")? as f32,
            rope_theta: number("rope_theta")? as f32,
            activation,
            tied: false,
            layers,
            modules,
            rounds: Vec::new(),
        };
        plan.measure(tree)?;
        let weight = |role| {
            plan.tensor(role, 0, "weight")
                .expect("every model has both")
        };
        let tie = (weight(Role::Head), weight(Role::Embedding));
        plan.tied = tree
            .tied
            .iter()
            .any(|(tensor, original)| (&**tensor, &**original) == (&tie.0, &tie.1));
        let positions = model
            .positions()
            .map_err(|e| RunError::Model(e.to_string()))?;
        plan.positions = positions
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(usize::MAX);
        Ok(plan)
    }

    /// The path of a module of a layer; of what layers do not have, whatever the layer. `None` where the model has none.
    pub fn module(&self, role: Role, layer: usize) -> Option<String> {
        let (_, path) = self.modules.iter().find(|(r, _)| *r == role)?;
        Some(match role.is_of_layer() {
            true => path_below(&self.layer(layer), path),
            false => path.to_string(),
        })
    }

    /// The path of a layer.
    pub fn layer(&self, number: usize) -> String {
        format!("{}.{number}", self.layers)
    }

    /// The role of the tensor that is the output matrix.
    pub(super) fn output_matrix(&self) -> Role {
        match self.tied {
            true => Role::Embedding,
            false => Role::Head,
        }
    }

    /// Whether floats of a module are rounded to ternary weights when they are used.
    pub fn rounds(&self, role: Role) -> bool {
        self.rounds.contains(&role)
    }

    /// The path of a tensor of a module.
    pub fn tensor(&self, role: Role, layer: usize, name: &str) -> Option<String> {
        Some(path_below(&self.module(role, layer)?, name))
    }

    /// The sizes of a role's weight.
    pub fn weight(&self, role: Role) -> (usize, usize) {
        let Shape {
            vocabulary,
            hidden,
            intermediate,
            ..
        } = self.shape;
        let (attention, kv) = (self.shape.attention(), self.shape.kv());
        match role {
            Role::Embedding | Role::Head => (vocabulary, hidden),
            Role::Query => (attention, hidden),
            Role::Key | Role::Value => (kv, hidden),
            Role::Output => (hidden, attention),
            Role::Gate | Role::Up => (intermediate, hidden),
            Role::Down => (hidden, intermediate),
            Role::AttentionNorm | Role::MlpNorm | Role::Norm => (1, hidden),
            Role::AttentionSubNorm => (1, attention),
            Role::MlpSubNorm => (1, intermediate),
        }
    }

    /// Products with ternary weights that a token takes.
    pub fn ternary_products(&self) -> u64 {
        let of_layer = [
            Role::Query,
            Role::Key,
            Role::Value,
            Role::Output,
            Role::Gate,
            Role::Up,
            Role::Down,
        ];
        let products = of_layer.map(|role| {
            let (rows, cols) = self.weight(role);
            rows as u64 * cols as u64
        });
        products.iter().sum::<u64>() * self.shape.layers as u64
    }

    /// Takes the sizes from the tree, and holds every weight of it against them.
    fn measure(&mut self, tree: &Tree<'_>) -> Result<(), RunError> {
        let shape = |role: Role, layer: usize| -> Result<Vec<usize>, RunError> {
            let path = self.tensor(role, layer, "weight").unwrap_or_default();
            let missing = || RunError::Model(format!("the model's tree has no tensor `{path}`"));
            let (tensor, _) = find_tensor(&tree.root, &path).ok_or_else(missing)?;
            let sizes = tensor.shape.iter().map(|n| usize::try_from(*n).ok());
            sizes.collect::<Option<_>>().ok_or_else(missing)
        };
        let matrix = |role| match *shape(role, 0)? {
            [rows, cols] if rows > 0 && cols > 0 => Ok((rows, cols)),
            _ => Err(RunError::Model(format!("`{}` is no matrix", role.name()))),
        };
        let ((vocabulary, hidden), (attention, _)) =
            (matrix(Role::Embedding)?, matrix(Role::Query)?);
        let (intermediate, _) = matrix(Role::Gate)?;
        let Shape {
            heads,
            kv_heads,
            layers,
            ..
        } = self.shape;
        let head_dim = attention / heads;
        let widest = super::attention::MOST_FEATURES;
        if head_dim * heads != attention
            || head_dim % 2 != 0
            || heads % kv_heads != 0
            || head_dim > widest
        {
            return Err(RunError::Model(format!(
                "{attention} features in {heads} heads of queries and {kv_heads} of keys: heads have an even number of features, up \
                 to {widest}, and as many heads of queries share each head of keys"
            )));
        }
        let found = Shape {
            vocabulary,
            hidden,
            intermediate,
            head_dim,
            ..self.shape
        };
        let sized = Plan {
            shape: found,
            ..self.clone()
        };
        for (role, _) in &self.modules {
            let (rows, cols) = sized.weight(*role);
            let vector = [cols];
            let expected: &[usize] = if rows == 1 { &vector } else { &[rows, cols] };
            for layer in 0..if role.is_of_layer() { layers } else { 1 } {
                let given = shape(*role, layer)?;
                if given != expected {
                    let path = sized.tensor(*role, layer, "weight").unwrap_or_default();
                    return Err(RunError::Model(format!(
                        "`{path}` has shape {given:?} where {expected:?} is needed"
                    )));
                }
            }
        }
        for (role, _) in &self.modules {
            let path = sized.tensor(*role, 0, "weight").unwrap_or_default();
            if find_tensor(&tree.root, &path).is_some_and(|(_, bits)| bits == Some(TERNARY_BITS)) {
                self.rounds.push(*role);
            }
        }
        self.shape = found;
        Ok(())
    }
}

/// The module at a path.
fn node_at<'t, 'e>(node: &'t Node<'e>, path: &str) -> Option<&'t Node<'e>> {
    path.split('.').try_fold(node, |node, part| {
        let (_, child) = node.children.iter().find(|(name, _)| **name == *part)?;
        Some(&**child)
    })
}

/// The first of each kind of module that holds a matrix, for who wants to run one by itself.
fn matrices(tree: &Tree<'_>) -> Vec<String> {
    fn below(node: &Node<'_>, path: &str, found: &mut Vec<String>) {
        let has_matrix = node
            .tensors
            .iter()
            .any(|t| &*t.name == "weight" && t.multiplied && t.shape.len() == 2);
        if has_matrix {
            found.push(path.to_string());
        }
        let numbered = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
        for (name, child) in &node.children {
            if !numbered(name) || &**name == "0" {
                below(child, &path_below(path, name), found);
            }
        }
    }
    let mut found = Vec::new();
    below(&tree.root, "", &mut found);
    found
}
