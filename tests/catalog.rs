//! The embedded catalog: every model's computed parameters against the count that its publisher states.

use bitcost::analysis::{Options, analyze};
use bitcost::db::Db;
use bitcost::model::{Asked, Model};
use bitcost::source::Catalog;

/// `n` with all but the first `digits` digits rounded away.
fn rounded(n: u128, digits: u32) -> u128 {
    let unit = 10u128.pow(n.to_string().len() as u32 - digits.min(n.to_string().len() as u32));
    (n + unit / 2) / unit * unit
}

#[test]
fn rounding_keeps_the_published_digits() {
    assert_eq!(rounded(22_713_216, 3), 22_700_000);
    assert_eq!(rounded(269_722, 2), 270_000);
    assert_eq!(rounded(96, 1), 100);
}

#[test]
fn every_model_has_the_parameters_that_its_publisher_states() {
    let db = Db::embedded().expect("the embedded database");
    let catalog = Catalog::embedded();
    let mut wrong = Vec::new();
    let mut exact = 0;
    for id in catalog.ids() {
        let model = catalog
            .get(id)
            .unwrap_or_else(|| panic!("{id}: config and published count"));
        let outcome =
            Model::load(&db, model.config.clone(), model.root.as_deref()).and_then(|loaded| {
                let workload = loaded.workload(&Asked::default())?;
                analyze(&loaded, None, &workload, Options::default())
            });
        let analysis = match outcome {
            Ok(analysis) => analysis,
            Err(e) => {
                wrong.push(format!("{id}: {e}"));
                continue;
            }
        };
        if let Some(note) = analysis.notes.iter().find(|n| n.code == "unresolved") {
            wrong.push(format!("{id}: {}", note.message));
            continue;
        }
        let params = analysis.totals.all.params;
        let published = &model.published;
        let agrees = match published.digits {
            None => params == published.params,
            Some(digits) => rounded(params, digits) == published.params,
        };
        exact += u32::from(published.digits.is_none());
        if !agrees {
            wrong.push(format!(
                "{id}: {params} parameters, published {} ({})",
                published.params, published.source
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} models:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(catalog.ids().count() >= 80, "at least 80 models");
    assert!(exact >= 80, "most counts are exact: {exact}");
}

#[test]
fn ids_are_found_in_any_case() {
    let catalog = Catalog::embedded();
    assert_eq!(
        catalog
            .get("META-LLAMA/llama-2-7b-hf")
            .map(|m| m.id.to_string())
            .as_deref(),
        Some("meta-llama/Llama-2-7b-hf")
    );
}
