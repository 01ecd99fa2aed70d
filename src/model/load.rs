//! Finding the root of a config, and expanding it.

use super::expand::Expansion;
use super::node::{Node, Tied};
use super::scope::{Evaluator, ModuleScope, Scope, ScopeKind};
use super::shape::Flow;
use super::workload::{Phase, Widths, Workload};
use crate::db::{Db, DbError, Entry, Fault, Task};
use crate::dtype;
use crate::formula::{Budget, Formula};
use crate::value::{Object, Value};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A model: a config, and the entry of the class that it names.
pub struct Model<'e> {
    /// The database.
    pub db: &'e Db,
    /// The entry of the root; `None` where the database has none.
    pub root: Option<&'e Entry>,
    /// The class that the config names.
    pub architecture: Arc<str>,
    /// The config's `model_type`.
    pub model_type: Option<Arc<str>>,
    /// The config.
    pub config: Arc<Object>,
    /// Whether the class was taken from `model_type` alone.
    pub class_assumed: bool,
    missing: Option<DbError>,
}

/// What a user asked for; what is `None` gets its default from the model.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The phase.
    pub phase: Option<Phase>,
    /// Sequences, images or clips at once.
    pub batch: Option<u64>,
    /// New tokens.
    pub seq_len: Option<u64>,
    /// Cached tokens.
    pub past_len: Option<u64>,
    /// New tokens of the decoder.
    pub dec_seq_len: Option<u64>,
    /// Side of a square image.
    pub image_size: Option<u64>,
    /// Causal attention.
    pub causal: bool,
    /// Only the last position's logits.
    pub last_logits: bool,
    /// Width of everything that nothing else is said about.
    pub dtype_bits: Option<u32>,
    /// Width of most unpacked weights of the checkpoint, which counts where the config names no dtype.
    pub stored_bits: Option<u32>,
    /// Width of every weight.
    pub weight_bits: Option<u32>,
    /// Width of every multiplied activation.
    pub activation_bits: Option<u32>,
    /// Width of the cache.
    pub kv_bits: Option<u32>,
}

/// The expanded tree with what was noticed on the way.
#[derive(Debug)]
pub struct Tree<'e> {
    /// The root module.
    pub root: Rc<Node<'e>>,
    /// Tensors that are one: owner's path, original's path.
    pub tied: Vec<Tied>,
    /// Classes without an entry: class, path of the first use, what was looked for.
    pub unresolved: Vec<(Arc<str>, String, DbError)>,
    /// The width that quantization gives most weights, for the echo of the workload.
    pub quantized_bits: Option<u32>,
}

/// Why a config cannot be analyzed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The config names no class.
    #[error(
        "names no class: `architectures` is {0} and `model_type` says nothing either; give the class with --class"
    )]
    NoArchitecture(String),
    /// The database is wrong, or a formula has no value for this config.
    #[error(transparent)]
    Db(#[from] DbError),
    /// Sizes whose product nobody means.
    #[error(
        "a total does not fit 128 bits; the sizes of the config, the batch or the length cannot be meant"
    )]
    Overflow,
    /// The workload does not fit the model.
    #[error("{0}")]
    Workload(String),
}

impl<'e> Model<'e> {
    /// Finds the root of a config. `class` overrides what the config names.
    pub fn load(
        db: &'e Db,
        config: Arc<Object>,
        class: Option<&str>,
    ) -> Result<Model<'e>, ModelError> {
        let model_type: Option<Arc<str>> = config
            .get("model_type")
            .and_then(Value::as_str)
            .map(Arc::from);
        let named = match config.get("architectures") {
            Some(Value::List(names)) => names.first().and_then(Value::as_str),
            Some(Value::Str(name)) => Some(&**name),
            _ => None,
        };
        let class_assumed = class.or(named).is_none_or(str::is_empty);
        let architecture: Arc<str> = match class.or(named) {
            Some(name) if !name.is_empty() => name.into(),
            _ => match model_type.as_deref().and_then(|t| root_of_type(db, t)) {
                Some(key) => key,
                None => {
                    let written = config
                        .get("architectures")
                        .map_or("missing".into(), Value::describe);
                    return Err(ModelError::NoArchitecture(written));
                }
            },
        };
        let architecture: Arc<str> = if architecture.len() > 300 {
            crate::value::shortened(&architecture).into()
        } else {
            architecture
        };
        let (root, missing) = match db.resolve(&architecture, "") {
            Ok(key) => (Some(db.entry(&key)?), None),
            Err(e) if e.kind == Fault::UnknownClass => (None, Some(e)),
            Err(e) => return Err(e.into()),
        };
        Ok(Model {
            db,
            root,
            architecture,
            model_type,
            config,
            class_assumed,
            missing,
        })
    }

    /// A model of which there are weights and no class: no config, or one that names none.
    pub fn without_class(db: &'e Db, config: Option<Arc<Object>>) -> Model<'e> {
        let reason = match config {
            Some(_) => "its config names no class",
            None => "there is no config.json",
        };
        Model {
            db,
            root: None,
            architecture: "model without a class".into(),
            model_type: None,
            config: config.unwrap_or_default(),
            class_assumed: false,
            missing: Some(DbError::schema("", "", reason)),
        }
    }

    /// What kind of model it is; a root that does not say is taken for an encoder.
    pub fn task(&self) -> Task {
        self.root
            .and_then(|root| root.task)
            .unwrap_or(Task::Encoder)
    }

    /// The longest sequence the model takes, if it says.
    pub fn positions(&self) -> Result<Option<u64>, ModelError> {
        let Some((root, formula)) = self
            .root
            .and_then(|root| root.positions.as_ref().map(|f| (root, f)))
        else {
            return Ok(None);
        };
        let (value, config) = self.root_value(root, formula)?;
        match value {
            Value::None | Value::Opaque(_) => Ok(None),
            _ => {
                let limit = value.floor().filter(|_| !matches!(value, Value::Bool(_)));
                let limit = limit.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
                limit.map(Some).ok_or_else(|| {
                    let reason = format!(
                        "the longest sequence has to be a number of 1 or more, not {}",
                        value.describe()
                    );
                    DbError {
                        kind: Fault::Evaluation,
                        config,
                        ..DbError::schema(&root.key, "positions", reason)
                    }
                    .into()
                })
            }
        }
    }

    /// What the root says of running it: which module is what, and numbers; nothing where it does not say.
    pub fn decoder(&self) -> Result<Vec<(Arc<str>, Value)>, ModelError> {
        let formulas = self.root.iter().flat_map(|root| &root.decoder);
        let value = |(name, formula): &'e (Arc<str>, Formula)| {
            let root = self.root.expect("its formulas are there");
            Ok((name.clone(), self.root_value(root, formula)?.0))
        };
        formulas.map(value).collect()
    }

    /// A formula of the root, and the config values that it read.
    fn root_value(
        &self,
        root: &'e Entry,
        formula: &'e Formula,
    ) -> Result<(Value, Vec<String>), DbError> {
        let mut evaluator = Evaluator::new(self.db);
        let given = Scope::new(None, ScopeKind::Given(Workload::default().names()));
        let module = self.root_scope(root, Flow::default())?;
        let scope = Scope::new(Some(given), ScopeKind::Module(Box::new(module)));
        match evaluator.value(&scope, &formula.expr) {
            Ok((value, _)) => Ok((value, evaluator.config_read(&scope, &formula.expr))),
            Err(e) => Err(evaluator.failed(
                &scope,
                &root.key,
                &formula.field,
                &formula.text,
                &formula.expr,
                e,
            )),
        }
    }

    /// The value of a formula inside a module of the tree.
    pub fn value_at(&self, node: &Node<'e>, formula: &'e Formula) -> Result<Value, ModelError> {
        let mut evaluator = Evaluator::new(self.db);
        let entry = node.entry.map_or("", |entry| &*entry.key);
        let value = evaluator.value(&node.scope, &formula.expr);
        value.map(|(value, _)| value).map_err(|e| {
            let (text, expr) = (&formula.text, &formula.expr);
            evaluator
                .failed(&node.scope, entry, &formula.field, text, expr, e)
                .into()
        })
    }

    fn root_scope(&self, root: &'e Entry, input: Flow) -> Result<ModuleScope<'e>, DbError> {
        let rules = self.db.config_rules(root)?;
        Ok(ModuleScope {
            entry: root,
            args: Vec::new(),
            given: Vec::new(),
            call: None,
            input,
            config: Some(self.config.clone()),
            rules,
        })
    }

    /// The workload with every default filled in.
    pub fn workload(&self, asked: &Asked) -> Result<Workload, ModelError> {
        let task = self.task();
        let phase = asked.phase.unwrap_or(if task.generates() {
            Phase::Prefill
        } else {
            Phase::Forward
        });
        if phase == Phase::Decode && !task.generates() {
            return Err(ModelError::Workload(format!(
                "{} does not generate, so it has no decode phase; use --phase forward",
                self.architecture
            )));
        }
        let takes_images = matches!(task, Task::Vision | Task::VisionText);
        if asked.image_size.is_some() && !takes_images && self.root.is_some() {
            return Err(ModelError::Workload(format!(
                "{} takes no images, so --image-size means nothing",
                self.architecture
            )));
        }
        if asked.dec_seq_len.is_some() && task != Task::Seq2seq && self.root.is_some() {
            return Err(ModelError::Workload(format!(
                "{} has no decoder of its own length, so --dec-seq-len means nothing",
                self.architecture
            )));
        }
        if asked.seq_len.is_some() && task == Task::Vision && self.root.is_some() {
            return Err(ModelError::Workload(format!(
                "{} takes images, so --seq-len means nothing",
                self.architecture
            )));
        }
        let cap = |most: u64| -> Result<u64, ModelError> {
            Ok(self.positions()?.map_or(most, |p| p.min(most)))
        };
        let decode = phase == Phase::Decode;
        let seq_len = match (asked.seq_len, task) {
            (Some(s), _) => s,
            (None, Task::Vision) => 1,
            (None, Task::Causal) if decode => 1,
            (None, Task::Audio) => 16_000,
            (None, _) => cap(2048)?,
        };
        let past_len = match (asked.past_len, decode) {
            (Some(past), true) => past,
            (Some(0) | None, false) => 0,
            (Some(past), false) if phase == Phase::Prefill && task == Task::Causal => past,
            (Some(_), false) => {
                return Err(ModelError::Workload(format!(
                    "--past-len needs --phase decode, not {}",
                    phase.name()
                )));
            }
            (None, true) => cap(2048)? - 1,
        };
        let dec_seq_len = match (asked.dec_seq_len, phase) {
            (Some(s), _) => s,
            (None, Phase::Train) => seq_len,
            (None, _) => 1,
        };
        // Without a word of it in the config, a quantized model is computed as its loader says, any other in 32 bits.
        let rule = self
            .db
            .quantization()?
            .rule(&self.config, &mut Budget::default())?;
        let loaded = rule
            .and_then(|rule| rule.dtype_bits)
            .and_then(|b| u32::try_from(b).ok());
        let named = asked.dtype_bits.or_else(|| self.dtype_bits(&self.config));
        let dtype = named.or(loaded).or(asked.stored_bits).unwrap_or(32);
        let widths = Widths {
            dtype,
            weight: asked.weight_bits,
            activation: asked.activation_bits,
            kv: asked.kv_bits.unwrap_or(dtype),
            ternary: super::workload::TERNARY_BITS,
        };
        Ok(Workload {
            phase,
            batch: asked.batch.unwrap_or(1),
            seq_len,
            past_len,
            dec_seq_len,
            image_size: asked.image_size,
            causal: asked.causal,
            last_logits: asked.last_logits,
            widths,
        })
    }

    /// Whether the config says in which number format the model is stored.
    pub fn names_dtype(&self) -> bool {
        self.dtype_bits(&self.config).is_some()
    }

    /// What the config names as its dtype, if that is not a known number format.
    pub fn unknown_dtype(&self) -> Option<&Value> {
        let written = ["torch_dtype", "dtype"]
            .iter()
            .find_map(|key| self.config.get(key))?;
        (*written != Value::None
            && written.as_str().and_then(dtype::bits).is_none()
            && written.as_str() != Some("auto"))
        .then_some(written)
    }

    /// What the config names as its quantization, if the database has no rule for it.
    pub fn unknown_quantization(&self) -> Option<&Value> {
        let settings = self
            .config
            .get("quantization_config")
            .filter(|v| **v != Value::None)?;
        let rules = self.db.quantization().ok()?;
        match rules.rule(&self.config, &mut Budget::default()) {
            Ok(None) => Some(
                settings
                    .as_object()
                    .and_then(|o| o.get("quant_method"))
                    .unwrap_or(settings),
            ),
            _ => None,
        }
    }

    fn dtype_bits(&self, config: &Object) -> Option<u32> {
        let named = ["torch_dtype", "dtype"]
            .iter()
            .find_map(|key| config.get(key).and_then(Value::as_str))
            .and_then(dtype::bits);
        let nested = || {
            ["text_config", "vision_config"]
                .iter()
                .find_map(|key| config.get(key).and_then(Value::as_object))
                .and_then(|c| self.dtype_bits(c))
        };
        named.or_else(nested)
    }

    /// The tree of modules under a workload.
    pub fn expand(&self, workload: &Workload) -> Result<Tree<'e>, ModelError> {
        let mut expansion = Expansion::new(self.db);
        expansion.evaluator.quantity = Some(super::quantity::of_call);
        expansion.image_size = workload.image_size.map(i128::from);
        let mut budget = Budget::default();
        if let Some(rule) = self.db.quantization()?.rule(&self.config, &mut budget)? {
            let mut replaced = HashMap::new();
            for (class, other) in &rule.classes {
                replaced.insert(self.db.resolve(class, "")?, self.db.resolve(other, "")?);
            }
            expansion.replaced = replaced;
            expansion.rule = Some(rule);
        }
        let given = Scope::new(None, ScopeKind::Given(workload.names()));
        let input = Flow {
            s: Some(i128::from(workload.seq_len)),
            ..Flow::default()
        };
        let quantized_bits = expansion
            .rule
            .as_ref()
            .and_then(|rule| rule.weight_bits)
            .and_then(|b| u32::try_from(b).ok());
        let Some(root) = self.root else {
            let missing = self
                .missing
                .clone()
                .unwrap_or_else(|| DbError::schema("", "", "no entry"));
            let node = expansion.unresolved(&self.architecture, &given, missing);
            return Ok(Tree {
                root: Rc::new(node),
                tied: Vec::new(),
                unresolved: expansion.missing,
                quantized_bits,
            });
        };
        let (node, _) =
            expansion.root(root, Vec::new(), given, input, Some(self.config.clone()))?;
        let tied = expansion.ties(root, &node)?;
        Ok(Tree {
            root: node,
            tied,
            unresolved: expansion.missing,
            quantized_bits,
        })
    }
}

/// The root class of a `model_type`, where the config does not name one: of the classes in its file that can be a root,
/// one with a language-model head if there is one.
fn root_of_type(db: &Db, model_type: &str) -> Option<Arc<str>> {
    const HEADS: [&str; 5] = [
        "ForCausalLM",
        "LMHeadModel",
        "ForConditionalGeneration",
        "ForMaskedLM",
        "Model",
    ];
    let in_folder = |model_type: &str| -> Vec<Arc<str>> {
        let folder = format!("__models__{}__", model_type.replace('-', "_"));
        let is_root = |key: &Arc<str>| db.entry(key).is_ok_and(|entry| entry.task.is_some());
        db.keys()
            .into_iter()
            .filter(|key| key.contains(&folder))
            .filter(is_root)
            .collect()
    };
    let mut roots = in_folder(model_type);
    if roots.is_empty() {
        // Towers of larger models: `x_text` stands in the file of `x`.
        roots = in_folder(
            model_type
                .strip_suffix("_text")
                .or(model_type.strip_suffix("_vision"))?,
        );
    }
    let rank = |key: &Arc<str>| {
        HEADS
            .iter()
            .position(|head| key.ends_with(head))
            .unwrap_or(HEADS.len())
    };
    roots
        .into_iter()
        .min_by_key(|key| (rank(key), crate::db::class_of(key).len()))
}

/// The stub of an overlay entry for a class that has none.
pub fn stub(class: &str) -> String {
    let path = class.replace("__", ".");
    format!(
        "{{\"{}\": {{\"parameters\": [\"N\", \"hidden_size\"], \"weights\": {{\"weight\": \"[hidden_size, hidden_size]\"}}, \
         \"rows\": {{\"matmul\": [\"weight_mac\", \"N * hidden_size * hidden_size\", \"weight\"]}}, \"forward\": \"linear(x, weight)\"}}}}",
        path.replace('.', "__")
    )
}
