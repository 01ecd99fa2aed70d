//! What `bitcost db` prints: lists of entries, one entry, the cost of one class, dependencies, findings.

use crate::analysis::{ClassCost, Read, Written};
use crate::check::{Dependency, Finding};
use crate::db::{Db, Entry};
use crate::units;
use crate::value::{Name, Object, Value};
use serde::Serialize;
use serde_json::{Map, json};

/// One line of `db list`.
#[derive(Serialize)]
pub struct ListLine {
    path: String,
    doc: String,
    status: &'static str,
    origin: String,
}

/// The line of an entry.
pub fn list_line(db: &Db, entry: &Entry) -> ListLine {
    let doc = entry
        .source
        .get("doc")
        .and_then(Value::as_str)
        .unwrap_or("");
    let origin = match (&entry.overlay, db.key_as_written(&entry.key)) {
        (Some(file), _) => file.to_string(),
        (None, Some(_)) => "written".into(),
        (None, None) => "derived".into(),
    };
    ListLine {
        path: entry.path.to_string(),
        doc: doc.into(),
        status: if entry.validated {
            "validated"
        } else {
            "pending"
        },
        origin,
    }
}

/// `db list` for people.
pub fn list_text(lines: &[ListLine]) -> String {
    let mut out = String::new();
    for line in lines {
        out += &format!(
            "{:9} {:8} {}",
            line.status,
            line.origin,
            units::visible(&line.path)
        );
        if !line.doc.is_empty() {
            out += &format!("  {}", units::visible(&line.doc));
        }
        out.push('\n');
    }
    out += &format!("{} entries", lines.len());
    out
}

/// An entry as JSON, in its own key order.
pub fn entry_json(entry: &Entry) -> impl Serialize {
    let mut fields = vec![("module_path".into(), Value::Str(entry.path.clone()))];
    fields.extend(
        entry
            .source
            .0
            .iter()
            .filter(|(k, _)| &**k != "module_path")
            .cloned(),
    );
    Ordered(Value::Object(std::sync::Arc::new(Object(vec![(
        entry.key.clone(),
        Value::Object(std::sync::Arc::new(Object(fields))),
    )]))))
}

/// A value written with its keys in order.
struct Ordered(Value);

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::None => serializer.serialize_none(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(i) => serializer.serialize_i128(*i),
            Value::Ratio(_) | Value::Float(_) => {
                serializer.serialize_f64(self.0.to_f64().unwrap_or(f64::NAN))
            }
            Value::Str(s) | Value::Opaque(s) => serializer.serialize_str(s),
            Value::List(items) => serializer.collect_seq(items.iter().cloned().map(Ordered)),
            Value::Object(object) => {
                serializer.collect_map(object.0.iter().map(|(k, v)| (&**k, Ordered(v.clone()))))
            }
        }
    }
}

/// A sum of bytes, if it fits.
fn bytes_of(total: Option<u128>) -> String {
    total.map_or_else(|| "more than fits 128".into(), units::grouped)
}

/// The cost of one class for people.
pub fn cost_text(cost: &ClassCost, arguments: &[(Name, Value)]) -> String {
    let given = arguments
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect::<Vec<_>>()
        .join(" ");
    let count = |n: Option<u128>| {
        n.map_or_else(
            || "unknown: the entry gives FLOPs only".into(),
            units::grouped,
        )
    };
    let bytes = |n: Option<u128>| {
        n.map_or_else(
            || "unknown".into(),
            |n| format!("{} bytes", units::grouped(n)),
        )
    };
    let mut out = format!("{} {}\n", cost.class, units::visible(&given));
    out += &format!("params        {}\n", count(cost.params));
    out += &format!("MACs          {}\n", count(cost.macs));
    out += &format!("FLOPs         {}\n", count(cost.flops));
    out += &format!("BOPs          {}\n", count(cost.bops));
    match &cost.metrics {
        Some(m) => {
            out += &format!(
                "reads         {} bytes: weights {}, activations {}",
                bytes_of(m.read.total()),
                units::grouped(m.read.weights),
                units::grouped(m.read.activations)
            );
            out += &if m.read.kv_cache > 0 {
                format!(", KV cache {}\n", units::grouped(m.read.kv_cache))
            } else {
                "\n".into()
            };
        }
        None => out += &format!("reads         {}\n", bytes(cost.read_bytes)),
    }
    out += &format!("writes        {}\n", bytes(cost.write_bytes));
    out += &format!("intermediates {}", bytes(cost.intermediate_bytes));
    out
}

/// Bytes moved: split where rows say what is read and written.
#[derive(Serialize)]
#[serde(untagged)]
enum Moved {
    Reads(Read),
    Writes(Written),
    Whole(Option<u128>),
}

/// The cost of one class as `bitcost.db-eval/1`.
pub fn cost_json(cost: &ClassCost, arguments: &[(Name, Value)]) -> impl Serialize {
    #[derive(Serialize)]
    struct Cost {
        schema: &'static str,
        module: String,
        arguments: Ordered,
        params: Option<u128>,
        macs: Option<u128>,
        flops: Option<u128>,
        bops: Option<u128>,
        read_bytes: Moved,
        write_bytes: Moved,
        intermediate_bytes: Option<u128>,
    }
    let (read_bytes, write_bytes) = match &cost.metrics {
        Some(m) => (Moved::Reads(m.read), Moved::Writes(m.write)),
        None => (
            Moved::Whole(cost.read_bytes),
            Moved::Whole(cost.write_bytes),
        ),
    };
    let arguments = arguments
        .iter()
        .map(|(n, v)| (n.as_str().into(), v.clone()))
        .collect();
    Cost {
        schema: "bitcost.db-eval/1",
        module: cost.class.to_string(),
        arguments: Ordered(Value::Object(std::sync::Arc::new(Object(arguments)))),
        params: cost.params,
        macs: cost.macs,
        flops: cost.flops,
        bops: cost.bops,
        read_bytes,
        write_bytes,
        intermediate_bytes: cost.intermediate_bytes,
    }
}

/// `db deps` for people.
pub fn deps_text(path: &str, deps: &[Dependency], users: &[String]) -> String {
    let mut out = format!("{path}\nuses\n");
    for dep in deps {
        let to = dep.path.as_deref().unwrap_or("no entry");
        out += &format!(
            "  {} -> {to} ({})\n",
            units::visible(&dep.name),
            dep.fields.join(", ")
        );
    }
    if deps.is_empty() {
        out += "  nothing\n";
    }
    out += "used by\n";
    for user in users {
        out += &format!("  {user}\n");
    }
    if users.is_empty() {
        out += "  nothing\n";
    }
    out
}

/// `db deps` as JSON.
pub fn deps_json(path: &str, deps: &[Dependency], users: &[String]) -> serde_json::Value {
    let deps: Vec<_> = deps
        .iter()
        .map(|d| json!({"name": d.name, "path": d.path, "fields": d.fields}))
        .collect();
    json!({"module": path, "uses": deps, "used_by": users})
}

/// A finding as JSON.
pub fn finding_json(finding: &Finding) -> serde_json::Value {
    let mut object = Map::new();
    object.insert("code".into(), finding.code.into());
    object.insert("entry".into(), (*finding.entry).into());
    object.insert("message".into(), finding.message.clone().into());
    object.into()
}
