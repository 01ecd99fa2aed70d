//! Every family of the database: an output channel that is zero arrives somewhere as a null input, or a reason says why not.

use bitcost::channels::Channels;
use bitcost::db::{Db, RowKind};
use bitcost::flow::{Form, Rule, Weights, nulls};
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
    shapes: &'s HashMap<String, Vec<u64>>,
    tensor: &'s str,
    row: usize,
}

impl Weights for OneZero<'_> {
    type Error = Infallible;

    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        form: Form,
    ) -> Result<Channels, Infallible> {
        let (rows, _) = form.sides(&self.shapes[tensor]).expect("a matrix");
        let of_group = null_in.width() / form.groups;
        let dead = |group: usize| {
            let inputs = group * of_group..(group + 1) * of_group;
            inputs.into_iter().all(|input| null_in.contains(input))
        };
        let dead: Vec<bool> = (0..form.groups).map(dead).collect();
        Ok(Channels::of(rows, |row| {
            (tensor == self.tensor && row == self.row) || dead[row / rows.div_ceil(form.groups)]
        }))
    }

    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, Infallible> {
        Ok(Some(vec![
            1.0;
            self.shapes[tensor].iter().product::<u64>()
                as usize
        ]))
    }
}

/// The shape of every tensor, and those that are multiplied, by path in tree order.
fn tensors(tree: &Tree<'_>) -> (HashMap<String, Vec<u64>>, Vec<String>) {
    fn below(
        node: &Rc<Node<'_>>,
        path: &str,
        shapes: &mut HashMap<String, Vec<u64>>,
        multiplied: &mut Vec<String>,
    ) {
        for tensor in node.tensors.iter().chain(&node.buffers) {
            let sides = tensor
                .shape
                .iter()
                .map(|n| u64::try_from(*n).expect("small"));
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
        let id = fixture
            .get("model_id")
            .and_then(Value::as_str)
            .expect("an id");
        match Catalog::embedded()
            .get(id)
            .filter(|model| model.root.is_some())
        {
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
const MOST_PARAMETERS: u64 = 140_000_000;

/// Layers of one module whose first's outputs are the inputs of the second, one by one: row r of the first, or r modulo the
/// width of the second where the first computes gate and value together; of experts that are one tensor, each for itself.
const PAIRS: [(&str, &str); 18] = [
    ("experts.gate_up_proj", "experts.down_proj"),
    ("gate_proj", "down_proj"),
    ("up_proj", "down_proj"),
    ("mlp.gate_up_proj", "mlp.down_proj"),
    ("c_fc", "c_proj"),
    ("fc1", "fc2"),
    ("fc_in", "fc_out"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("wi", "wo"),
    ("wi_0", "wo"),
    ("wi_1", "wo"),
    ("Wi", "Wo"),
    ("lin1", "lin2"),
    ("intermediate.dense", "output.dense"),
    ("intermediate_dense", "output_dense"),
    ("pwconv1", "pwconv2"),
    ("linear_1", "linear_2"),
    ("feed_forward.key", "feed_forward.value"),
];

/// Why an output channel that is zero reaches no layer, with the ends of the names of the layers that it holds for.
const REASONS: [(&str, &[&str]); 7] = [
    (
        "queries and keys make scores, and a score is no channel",
        &[
            "q_proj",
            "k_proj",
            "query",
            "key",
            "q",
            "k",
            "q_lin",
            "k_lin",
            "query_proj",
            "key_proj",
            "q_b_proj",
            "pos_key_proj",
            "pos_query_proj",
        ],
    ),
    (
        "what is added to a stream that is live comes out live",
        &[
            "o_proj",
            "out_proj",
            "down_proj",
            "dense",
            "fc2",
            "c_proj",
            "wo",
            "Wo",
            "o",
            "out_lin",
            "lin2",
            "fc_out",
            "output_dense",
            "linear_2",
            "dense_4h_to_h",
            "pwconv2",
            "attention.output",
            "feed_forward.value",
            "encoder.conv2",
            "project_in",
            "patch_embedding",
            "patch_embeddings.projection",
            "layer1.*.conv2",
            "layer1.*.conv3",
            "layer2.*.conv3",
            "layer3.*.conv3",
            "layer2.*.conv2",
            "layer3.*.conv2",
            "layer4.*.conv2",
            "layer4.*.conv3",
            "shortcut.convolution",
            "downsample.*",
        ],
    ),
    (
        "a norm that subtracts the mean comes next",
        &[
            "embeddings.patch_embeddings",
            "dwconv",
            "embed_proj",
            "encoder.conv.conv",
            "conv_layers.*.conv",
            "feature_projection.projection",
            "downsample.reduction",
            "vocab_transform",
        ],
    ),
    (
        "the function that comes next is not 0 at 0",
        &[
            "receptance",
            "dt_proj",
            "router",
            "mlp.gate",
            "shared_expert_gate",
        ],
    ),
    (
        "it is the output of the model",
        &[
            "classifier",
            "classifier.*",
            "decoder",
            "seq_relationship",
            "cls_classifier",
            "distillation_classifier",
            "dense_prediction",
            "fc",
            "generator_lm_head",
            "head",
            "linear",
            "lm_head",
            "proj_out",
            "project_out",
            "qa_outputs",
            "score",
            "text_projection",
            "visual_projection",
            "vocab_projector",
            "conv_1x1.convolution",
            "adapter.layers.*.conv",
            "adapter.proj",
        ],
    ),
    (
        "a weight that is a direction times a length has no row of zeros",
        &["parametrizations.weight.original1"],
    ),
    (
        "nothing calls it where no second model is given",
        &[
            "crossattention.c_attn",
            "crossattention.c_proj",
            "crossattention.q_attn",
        ],
    ),
];

/// Whether a name ends in whole parts that are `end`.
fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The pair that a tensor is the first of, and the second tensor, if the module has it.
fn second(tensor: &str, shapes: &HashMap<String, Vec<u64>>) -> Option<(&'static str, String)> {
    let stem = tensor.strip_suffix(".weight").unwrap_or(tensor);
    let pair = PAIRS.iter().find(|(first, _)| ends(stem, first))?;
    let (head, tail) = (stem.strip_suffix(pair.0)?, &tensor[stem.len()..]);
    let other = format!("{head}{}{tail}", pair.1);
    shapes.contains_key(&other).then_some((pair.0, other))
}

#[test]
fn a_zero_channel_of_any_layer_of_any_family_arrives_or_has_a_reason_not_to() {
    let db = Db::embedded().expect("the embedded database");
    let (mut classes, mut followed) = (BTreeSet::new(), BTreeSet::new());
    let mut pairs = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    // Layers from which nothing arrives: the end of their name that gives the reason.
    let mut reasons = BTreeSet::new();
    for (id, root, config) in models() {
        let model = Model::load(&db, config, root.as_deref()).expect("a model");
        let class = model.architecture.to_string();
        classes.insert(class.clone());
        let workload = model.workload(&Asked::default()).expect("a workload");
        let tree = model.expand(&workload).expect("a tree");
        let (shapes, multiplied) = tensors(&tree);
        let sizes = shapes.values().map(|sides| sides.iter().product::<u64>());
        if sizes.sum::<u64>() > MOST_PARAMETERS {
            continue;
        }
        followed.insert(class);
        let zeroed = |tensor: &str, row: usize| {
            let shapes = &shapes;
            let mut weights = OneZero {
                shapes,
                tensor,
                row,
            };
            let Ok(found) = nulls(&db, &tree.root, Rule::Weights, &mut weights);
            found.layers
        };
        let layers = zeroed("", 0);
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for tensor in &multiplied {
            alike.entry(pattern(tensor)).or_default().push(tensor);
        }
        for (name, tensors) in alike {
            let mut arrives = false;
            // The first of a list may stand before a norm, the last before the end.
            for tensor in [tensors[0], tensors[tensors.len() / 2]] {
                let Some(layer) = layers.get(tensor) else {
                    continue;
                };
                let rows = layer.null_out.width();
                // Experts whose weights are [in, out] have gate and value in turns.
                let alternates = layer.form.stacked && layer.form.transposed;
                let last_gate = alternates.then(|| rows - 2);
                for row in [0, rows - 1].into_iter().chain(last_gate) {
                    let layers = zeroed(tensor, row);
                    arrives |= layers.values().any(|layer| !layer.null_in.is_empty());
                    let Some((first, other)) = second(tensor, &shapes) else {
                        continue;
                    };
                    pairs.insert(first);
                    let nulls = &layers[&other].null_in;
                    let of_block = |all: usize| all / layer.form.groups;
                    let (own, width) = (of_block(rows), of_block(nulls.width()));
                    let wanted = match alternates {
                        // What a gate is multiplied with gets 1 added first.
                        true if row % 2 == 1 => None,
                        true => Some(row / 2),
                        false => Some(row / own * width + row % own % width),
                    };
                    if nulls.iter().ne(wanted) {
                        wrong.insert(format!(
                            "{id}: {tensor} row {row} arrives at {other} as {nulls:?}"
                        ));
                    }
                }
            }
            if arrives {
                continue;
            }
            let of = REASONS.iter().flat_map(|(_, of)| of.iter());
            let ends_in = of
                .filter(|end| ends(&name, end))
                .max_by_key(|end| end.len());
            match ends_in {
                Some(end) => {
                    reasons.insert(*end);
                }
                None => {
                    wrong.insert(format!("{id}: from {name} nothing arrives anywhere"));
                }
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(followed, classes, "classes whose models are all too large");
    let unused = REASONS.iter().flat_map(|(_, of)| of.iter().copied());
    let unused: Vec<&str> = unused.filter(|end| !reasons.contains(end)).collect();
    assert!(unused.is_empty(), "reasons that nothing needs: {unused:?}");
    let missing: Vec<_> = PAIRS
        .iter()
        .filter(|(first, _)| !pairs.contains(first))
        .collect();
    assert!(missing.is_empty(), "pairs that no model has: {missing:?}");
}
