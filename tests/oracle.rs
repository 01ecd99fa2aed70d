//! Every model of `fixtures/oracle` against what torch counts, module by module.
//!
//! A fixture holds a config, torch's module tree (path, class, own parameters) and for each run the FLOPs that
//! FlopCounterMode gives each module, all its calls and children included (null: never called). List items that equal an
//! earlier one are left out; `equal` says which. fixtures/README.md says how the files are made.

use bitcost::analysis::{Analysis, Options, analyze};
use bitcost::db::Db;
use bitcost::json;
use bitcost::model::{Asked, Model, Phase};
use bitcost::source::Catalog;
use bitcost::value::{Object, Value};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

struct Fixture {
    id: String,
    config: Arc<Object>,
    root: Option<Arc<str>>,
    params: i128,
    /// List path -> item -> the earlier item that it equals.
    equal: HashMap<String, HashMap<String, i128>>,
    /// Path, class, own parameters.
    modules: Vec<(String, String, i128)>,
    runs: Vec<Arc<Object>>,
}

fn int(object: &Object, key: &str) -> Option<i128> {
    object.get(key).and_then(Value::as_int)
}

fn list<'o>(object: &'o Object, key: &str) -> &'o [Value] {
    match object.get(key) {
        Some(Value::List(items)) => items,
        other => panic!("`{key}` is no list but {other:?}"),
    }
}

fn read(path: &Path) -> Fixture {
    let text = std::fs::read_to_string(path).expect("the fixture can be read");
    let Value::Object(o) = json::read(&text).expect("the fixture is JSON") else {
        panic!("the fixture is an object")
    };
    let id = o
        .get("model_id")
        .and_then(Value::as_str)
        .expect("a model id")
        .to_string();
    // Torchvision's and CIFAR's models have no config file; the catalog describes them.
    let from_catalog = id.starts_with("torchvision/") || id.starts_with("cifar/");
    let (config, root) = if from_catalog {
        let model = Catalog::embedded().get(&id).expect("the catalog has it");
        (model.config, model.root)
    } else {
        let Some(Value::Object(config)) = o.get("config") else {
            panic!("a config")
        };
        (config.clone(), None)
    };
    let equal = o.get("equal").and_then(Value::as_object).expect("`equal`");
    let equal = equal.0.iter().map(|(path, items)| {
        let items = items
            .as_object()
            .expect("an object")
            .0
            .iter()
            .map(|(n, first)| (n.to_string(), first.as_int().expect("an index")));
        (path.to_string(), items.collect())
    });
    let modules = list(&o, "modules").iter().map(|m| match m {
        Value::List(m) => (
            m[0].as_str().expect("a path").into(),
            m[1].as_str().expect("a class").into(),
            m[2].as_int().expect("a count"),
        ),
        other => panic!("{other}"),
    });
    let runs = list(&o, "runs").iter().map(|run| match run {
        Value::Object(run) => run.clone(),
        other => panic!("{other}"),
    });
    Fixture {
        equal: equal.collect(),
        modules: modules.collect(),
        runs: runs.collect(),
        params: int(&o, "params").expect("a count"),
        id,
        config,
        root,
    }
}

impl Fixture {
    /// The path under which the fixture keeps a module: equal items stand under the first of them.
    fn kept(&self, path: &str) -> String {
        let mut kept = String::new();
        for part in path.split('.').filter(|p| !p.is_empty()) {
            let first = self
                .equal
                .get(&kept)
                .and_then(|items| items.get(part))
                .map(i128::to_string);
            let part = first.as_deref().unwrap_or(part);
            kept = if kept.is_empty() {
                part.into()
            } else {
                format!("{kept}.{part}")
            };
        }
        kept
    }

    fn asked(run: &Object) -> Asked {
        let size = |key: &str| int(run, key).map(|n| u64::try_from(n).expect("a size"));
        let phase = run.get("phase").and_then(Value::as_str).expect("a phase");
        let phase = Phase::ALL
            .iter()
            .find(|(name, _)| *name == phase)
            .map(|(_, p)| *p);
        Asked {
            phase,
            batch: size("batch"),
            seq_len: size("seq"),
            past_len: size("past"),
            dec_seq_len: size("dec_seq"),
            ..Asked::default()
        }
    }

    /// How an analysis of one run differs from torch.
    fn differences(&self, run: &Object, analysis: &Analysis) -> Vec<String> {
        let flops = list(run, "flops");
        let theirs: HashMap<&str, (&str, i128, &Value)> = self
            .modules
            .iter()
            .zip(flops)
            .map(|((path, class, own), flops)| (path.as_str(), (class.as_str(), *own, flops)))
            .collect();
        let mut out = Vec::new();
        if analysis.totals.all.params != self.params as u128 {
            out.push(format!(
                "params {} != {}",
                analysis.totals.all.params, self.params
            ));
        }
        let mut met = std::collections::HashSet::new();
        for row in &analysis.rows {
            let kept = self.kept(&row.path);
            let Some((class, own, flops)) = theirs.get(kept.as_str()) else {
                out.push(format!("{}: not in torch", row.path));
                continue;
            };
            if row.class.rsplit('.').next() != Some(class) {
                out.push(format!("{}: class {} != {class}", row.path, row.class));
            }
            if row.own.params != *own as u128 {
                out.push(format!(
                    "{}: own params {} != {own}",
                    row.path, row.own.params
                ));
            }
            if flops
                .as_int()
                .is_some_and(|flops| 2 * row.all.macs != flops as u128)
            {
                out.push(format!(
                    "{}: 2 * macs {} != {flops}",
                    row.path,
                    2 * row.all.macs
                ));
            }
            met.insert(kept);
        }
        for ((path, class, own), flops) in self.modules.iter().zip(flops) {
            let works = *own > 0 || flops.as_int().is_some_and(|f| f > 0);
            if works && !met.contains(path) {
                out.push(format!("{path}: missing ({class})"));
            }
        }
        let sum: u128 = analysis
            .rows
            .iter()
            .map(|row| row.count * row.own.macs)
            .sum();
        if sum != analysis.totals.all.macs {
            out.push(format!(
                "rows add up to {sum} MACs, the total is {}",
                analysis.totals.all.macs
            ));
        }
        out
    }
}

/// Checks every fixture whose number is `part` modulo `parts`, so that the parts run side by side.
fn check(part: usize, parts: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oracle");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("fixtures/oracle")
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 450,
        "the fixtures are there: {}",
        files.len()
    );
    let db = Db::embedded().expect("the embedded database");
    let (mut wrong, mut runs) = (Vec::new(), 0);
    for file in files.iter().skip(part).step_by(parts) {
        let fixture = read(file);
        let outcome = (|| -> Result<Vec<String>, bitcost::model::ModelError> {
            let model = Model::load(&db, fixture.config.clone(), fixture.root.as_deref())?;
            let mut out = Vec::new();
            for run in &fixture.runs {
                runs += 1;
                let asked = Fixture::asked(run);
                let workload = model.workload(&asked)?;
                let expanded = analyze(
                    &model,
                    None,
                    &workload,
                    Options {
                        expand: true,
                        ..Options::default()
                    },
                )?;
                let collapsed = analyze(&model, None, &workload, Options::default())?;
                out.extend(fixture.differences(run, &expanded));
                let sum: u128 = collapsed
                    .rows
                    .iter()
                    .map(|row| row.count * row.own.macs)
                    .sum();
                if sum != expanded.totals.all.macs || collapsed.totals.all != expanded.totals.all {
                    out.push("collapsed and expanded totals differ".into());
                }
                if let Some(cache) = int(run, "cache") {
                    let past = Asked {
                        phase: Some(Phase::Prefill),
                        seq_len: asked.past_len,
                        past_len: None,
                        ..asked
                    };
                    let held = analyze(&model, None, &model.workload(&past)?, Options::default())?;
                    let held = held.totals.kv_cache_bytes * 8 / u128::from(workload.widths.kv);
                    if held != cache as u128 {
                        out.push(format!("cache {held} != {cache} elements"));
                    }
                }
            }
            Ok(out)
        })();
        match outcome {
            Ok(out) if out.is_empty() => {}
            Ok(out) => wrong.push(format!(
                "{}: {} differences: {}",
                fixture.id,
                out.len(),
                out[..out.len().min(3)].join("; ")
            )),
            Err(e) => wrong.push(format!("{}: {e}", fixture.id)),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {runs} runs' models differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn torch_agrees_module_by_module_1_of_4() {
    check(0, 4);
}

#[test]
fn torch_agrees_module_by_module_2_of_4() {
    check(1, 4);
}

#[test]
fn torch_agrees_module_by_module_3_of_4() {
    check(2, 4);
}

#[test]
fn torch_agrees_module_by_module_4_of_4() {
    check(3, 4);
}
