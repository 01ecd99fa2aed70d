//! Finds the tensors of a tree among the weights of a checkpoint.
//!
//! One tensor's places go in (`names.rs`), how the file holds it comes out: the format, bytes and widths of one stored
//! weight, or of the several that it is put together from, with the shape that this makes. What was found is crossed off;
//! what is left at the end belongs to no module.

use super::names::{Place, Prefix};
use crate::checkpoint::packed::{Padding, Weight, Weights};
use crate::db::Join;
use crate::glob::matches;
use crate::model::Stored;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A tensor of the tree, found in the file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub stored: Rc<Stored>,
    /// Its shape; `None` where the headers do not tell.
    pub shape: Option<Vec<u128>>,
    /// How far that may exceed the model's shape.
    pub padding: Padding,
    /// The name under which it was found.
    pub name: String,
    /// The weights that make it up.
    pub parts: Vec<Part>,
}

/// A stored weight that holds a tensor of the tree, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number in [`Weights::weights`].
    pub number: usize,
    /// Where in the tensor it lies; `None` where headers do not tell.
    pub extent: Option<Extent>,
}

/// Where in a tensor of the tree a stored weight lies. It fills the dimensions that are not named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which item of dimension 0 it is, where it lacks that dimension.
    pub item: Option<usize>,
    /// The dimension of the tensor along which weights lie one after the other.
    pub along: usize,
    /// Where this one begins there.
    pub begin: u64,
    /// Whether its last two dimensions are exchanged in the tensor.
    pub transposed: bool,
    /// Which of how many equal runs of its dimension 0 is the tensor's, where it holds more.
    pub chunk: Option<(u64, u64)>,
}

impl Extent {
    /// All of it.
    pub const WHOLE: Extent = Extent {
        item: None,
        along: 0,
        begin: 0,
        transposed: false,
        chunk: None,
    };
}

impl Found {
    /// What makes another shape lies nowhere in the tensor.
    pub(super) fn forget_extents(&mut self) {
        let parts = self.parts.iter_mut();
        let others = parts.filter(|part| part.extent != Some(Extent::WHOLE));
        others.for_each(|part| part.extent = None);
    }
}

/// The weights of a checkpoint, and which of them the tree has.
pub(super) struct Finder<'w> {
    weights: &'w Weights,
    by_name: HashMap<&'w str, usize>,
    prefixes: Vec<Prefix>,
    taken: Vec<bool>,
    /// Equal values are one value, so that equal modules can be told by pointers.
    known: HashSet<Rc<Stored>>,
    texts: HashSet<Rc<str>>,
}

impl<'w> Finder<'w> {
    pub(super) fn new(weights: &'w Weights, children: &[&str]) -> Finder<'w> {
        let names = || weights.weights.iter().map(|weight| &*weight.name);
        Finder {
            weights,
            by_name: names()
                .enumerate()
                .map(|(number, name)| (name, number))
                .collect(),
            prefixes: Prefix::of(children, names()),
            taken: vec![false; weights.weights.len()],
            known: HashSet::new(),
            texts: HashSet::new(),
        }
    }

    /// How the file holds a tensor, at the first of its places that the file has.
    pub(super) fn find(&mut self, places: &[Place]) -> Option<Found> {
        for at in 0..self.prefixes.len() {
            let prefix = self.prefixes[at].clone();
            let found = places.iter().find_map(|place| self.at(place, &prefix));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn at(&mut self, place: &Place, prefix: &Prefix) -> Option<Found> {
        match place {
            Place::Named(path) => {
                let number = *self.by_name.get(prefix.apply(path)?.as_str())?;
                self.whole(number)
            }
            Place::Assembled { from, join } => {
                let from: Vec<String> = from
                    .iter()
                    .map(|path| prefix.apply(path))
                    .collect::<Option<_>>()?;
                self.assembled(&from, *join)
            }
        }
    }

    fn whole(&mut self, number: usize) -> Option<Found> {
        let weight = &self.weights.weights[number];
        self.taken[number] = true;
        Some(Found {
            stored: self.stored(&[weight], 1),
            shape: shape_of(weight),
            padding: weight.padding,
            name: weight.name.to_string(),
            parts: vec![Part {
                number,
                extent: Some(Extent::WHOLE),
            }],
        })
    }

    fn assembled(&mut self, from: &[String], join: Join) -> Option<Found> {
        let mut numbers: Vec<Vec<usize>> = Vec::new();
        for path in from {
            let items: Vec<usize> = match path.split_once('*') {
                None => self
                    .by_name
                    .get(path.as_str())
                    .copied()
                    .into_iter()
                    .collect(),
                Some((head, tail)) => (0..self.weights.weights.len())
                    .map_while(|n| {
                        self.by_name
                            .get(format!("{head}{n}{tail}").as_str())
                            .copied()
                    })
                    .collect(),
            };
            if items.is_empty() {
                return None;
            }
            numbers.push(items);
        }
        let all: Vec<usize> = numbers.iter().flatten().copied().collect();
        all.iter().for_each(|number| self.taken[*number] = true);
        let weights: Vec<&Weight> = all
            .iter()
            .map(|number| &self.weights.weights[*number])
            .collect();
        let shapes: Option<Vec<Vec<Vec<u128>>>> = numbers
            .iter()
            .map(|items| {
                items
                    .iter()
                    .map(|n| shape_of(&self.weights.weights[*n]))
                    .collect()
            })
            .collect();
        let chunks = match join {
            Join::Chunk { of, .. } => of.into(),
            _ => 1,
        };
        let extents = shapes.as_ref().and_then(|shapes| extents(shapes, join));
        let parts = all.iter().enumerate().map(|(at, number)| Part {
            number: *number,
            extent: extents.as_ref().map(|extents| extents[at]),
        });
        Some(Found {
            stored: self.stored(&weights, chunks),
            shape: shapes.and_then(|shapes| joined_shape(&shapes, join)),
            padding: Padding::None,
            name: weights.first()?.name.to_string(),
            parts: parts.collect(),
        })
    }

    /// What several stored weights are together, or one of `chunks` equal parts of one.
    fn stored(&mut self, weights: &[&Weight], chunks: u128) -> Rc<Stored> {
        let first = weights[0];
        let same = |field: fn(&Weight) -> &str| weights.iter().all(|w| field(w) == field(first));
        let sum =
            |field: fn(&Weight) -> u64| weights.iter().map(|w| u128::from(field(w))).sum::<u128>();
        let scheme = if same(|w| w.scheme) {
            first.scheme
        } else {
            "mixed"
        };
        let label = if same(|w| &w.label) {
            first.label.as_str()
        } else {
            "mixed"
        };
        // Where parts differ, the widest codes decide what the multiplication costs.
        let code_bits = if weights.iter().all(|w| w.code_bits.is_some()) {
            weights.iter().filter_map(|w| w.code_bits).max()
        } else {
            None
        };
        let stored = Stored {
            scheme: self.text(scheme),
            label: self.text(label),
            elements: sum(|w| w.elements) / chunks,
            bytes: sum(|w| w.bytes).div_ceil(chunks),
            code_bits,
            activation_bits: weights.iter().filter_map(|w| w.activation_bits).max(),
        };
        if let Some(known) = self.known.get(&stored) {
            return known.clone();
        }
        let stored = Rc::new(stored);
        self.known.insert(stored.clone());
        stored
    }

    fn text(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let text: Rc<str> = text.into();
        self.texts.insert(text.clone());
        text
    }

    /// Weights that nothing has asked for, with their numbers.
    pub(super) fn left(&self) -> impl Iterator<Item = (usize, &'w Weight)> {
        let taken = self.taken.clone();
        self.weights
            .weights
            .iter()
            .enumerate()
            .filter(move |(number, _)| !taken[*number])
    }

    /// Crosses off a weight, and tells how it is stored.
    pub(super) fn take(&mut self, number: usize) -> Option<Found> {
        self.whole(number)
    }

    /// Whether a name of the file matches a pattern of the tree, under any prefix.
    pub(super) fn fits(&self, pattern: &str, name: &str) -> bool {
        let under = |prefix: &Prefix| {
            prefix
                .apply(pattern)
                .is_some_and(|pattern| matches(&pattern, name))
        };
        self.prefixes.iter().any(under)
    }

    /// Weights whose names begin with a path, under whichever prefix the file has.
    pub(super) fn left_below(&self, path: &str) -> Vec<(usize, String)> {
        for prefix in &self.prefixes {
            let Some(start) = prefix.apply(&format!("{path}.")) else {
                continue;
            };
            let found: Vec<(usize, String)> = self
                .left()
                .filter_map(|(number, weight)| {
                    Some((number, weight.name.strip_prefix(&start)?.to_string()))
                })
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }
}

fn shape_of(weight: &Weight) -> Option<Vec<u128>> {
    Some(
        weight
            .shape
            .as_ref()?
            .iter()
            .map(|side| u128::from(*side))
            .collect(),
    )
}

/// The shape of what stored shapes make; `None` where they do not fit each other. One list for each path of `from`.
fn joined_shape(shapes: &[Vec<Vec<u128>>], join: Join) -> Option<Vec<u128>> {
    let transposed = |shape: &[u128]| {
        let mut shape = shape.to_vec();
        let n = shape.len();
        if n >= 2 {
            shape.swap(n - 1, n - 2);
        }
        shape
    };
    let concatenated = |shapes: &[Vec<u128>], along: usize| {
        let mut whole = shapes.first()?.clone();
        for shape in &shapes[1..] {
            let fits = shape.len() == whole.len()
                && shape
                    .iter()
                    .zip(&whole)
                    .enumerate()
                    .all(|(d, (a, b))| d == along || a == b);
            if !fits {
                return None;
            }
            let side = whole.get_mut(along)?;
            *side = side.checked_add(*shape.get(along)?)?;
        }
        Some(whole)
    };
    let only = || shapes.first()?.first();
    match join {
        Join::Same => only().cloned(),
        Join::Transposed => only().map(|shape| transposed(shape)),
        Join::Chunk { of, .. } => {
            let mut shape = only()?.clone();
            let side = shape.first_mut()?;
            if *side % u128::from(of) != 0 {
                return None;
            }
            *side /= u128::from(of);
            Some(shape)
        }
        Join::Concatenated(along) => {
            let all: Vec<Vec<u128>> = shapes.iter().flatten().cloned().collect();
            concatenated(&all, along)
        }
        Join::Stacked {
            concat,
            transposed: turned,
        } => {
            let stacked = |items: &Vec<Vec<u128>>| {
                let first = items.first()?;
                if items.iter().any(|shape| shape != first) {
                    return None;
                }
                let mut shape = vec![items.len() as u128];
                shape.extend(if turned {
                    transposed(first)
                } else {
                    first.clone()
                });
                Some(shape)
            };
            let stacks: Vec<Vec<u128>> = shapes.iter().map(stacked).collect::<Option<_>>()?;
            match concat {
                Some(along) => concatenated(&stacks, along),
                None => stacks.into_iter().next(),
            }
        }
    }
}

/// Where in the tensor that they make stored shapes lie, path by path; `None` where they make none.
fn extents(shapes: &[Vec<Vec<u128>>], join: Join) -> Option<Vec<Extent>> {
    let mut chunk = None;
    let (along, is_stack, transposed) = match join {
        Join::Same => (0, false, false),
        Join::Transposed => (0, false, true),
        Join::Concatenated(along) => (along, false, false),
        // Stacks one after the other along their own dimension would number items anew.
        Join::Stacked {
            concat: Some(0), ..
        } => return None,
        Join::Stacked { concat, transposed } => (concat.unwrap_or(0), true, transposed),
        Join::Chunk { number, of } => {
            chunk = Some((number, of));
            (0, false, false)
        }
    };
    joined_shape(shapes, join)?;
    let mut begin = 0u64;
    let mut extents = Vec::new();
    for items in shapes {
        extents.extend((0..items.len()).map(|number| Extent {
            item: is_stack.then_some(number),
            along,
            begin,
            transposed,
            chunk,
        }));
        let own = joined_shape(std::slice::from_ref(items), join)?;
        begin = begin.checked_add(u64::try_from(*own.get(along)?).ok()?)?;
    }
    Some(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shapes: &[&[&[u128]]], join: Join, expected: Option<&[u128]>) {
        let shapes: Vec<Vec<Vec<u128>>> = shapes
            .iter()
            .map(|items| items.iter().map(|s| s.to_vec()).collect())
            .collect();
        assert_eq!(joined_shape(&shapes, join).as_deref(), expected);
    }

    #[test]
    fn experts_one_by_one_are_one_tensor() {
        let join = Join::Stacked {
            concat: Some(1),
            transposed: false,
        };
        check(
            &[&[&[6, 4], &[6, 4]], &[&[6, 4], &[6, 4]]],
            join,
            Some(&[2, 12, 4]),
        );
        let join = Join::Stacked {
            concat: None,
            transposed: false,
        };
        check(&[&[&[4, 6], &[4, 6], &[4, 6]]], join, Some(&[3, 4, 6]));
    }

    #[test]
    fn experts_of_different_shapes_are_none() {
        let join = Join::Stacked {
            concat: None,
            transposed: false,
        };
        check(&[&[&[4, 6], &[4, 5]]], join, None);
    }

    #[test]
    fn parts_lie_one_after_the_other() {
        let extent = |item: Option<usize>, along: usize, begin: u64| Extent {
            item,
            along,
            begin,
            ..Extent::WHOLE
        };
        let experts = [vec![vec![6, 4]; 2], vec![vec![5, 4]; 2]];
        let stacked = Join::Stacked {
            concat: Some(1),
            transposed: false,
        };
        let all = [(0, 0), (1, 0), (0, 6), (1, 6)].map(|(e, begin)| extent(Some(e), 1, begin));
        assert_eq!(extents(&experts, stacked).as_deref(), Some(&all[..]));
        let rows = [vec![vec![4, 3]], vec![vec![2, 3]]];
        let all = [extent(None, 0, 0), extent(None, 0, 4)];
        assert_eq!(
            extents(&rows, Join::Concatenated(0)).as_deref(),
            Some(&all[..])
        );
        // As [in, out], so what is exchanged begins after three of the rows that the file has.
        let turned = Join::Stacked {
            concat: Some(2),
            transposed: true,
        };
        let experts = [vec![vec![3, 4]], vec![vec![3, 4]]];
        let second = extents(&experts, turned).map(|all| all[1]);
        assert_eq!(
            second,
            Some(Extent {
                transposed: true,
                ..extent(Some(0), 2, 3)
            })
        );
        // A weight of 4 rows holds two tensors.
        let chunk = Join::Chunk { number: 1, of: 2 };
        let second = Extent {
            chunk: Some((1, 2)),
            ..Extent::WHOLE
        };
        assert_eq!(extents(&rows[..1], chunk), Some(vec![second]));
    }

    #[test]
    fn a_part_is_a_part_of_the_rows() {
        check(
            &[&[&[12, 4]]],
            Join::Chunk { number: 1, of: 3 },
            Some(&[4, 4]),
        );
        check(&[&[&[13, 4]]], Join::Chunk { number: 1, of: 3 }, None);
    }

    #[test]
    fn several_paths_lie_one_after_the_other() {
        check(
            &[&[&[4, 3]], &[&[2, 3]], &[&[2, 3]]],
            Join::Concatenated(0),
            Some(&[8, 3]),
        );
        check(&[&[&[4, 3]], &[&[2, 5]]], Join::Concatenated(0), None);
        check(&[&[&[4, 3]]], Join::Transposed, Some(&[3, 4]));
    }
}
