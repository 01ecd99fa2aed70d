//! What the analyzer says of the module that ran.

use super::load::Opened;
use crate::analysis::{self, Options};
use crate::db::Db;
use crate::model::{Asked, Model, ModelError, TERNARY_BITS};
use crate::report::run::Predicted;

/// Width of the activations that kernels multiply.
const ACTIVATION_BITS: u32 = 8;

/// The cost of a module for so many tokens with ternary weights and 8-bit activations, from the model's tree: that of its
/// config, else the one that names and shapes of the tensors give. Where there is none, a note says why: the layer runs all the
/// same.
pub(super) fn of(
    db: &Db,
    opened: &Opened,
    path: &str,
    tokens: usize,
) -> (Option<Predicted>, Vec<(&'static str, String)>) {
    match row(db, opened, path, tokens) {
        Ok(Some(predicted)) => (Some(predicted), Vec::new()),
        Ok(None) => {
            let note = format!("the model's tree has no module `{path}`");
            (None, vec![("not_predicted", note)])
        }
        Err(e) => {
            let note = format!("the model's tree cannot be built: {e}");
            (None, vec![("not_predicted", note)])
        }
    }
}

fn row(
    db: &Db,
    opened: &Opened,
    path: &str,
    tokens: usize,
) -> Result<Option<Predicted>, ModelError> {
    let model = match &opened.files.config {
        Some(config) => match Model::load(db, config.clone(), opened.files.root.as_deref()) {
            Err(ModelError::NoArchitecture(_)) => Model::without_class(db, Some(config.clone())),
            loaded => loaded?,
        },
        None => Model::without_class(db, None),
    };
    let asked = Asked {
        batch: Some(tokens as u64),
        seq_len: Some(1),
        weight_bits: Some(TERNARY_BITS),
        activation_bits: Some(ACTIVATION_BITS),
        ..Asked::default()
    };
    let workload = model.workload(&asked)?;
    let options = Options {
        expand: true,
        ..Options::default()
    };
    let analysis = analysis::analyze(&model, Some(&opened.headers), &workload, options)?;
    let row = analysis.rows.iter().find(|row| row.path == path);
    Ok(row.map(|row| Predicted {
        class: row.class.to_string(),
        macs: row.all.macs,
        flops: row.all.flops,
        bops: row.all.bops,
        read_bytes: row.all.read,
        write_bytes: row.all.write,
    }))
}
