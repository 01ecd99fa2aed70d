//! Groups the tensors of a checkpoint: every tensor that a row of the table takes for its mark is shown to it with its
//! siblings; what no row takes is plain, or no weight.
//!
//! One walk over the sorted names, so a hundred thousand tensors take some tens of milliseconds.

use super::super::{Checkpoint, Tensor};
use super::formats::{self, FORMATS, Format};
use super::seen::{Found, MAX_SIDES, Seen};
use super::{Note, Padding, Settings, Weight, Weights, rules};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Joins the tensors of a checkpoint into weights.
pub(super) fn group(checkpoint: &Checkpoint, settings: &Settings) -> Weights {
    let described = described(checkpoint);
    let mut finder = Finder::new(checkpoint, settings, &described);
    finder.find_packed();
    finder.part_twins();
    finder.finish()
}

/// Whose a tensor is.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    /// Nobody's yet.
    Free,
    /// A packed weight's.
    Weight,
    /// Codes of a format that cannot be joined; a note says so already.
    Misfit,
}

struct Finder<'c> {
    checkpoint: &'c Checkpoint,
    settings: &'c Settings,
    described: &'c HashMap<&'c str, &'c str>,
    owners: Vec<Owner>,
    weights: Vec<Weight>,
    notes: Notes,
}

impl<'c> Finder<'c> {
    fn new(
        checkpoint: &'c Checkpoint,
        settings: &'c Settings,
        described: &'c HashMap<&'c str, &'c str>,
    ) -> Finder<'c> {
        Finder {
            checkpoint,
            settings,
            described,
            owners: vec![Owner::Free; checkpoint.tensors.len()],
            weights: Vec::new(),
            notes: Notes::default(),
        }
    }

    /// Shows every tensor whose name ends in a row's mark to that row, in the order of the table.
    fn find_packed(&mut self) {
        let checkpoint = self.checkpoint;
        // Rows by the last letter of their mark: most names end in one that no mark or few have.
        let mut rows = vec![Vec::new(); 256];
        for format in FORMATS {
            let last = format.mark.as_bytes().last().copied().unwrap_or_default();
            rows[usize::from(last)].push(format);
        }
        for (at, tensor) in checkpoint.tensors.iter().enumerate() {
            let last = tensor.name.as_bytes().last().copied().unwrap_or_default();
            for format in &rows[usize::from(last)] {
                let Some(stem) = tensor.name.strip_suffix(format.mark) else {
                    continue;
                };
                if self.shown(format, stem, at) {
                    break;
                }
            }
        }
    }

    /// Shows the tensors of a stem to a row; says whether they are settled.
    fn shown(&mut self, format: &'static Format, stem: &'c str, at: usize) -> bool {
        let Some(seen) = self.see(format, stem, at) else {
            return false;
        };
        let found = match (format.read)(&seen) {
            Ok(None) => return false,
            Ok(Some(found)) => found,
            Err(text) => {
                let text = format!("looks like {}, but {text}; taken as it is", format.name);
                self.notes.add(&seen.codes().name, text);
                self.owners[seen.codes as usize] = Owner::Misfit;
                return true;
            }
        };
        self.accept(&seen, found);
        true
    }

    /// Looks the row's tensors up; `None` if one that it needs is missing or another weight's.
    fn see(&self, format: &'static Format, stem: &'c str, near: usize) -> Option<Seen<'c>> {
        let codes = self.free(stem, format.codes, near)?;
        let mut sides = [None; MAX_SIDES];
        for (at, end) in format.sides.iter().enumerate() {
            sides[at] = self.free(stem, end, near);
            if sides[at].is_none() && at < format.needs {
                return None;
            }
        }
        Some(Seen {
            format,
            checkpoint: self.checkpoint,
            settings: self.settings,
            described: self.described,
            stem,
            codes,
            sides,
        })
    }

    /// The tensor of a name, if no weight has it.
    fn free(&self, stem: &str, end: &str, near: usize) -> Option<u32> {
        let number = find(&self.checkpoint.tensors, stem, end, near)?;
        (self.owners[number] == Owner::Free).then(|| u32::try_from(number).ok())?
    }

    fn accept(&mut self, seen: &Seen<'c>, found: Found) {
        let parts = seen.parts();
        let name = found
            .name
            .unwrap_or_else(|| [seen.stem, seen.format.weight].concat());
        let stored = find(&self.checkpoint.tensors, &name, "", seen.codes as usize);
        if stored.is_some_and(|at| !parts.iter().any(|part| *part as usize == at)) {
            let text = format!("the file holds `{name}` too; both are taken as they are");
            self.notes.add(&seen.codes().name, text);
            self.owners[seen.codes as usize] = Owner::Misfit;
            return;
        }
        if let Some(text) = found.note {
            self.notes.add(&name, text);
        }
        for part in &parts {
            self.owners[*part as usize] = Owner::Weight;
        }
        self.weights.push(Weight {
            name: name.into(),
            scheme: seen.format.name,
            label: found.label,
            shape: found.shape.map(Vec::into_boxed_slice),
            padding: found.padding,
            elements: found.elements,
            code_bits: found.code_bits,
            activation_bits: found.activation_bits,
            bytes: bytes(self.checkpoint, &parts),
            parts,
            rule: found.rule,
        });
    }

    /// Two packed weights of one name: neither can be the model's, so both are taken apart.
    fn part_twins(&mut self) {
        self.weights.sort_by(|a, b| a.name.cmp(&b.name));
        let twins: Vec<bool> = (0..self.weights.len())
            .map(|at| {
                let same =
                    |other: Option<&Weight>| other.is_some_and(|w| w.name == self.weights[at].name);
                same(
                    at.checked_sub(1)
                        .and_then(|before| self.weights.get(before)),
                ) || same(self.weights.get(at + 1))
            })
            .collect();
        let mut twin = twins.iter();
        let (owners, notes) = (&mut self.owners, &mut self.notes);
        self.weights.retain(|weight| {
            let is_twin = twin.next() == Some(&true);
            if is_twin {
                notes.add(
                    &weight.name,
                    "stored in two packed formats; both are taken as they are".into(),
                );
                for (part, at) in weight.parts.iter().zip(0..) {
                    let is_codes = at == 0;
                    owners[*part as usize] = if is_codes { Owner::Misfit } else { Owner::Free };
                }
            }
            !is_twin
        });
    }

    /// What is left is plain, or no weight.
    fn finish(mut self) -> Weights {
        let mut others = Vec::new();
        let left = |owner: &&Owner| **owner != Owner::Weight;
        self.weights
            .reserve_exact(self.owners.iter().filter(left).count());
        for (tensor, number) in self.checkpoint.tensors.iter().zip(0u32..) {
            match self.owners[number as usize] {
                Owner::Free => {}
                Owner::Weight => continue,
                Owner::Misfit => {
                    self.weights.push(plain(tensor, number));
                    continue;
                }
            }
            match formats::left_over(tensor) {
                Some(formats::Leftover::Activations) => others.push(number),
                Some(formats::Leftover::Side) => {
                    let text = "belongs to codes that are not there, or not in a format that is known; counted as no weight";
                    self.notes.add(&tensor.name, text.into());
                    others.push(number);
                }
                None => {
                    if formats::is_named_as_codes(tensor) {
                        let text = "is called as packed codes are, but what belongs to them is not there; taken as it is";
                        self.notes.add(&tensor.name, text.into());
                    }
                    self.weights.push(plain(tensor, number));
                }
            }
        }
        if let Some(text) = self.disagreement() {
            self.notes.list.push(Note {
                tensor: None,
                more: 0,
                text,
            });
        }
        self.weights.sort_by(|a, b| a.name.cmp(&b.name));
        Weights {
            weights: self.weights,
            others,
            notes: self.notes.list,
        }
    }
}

impl Finder<'_> {
    /// Settings that name a method, and no tensor that is packed.
    fn disagreement(&self) -> Option<String> {
        let (place, method) = (self.settings.place?, self.settings.method()?);
        let packed = self.weights.iter().any(|w| w.scheme != formats::PLAIN);
        // Trained for it, and quantized only when loaded.
        if packed || self.settings.is_online() {
            return None;
        }
        Some(format!(
            "{place} says `{method}`, but no tensor is in a packed format that is known; taken as they are"
        ))
    }
}

/// What the `__metadata__` of the files says, by key.
fn described(checkpoint: &Checkpoint) -> HashMap<&str, &str> {
    let all = checkpoint.files.iter().flat_map(|file| &file.metadata);
    all.map(|(key, value)| (&**key, &**value)).collect()
}

/// A tensor that is the weight itself.
fn plain(tensor: &Tensor, number: u32) -> Weight {
    Weight {
        name: tensor.name.clone(),
        scheme: formats::PLAIN,
        label: tensor.dtype.name.into(),
        shape: Some(tensor.shape.clone()),
        padding: Padding::None,
        elements: tensor.elements(),
        code_bits: Some(tensor.dtype.bits),
        activation_bits: None,
        bytes: tensor.bytes,
        parts: vec![number],
        rule: rules::Rule::Numbers,
    }
}

/// Bytes of tensors. Those of hostile headers without data may be more than 64 bits hold.
fn bytes(checkpoint: &Checkpoint, parts: &[u32]) -> u64 {
    parts.iter().fold(0, |sum: u64, part| {
        sum.saturating_add(checkpoint.tensors[*part as usize].bytes)
    })
}

/// Notes, equal ones as one: a model of a hundred thousand tensors has the same oddity a hundred thousand times.
#[derive(Default)]
struct Notes {
    list: Vec<Note>,
    by_text: HashMap<String, usize>,
}

impl Notes {
    fn add(&mut self, tensor: &str, text: String) {
        if let Some(note) = self
            .by_text
            .get(&text)
            .and_then(|at| self.list.get_mut(*at))
        {
            note.more += 1;
            return;
        }
        self.by_text.insert(text.clone(), self.list.len());
        self.list.push(Note {
            tensor: Some(tensor.into()),
            more: 0,
            text,
        });
    }
}

/// Where the tensor `stem` + `end` stands, looked for from a place near it: names are sorted, so those that begin alike
/// stand together, and steps that double find one among its siblings faster than any look-up over all.
fn find(tensors: &[Tensor], stem: &str, end: &str, near: usize) -> Option<usize> {
    let order = |at: usize| {
        let name = tensors[at].name.as_bytes();
        let shared = name.len().min(stem.len());
        let begin = name[..shared].cmp(&stem.as_bytes()[..shared]);
        // A name that ends within the stem comes first.
        begin.then_with(|| match name.get(stem.len()..) {
            Some(rest) => rest.cmp(end.as_bytes()),
            None => Ordering::Less,
        })
    };
    let (mut low, mut high) = (0, tensors.len());
    match (near < high).then(|| order(near))? {
        Ordering::Equal => return Some(near),
        Ordering::Less => {
            low = near + 1;
            let mut step = 1;
            while near + step < high {
                if order(near + step) != Ordering::Less {
                    high = near + step + 1;
                    break;
                }
                low = near + step + 1;
                step *= 2;
            }
        }
        Ordering::Greater => {
            high = near;
            let mut step = 1;
            while step <= near {
                if order(near - step) != Ordering::Greater {
                    low = near - step;
                    break;
                }
                high = near - step;
                step *= 2;
            }
        }
    }
    while low < high {
        let middle = low + (high - low) / 2;
        match order(middle) {
            Ordering::Equal => return Some(middle),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::StoredType;

    #[test]
    fn a_name_is_found_from_wherever_the_search_begins() {
        let names = ["a", "a.b", "a.b.c", "a.bc", "a.c", "b", "b.b", "ba", "c.b"];
        let tensors = names.map(|name| Tensor {
            name: name.into(),
            dtype: StoredType::named("U8").expect("a dtype"),
            shape: Box::new([]),
            file: 0,
            begin: 0,
            bytes: 1,
        });
        for near in 0..names.len() {
            for (at, name) in names.iter().enumerate() {
                for cut in 0..=name.len() {
                    let (stem, end) = name.split_at(cut);
                    assert_eq!(
                        find(&tensors, stem, end, near),
                        Some(at),
                        "{name} from {near}"
                    );
                }
            }
            for missing in ["", "0", "a.", "a.b.", "a.bb", "b.", "bb", "c", "d"] {
                assert_eq!(
                    find(&tensors, missing, "", near),
                    None,
                    "{missing} from {near}"
                );
            }
        }
    }
}
