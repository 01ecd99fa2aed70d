//! What a checkpoint's data says of the weights of a tree: asked for by path, scanned once.

use super::held::{Held, Meant};
use super::told;
use crate::channels::Channels;
use crate::checkpoint::packed::Weight;
use crate::checkpoint::scan::{self, Statistics, Wanted};
use crate::checkpoint::{CheckpointError, made};
use crate::flow::{Form, Weights};
use crate::join::Headers;
use crate::stats::{Facts, Stats, Told};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;

/// What counting needs of the statistics of a weight; a model has a hundred thousand.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub elements: u64,
    pub nnz: u64,
    pub not_finite: u64,
    /// How many distinct values there are, if they are few.
    pub levels: Option<usize>,
    pub per_row: Counts,
    pub per_input: Counts,
}

impl Counted {
    /// The most non-zeros that a row of each block can have over some inputs.
    fn most_over(&self, inputs: &Channels, blocks: usize) -> Vec<u64> {
        let blocks = blocks.max(1);
        let of_block = inputs.width().div_ceil(blocks).max(1);
        let area = (self.per_row.len() * of_block).max(1) as u64;
        let taps = self.elements.div_ceil(area);
        let mut most = vec![(0u64, 0u64); blocks];
        for input in inputs.iter() {
            let (by_taps, by_counts) = &mut most[input / of_block];
            *by_taps = by_taps.saturating_add(taps);
            *by_counts = by_counts.saturating_add(self.per_input.of(input));
        }
        most.into_iter()
            .map(|(taps, counts)| taps.min(counts))
            .collect()
    }
}

/// Counts of channels, narrow where that is enough: many experts have hundreds of millions of channels.
#[derive(Clone, Debug)]
pub(super) enum Counts {
    Narrow(Box<[u16]>),
    Wide(Box<[u64]>),
}

impl Counts {
    pub(super) fn len(&self) -> usize {
        match self {
            Counts::Narrow(counts) => counts.len(),
            Counts::Wide(counts) => counts.len(),
        }
    }

    /// The count of a channel; of one that is not told apart 0.
    pub(super) fn of(&self, channel: usize) -> u64 {
        match self {
            Counts::Narrow(counts) => counts.get(channel).map_or(0, |count| (*count).into()),
            Counts::Wide(counts) => counts.get(channel).map_or(0, |count| *count),
        }
    }

    /// Those of a set of channels together.
    pub(super) fn sum(&self, channels: &Channels) -> u64 {
        channels.iter().map(|channel| self.of(channel)).sum()
    }
}

impl From<Vec<u64>> for Counts {
    fn from(counts: Vec<u64>) -> Counts {
        let narrow = counts.iter().map(|count| u16::try_from(*count));
        match narrow.collect() {
            Ok(narrow) => Counts::Narrow(narrow),
            Err(_) => Counts::Wide(counts.into()),
        }
    }
}

impl From<Statistics> for Counted {
    fn from(statistics: Statistics) -> Counted {
        Counted {
            elements: statistics.elements,
            nnz: statistics.nnz,
            not_finite: statistics.nan + statistics.infinite,
            levels: statistics.levels.count(),
            per_row: statistics.per_row.into(),
            per_input: statistics.per_input.into(),
        }
    }
}

/// A checkpoint: its headers with its data, or with statistics of it, whose weights have the numbers of the headers'.
#[derive(Clone, Copy)]
pub struct Source<'h> {
    /// Tensors and weights.
    pub headers: &'h Headers,
    /// What its data says, where that was asked elsewhere.
    pub stats: Option<&'h Stats>,
}

/// What is known of weights by number, as each was meant; `None` where it cannot be told.
type Known<T> = HashMap<usize, (Meant, Option<Rc<T>>)>;

/// The weights of one checkpoint by their paths in a tree.
pub(super) struct Scanned<'h> {
    pub headers: &'h Headers,
    stats: Option<&'h Stats>,
    /// Weights of which statistics do not say all.
    pub undecided: BTreeSet<usize>,
    /// Tensors of the tree by path.
    pub held: HashMap<String, Held>,
    known: Known<Counted>,
    /// What statistics say of the weights that were asked about row by row.
    told: Known<Cow<'h, Told>>,
    /// Told how many bytes were scanned.
    watch: &'h dyn Fn(u64),
}

impl<'h> Scanned<'h> {
    pub(super) fn new(source: Source<'h>, watch: &'h dyn Fn(u64)) -> Scanned<'h> {
        Scanned {
            headers: source.headers,
            stats: source.stats,
            undecided: BTreeSet::new(),
            held: HashMap::new(),
            known: HashMap::new(),
            told: HashMap::new(),
            watch,
        }
    }

    pub(super) fn weight(&self, number: usize) -> &'h Weight {
        &self.headers.weights.weights[number]
    }

    /// What statistics say of a weight as it is meant, where there are statistics.
    fn told(&mut self, number: usize, meant: &Meant) -> Option<Option<Rc<Cow<'h, Told>>>> {
        let facts = &self.stats?.weights[number];
        if let Some((known, told)) = self.told.get(&number)
            && known == meant
        {
            return Some(told.clone());
        }
        let told = told_in(facts, meant).map(Rc::new);
        self.told.insert(number, (meant.clone(), told.clone()));
        Some(told)
    }

    /// What counts say of a weight, `None` where its numbers cannot be told.
    pub(super) fn counted(
        &mut self,
        number: usize,
        meant: &Meant,
    ) -> Result<Option<Rc<Counted>>, CheckpointError> {
        if let Some((known, counted)) = self.known.get(&number)
            && known == meant
        {
            return Ok(counted.clone());
        }
        let found = counted((self.headers, self.stats), number, meant)?;
        Ok(self.keep(number, meant.clone(), found))
    }

    /// Finds out about several weights at once, as they are stored.
    pub(super) fn look_ahead(&mut self, numbers: &[usize]) -> Result<(), CheckpointError> {
        let source = (self.headers, self.stats);
        let found = made(numbers, |number| {
            let meant = Meant::as_stored(&source.0.weights.weights[*number]);
            counted(source, *number, &meant).map(|found| (meant, found))
        });
        for (number, found) in numbers.iter().zip(found) {
            let (meant, found) = found?;
            self.keep(*number, meant, found);
        }
        Ok(())
    }

    fn keep(&mut self, number: usize, meant: Meant, found: Option<Counted>) -> Option<Rc<Counted>> {
        (self.watch)(self.weight(number).bytes);
        let found = found.map(Rc::new);
        self.known.insert(number, (meant, found.clone()));
        found
    }

    /// Gives back what is known of a weight, which nobody will ask about again.
    pub(super) fn forget(&mut self, number: usize) {
        self.known.remove(&number);
        self.told.remove(&number);
    }

    /// Rows of a weight without a non-zero that reads a live input.
    pub(super) fn rows_without_live_inputs(
        &mut self,
        number: usize,
        meant: &Meant,
        null_in: &Channels,
    ) -> Result<Option<Channels>, CheckpointError> {
        let Some(counted) = self.counted(number, meant)? else {
            return Ok(None);
        };
        let lacks_rows = counted.per_row.len() == 0;
        let lacks_inputs = counted.per_input.len() == 0 && !null_in.is_empty();
        if self.stats.is_some() && counted.nnz > 0 && (lacks_rows || lacks_inputs) {
            self.undecided.insert(number);
        }
        let rows = counted.per_row.len();
        let mut null = Channels::of(rows, |row| counted.per_row.of(row) == 0);
        if null_in.is_empty() {
            return Ok(Some(null));
        }
        let most = counted.most_over(null_in, meant.form.groups);
        let of_block = rows.div_ceil(most.len()).max(1);
        for row in 0..rows {
            // A row with more non-zeros than null inputs can have reads a live one.
            if null.contains(row) || counted.per_row.of(row) > most[row / of_block] {
                continue;
            }
            if self.reads_no_live_input(number, meant, row, null_in)? {
                null.insert(row);
            }
        }
        Ok(Some(null))
    }

    fn reads_no_live_input(
        &mut self,
        number: usize,
        meant: &Meant,
        row: usize,
        null_in: &Channels,
    ) -> Result<bool, CheckpointError> {
        let Some(told) = self.told(number, meant) else {
            let reads = scan::row_reads(
                &self.headers.checkpoint,
                self.weight(number),
                row as u64,
                &wanted(meant),
            )?;
            return Ok(reads.is_some_and(|reads| reads.iter().all(|input| null_in.contains(input))));
        };
        let reads = told.and_then(|told| told::reads_live_input(&told, meant, row, null_in));
        if reads.is_none() {
            self.undecided.insert(number);
        }
        Ok(reads == Some(false))
    }
}

fn counted(
    (headers, stats): (&Headers, Option<&Stats>),
    number: usize,
    meant: &Meant,
) -> Result<Option<Counted>, CheckpointError> {
    let found = match stats {
        Some(stats) => {
            let told = told_in(&stats.weights[number], meant);
            told.and_then(|told| told::statistics(&told, meant))
        }
        None => {
            let weight = &headers.weights.weights[number];
            scan::statistics(&headers.checkpoint, weight, &wanted(meant))?
        }
    };
    Ok(found.map(Counted::from))
}

/// What statistics say of a weight in the shape that is meant.
fn told_in<'s>(facts: &'s Facts, meant: &Meant) -> Option<Cow<'s, Told>> {
    match &meant.shape {
        Some(shape) => facts.data_in(shape),
        None => facts.data.as_ref().map(Cow::Borrowed),
    }
}

fn wanted(meant: &Meant) -> Wanted {
    Wanted {
        shape: meant.shape.clone(),
        groups: meant.form.groups.max(1) as u64,
        transposed: meant.form.transposed,
        stacked: meant.form.stacked,
        ..Wanted::default()
    }
}

impl Weights for Scanned<'_> {
    type Error = CheckpointError;

    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        form: Form,
    ) -> Result<Channels, CheckpointError> {
        let weights = &self.headers.weights.weights;
        let Some(held) = self.held.get(tensor) else {
            return Ok(Channels::none(0));
        };
        let (rows, _) = form.sides(&held.shape).unwrap_or_default();
        let Some(pieces) = held.pieces(form, weights) else {
            return Ok(Channels::none(rows));
        };
        // Null is a row that is in no piece live.
        let mut live = Channels::none(rows);
        for piece in pieces {
            let null_in = piece.inputs.of(null_in);
            let null = self.rows_without_live_inputs(piece.number, &piece.meant, &null_in)?;
            let null = piece.own.of(&null.unwrap_or_else(|| Channels::none(0)));
            (0..piece.rows.len())
                .filter(|row| !null.contains(*row))
                .for_each(|row| live.insert(piece.rows.at(row)));
        }
        Ok(Channels::of(rows, |row| !live.contains(row)))
    }

    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, CheckpointError> {
        let Some(held) = self.held.get(tensor) else {
            return Ok(None);
        };
        let Some((number, chunk)) = held.single() else {
            return Ok(None);
        };
        let values = match self.stats {
            Some(stats) => {
                let told = stats.weights[number].data.as_ref();
                let values = told.and_then(|told| told.values.as_ref());
                values.map(|values| values.iter().map(|x| x.0).collect())
            }
            None => {
                let wanted = Wanted {
                    shape: chunk.is_none().then(|| held.shape.clone()),
                    ..Wanted::default()
                };
                let (checkpoint, weight) = (&self.headers.checkpoint, self.weight(number));
                let mut values = Vec::new();
                let known = scan::values(checkpoint, weight, &wanted, 0..u64::MAX, &mut values)?;
                known.then(|| values.into_iter().map(f64::from).collect())
            }
        };
        Ok(values.map(|values: Vec<f64>| match chunk {
            None => values,
            Some((run, of)) => {
                let count = values.len() / (of.max(1) as usize);
                let runs = values.chunks(count.max(1));
                runs.skip(run as usize).take(1).flatten().copied().collect()
            }
        }))
    }
}
