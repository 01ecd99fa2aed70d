//! What the reader of a report has to know: classes without an entry, assumed widths, notes of entries.

use crate::db::Task;
use crate::join::{Finding, Headers};
use crate::model::{Model, ModelError, Node, Tree, Workload, path_below, stub};
use crate::units;
use std::rc::Rc;

/// A finding attached to a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A short stable name.
    pub code: String,
    /// The module it is about.
    pub path: String,
    /// What it says.
    pub message: String,
}

/// What the whole model gives reason to note.
pub(super) fn model_notes(
    model: &Model<'_>,
    workload: &Workload,
    tree: &Tree<'_>,
    headers: Option<&Headers>,
) -> Result<Vec<Note>, ModelError> {
    let mut notes = unresolved_notes(tree);
    notes.extend(position_notes(model, workload)?);
    // What is stored leaves nothing to be assumed.
    notes.extend(dtype_note(model, workload).filter(|_| headers.is_none()));
    notes.extend(width_notes(model, workload, headers.is_some()));
    Ok(notes)
}

/// The notes of the entries of a tree; each shared node is asked once.
pub(super) fn entry_notes(
    node: &Rc<Node<'_>>,
    path: &str,
    seen: &mut Vec<*const u8>,
    notes: &mut Vec<Note>,
) {
    let pointer = Rc::as_ptr(node).cast::<u8>();
    if seen.contains(&pointer) {
        return;
    }
    seen.push(pointer);
    for (code, message) in &node.notes {
        if !notes
            .iter()
            .any(|n| n.code == **code && n.message == **message)
        {
            notes.push(Note {
                code: code.to_string(),
                path: path.into(),
                message: message.to_string(),
            });
        }
    }
    for (name, child) in &node.children {
        let path = path_below(path, name);
        entry_notes(child, &path, seen, notes);
    }
}

/// A note for each class without an entry: what is missing, and the stub of an entry.
pub fn unresolved_notes(tree: &Tree<'_>) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for (class, path, error) in &tree.unresolved {
        let message = format!(
            "{}; its cost is not in the totals. Describe it in a file and pass it with --module-db: {}",
            error.reason,
            stub(class)
        );
        if !notes.iter().any(|n| n.message == message) {
            notes.push(Note {
                code: "unresolved".into(),
                path: path.clone(),
                message,
            });
        }
    }
    notes
}

/// What a checkpoint gives reason to note: odd files, tensors that could not be told, disagreements with the model.
pub(super) fn stored_notes(headers: Option<&Headers>, findings: Vec<Finding>) -> Vec<Note> {
    let Some(headers) = headers else {
        return Vec::new();
    };
    let note = |path: &str, message: String| Note {
        code: "checkpoint".into(),
        path: path.into(),
        message,
    };
    let files = headers
        .checkpoint
        .notes
        .iter()
        .map(|odd| note("", odd.clone()));
    let tensors = headers.weights.notes.iter().map(|odd| {
        let more = match odd.more {
            0 => String::new(),
            more => format!(" (and {} more)", units::counted(more.into(), "tensor")),
        };
        note(
            odd.tensor.as_deref().unwrap_or_default(),
            format!("{}{more}", odd.text),
        )
    });
    let found = findings.into_iter().map(|finding| Note {
        code: finding.code.into(),
        path: finding.path,
        message: finding.message,
    });
    files.chain(tensors).chain(found).collect()
}

/// What the config says of widths and the program does not know.
pub(super) fn width_notes(model: &Model<'_>, workload: &Workload, stored: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |code: &str, message: String| {
        notes.push(Note {
            code: code.into(),
            path: String::new(),
            message,
        });
    };
    if model.class_assumed {
        let class = model.root.map_or(&*model.architecture, |root| &*root.path);
        add(
            "class",
            format!("the config names no class; {class} by its model_type (--class changes it)"),
        );
    }
    if let Some(written) = model.unknown_dtype() {
        let written = written.describe();
        add(
            "dtype",
            format!(
                "the config's dtype is {written}, which is not known; {} bits assumed",
                workload.widths.dtype
            ),
        );
    }
    if let Some(written) = model.unknown_quantization().filter(|_| !stored) {
        let written = written.describe();
        add(
            "quantization",
            format!(
                "the config's quantization method is {written}, which the database does not know; weights are taken to be as wide as the dtype (--weight-bits changes it)"
            ),
        );
    }
    notes
}

/// Says which width was assumed where a config file names none.
pub(super) fn dtype_note(model: &Model<'_>, workload: &Workload) -> Option<Note> {
    let assumed = model.model_type.is_some()
        && !model.names_dtype()
        && model.unknown_dtype().is_none()
        && workload.widths.dtype == 32;
    let message = "the config names no dtype; 32 bits as torch builds it then (--dtype changes it)";
    assumed.then(|| Note {
        code: "dtype".into(),
        path: String::new(),
        message: message.into(),
    })
}

pub(super) fn position_notes(
    model: &Model<'_>,
    workload: &Workload,
) -> Result<Vec<Note>, ModelError> {
    let Some(limit) = model.positions()? else {
        return Ok(Vec::new());
    };
    let decoder = workload.past_len.saturating_add(workload.dec_seq_len);
    let asked = match model.task() {
        Task::Causal => workload.seq_len.saturating_add(workload.past_len),
        Task::Seq2seq => workload.seq_len.max(decoder),
        _ => workload.seq_len,
    };
    if asked <= limit {
        return Ok(Vec::new());
    }
    let message = format!(
        "{asked} positions are asked for, the model is made for {limit}; the numbers are what the code would execute"
    );
    Ok(vec![Note {
        code: "positions".into(),
        path: String::new(),
        message,
    }])
}
