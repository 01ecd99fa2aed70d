//! Under which names a file may hold a tensor of the tree.
//!
//! The modules above a tensor go in, places to look go out, the name of the tree first. On the way up each module may say
//! that what stands below it is called or assembled otherwise (`stored`, `stored_paths` of its entry); files written by
//! older versions keep their names valid, so every variant is a place, never only the last.

use crate::db::{Conventions, Join, OnDisk};

/// Most places that one tensor is looked for in, before prefixes.
const MAX_PLACES: usize = 32;

/// Where a file may hold a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under a name.
    Named(String),
    /// In tensors of other shapes.
    Assembled {
        /// Their names; a `*` stands for the numbers from 0 on.
        from: Vec<String>,
        /// How they become the tensor.
        join: Join,
    },
}

/// A module above a tensor: its name in its parent, and what its entry says of names on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level<'a> {
    pub name: &'a str,
    pub on_disk: Option<&'a OnDisk>,
}

/// The places of a tensor of the innermost of `levels`, which begin with the root.
pub(super) fn places(levels: &[Level<'_>], tensor: &str, conventions: &Conventions) -> Vec<Place> {
    let mut places = vec![Place::Named(tensor.to_string())];
    for level in levels.iter().rev() {
        if let Some(on_disk) = level.on_disk {
            let more: Vec<Place> = places
                .iter()
                .flat_map(|place| variants(place, on_disk))
                .collect();
            for place in more {
                if places.len() < MAX_PLACES && !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        if !level.name.is_empty() {
            places
                .iter_mut()
                .for_each(|place| place.each(|path| *path = format!("{}.{path}", level.name)));
        }
    }
    for (tree, disk) in &conventions.endings {
        let renamed = |place: &Place| match place {
            Place::Named(path) => path
                .strip_suffix(&**tree)
                .map(|head| Place::Named(format!("{head}{disk}"))),
            Place::Assembled { .. } => None,
        };
        let more: Vec<Place> = places.iter().filter_map(renamed).collect();
        places.extend(more);
    }
    places
}

/// What a module's entry says of a path below it.
fn variants(place: &Place, on_disk: &OnDisk) -> Vec<Place> {
    let mut variants = Vec::new();
    let renamed = |path: &str| {
        let fits = on_disk
            .paths
            .iter()
            .filter(|(tree, _)| path.starts_with(&**tree));
        let (tree, disk) = fits.max_by_key(|(tree, _)| tree.len())?;
        Some(format!("{disk}{}", &path[tree.len()..]))
    };
    match place {
        Place::Named(path) => {
            variants.extend(renamed(path).map(Place::Named));
            let assembled = on_disk.assembled.iter().filter(|a| *a.tensor == **path);
            variants.extend(assembled.map(|a| Place::Assembled {
                from: a.from.iter().map(|path| path.to_string()).collect(),
                join: a.join,
            }));
        }
        Place::Assembled { from, join } => {
            let all: Vec<String> = from
                .iter()
                .map(|path| renamed(path).unwrap_or_else(|| path.clone()))
                .collect();
            if all != *from {
                variants.push(Place::Assembled {
                    from: all,
                    join: *join,
                });
            }
        }
    }
    variants
}

impl Place {
    fn each(&mut self, change: impl Fn(&mut String)) {
        match self {
            Place::Named(path) => change(path),
            Place::Assembled { from, .. } => from.iter_mut().for_each(change),
        }
    }
}

/// What all names of a file have more or less than those of the tree: a checkpoint of the bare model has no `model.`, one of
/// a model with a head has a prefix that the bare model lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// The names are the same.
    Same,
    /// The file leaves out this first part.
    Without(String),
    /// The file has these parts before.
    With(String),
}

/// Most prefixes that are tried.
const MAX_PREFIXES: usize = 24;

impl Prefix {
    /// The prefixes worth trying: what the root's children are called and what the names of the file begin with.
    pub(super) fn of<'n>(children: &[&str], names: impl Iterator<Item = &'n str>) -> Vec<Prefix> {
        let mut first: Vec<&str> = Vec::new();
        let mut second: Vec<&str> = Vec::new();
        for name in names {
            let Some(dot) = name.find('.') else { continue };
            let head = &name[..dot];
            if first.last() != Some(&head) && !first.contains(&head) && first.len() < MAX_PREFIXES {
                first.push(head);
            }
            if let Some(next) = name[dot + 1..].find('.') {
                let two = &name[..dot + 1 + next];
                let numbered = two[dot + 1..].bytes().all(|b| b.is_ascii_digit());
                if !numbered
                    && second.last() != Some(&two)
                    && !second.contains(&two)
                    && second.len() < MAX_PREFIXES
                {
                    second.push(two);
                }
            }
        }
        let mut prefixes = vec![Prefix::Same];
        let missing = children.iter().filter(|child| !first.contains(child));
        prefixes.extend(missing.map(|child| Prefix::Without(child.to_string())));
        let foreign = first
            .iter()
            .chain(&second)
            .filter(|name| !children.contains(name));
        prefixes.extend(foreign.map(|name| Prefix::With(name.to_string())));
        prefixes.truncate(MAX_PREFIXES);
        prefixes
    }

    /// A name of the tree as the file has it.
    pub(super) fn apply(&self, name: &str) -> Option<String> {
        match self {
            Prefix::Same => Some(name.to_string()),
            Prefix::Without(part) => name
                .strip_prefix(part.as_str())?
                .strip_prefix('.')
                .map(String::from),
            Prefix::With(parts) => Some(format!("{parts}.{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Assembled;

    fn disk(paths: &[(&str, &str)]) -> OnDisk {
        OnDisk {
            paths: paths
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect(),
            ..OnDisk::default()
        }
    }

    fn level<'a>(name: &'a str, on_disk: Option<&'a OnDisk>) -> Level<'a> {
        Level { name, on_disk }
    }

    fn named(places: &[Place]) -> Vec<&str> {
        places
            .iter()
            .filter_map(|p| match p {
                Place::Named(path) => Some(path.as_str()),
                Place::Assembled { .. } => None,
            })
            .collect()
    }

    #[test]
    fn the_name_of_the_tree_comes_first_and_renamed_ones_follow() {
        let outer = disk(&[("layers.", "encoder.layer.")]);
        let inner = disk(&[("mlp.fc1.", "intermediate.dense.")]);
        let levels = [
            level("", Some(&outer)),
            level("layers", None),
            level("0", Some(&inner)),
            level("mlp", None),
            level("fc1", None),
        ];
        let places = places(&levels, "weight", &Conventions::default());
        assert_eq!(
            named(&places),
            [
                "layers.0.mlp.fc1.weight",
                "layers.0.intermediate.dense.weight",
                "encoder.layer.0.mlp.fc1.weight",
                "encoder.layer.0.intermediate.dense.weight"
            ]
        );
    }

    #[test]
    fn assembled_tensors_are_renamed_on_the_way_up_too() {
        let outer = disk(&[("mlp.", "block.")]);
        let inner = OnDisk {
            assembled: vec![Assembled {
                tensor: "up".into(),
                from: vec!["experts.*.w1.weight".into()],
                join: Join::Stacked {
                    concat: None,
                    transposed: false,
                },
            }],
            ..OnDisk::default()
        };
        let levels = [level("", Some(&outer)), level("mlp", Some(&inner))];
        let places = places(&levels, "up", &Conventions::default());
        let from: Vec<&str> = places
            .iter()
            .filter_map(|p| match p {
                Place::Assembled { from, .. } => Some(from[0].as_str()),
                Place::Named(_) => None,
            })
            .collect();
        assert_eq!(
            from,
            ["mlp.experts.*.w1.weight", "block.experts.*.w1.weight"]
        );
    }

    #[test]
    fn endings_hold_everywhere() {
        let conventions = Conventions {
            endings: vec![("norm.weight".into(), "norm.gamma".into())],
            extra: Vec::new(),
        };
        let places = places(
            &[level("", None), level("norm", None)],
            "weight",
            &conventions,
        );
        assert_eq!(named(&places), ["norm.weight", "norm.gamma"]);
    }

    #[test]
    fn prefixes_follow_from_the_two_lists_of_names() {
        let prefixes = Prefix::of(
            &["model", "lm_head"],
            ["layers.0.a.weight", "lm_head.weight"].into_iter(),
        );
        assert_eq!(
            prefixes,
            [
                Prefix::Same,
                Prefix::Without("model".into()),
                Prefix::With("layers".into())
            ]
        );
        assert_eq!(
            prefixes[1].apply("model.layers.0.a"),
            Some("layers.0.a".into())
        );
        assert_eq!(prefixes[1].apply("modelled.a"), None);
        assert_eq!(
            Prefix::With("bert".into()).apply("encoder.a"),
            Some("bert.encoder.a".into())
        );
    }
}
