//! What a `quantization_config` does to a model: classes it replaces, widths it gives.

use super::{Db, DbError};
use crate::formula::{Budget, EvalErrorKind, Formula, Names, eval};
use crate::value::{Name, Object, Value};
use std::sync::Arc;

/// The `$quantization` table.
#[derive(Clone, Debug, Default)]
pub struct Quantization {
    rules: Vec<Written>,
}

#[derive(Clone, Debug)]
struct Written {
    when: Formula,
    classes: Vec<(Arc<str>, Arc<str>)>,
    of: Vec<Arc<str>>,
    experts: bool,
    weight_bits: Option<Formula>,
    activation_bits: Option<Formula>,
    dtype_bits: Option<Formula>,
}

/// What applies to one model.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Class -> the class that stands in its place.
    pub classes: Vec<(Arc<str>, Arc<str>)>,
    /// Classes whose multiplied weights have `weight_bits`.
    pub of: Vec<Arc<str>>,
    /// Whether the same holds for every class that holds experts.
    pub experts: bool,
    /// Width of those weights.
    pub weight_bits: Option<i128>,
    /// Width of the activations they multiply.
    pub activation_bits: Option<i128>,
    /// Width of everything else, where the config names no dtype.
    pub dtype_bits: Option<i128>,
    /// Modules that stay as they are: a path is spared if one of these is a run of its parts.
    pub spared: Vec<Arc<str>>,
}

impl Rule {
    /// Whether the module at `path` stays as it is. A `*` of a spared name stands for one part.
    pub fn spares(&self, path: &[Arc<str>]) -> bool {
        self.spared.iter().any(|name| {
            let name: Vec<&str> = name.split('.').collect();
            let equal = |(part, name): (&Arc<str>, &&str)| *name == "*" || **part == **name;
            path.windows(name.len())
                .any(|run| run.iter().zip(&name).all(equal))
        })
    }

    /// Whether a spared name singles out items of lists by the number `item`.
    pub fn singles_out(&self, item: usize) -> bool {
        let item = item.to_string();
        self.spared
            .iter()
            .any(|name| name.split('.').any(|part| part == item))
    }
}

pub(super) fn read(db: &Db) -> Result<Quantization, DbError> {
    let table = db.table("$quantization")?;
    let mut rules = Vec::new();
    for (name, value) in &table.0 {
        let wrong = |reason: &str| DbError::schema("$quantization", name.to_string(), reason);
        let rule = value.as_object().ok_or_else(|| wrong("needs an object"))?;
        const KEYS: [&str; 8] = [
            "when",
            "classes",
            "of",
            "experts",
            "weight_bits",
            "activation_bits",
            "dtype_bits",
            "doc",
        ];
        if let Some((unknown, _)) = rule.0.iter().find(|(k, _)| !KEYS.contains(&&**k)) {
            return Err(wrong(&format!("unknown key `{unknown}`")));
        }
        let formula = |key: &str| match rule.get(key) {
            None => Ok(None),
            Some(Value::Str(text)) => Formula::parse(text)
                .map(|f| Some(f.of_field(&format!("{name}.{key}"))))
                .map_err(|e| DbError::syntax("$quantization", &format!("{name}.{key}"), text, &e)),
            Some(Value::Int(i)) => Ok(Some(Formula::constant(Value::Int(*i)))),
            Some(_) => Err(wrong("needs formulas")),
        };
        let classes = match rule.get("classes") {
            None => Vec::new(),
            Some(Value::Object(o)) => {
                let pair = |(k, v): &(Arc<str>, Value)| {
                    Ok((
                        k.clone(),
                        Arc::from(
                            v.as_str()
                                .ok_or_else(|| wrong("`classes` maps class to class"))?,
                        ),
                    ))
                };
                o.0.iter().map(pair).collect::<Result<_, DbError>>()?
            }
            Some(_) => return Err(wrong("`classes` maps class to class")),
        };
        let of = match rule.get("of") {
            None => Vec::new(),
            Some(Value::List(items)) => items
                .iter()
                .map(|i| {
                    i.as_str()
                        .map(Arc::from)
                        .ok_or_else(|| wrong("`of` lists classes"))
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(wrong("`of` lists classes")),
        };
        rules.push(Written {
            when: formula("when")?.ok_or_else(|| wrong("lacks `when`"))?,
            classes,
            of,
            experts: rule.get("experts") == Some(&Value::Bool(true)),
            weight_bits: formula("weight_bits")?,
            activation_bits: formula("activation_bits")?,
            dtype_bits: formula("dtype_bits")?,
        });
    }
    Ok(Quantization { rules })
}

impl Quantization {
    /// The first rule that applies to a config's `quantization_config`.
    pub fn rule(&self, config: &Object, budget: &mut Budget) -> Result<Option<Rule>, DbError> {
        let Some(Value::Object(settings)) = config.get("quantization_config") else {
            return Ok(None);
        };
        let mut names = Settings(settings);
        for written in &self.rules {
            let mut value = |formula: &Formula| {
                eval(&formula.expr, &mut names, budget)
                    .map_err(|e| DbError::eval("$quantization", "", &formula.text, e))
            };
            if !value(&written.when)?.truth() {
                continue;
            }
            let mut bits = |formula: &Option<Formula>| -> Result<Option<i128>, DbError> {
                let Some(formula) = formula else {
                    return Ok(None);
                };
                let found = value(formula)?;
                match found.as_int().filter(|b| (1..=64).contains(b)) {
                    Some(bits) => Ok(Some(bits)),
                    None if found == Value::None => Ok(None),
                    None => {
                        let keys = settings
                            .0
                            .iter()
                            .filter(|(key, _)| formula.text.contains(&**key));
                        let config = keys
                            .map(|(k, v)| format!("quantization_config.{k} = {}", v.describe()));
                        let reason = format!("a width is 1 to 64 bits, got {}", found.describe());
                        Err(DbError {
                            config: config.collect(),
                            kind: super::Fault::Evaluation,
                            ..DbError::schema("$quantization", &*formula.field, reason)
                        })
                    }
                }
            };
            let weight_bits = bits(&written.weight_bits)?;
            let activation_bits = bits(&written.activation_bits)?;
            let dtype_bits = bits(&written.dtype_bits)?;
            let spared = ["modules_to_not_convert", "ignore", "llm_int8_skip_modules"]
                .iter()
                .find_map(|key| match settings.get(key) {
                    Some(Value::List(names)) => Some(
                        names
                            .iter()
                            .filter_map(Value::as_str)
                            .map(Arc::from)
                            .collect(),
                    ),
                    _ => None,
                });
            let mut spared: Vec<Arc<str>> = spared.unwrap_or_default();
            // The head stays as it is unless the file says otherwise.
            if settings.get("lm_head") != Some(&Value::Bool(true)) {
                spared.push("lm_head".into());
            }
            return Ok(Some(Rule {
                classes: written.classes.clone(),
                of: written.of.clone(),
                experts: written.experts,
                weight_bits,
                activation_bits,
                dtype_bits,
                spared,
            }));
        }
        Ok(None)
    }
}

/// The keys of a `quantization_config` as names; one that is not there is None.
struct Settings<'a>(&'a Object);

impl Names for Settings<'_> {
    fn name(&mut self, name: Name, _: &mut Budget) -> Result<Value, EvalErrorKind> {
        Ok(self.0.get(name.as_str()).cloned().unwrap_or(Value::None))
    }

    fn module(
        &mut self,
        _: &crate::formula::ModuleCall,
        _: &mut Budget,
    ) -> Result<Value, EvalErrorKind> {
        Err(EvalErrorKind::Kind("no module can be called here".into()))
    }

    fn known(&self) -> Vec<Name> {
        self.0.0.iter().map(|(k, _)| Name::new(k)).collect()
    }
}
