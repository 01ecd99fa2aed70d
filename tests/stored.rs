//! The trees of all oracle models against the tensors that their files hold: what `save_pretrained` writes, and what the
//! Hub's older files are called. Names, dtypes and shapes come from `fixtures/tensors`.

mod common;

use bitcost::analysis::{Analysis, Options, analyze};
use bitcost::compare::{BitsRules, BopsKey, Conventions, Graph, Source, count};
use bitcost::db::{Db, RowKind};
use bitcost::flow::Rule;
use bitcost::join::Headers;
use bitcost::model::{Asked, Model, Node};
use bitcost::source::{self, Catalog};
use bitcost::value::{Object, Value};
use common::Folder;
use common::headers::{HeaderOnly, Line, spelled_out};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Notes that say that model and file contradict each other.
const MISMATCHES: [&str; 3] = ["missing_in_file", "not_in_model", "shape"];

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tensors");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn object(path: &Path) -> Arc<Object> {
    let text = std::fs::read_to_string(path).expect("a fixture");
    match bitcost::json::read(&text).expect("JSON") {
        Value::Object(object) => object,
        other => panic!("{}: {other}", path.display()),
    }
}

fn lines(value: &Value) -> Vec<Line> {
    let Value::List(rows) = value else {
        panic!("a list of tensors")
    };
    let mut lines = Vec::new();
    for row in rows.iter() {
        let Value::List(parts) = row else {
            panic!("a tensor")
        };
        let (name, dtype) = (
            parts[0].as_str().expect("a name"),
            parts[1].as_str().expect("a dtype"),
        );
        let Value::List(shape) = &parts[2] else {
            panic!("a shape")
        };
        let shape: Vec<u64> = shape
            .iter()
            .map(|n| n.as_int().and_then(|n| n.try_into().ok()).expect("a size"))
            .collect();
        lines.extend(
            spelled_out(name)
                .into_iter()
                .map(|name| (name, dtype.to_string(), shape.clone())),
        );
    }
    lines
}

/// The config and root class of a model of the oracle; the catalog describes those that have no config file.
fn config(oracle: &Object) -> (Arc<Object>, Option<Arc<str>>) {
    let id = oracle
        .get("model_id")
        .and_then(Value::as_str)
        .expect("a model id");
    if id.starts_with("torchvision/") || id.starts_with("cifar/") {
        let model = Catalog::embedded().get(id).expect("the catalog has it");
        return (model.config, model.root);
    }
    match oracle.get("config") {
        Some(Value::Object(config)) => (config.clone(), None),
        _ => panic!("{id}: no config"),
    }
}

fn joined(db: &Db, config: Arc<Object>, root: Option<&str>, lines: &[Line]) -> Analysis {
    let headers = Headers::read(&HeaderOnly::new(lines), Some(&config))
        .expect("headers")
        .expect("weights");
    let model = Model::load(db, config, root).expect("a model");
    let workload = model
        .workload(&Asked {
            seq_len: None,
            ..Asked::default()
        })
        .expect("a workload");
    analyze(&model, Some(&headers), &workload, Options::default()).expect("an analysis")
}

fn check(key: &str, least: usize) {
    let db = Db::embedded().expect("the embedded database");
    let (mut failed, mut run) = (Vec::new(), 0);
    for path in fixtures() {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let fixture = object(&path);
        let Some(tensors) = fixture.get(key) else {
            continue;
        };
        let oracle = object(&path.with_file_name("..").join("oracle").join(&name));
        let (config, root) = config(&oracle);
        let lines = lines(tensors);
        let analysis = joined(&db, config, root.as_deref(), &lines);
        run += 1;
        for note in analysis
            .notes
            .iter()
            .filter(|note| MISMATCHES.contains(&note.code.as_str()))
        {
            failed.push(format!("{name}: {}: {}", note.code, note.message));
        }
        let stored = &analysis.totals.all;
        if key == "tensors" && (stored.stored_params != stored.params) {
            failed.push(format!(
                "{name}: {} parameters stored, {} in the model",
                stored.stored_params, stored.params
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {run}:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(run >= least, "only {run} models were compared");
}

#[test]
fn every_model_matches_the_file_that_its_library_writes() {
    check("tensors", 452);
}

#[test]
fn every_model_matches_the_file_that_the_hub_holds() {
    check("hub_tensors", 35);
}

/// Multiplications with weights, of all calls.
fn weight_macs(node: &Node<'_>) -> u128 {
    let own = node.work.iter();
    let own = own.filter(|work| matches!(work.kind, RowKind::WeightMac));
    let own: u128 = own.map(|work| work.count).sum();
    let below: u128 = node
        .children
        .iter()
        .map(|(_, child)| weight_macs(child))
        .sum();
    (own + below) * node.calls
}

/// Largest file whose holes are read.
const MOST_BYTES: u64 = 1 << 20;

#[test]
fn no_work_of_a_weight_is_lost_where_files_are_compared() {
    let db = Db::embedded().expect("the embedded database");
    let (mut failed, mut run) = (Vec::new(), 0);
    for path in fixtures() {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let fixture = object(&path);
        let oracle = object(&path.with_file_name("..").join("oracle").join(&name));
        let (config, root) = config(&oracle);
        for key in ["tensors", "hub_tensors"] {
            let Some(tensors) = fixture.get(key) else {
                continue;
            };
            let lines = lines(tensors);
            let header = HeaderOnly::new(&lines);
            let head = header.head();
            if head.file_bytes > MOST_BYTES {
                continue;
            }
            // A file of holes: every weight is 0.
            let folder = Folder::new();
            let mut file = File::create(folder.file("model.safetensors")).expect("a file");
            file.write_all(&(head.json.len() as u64).to_le_bytes())
                .expect("written");
            file.write_all(&head.json).expect("written");
            file.set_len(head.file_bytes).expect("holes");
            let files = source::Folder::open(folder.path()).expect("a folder");
            let headers = Headers::read(&files, Some(&config))
                .expect("headers")
                .expect("weights");
            let model = Model::load(&db, config.clone(), root.as_deref()).expect("a model");
            let asked = Asked::default();
            let tree = model
                .expand(&model.workload(&asked).expect("a workload"))
                .expect("a tree");
            let conventions = Conventions {
                rule: Rule::Weights,
                bops: BopsKey::Product,
                activation_bits: 32,
            };
            let from = Source {
                headers: &headers,
                stats: None,
            };
            let graph = Graph::Model(&model, &asked);
            let counted = count(
                &db,
                from,
                &graph,
                &conventions,
                &BitsRules::default(),
                &|_| {},
            );
            run += 1;
            match counted {
                Ok(side) if side.totals.macs == weight_macs(&tree.root) => {}
                Ok(side) => failed.push(format!(
                    "{name}, {key}: {} MACs of {}",
                    side.totals.macs,
                    weight_macs(&tree.root)
                )),
                Err(e) => failed.push(format!("{name}, {key}: {e}")),
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {run}:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(run >= 260, "only {run} files were compared");
}
