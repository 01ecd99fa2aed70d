//! Models that are recognised by their tensors alone: every one that a graph is written for, and no other.

mod common;

use bitcost::db::{Db, Tensors};
use bitcost::join::{Headers, contradictions};
use bitcost::model::{Asked, Model, Node, path_below};
use bitcost::source::Catalog;
use bitcost::value::{Object, Value};
use common::headers::{HeaderOnly, Line, spelled_out};
use common::weights::{Floats, floats};
use common::{Folder, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Shapes of tensors by name.
type Shapes = BTreeMap<String, Vec<u64>>;

fn class_of(model: &Model<'_>) -> Arc<str> {
    model.root.expect("an entry").path.clone()
}

/// Class and config of the graph that a checkpoint is recognised as.
fn recognised(db: &Db, lines: &[Line]) -> Option<(Arc<str>, Arc<Object>)> {
    let headers = Headers::read(&HeaderOnly::new(lines), None)
        .expect("headers")
        .expect("weights");
    let weights = headers.weights.weights.iter();
    let tensors = Tensors::new(weights.map(|w| (&*w.name, w.shape.as_deref())));
    db.graphs()
        .expect("the table")
        .into_iter()
        .find_map(|graph| {
            let config = Arc::new(graph.config_of(&tensors)?);
            graph.classes.into_iter().find_map(|class| {
                let model = Model::load(db, config.clone(), Some(&class)).expect("a model");
                let fits = contradictions(&model, &headers).is_ok_and(|found| found.is_empty());
                fits.then(|| (class_of(&model), config.clone()))
            })
        })
}

/// Every tensor of a model with its shape.
fn tensors(db: &Db, class: &str, config: Arc<Object>) -> Shapes {
    fn below(node: &Rc<Node<'_>>, path: &str, out: &mut Shapes) {
        for tensor in node.tensors.iter().chain(&node.buffers) {
            let sides = tensor
                .shape
                .iter()
                .map(|n| u64::try_from(*n).expect("fits"));
            out.insert(path_below(path, &tensor.name), sides.collect());
        }
        for (name, child) in &node.children {
            below(child, &path_below(path, name), out);
        }
    }
    let model = Model::load(db, config, Some(class)).expect("a model");
    let workload = model.workload(&Asked::default()).expect("a workload");
    let mut out = BTreeMap::new();
    below(&model.expand(&workload).expect("a tree").root, "", &mut out);
    out
}

fn lines_of(tensors: &Shapes) -> Vec<Line> {
    let line = |(name, shape): (&String, &Vec<u64>)| (name.clone(), "F32".into(), shape.clone());
    tensors.iter().map(line).collect()
}

/// The families that graphs are written for, by the beginnings of their ids.
const TOLD: [&str; 2] = ["torchvision/", "cifar/"];

#[test]
fn every_model_of_the_catalog_that_has_no_config_file_is_told_by_its_tensors() {
    let db = Db::embedded().expect("the embedded database");
    let catalog = Catalog::embedded();
    let mut told = 0;
    for id in catalog
        .ids()
        .filter(|id| TOLD.iter().any(|of| id.starts_with(of)))
    {
        let known = catalog.get(id).expect("it has it");
        let class = known.root.expect("a class");
        let wanted = tensors(&db, &class, known.config);
        let (found, config) =
            recognised(&db, &lines_of(&wanted)).unwrap_or_else(|| panic!("{id}: not recognised"));
        assert_eq!(found, class, "{id}");
        assert_eq!(tensors(&db, &found, config), wanted, "{id}");
        told += 1;
    }
    assert!(told >= 27, "only {told} models");
}

/// The files that libraries write: name, class of the model, tensors.
fn fixtures(db: &Db) -> Vec<(String, Arc<str>, Vec<Line>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let entries = std::fs::read_dir(folder.join("tensors")).expect("a folder");
    let mut names: Vec<PathBuf> = entries
        .map(|e| e.expect("an entry").file_name().into())
        .collect();
    names.sort();
    let object = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a fixture");
        match bitcost::json::read(&text).expect("JSON") {
            Value::Object(object) => object,
            _ => panic!("{}: an object", path.display()),
        }
    };
    let read = |name: &PathBuf| {
        let oracle = object(folder.join("oracle").join(name));
        let id = oracle
            .get("model_id")
            .and_then(Value::as_str)
            .expect("an id");
        let known = Catalog::embedded()
            .get(id)
            .filter(|known| known.root.is_some());
        let (root, config) = match (known, oracle.get("config")) {
            (Some(known), _) => (known.root, known.config),
            (None, Some(Value::Object(config))) => (None, config.clone()),
            _ => panic!("{id}: a config"),
        };
        let model = Model::load(db, config, root.as_deref()).expect("a model");
        let fixture = object(folder.join("tensors").join(name));
        let Some(Value::List(rows)) = fixture.get("tensors") else {
            panic!("{id}: a list of tensors")
        };
        let mut lines: Vec<Line> = Vec::new();
        for row in rows.iter() {
            let Value::List(parts) = row else {
                panic!("a tensor")
            };
            let (name, dtype) = (parts[0].as_str(), parts[1].as_str().expect("a dtype"));
            let Value::List(shape) = &parts[2] else {
                panic!("a shape")
            };
            let size = |n: &Value| n.as_int().and_then(|n| n.try_into().ok()).expect("a size");
            let shape: Vec<u64> = shape.iter().map(size).collect();
            for name in spelled_out(name.expect("a name")) {
                lines.push((name, dtype.into(), shape.clone()));
            }
        }
        (id.to_string(), class_of(&model), lines)
    };
    names.iter().map(read).collect()
}

/// Families that share names and shapes, and what a file of theirs is taken for.
const LIKE_LLAMA: [&str; 5] = [
    ".LlamaForCausalLM",
    ".MistralForCausalLM",
    ".GemmaForCausalLM",
    ".GraniteForCausalLM",
    ".Qwen2ForCausalLM",
];
const SHAPED: &str = "shapes.llama.ShapedForCausalLM";

#[test]
fn files_as_libraries_write_them_are_told_and_those_of_other_families_are_not() {
    let db = Db::embedded().expect("the embedded database");
    let graphs = db.graphs().expect("the table");
    let mut classes = BTreeMap::from_iter(
        graphs
            .into_iter()
            .flat_map(|graph| graph.classes)
            .map(|class| (class, 0)),
    );
    let mut others = 0;
    for (id, class, lines) in fixtures(&db) {
        let found = recognised(&db, &lines).map(|(class, _)| class);
        match classes.get_mut(&class) {
            Some(told) => {
                assert_eq!(found, Some(class), "{id}");
                *told += 1;
            }
            None if LIKE_LLAMA.iter().any(|like| class.ends_with(like)) => {
                assert_eq!(found.as_deref(), Some(SHAPED), "{id}");
                *classes.get_mut(SHAPED).expect("a graph") += 1;
            }
            None => {
                assert_eq!(found, None, "{id}");
                others += 1;
            }
        }
    }
    assert!(classes.values().all(|told| *told > 0), "{classes:?}");
    assert!(others >= 380, "{others}");
}

fn of_catalog(id: &str) -> Shapes {
    let db = Db::embedded().expect("the embedded database");
    let known = Catalog::embedded().get(id).expect("it has it");
    tensors(&db, &known.root.expect("a class"), known.config)
}

fn is_recognised(change: impl Fn(&mut Shapes)) -> bool {
    let mut tensors = of_catalog("torchvision/resnet18");
    change(&mut tensors);
    let db = Db::embedded().expect("the embedded database");
    recognised(&db, &lines_of(&tensors)).is_some()
}

#[test]
fn a_model_that_only_resembles_another_is_not_taken_for_it() {
    assert!(is_recognised(|_| {}));
    // Another number of labels is still the same model.
    assert!(is_recognised(|tensors| {
        tensors.insert("fc.weight".into(), vec![7, 512]);
        tensors.insert("fc.bias".into(), vec![7]);
    }));
    // Files may leave out statistics, which are buffers.
    assert!(is_recognised(|tensors| {
        tensors.remove("bn1.running_mean");
    }));
    // A stem for small images has other strides than the one of the class, which no shape tells.
    assert!(!is_recognised(|tensors| {
        tensors.insert("conv1.weight".into(), vec![64, 3, 3, 3]);
    }));
    // A block of another kind beside the known ones.
    assert!(!is_recognised(|tensors| {
        tensors.insert("layer1.0.se.fc1.weight".into(), vec![4, 64, 1, 1]);
    }));
    assert!(!is_recognised(|tensors| {
        tensors.remove("layer3.0.downsample.0.weight");
    }));
    assert!(!is_recognised(|tensors| {
        tensors.insert("layer2.0.conv1.weight".into(), vec![100, 64, 3, 3]);
    }));
}

#[test]
fn names_that_no_library_writes_do_no_harm() {
    let db = Db::embedded().expect("the embedded database");
    let line = |name: &str, shape: &[u64]| (name.to_string(), "F32".to_string(), shape.to_vec());
    let deep = "a.".repeat(5_000) + "b";
    let odd = [
        line("conv1.weight", &[0, 0, 0, 0]),
        line("bn1.weight", &[]),
        line("layer1.0.conv2.weight", &[64, 0, 3, 3]),
        line("layer4.0.conv2.weight", &[64, 64, 3, 3]),
        line("layer4.18446744073709551615.conv2.weight", &[1]),
        line("layer4.99999999999999999999999.conv2.weight", &[1]),
        line("fc.weight", &[]),
        line("fc.weight.0", &[1]),
        line("features.0.weight", &[1]),
        line("features.4000000000.weight", &[1]),
        line("..", &[1]),
        line("", &[1]),
        line(&deep, &[1]),
    ];
    assert!(recognised(&db, &odd).is_none());
}

/// A file of a model of the catalog, ones everywhere but where `zero` makes zeros.
fn written(id: &str, zero: impl Fn(&str, &mut [f32])) -> Vec<u8> {
    let db = Db::embedded().expect("the embedded database");
    let known = Catalog::embedded().get(id).expect("it has it");
    let shapes = tensors(&db, &known.root.expect("a class"), known.config);
    let sides: Vec<(String, Vec<usize>)> = shapes
        .into_iter()
        .map(|(name, shape)| (name, shape.iter().map(|n| *n as usize).collect()))
        .collect();
    let named: Vec<Floats<'_>> = sides
        .iter()
        .map(|(name, shape)| {
            let mut numbers = vec![1.0; shape.iter().product()];
            zero(name, &mut numbers);
            (&**name, &**shape, numbers)
        })
        .collect();
    floats(&named)
}

#[test]
fn compare_recognises_a_file_without_a_config_and_follows_its_channels() {
    let folder = Folder::new();
    // The first block's 3 x 3 convolution has one weight of 9 per channel: channels 2 and 5 go.
    let bytes = written("torchvision/mobilenet_v3_small", |name, numbers| {
        if name == "features.1.block.0.0.weight" {
            numbers[2 * 9..3 * 9].fill(0.0);
            numbers[5 * 9..6 * 9].fill(0.0);
        }
    });
    let file = folder.write("small.safetensors", &bytes);
    let got = json(&["compare", "--only", &file, "--format", "json"]);
    let graph = common::at(&got, "conventions.graph");
    assert_eq!(graph.as_str(), Some("torchvision-mobilenet_v3_small"));
    let layers = common::list(&got, "layers");
    let projection = layers
        .iter()
        .find(|layer| common::at(layer, "name").as_str() == Some("features.1.block.2.0"));
    let nulls = common::list(projection.expect("a layer"), "null_in_channels");
    let nulls: Vec<i128> = nulls.iter().filter_map(Value::as_int).collect();
    assert_eq!(nulls, [2, 5]);
}

/// Notes of a kind about a file alone: their paths and messages.
fn notes(file: &str, args: &[&str], code: &str) -> Vec<(String, String)> {
    let got = json(&[&["compare", "--only", file, "--format", "json"], args].concat());
    let text = |note: &Value, key| common::at(note, key).as_str().expect("a text").to_string();
    let notes = common::list(&got, "notes").into_iter();
    let of = notes.filter(|note| text(note, "code") == code);
    of.map(|note| (text(&note, "path"), text(&note, "message")))
        .collect()
}

#[test]
fn a_file_that_resembles_a_model_is_told_what_speaks_against_it() {
    let folder = Folder::new();
    let write = |name: &str, change: &dyn Fn(&mut Shapes)| {
        let mut tensors = of_catalog("cifar/resnet20");
        change(&mut tensors);
        let sides: Vec<(String, Vec<usize>)> = tensors
            .into_iter()
            .map(|(name, shape)| (name, shape.iter().map(|n| *n as usize).collect()))
            .collect();
        let ones = |shape: &[usize]| vec![1.0; shape.iter().product()];
        let named: Vec<Floats<'_>> = sides
            .iter()
            .map(|(name, shape)| (&**name, &**shape, ones(shape)))
            .collect();
        folder.write(name, floats(&named))
    };
    let same = write("same.safetensors", &|_| {});
    assert_eq!(notes(&same, &[], "resembles"), []);
    let other = write("other.safetensors", &|tensors| {
        tensors.remove("layer2.1.bn1.bias");
        tensors.insert("layer3.0.se.weight".into(), vec![4, 64]);
    });
    let found = notes(&other, &[], "resembles");
    let [(path, message)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(path, "layer2.1.bn1.bias");
    for part in [
        "its tensors resemble those of cifar-resnet",
        "1 parameter that the model has and the checkpoint lacks: layer2.1.bn1.bias",
        "1 tensor that the checkpoint has and the model lacks: layer3.0.se.weight",
        "--graph cifar-resnet",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // Whoever says what it is needs no hint, and tensors of nothing known resemble nothing.
    assert_eq!(notes(&other, &["--graph", "cifar-resnet"], "resembles"), []);
    assert_eq!(notes(&other, &["--graph", "none"], "resembles"), []);
    let foreign = folder.write(
        "foreign.safetensors",
        floats(&[("a", &[2, 2], vec![1.0; 4])]),
    );
    assert_eq!(notes(&foreign, &[], "resembles"), []);
}
