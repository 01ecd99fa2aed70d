//! Output held against the JSON Schema that the program prints for it.

use super::{run, stdout};

/// Claims that what a command prints is what the named schema says, and that the schema names all of it.
#[track_caller]
pub(crate) fn conforms(schema: &str, args: &[&str]) {
    output_conforms(schema, &run(args).out);
}

/// The same for what a command has printed.
#[track_caller]
pub(crate) fn output_conforms(schema: &str, output: &str) {
    let schema: serde_json::Value = serde_json::from_str(&stdout(&["schema", schema])).unwrap();
    let value: serde_json::Value = serde_json::from_str(output).unwrap();
    let mut out = Vec::new();
    violations(&schema, &schema, &value, "$", &mut out);
    out.truncate(10);
    assert!(out.is_empty(), "{}", out.join("\n"));
}

/// Checks a value against the part of JSON Schema that the program's schemas use.
fn violations(
    schema: &serde_json::Value,
    root: &serde_json::Value,
    value: &serde_json::Value,
    path: &str,
    out: &mut Vec<String>,
) {
    use serde_json::Value as Json;
    let known = [
        "$schema",
        "$id",
        "$defs",
        "$ref",
        "$comment",
        "title",
        "description",
        "type",
        "const",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minimum",
        "maximum",
        "minItems",
        "anyOf",
        "oneOf",
        "allOf",
        "pattern",
    ];
    for key in schema
        .as_object()
        .into_iter()
        .flat_map(|s| s.keys())
        .filter(|key| !known.contains(&key.as_str()))
    {
        out.push(format!("{path}: this test does not know `{key}`"));
    }
    if let Some(target) = schema["$ref"].as_str() {
        let found = root
            .pointer(target.trim_start_matches('#'))
            .unwrap_or(&Json::Null);
        if found.is_null() {
            out.push(format!("{path}: `{target}` points nowhere"));
        }
        violations(found, root, value, path, out);
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => {
            value.is_u64() || value.is_i64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    let fits = match &schema["type"] {
        Json::String(name) => is(name),
        Json::Array(names) => names.iter().any(|name| name.as_str().is_some_and(is)),
        _ => true,
    };
    let constant = schema.get("const").is_none_or(|c| c == value);
    let listed = schema["enum"].as_array().is_none_or(|e| e.contains(value));
    let least = schema["minimum"]
        .as_f64()
        .is_none_or(|m| value.as_f64().is_none_or(|v| v >= m));
    if !(fits && constant && listed && least) {
        out.push(format!("{path}: {value} is not {schema}"));
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
    {
        if value.get(name).is_none() {
            out.push(format!("{path}: `{name}` is missing"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(part) => violations(part, root, inner, &format!("{path}.{name}"), out),
            None if schema.get("properties").is_some() => {
                out.push(format!("{path}: the schema says nothing of `{name}`"))
            }
            None => {}
        }
    }
    if let Some(items) = schema.get("items") {
        for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
            violations(items, root, inner, &format!("{path}[{i}]"), out);
        }
    }
    if let Some(cases) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = |case: &Json| {
            let mut inner = Vec::new();
            violations(case, root, value, path, &mut inner);
            inner.is_empty()
        };
        if !cases.iter().any(fits) {
            out.push(format!("{path}: {value} is none of the alternatives"));
        }
    }
}
