//! One entry of the database: everything it says, parsed.
//!
//! A JSON object goes in (after `like` has been merged), an [`Entry`] comes out. The schema is closed: a key that is not
//! known here is an error with the nearest right key.

use super::error::DbError;
use super::stored::{self, OnDisk};
use crate::formula::{Formula, Statement, did_you_mean};
use crate::value::{Name, Object, Value};
use std::sync::Arc;

/// A record of the database: what one module class owns, does and contains.
#[derive(Debug)]
pub struct Entry {
    /// The canonical key: the path with dots as `__`.
    pub key: Arc<str>,
    /// The class's full path: `torch.nn.Linear`.
    pub path: Arc<str>,
    /// Key of the module file that the class stands in, where short class names are looked up first.
    pub file: Arc<str>,
    /// Names that the class is also known by.
    pub aliases: Vec<Arc<str>>,
    /// What calls pass, in order.
    pub parameters: Vec<Parameter>,
    /// Local names.
    pub lets: Vec<(Name, Formula)>,
    /// How the names of a config file are read; `None` for modules that read none of their own.
    pub config: Option<Config>,
    /// Tensors with their shapes; a shape of `None` means that the tensor does not exist.
    pub weights: Vec<(Arc<str>, Formula)>,
    /// Tensors of a checkpoint that are not parameters.
    pub buffers: Vec<(Arc<str>, Formula)>,
    /// Tensors that are one: owner, original, condition.
    pub tied: Vec<Tie>,
    /// Elements that a step leaves in the cache.
    pub cache: Vec<(Arc<str>, Formula)>,
    /// Which tensors are experts.
    pub experts: Option<Experts>,
    /// What it contains.
    pub children: Children,
    /// Its own work.
    pub rows: Vec<Row>,
    /// Its own memory traffic, where it does not follow from the elementwise rows.
    pub traffic: Option<Traffic>,
    /// Widths that the class fixes itself.
    pub precision: Precision,
    /// What it does with its input, statement by statement.
    pub forward: Option<Vec<Statement>>,
    /// A class chosen by a value.
    pub choose: Option<Vec<(Arc<str>, Formula)>>,
    /// Whether it only holds its children.
    pub container: bool,
    /// What kind of model it is the root of.
    pub task: Option<Task>,
    /// The longest sequence the model takes.
    pub positions: Option<Formula>,
    /// Of a root that can run: which of its modules is what, and the numbers that its arithmetic needs.
    pub decoder: Vec<(Arc<str>, Formula)>,
    /// The second derivation of its FLOPs.
    pub flop_analysis: Option<FlopAnalysis>,
    /// The second derivation of its traffic, in bytes.
    pub memory_analysis: Option<MemoryAnalysis>,
    /// Worked examples.
    pub examples: Vec<Example>,
    /// What has to hold, and what is wrong if it does not.
    pub requires: Vec<(Formula, Arc<str>)>,
    /// What the reader of a report has to know: code, condition, message.
    pub notes: Vec<EntryNote>,
    /// What its tensors are called in files.
    pub on_disk: OnDisk,
    /// Whether a person has checked the entry.
    pub validated: bool,
    /// The entry as merged, for `db show`.
    pub source: Arc<Object>,
    /// The overlay file it comes from; `None` for the embedded database.
    pub overlay: Option<Arc<str>>,
}

impl Entry {
    /// Whether it only says what it costs, by templates, and not what it owns, does or contains.
    pub fn only_templates(&self) -> bool {
        let childless = matches!(&self.children, Children::Named(named) if named.is_empty());
        let silent = self.rows.is_empty()
            && self.weights.is_empty()
            && self.traffic.is_none()
            && self.forward.is_none();
        childless && silent && (self.flop_analysis.is_some() || self.memory_analysis.is_some())
    }
}

/// `name` or `name = default`.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name.
    pub name: Name,
    /// The default, in the entry's own scope.
    pub default: Option<Formula>,
}

/// The config names of an entry.
#[derive(Clone, Debug)]
pub enum Config {
    /// Its own.
    Rules(Vec<(Name, ConfigRule)>),
    /// Those of another class, written `"{Class}"`.
    Of(Arc<str>),
}

/// How one name is read from a config file.
#[derive(Clone, Debug)]
pub struct ConfigRule {
    /// Keys of the file, first one present wins. Empty: not read from the file at all.
    pub keys: Vec<Arc<str>>,
    /// The value when no key is present.
    pub missing: Option<Formula>,
    /// The value when the key holds null; `None` keeps the null.
    pub null: Option<Formula>,
}

/// Two tensors that are one.
#[derive(Clone, Debug)]
pub struct Tie {
    /// Path of the tensor that repeats another.
    pub tensor: Arc<str>,
    /// Path of the tensor it is.
    pub original: Arc<str>,
    /// When they are tied; always, if absent.
    pub when: Option<Formula>,
}

/// The experts of a mixture.
#[derive(Clone, Debug)]
pub struct Experts {
    /// How many there are.
    pub total: Formula,
    /// How many a token uses.
    pub per_token: Formula,
    /// The tensors that hold all of them, stacked along the first dimension.
    pub tensors: Vec<Arc<str>>,
}

/// What a module contains.
#[derive(Clone, Debug)]
pub enum Children {
    /// Children by name, in order.
    Named(Vec<(Name, Formula)>),
    /// Children numbered from 0, as in a Sequential.
    Numbered(Formula),
}

/// One kind of own work.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is called in explanations.
    pub name: Arc<str>,
    /// How its number is meant.
    pub kind: RowKind,
    /// The number: MACs, FLOPs or elements, by kind.
    pub formula: Formula,
    /// The operand: for `weight_mac` the tensor, for `act_mac` `kv` where one side lies in the cache.
    pub operand: Option<Arc<str>>,
}

/// What the number of a row counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// MACs of an activation with a weight.
    WeightMac,
    /// MACs of an activation with an activation.
    ActMac,
    /// FLOPs of elementwise work, as they are.
    Flops,
    /// Elements; FLOPs and traffic per element stand in the database's `$elementwise` table under this name.
    Elements(Arc<str>),
}

/// Own traffic in elements.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Activations read.
    pub reads: Option<Formula>,
    /// Activations written.
    pub writes: Option<Formula>,
    /// Cached elements read.
    pub kv_reads: Option<Formula>,
    /// Cached elements written.
    pub kv_writes: Option<Formula>,
    /// Elements of weights read, where it is not each own tensor once.
    pub weight_reads: Option<Formula>,
    /// Elements held between own operations, such as attention scores.
    pub intermediates: Option<Formula>,
}

/// Widths in bits that a class fixes.
#[derive(Clone, Debug, Default)]
pub struct Precision {
    /// Of the weights that its `weight_mac` rows name.
    pub weight: Option<Formula>,
    /// Of the activations that it multiplies.
    pub activation: Option<Formula>,
}

/// What kind of model a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Generates token by token: phases prefill and decode.
    Causal,
    /// Encoder and decoder.
    Seq2seq,
    /// Tokens in, one forward.
    Encoder,
    /// Images in, one forward.
    Vision,
    /// Images and texts in, one forward.
    VisionText,
    /// Audio samples in, one forward.
    Audio,
}

impl Task {
    const ALL: [(&str, Task); 6] = [
        ("causal", Task::Causal),
        ("seq2seq", Task::Seq2seq),
        ("encoder", Task::Encoder),
        ("vision", Task::Vision),
        ("vision_text", Task::VisionText),
        ("audio", Task::Audio),
    ];

    /// The name of the kind.
    pub fn name(self) -> &'static str {
        Task::ALL
            .iter()
            .find(|(_, t)| *t == self)
            .map_or("", |(n, _)| n)
    }

    /// Whether it generates token by token.
    pub fn generates(self) -> bool {
        matches!(self, Task::Causal | Task::Seq2seq)
    }
}

/// The seed's form of a FLOP analysis.
#[derive(Clone, Debug)]
pub struct FlopAnalysis {
    /// The total.
    pub formula: Formula,
    /// Parts of it.
    pub breakdown: Vec<(Arc<str>, Formula)>,
    /// Entries that the formulas are said to call.
    pub depends: Vec<Arc<str>>,
}

/// The seed's form of a memory analysis, in bytes.
#[derive(Clone, Debug)]
pub struct MemoryAnalysis {
    /// Bytes read.
    pub reads: Option<Formula>,
    /// Bytes written.
    pub writes: Option<Formula>,
    /// Bytes held in between.
    pub intermediates: Option<Formula>,
    /// Entries that the formulas are said to call.
    pub depends: Vec<Arc<str>>,
}

/// Arguments with the numbers that must come out.
#[derive(Clone, Debug)]
pub struct Example {
    /// The arguments.
    pub arguments: Vec<(Name, Value)>,
    /// Quantity and number.
    pub expected: Vec<(Arc<str>, Value)>,
}

/// A note that a module puts into the report.
#[derive(Clone, Debug)]
pub struct EntryNote {
    /// A short stable name.
    pub code: Arc<str>,
    /// When it applies.
    pub when: Formula,
    /// What it says.
    pub message: Arc<str>,
}

/// Keys an entry may have, with what they are for.
pub const KEYS: &[(&str, &str)] = &[
    (
        "module_path",
        "full dotted path, where it is not the key with `__` as dots",
    ),
    ("aliases", "other names of the class"),
    ("code_location", "where its forward stands"),
    ("doc", "what the class is, in a sentence"),
    ("like", "the entry to start from"),
    ("rename", "with `like`: prefixes of class names to replace"),
    (
        "parameters",
        "what calls pass, in order: \"name\" or \"name = default\"",
    ),
    ("let", "local names"),
    ("config", "how names are read from config.json"),
    ("weights", "tensors and their shapes"),
    ("buffers", "tensors that are not parameters"),
    ("tied", "tensors that are one"),
    ("cache", "elements a step leaves in the cache"),
    (
        "experts",
        "which tensors are experts: total, per_token, tensors",
    ),
    ("children", "what it contains"),
    ("rows", "own work: name -> [kind, formula, operand]"),
    ("traffic", "own memory traffic in elements"),
    ("precision", "widths in bits that the class fixes"),
    ("forward", "statements over children and primitives"),
    ("choose", "a class chosen by a value"),
    ("container", "true for modules that only hold children"),
    (
        "task",
        "on roots: causal, seq2seq, encoder, vision, vision_text or audio",
    ),
    ("positions", "on roots: the longest sequence"),
    (
        "decoder",
        "on roots that run: which module is what, and numbers of its arithmetic",
    ),
    ("flop_analysis", "second derivation of the FLOPs"),
    (
        "memory_analysis",
        "second derivation of the traffic, in bytes",
    ),
    ("example", "arguments and the numbers that must come out"),
    (
        "stored",
        "tensors that files hold in another form: name -> {from, join}",
    ),
    ("stored_paths", "path prefixes on disk, where they differ"),
    (
        "stored_extra",
        "tensors that files may hold besides: pattern -> what they are",
    ),
    ("requires", "what has to hold: name -> [condition, message]"),
    (
        "notes",
        "what the reader of a report must know: code -> [condition, message]",
    ),
    ("thinking_process", "how the formulas were derived"),
    ("validation", "status, validator, date, notes"),
];

/// Builds the entry `key` from its merged JSON object.
pub(super) fn build(
    key: &str,
    path: &str,
    source: Arc<Object>,
    overlay: Option<Arc<str>>,
) -> Result<Entry, DbError> {
    let fields = Fields {
        entry: key,
        object: &source,
    };
    for (name, _) in &source.0 {
        if !KEYS.iter().any(|(k, _)| *k == &**name) {
            let hint = did_you_mean(name, KEYS.iter().map(|(k, _)| *k));
            return Err(DbError::schema(
                key,
                name.to_string(),
                format!("unknown key{hint}"),
            ));
        }
    }
    for key in ["doc", "thinking_process"] {
        fields.string(key)?;
    }
    for key in ["rename", "code_location"] {
        fields.object(key)?;
    }
    let flop_analysis = fields
        .object("flop_analysis")?
        .map(|o| flop_analysis(key, o))
        .transpose()?;
    let memory_analysis = fields
        .object("memory_analysis")?
        .map(|o| memory_analysis(key, o))
        .transpose()?;
    let file = key.rsplit_once("__").map_or("", |(file, _)| file);
    Ok(Entry {
        key: key.into(),
        path: path.into(),
        file: file.trim_end_matches('_').into(),
        aliases: fields.strings("aliases")?,
        parameters: parameters(&fields)?,
        lets: fields
            .named_formulas("let")?
            .into_iter()
            .map(|(n, f)| (Name::new(&n), f))
            .collect(),
        config: match fields.get("config") {
            Some(Value::Str(text)) => {
                match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
                    Some(class) => Some(Config::Of(class.into())),
                    None => {
                        return fields.wrong(
                            "config",
                            "an object, or \"{Class}\" to read what that class reads",
                            &Value::Str(text.clone()),
                        );
                    }
                }
            }
            _ => fields
                .object("config")?
                .map(|o| config(key, o).map(Config::Rules))
                .transpose()?,
        },
        weights: fields.named_formulas("weights")?,
        buffers: fields.named_formulas("buffers")?,
        tied: tied(&fields)?,
        cache: fields.named_formulas("cache")?,
        experts: fields
            .object("experts")?
            .map(|o| experts(key, o))
            .transpose()?,
        children: children(&fields)?,
        rows: rows(&fields)?,
        traffic: fields
            .object("traffic")?
            .map(|o| traffic(key, o))
            .transpose()?,
        precision: fields
            .object("precision")?
            .map_or(Ok(Precision::default()), |o| precision(key, o))?,
        forward: forward(&fields)?,
        choose: match fields.get("choose") {
            None => None,
            Some(_) => Some(fields.named_formulas("choose")?),
        },
        container: fields.bool("container")?,
        task: fields.string("task")?.map(|t| task(key, &t)).transpose()?,
        positions: fields.formula("positions")?,
        decoder: fields.named_formulas("decoder")?,
        flop_analysis,
        memory_analysis,
        examples: examples(&fields)?,
        requires: requires(&fields)?,
        notes: notes(&fields)?,
        on_disk: stored::read(key, &source)?,
        validated: fields
            .object("validation")?
            .and_then(|v| v.get("status"))
            .is_some_and(|status| status.as_str() == Some("validated")),
        overlay,
        source: source.clone(),
    })
}

/// The fields of one JSON object of an entry, read with the place in every error.
struct Fields<'a> {
    entry: &'a str,
    object: &'a Object,
}

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|v| **v != Value::None)
    }

    fn wrong<T>(&self, field: &str, needs: &str, got: &Value) -> Result<T, DbError> {
        Err(DbError::schema(
            self.entry,
            field,
            format!("needs {needs}, got {}", got.describe()),
        ))
    }

    fn object(&self, key: &str) -> Result<Option<&Object>, DbError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(o)) => Ok(Some(o)),
            Some(other) => self.wrong(key, "an object", other),
        }
    }

    fn string(&self, key: &str) -> Result<Option<Arc<str>>, DbError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(s)) => Ok(Some(s.clone())),
            Some(other) => self.wrong(key, "a string", other),
        }
    }

    fn bool(&self, key: &str) -> Result<bool, DbError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => self.wrong(key, "true or false", other),
        }
    }

    fn strings(&self, key: &str) -> Result<Vec<Arc<str>>, DbError> {
        let items = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::List(items)) => items,
            Some(other) => return self.wrong(key, "a list of strings", other),
        };
        let string = |item: &Value| match item {
            Value::Str(s) => Ok(s.clone()),
            other => self.wrong(key, "a list of strings", other),
        };
        items.iter().map(string).collect()
    }

    fn formula(&self, key: &str) -> Result<Option<Formula>, DbError> {
        self.get(key)
            .map(|v| formula(self.entry, key, v))
            .transpose()
    }

    fn named_formulas(&self, key: &str) -> Result<Vec<(Arc<str>, Formula)>, DbError> {
        let Some(object) = self.object(key)? else {
            return Ok(Vec::new());
        };
        object
            .0
            .iter()
            .map(|(name, v)| {
                Ok((
                    name.clone(),
                    formula(self.entry, &format!("{key}.{name}"), v)?,
                ))
            })
            .collect()
    }
}

/// A formula written as a string; numbers and booleans may stand for themselves.
fn formula(entry: &str, field: &str, value: &Value) -> Result<Formula, DbError> {
    match value {
        Value::Str(text) => {
            let parsed = Formula::parse(text);
            let parsed = parsed.map_err(|e| DbError::syntax(entry, field, text, &e))?;
            Ok(parsed.of_field(field))
        }
        Value::Int(_) | Value::Bool(_) | Value::Ratio(_) | Value::List(_) => {
            Ok(Formula::constant(value.clone()).of_field(field))
        }
        other => Err(DbError::schema(
            entry,
            field,
            format!("needs a formula, got {}", other.describe()),
        )),
    }
}

fn parameters(fields: &Fields<'_>) -> Result<Vec<Parameter>, DbError> {
    let mut field = "parameters";
    let mut written = fields.strings("parameters")?;
    // The seed's form declares them inside the analyses.
    for analysis in ["flop_analysis", "memory_analysis"] {
        if fields.get("parameters").is_none()
            && fields.get("rows").is_none()
            && fields.get("children").is_none()
            && let Some(object) = fields.object(analysis)?
        {
            for parameter in (Fields {
                entry: fields.entry,
                object,
            })
            .strings("parameters")?
            {
                // What only the memory analysis asks for (`dtype_bytes`) is a workload name, not an argument.
                if analysis == "flop_analysis"
                    || (fields.get("flop_analysis").is_none() && &*parameter != "dtype_bytes")
                {
                    field = "flop_analysis.parameters";
                    written.push(parameter);
                }
            }
        }
    }
    let mut parameters: Vec<Parameter> = Vec::new();
    for text in &written {
        let statement =
            Statement::parse(text).map_err(|e| DbError::syntax(fields.entry, field, text, &e))?;
        let parameter = match statement.name {
            Some(name) => Parameter {
                name,
                default: Some(statement.flow),
            },
            None => match statement.flow.expr.kind {
                crate::formula::Kind::Name(name) => Parameter {
                    name,
                    default: None,
                },
                _ => {
                    return fields.wrong(
                        field,
                        "\"name\" or \"name = default\"",
                        &Value::Str(text.clone()),
                    );
                }
            },
        };
        if parameters.iter().any(|p| p.name == parameter.name) {
            return Err(DbError::schema(
                fields.entry,
                field,
                format!("the parameter `{}` stands twice", parameter.name),
            ));
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

fn config(entry: &str, object: &Object) -> Result<Vec<(Name, ConfigRule)>, DbError> {
    let rule = |name: &Arc<str>, value: &Value| {
        let field = format!("config.{name}");
        let own = vec![name.clone()];
        Ok(match value {
            Value::Object(o) => {
                let fields = Fields { entry, object: o };
                const KEYS: [&str; 4] = ["keys", "default", "if_null", "value"];
                if let Some((unknown, _)) = o.0.iter().find(|(k, _)| !KEYS.contains(&&**k)) {
                    return Err(DbError::schema(
                        entry,
                        format!("{field}.{unknown}"),
                        "a config rule has keys, default, if_null or value",
                    ));
                }
                if let Some(value) = o.get("value") {
                    ConfigRule {
                        keys: Vec::new(),
                        missing: Some(formula(entry, &field, value)?),
                        null: None,
                    }
                } else {
                    let keys = if o.get("keys").is_some() {
                        fields.strings("keys")?
                    } else {
                        own
                    };
                    ConfigRule {
                        keys,
                        missing: fields.formula("default")?,
                        null: fields.formula("if_null")?,
                    }
                }
            }
            Value::Str(_) => {
                let default = formula(entry, &field, value)?;
                ConfigRule {
                    keys: own,
                    missing: Some(default.clone()),
                    null: Some(default),
                }
            }
            Value::None => {
                return Err(DbError::schema(
                    entry,
                    field,
                    "null removes a name; a default of none is written \"None\"",
                ));
            }
            literal => ConfigRule {
                keys: own,
                missing: Some(Formula::constant(literal.clone())),
                null: None,
            },
        })
    };
    object
        .0
        .iter()
        .map(|(name, value)| Ok((Name::new(name), rule(name, value)?)))
        .collect()
}

fn tied(fields: &Fields<'_>) -> Result<Vec<Tie>, DbError> {
    let Some(value) = fields.get("tied") else {
        return Ok(Vec::new());
    };
    let Value::List(items) = value else {
        return fields.wrong("tied", "a list", value);
    };
    let tie = |item: &Value| {
        let Value::List(parts) = item else {
            return fields.wrong("tied", "[tensor, original, condition]", item);
        };
        match &parts[..] {
            [Value::Str(tensor), Value::Str(original)] => Ok(Tie {
                tensor: tensor.clone(),
                original: original.clone(),
                when: None,
            }),
            [Value::Str(tensor), Value::Str(original), when] => Ok(Tie {
                tensor: tensor.clone(),
                original: original.clone(),
                when: Some(formula(fields.entry, "tied", when)?),
            }),
            _ => fields.wrong("tied", "[tensor, original, condition]", item),
        }
    };
    items.iter().map(tie).collect()
}

fn experts(entry: &str, object: &Object) -> Result<Experts, DbError> {
    let fields = Fields { entry, object };
    let part = |key: &str| {
        fields
            .formula(key)?
            .ok_or_else(|| DbError::schema(entry, "experts", format!("lacks `{key}`")))
    };
    Ok(Experts {
        total: part("total")?,
        per_token: part("per_token")?,
        tensors: fields.strings("tensors")?,
    })
}

fn children(fields: &Fields<'_>) -> Result<Children, DbError> {
    match fields.get("children") {
        Some(Value::Str(_)) => Ok(Children::Numbered(
            fields.formula("children")?.expect("the field is there"),
        )),
        _ => {
            let named = fields.named_formulas("children")?;
            Ok(Children::Named(
                named.into_iter().map(|(n, f)| (Name::new(&n), f)).collect(),
            ))
        }
    }
}

fn rows(fields: &Fields<'_>) -> Result<Vec<Row>, DbError> {
    let Some(object) = fields.object("rows")? else {
        return Ok(Vec::new());
    };
    let row = |name: &Arc<str>, value: &Value| {
        let field = format!("rows.{name}");
        let Value::List(parts) = value else {
            return fields.wrong(&field, "[kind, formula, operand]", value);
        };
        let (kind, number, operand) = match &parts[..] {
            [Value::Str(kind), number] => (kind, number, None),
            [Value::Str(kind), number, Value::Str(operand)] => {
                (kind, number, Some(operand.clone()))
            }
            _ => return fields.wrong(&field, "[kind, formula, operand]", value),
        };
        let kind = match &**kind {
            "weight_mac" if operand.is_none() => {
                return Err(DbError::schema(
                    fields.entry,
                    field,
                    "a weight_mac row names the weight that it multiplies",
                ));
            }
            "weight_mac" => RowKind::WeightMac,
            "act_mac" => RowKind::ActMac,
            "elementwise" => RowKind::Flops,
            _ => RowKind::Elements(kind.clone()),
        };
        Ok(Row {
            name: name.clone(),
            kind,
            formula: formula(fields.entry, &field, number)?,
            operand,
        })
    };
    object
        .0
        .iter()
        .map(|(name, value)| row(name, value))
        .collect()
}

fn traffic(entry: &str, object: &Object) -> Result<Traffic, DbError> {
    const KEYS: [&str; 6] = [
        "reads",
        "writes",
        "kv_reads",
        "kv_writes",
        "weight_reads",
        "intermediates",
    ];
    if let Some((unknown, _)) = object.0.iter().find(|(k, _)| !KEYS.contains(&&**k)) {
        return Err(DbError::schema(
            entry,
            format!("traffic.{unknown}"),
            format!("unknown key{}", did_you_mean(unknown, KEYS)),
        ));
    }
    let part = |key: &str| {
        object
            .get(key)
            .filter(|v| **v != Value::None)
            .map(|v| formula(entry, &format!("traffic.{key}"), v))
            .transpose()
    };
    Ok(Traffic {
        reads: part("reads")?,
        writes: part("writes")?,
        kv_reads: part("kv_reads")?,
        kv_writes: part("kv_writes")?,
        weight_reads: part("weight_reads")?,
        intermediates: part("intermediates")?,
    })
}

fn precision(entry: &str, object: &Object) -> Result<Precision, DbError> {
    let fields = Fields { entry, object };
    Ok(Precision {
        weight: fields.formula("weight")?,
        activation: fields.formula("activation")?,
    })
}

fn forward(fields: &Fields<'_>) -> Result<Option<Vec<Statement>>, DbError> {
    let statement = |text: &str| {
        Statement::parse(text).map_err(|e| DbError::syntax(fields.entry, "forward", text, &e))
    };
    match fields.get("forward") {
        None => Ok(None),
        Some(Value::Str(text)) => Ok(Some(vec![statement(text)?])),
        Some(_) => {
            let texts = fields.strings("forward")?;
            if texts.is_empty() {
                return Err(DbError::schema(
                    fields.entry,
                    "forward",
                    "needs at least one statement",
                ));
            }
            texts
                .iter()
                .map(|t| statement(t))
                .collect::<Result<_, _>>()
                .map(Some)
        }
    }
}

fn task(entry: &str, name: &str) -> Result<Task, DbError> {
    Task::ALL
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, t)| *t)
        .ok_or_else(|| {
            let hint = did_you_mean(name, Task::ALL.iter().map(|(n, _)| *n));
            DbError::schema(entry, "task", format!("`{name}` is no kind of model{hint}"))
        })
}

fn flop_analysis(entry: &str, object: &Object) -> Result<FlopAnalysis, DbError> {
    let fields = Fields { entry, object };
    let template = object
        .get("formula_template")
        .ok_or_else(|| DbError::schema(entry, "flop_analysis", "lacks `formula_template`"))?;
    let breakdown = match fields.object("breakdown")? {
        None => Vec::new(),
        Some(parts) => {
            let part = |(name, v): &(Arc<str>, Value)| {
                Ok((
                    name.clone(),
                    formula(entry, &format!("flop_analysis.breakdown.{name}"), v)?,
                ))
            };
            parts.0.iter().map(part).collect::<Result<_, DbError>>()?
        }
    };
    Ok(FlopAnalysis {
        formula: formula(entry, "flop_analysis.formula_template", template)?,
        breakdown,
        depends: fields.strings("module_depends")?,
    })
}

fn memory_analysis(entry: &str, object: &Object) -> Result<MemoryAnalysis, DbError> {
    let part = |key: &str| {
        object
            .get(key)
            .map(|v| formula(entry, &format!("memory_analysis.{key}"), v))
            .transpose()
    };
    Ok(MemoryAnalysis {
        reads: part("reads_template")?,
        writes: part("writes_template")?,
        intermediates: part("intermediates_template")?,
        depends: Fields { entry, object }.strings("module_depends")?,
    })
}

fn examples(fields: &Fields<'_>) -> Result<Vec<Example>, DbError> {
    let written: Vec<&Value> = match fields.get("example") {
        None => return Ok(Vec::new()),
        Some(Value::List(items)) => items.iter().collect(),
        Some(one) => vec![one],
    };
    let example = |value: &Value| {
        let Value::Object(object) = value else {
            return fields.wrong("example", "{arguments, expected}", value);
        };
        let part = |key: &str| match object.get(key) {
            Some(Value::Object(o)) => Ok(o.clone()),
            _ => Err(DbError::schema(
                fields.entry,
                "example",
                format!("lacks the object `{key}`"),
            )),
        };
        Ok(Example {
            arguments: part("arguments")?
                .0
                .iter()
                .map(|(n, v)| (Name::new(n), v.clone()))
                .collect(),
            expected: part("expected")?.0.clone(),
        })
    };
    written.into_iter().map(example).collect()
}

fn requires(fields: &Fields<'_>) -> Result<Vec<(Formula, Arc<str>)>, DbError> {
    let Some(object) = fields.object("requires")? else {
        return Ok(Vec::new());
    };
    let requirement = |(name, value): &(Arc<str>, Value)| {
        let field = format!("requires.{name}");
        let Value::List(parts) = value else {
            return fields.wrong(&field, "[condition, message]", value);
        };
        match &parts[..] {
            [condition, Value::Str(message)] => {
                Ok((formula(fields.entry, &field, condition)?, message.clone()))
            }
            _ => fields.wrong(&field, "[condition, message]", value),
        }
    };
    object.0.iter().map(requirement).collect()
}

fn notes(fields: &Fields<'_>) -> Result<Vec<EntryNote>, DbError> {
    let Some(object) = fields.object("notes")? else {
        return Ok(Vec::new());
    };
    let note = |code: &Arc<str>, value: &Value| {
        let field = format!("notes.{code}");
        match value {
            Value::List(parts) => match &parts[..] {
                [when, Value::Str(message)] => Ok(EntryNote {
                    code: code.clone(),
                    when: formula(fields.entry, &field, when)?,
                    message: message.clone(),
                }),
                _ => fields.wrong(&field, "[condition, message]", value),
            },
            _ => fields.wrong(&field, "[condition, message]", value),
        }
    };
    object
        .0
        .iter()
        .map(|(code, value)| note(code, value))
        .collect()
}
