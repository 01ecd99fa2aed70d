//! Every family of the database: an output channel that is zero arrives somewhere as a null input, or a reason says why not.

use bitcost::channels::Channels;
use bitcost::db::{Db, RowKind};
use bitcost::flow::{Rule, Weights, nulls};
use bitcost::model::{Asked, Model, Node, Tree, path_below};
use bitcost::source::Catalog;
use bitcost::value::{Object, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Weights without any zero, but for one output channel of one tensor.
struct OneZero<'s> {
    shapes: &'s HashMap<String, Vec<usize>>,
    tensor: &'s str,
    row: usize,
}

impl Weights for OneZero<'_> {
    type Error = Infallible;

    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        groups: usize,
        transposed: bool,
    ) -> Result<Channels, Infallible> {
        let rows = self.shapes[tensor][usize::from(transposed)];
        let of_group = null_in.width() / groups;
        let dead = |group: usize| {
            let inputs = group * of_group..(group + 1) * of_group;
            inputs.into_iter().all(|input| null_in.contains(input))
        };
        let dead: Vec<bool> = (0..groups).map(dead).collect();
        Ok(Channels::of(rows, |row| {
            (tensor == self.tensor && row == self.row) || dead[row / rows.div_ceil(groups)]
        }))
    }

    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, Infallible> {
        Ok(Some(vec![1.0; self.shapes[tensor].iter().product()]))
    }
}

/// The shape of every tensor, and those that are multiplied, by path in tree order.
fn tensors(tree: &Tree<'_>) -> (HashMap<String, Vec<usize>>, Vec<String>) {
    fn below(
        node: &Rc<Node<'_>>,
        path: &str,
        shapes: &mut HashMap<String, Vec<usize>>,
        multiplied: &mut Vec<String>,
    ) {
        for tensor in node.tensors.iter().chain(&node.buffers) {
            let sides = tensor.shape.iter().map(|n| usize::try_from(*n).expect("small"));
            shapes.insert(path_below(path, &tensor.name), sides.collect());
        }
        let rows = node.work.iter();
        for row in rows.filter(|row| matches!(row.kind, RowKind::WeightMac)) {
            let tensor = path_below(path, row.operand.expect("a weight"));
            if !multiplied.contains(&tensor) {
                multiplied.push(tensor);
            }
        }
        for (name, child) in &node.children {
            below(child, &path_below(path, name), shapes, multiplied);
        }
    }
    let (mut shapes, mut multiplied) = (HashMap::new(), Vec::new());
    below(&tree.root, "", &mut shapes, &mut multiplied);
    (shapes, multiplied)
}

/// `layers.0.mlp.fc1.weight` -> `layers.*.mlp.fc1`.
fn pattern(tensor: &str) -> String {
    let parts = tensor.strip_suffix(".weight").unwrap_or(tensor).split('.');
    let starred = parts.map(|part| {
        let number = part.bytes().all(|b| b.is_ascii_digit());
        if number { "*" } else { part }
    });
    starred.collect::<Vec<_>>().join(".")
}

/// Models of the oracle with their configs: file, root class, config.
fn models() -> Vec<(String, Option<Arc<str>>, Arc<Object>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle");
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a fixture");
        let Value::Object(fixture) = bitcost::json::read(&text).expect("JSON") else {
            panic!("{}: an object", path.display())
        };
        let id = fixture.get("model_id").and_then(Value::as_str).expect("an id");
        match Catalog::embedded().get(id).filter(|model| model.root.is_some()) {
            Some(known) => (id.to_string(), known.root, known.config),
            None => match fixture.get("config") {
                Some(Value::Object(config)) => (id.to_string(), None, config.clone()),
                _ => panic!("{id}: a config"),
            },
        }
    };
    paths.iter().map(read).collect()
}

/// Models of more parameters say the same as smaller ones of their class, and take long.
const MOST_PARAMETERS: u128 = 100_000_000;

#[test]
fn survey() {
    let db = Db::embedded().expect("the embedded database");
    let mut dead: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut live: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut all = BTreeSet::new();
    for (id, root, config) in models() {
        let model = Model::load(&db, config, root.as_deref()).expect("a model");
        let class = model.architecture.to_string();
        all.insert(class.clone());
        let workload = model.workload(&Asked::default()).expect("a workload");
        let tree = model.expand(&workload).expect("a tree");
        let (shapes, multiplied) = tensors(&tree);
        let elements: u128 = shapes.values().map(|s| s.iter().product::<usize>() as u128).sum();
        if elements > MOST_PARAMETERS { continue; }
        seen.insert(class.clone());
        let mut done = BTreeSet::new();
        for tensor in &multiplied {
            let name = pattern(tensor);
            if !done.insert(name.clone()) { continue; }
            let mut arrived = BTreeSet::new();
            let shape = &shapes[tensor];
            let mut walked = false;
            for row in [0, shape[0] - 1, shape.get(1).map_or(0, |n| n - 1)] {
                let mut weights = OneZero { shapes: &shapes, tensor, row };
                let Ok(found) = nulls(&db, &tree.root, Rule::Weights, &mut weights);
                walked |= found.layers.contains_key(tensor);
                arrived.extend(found.layers.iter().filter(|(_, l)| !l.null_in.is_empty()).map(|(n, _)| pattern(n)));
            }
            if arrived.is_empty() {
                let key = format!("{name}{}", if walked { "" } else { " (not walked)" });
                dead.entry(key).or_default().entry(class.clone()).or_default().insert(id.clone());
            } else {
                live.entry(format!("{name} -> {arrived:?}")).or_default().insert(class.clone());
            }
        }
    }
    println!("uncovered {:?}", all.difference(&seen).collect::<Vec<_>>());
    for (name, classes) in &dead {
        println!("DEAD {name}: {}", classes.iter().map(|(c, ids)| format!("{c}({})", ids.first().expect("one"))).collect::<Vec<_>>().join(", "));
    }
    for (name, classes) in &live {
        println!("LIVE {name}: {classes:?}");
    }
}
