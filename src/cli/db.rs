//! `bitcost db`: look at the module database, check it, evaluate it.

use super::args::{DbArgs, DbCommand, DbCommon, DbFormat, WidthArgs};
use super::{Exit, Failure, Outcome, database, input, model_failure, to_json, usage, write_out};
use crate::analysis::{self, ClassCost};
use crate::check;
use crate::db::{Db, DbError, KEYS};
use crate::formula::{did_you_mean, functions::FUNCTIONS};
use crate::glob::matches;
use crate::json as json_text;
use crate::model::{PRIMITIVES, RESERVED, WORKLOAD_NAMES, Workload, entry_of, explain_class};
use crate::report::{db as report, explain};
use crate::units;
use crate::value::{Name, Value};

pub(super) fn run(args: DbArgs) -> Outcome {
    match args.command {
        DbCommand::List {
            pattern,
            written,
            common,
        } => list(pattern.as_deref(), written, &common),
        DbCommand::Show { name, common } => show(&name, &common),
        DbCommand::Check { file, common } => run_check(file.as_deref(), &common),
        DbCommand::Eval {
            name,
            arguments,
            widths,
            common,
        } => eval(&name, &arguments, &widths, &common),
        DbCommand::Explain {
            name,
            arguments,
            common,
        } => {
            let db = database(&common.module_db)?;
            let arguments = parse_arguments(&arguments)?;
            let step = explain_class(&db, &name, &arguments, &Workload::default())
                .map_err(|e| named(&db, e))?;
            known_arguments(&db, &name, &arguments)?;
            answer(&common, &explain::text(&step), &step)
        }
        DbCommand::Deps { name, common } => deps(&name, &common),
        DbCommand::Language => language(),
    }
}

fn answer(common: &DbCommon, text: &str, value: &impl serde::Serialize) -> Outcome {
    let text = match common.format {
        DbFormat::Table => units::visible_lines(text),
        DbFormat::Json => to_json(value)?,
    };
    write_out(&text, None)?;
    Ok(Exit::Ok)
}

/// `NAME=VALUE` pairs: numbers, True, False, None, lists in brackets, anything else is a string.
fn parse_arguments(written: &[String]) -> Result<Vec<(Name, Value)>, Failure> {
    let mut arguments: Vec<(Name, Value)> = Vec::new();
    for text in written {
        let Some((name, value)) = text.split_once('=') else {
            return Err(usage(format!(
                "`{text}` is no argument; write NAME=VALUE, as in N=2048"
            )));
        };
        let name = Name::new(name.trim());
        if arguments.iter().any(|(n, _)| *n == name) {
            return Err(usage(format!("the argument `{name}` is given twice")));
        }
        arguments.push((name, parse_value(value.trim())));
    }
    Ok(arguments)
}

fn parse_value(text: &str) -> Value {
    match text {
        "True" | "true" => Value::Bool(true),
        "False" | "false" => Value::Bool(false),
        "None" | "null" => Value::None,
        _ => match json_text::read(text) {
            Ok(value @ (Value::Int(_) | Value::Ratio(_) | Value::List(_) | Value::Object(_))) => {
                value
            }
            _ => Value::str(text.trim_matches(['\'', '"'])),
        },
    }
}

fn list(pattern: Option<&str>, written: bool, common: &DbCommon) -> Outcome {
    let db = database(&common.module_db)?;
    let keys = if written {
        db.written_keys()
    } else {
        db.keys()
    };
    let mut lines = Vec::new();
    for key in &keys {
        let entry = db.entry(key).map_err(|e| named(&db, e))?;
        if pattern.is_none_or(|p| entry.path.contains(p) || matches(p, &entry.path)) {
            lines.push(report::list_line(&db, entry));
        }
    }
    if lines.is_empty() {
        return Err(input(format!(
            "no entry matches `{}`; `bitcost db list` shows all",
            pattern.unwrap_or("")
        )));
    }
    answer(common, &report::list_text(&lines), &lines)
}

fn show(name: &str, common: &DbCommon) -> Outcome {
    let db = database(&common.module_db)?;
    let entry = entry_of(&db, name).map_err(|e| named(&db, e))?;
    let json = report::entry_json(entry);
    let text = to_json(&json)?;
    answer(common, &text, &json)
}

fn run_check(file: Option<&std::path::Path>, common: &DbCommon) -> Outcome {
    let mut overlays = common.module_db.clone();
    overlays.extend(file.map(std::path::Path::to_path_buf));
    let db = database(&overlays)?;
    let findings = check::check(&db);
    let what = if overlays.is_empty() {
        format!("{} entries", db.keys().len())
    } else {
        format!(
            "{} entries of {}",
            db.overlays().iter().map(|o| o.keys.len()).sum::<usize>(),
            overlays
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let mut text: String = findings
        .iter()
        .map(|f| format!("{}\n", units::visible_lines(&f.to_string())))
        .collect();
    text += &format!(
        "{what} checked: {}",
        if findings.is_empty() {
            "no findings".into()
        } else {
            if findings.len() == 1 {
                "1 finding".into()
            } else {
                format!("{} findings", findings.len())
            }
        }
    );
    let json: Vec<_> = findings.iter().map(report::finding_json).collect();
    answer(common, &text, &json)?;
    Ok(if findings.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn eval(name: &str, arguments: &[String], widths: &WidthArgs, common: &DbCommon) -> Outcome {
    let db = database(&common.module_db)?;
    let arguments = parse_arguments(arguments)?;
    let mut workload = Workload::default();
    let dtype = widths.dtype.unwrap_or(workload.widths.dtype);
    workload.widths.dtype = dtype;
    workload.widths.weight = widths.weight_bits;
    workload.widths.activation = widths.activation_bits;
    workload.widths.kv = widths.kv_bits.unwrap_or(dtype);
    let cost: ClassCost = analysis::evaluate(&db, name, &arguments, &workload)
        .map_err(|e| model_failure(&db, name, e))?;
    known_arguments(&db, name, &arguments)?;
    answer(
        common,
        &report::cost_text(&cost, &arguments),
        &report::cost_json(&cost, &arguments),
    )
}

/// A fault of the database, with the overlay file that it stands in.
fn named(db: &Db, error: DbError) -> Failure {
    match db.overlay_of(&error.entry).map(String::from) {
        Some(file) => Failure {
            exit: Exit::Input,
            error: anyhow::Error::new(error).context(file),
        },
        None => error.into(),
    }
}

/// Refuses an argument that nothing reads: most likely it is misspelt.
fn known_arguments(db: &Db, class: &str, arguments: &[(Name, Value)]) -> Result<(), Failure> {
    let entry = entry_of(db, class).map_err(|e| named(db, e))?;
    for (name, _) in arguments {
        let implicit = WORKLOAD_NAMES.contains(&name.as_str()) || RESERVED.contains(&name.as_str());
        if !implicit && !check::reads_name(db, entry, *name) {
            let takes: Vec<&str> = entry.parameters.iter().map(|p| p.name.as_str()).collect();
            let hint = did_you_mean(name.as_str(), takes.iter().copied());
            let takes = if takes.is_empty() {
                "none".into()
            } else {
                takes.join(", ")
            };
            let reason = format!(
                "nothing in {} reads the argument `{name}`{hint}",
                entry.path
            );
            return Err(usage(format!("{reason}; its own arguments: {takes}")));
        }
    }
    Ok(())
}

fn deps(name: &str, common: &DbCommon) -> Outcome {
    let db = database(&common.module_db)?;
    let entry = entry_of(&db, name).map_err(|e| named(&db, e))?;
    let deps = check::dependencies(&db, entry).map_err(|e| named(&db, e))?;
    let users = users(&db, &entry.key);
    answer(
        common,
        &report::deps_text(&entry.path, &deps, &users),
        &report::deps_json(&entry.path, &deps, &users),
    )
}

/// Paths of the entries that name the entry `key`.
fn users(db: &Db, key: &str) -> Vec<String> {
    let mut users = Vec::new();
    for other in db.keys() {
        let Ok(entry) = db.entry(&other) else {
            continue;
        };
        if check::dependencies(db, entry)
            .is_ok_and(|deps| deps.iter().any(|d| d.key.as_deref() == Some(key)))
        {
            users.push(entry.path.to_string());
        }
    }
    users
}

fn language() -> Outcome {
    let mut text = String::from("Functions of formulas:\n");
    for function in FUNCTIONS {
        text += &format!("  {}\n", function.doc);
    }
    text += "\nPrimitives of `forward`:\n";
    for primitive in PRIMITIVES {
        text += &format!("  {}\n", primitive.doc);
    }
    text += "\nKeys of an entry:\n";
    for (key, doc) in KEYS {
        text += &format!("  {key:18} {doc}\n");
    }
    write_out(&text, None)?;
    Ok(Exit::Ok)
}
