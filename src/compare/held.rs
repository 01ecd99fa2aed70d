//! How a file holds the tensors of a tree: the stored weights that make up each, and how their dimensions are meant.
//!
//! A tensor means a matrix, or several of them ([`Form`]). A stored weight is all of it or a piece: the experts of a layer
//! may be one tensor in the tree and two weights for each expert in the file. A piece knows which rows and which inputs of
//! the whole are its own, so what is null in the whole can be told for the piece, and the other way round.

use crate::channels::Channels;
use crate::checkpoint::packed::Weight;
use crate::flow::Form;
use crate::join::{Extent, Part};

/// How the dimensions of a weight are meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Meant {
    pub form: Form,
    /// Its shape; the model's, where that is known.
    pub shape: Option<Box<[u64]>>,
}

impl Meant {
    /// As the file has it.
    pub(super) fn as_stored(weight: &Weight) -> Meant {
        Meant {
            form: Form::MATRIX,
            shape: weight.shape.clone(),
        }
    }

    /// Its shape with outputs first, those of all blocks: [out, in of a block, taps ...].
    pub(super) fn outward(&self) -> Option<Vec<u64>> {
        let mut shape = self.shape.as_deref()?.to_vec();
        let first = usize::from(self.form.stacked);
        if shape.len() < first + 2 {
            return None;
        }
        if self.form.transposed {
            shape.swap(first, first + 1);
        }
        if self.form.stacked {
            let blocks = shape.remove(0);
            shape[0] = shape[0].saturating_mul(blocks);
        }
        Some(shape)
    }
}

/// A tensor of a tree, in a file.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Its shape in the tree.
    pub shape: Box<[u64]>,
    /// The stored weights that it is made of.
    pub parts: Vec<Part>,
}

/// A stored weight as a piece of a matrix.
pub(super) struct Piece {
    pub number: usize,
    pub meant: Meant,
    /// Its rows and inputs among those of the whole.
    pub rows: Span,
    pub inputs: Span,
    /// The same rows among those of the stored weight, which may hold other tensors too.
    pub own: Span,
}

/// Channels of some blocks: of each a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first block, and how many of all.
    first: usize,
    blocks: usize,
    all: usize,
    /// Channels of a block, where the run begins and how long it is.
    width: usize,
    begin: usize,
    count: usize,
}

impl Span {
    /// Every channel of so many blocks.
    fn whole(blocks: usize, width: usize) -> Span {
        Span {
            first: 0,
            blocks,
            all: blocks,
            width,
            begin: 0,
            count: width,
        }
    }

    /// Of every block, or of one, a run of its channels.
    fn cut(self, block: Option<usize>, begin: usize, count: usize) -> Option<Span> {
        if begin.checked_add(count)? > self.width {
            return None;
        }
        let (first, blocks) = match block {
            Some(block) if block < self.all => (block, 1),
            Some(_) => return None,
            None => (0, self.all),
        };
        Some(Span {
            first,
            blocks,
            begin,
            count,
            ..self
        })
    }

    /// How many these are.
    pub(super) fn len(&self) -> usize {
        self.blocks * self.count
    }

    /// What a set of the whole's channels says of these.
    pub(super) fn of(&self, whole: &Channels) -> Channels {
        if whole.width() != self.all * self.width {
            return Channels::none(self.len());
        }
        if self.blocks == self.all {
            return whole.slice(self.begin, self.count, self.blocks);
        }
        let own = whole.slice(self.first * self.width, self.blocks * self.width, 1);
        own.slice(self.begin, self.count, self.blocks)
    }

    /// The channels of the whole that some of these are.
    pub(super) fn spread(&self, own: &Channels) -> Channels {
        let mut whole = Channels::none(self.all * self.width);
        own.iter().for_each(|own| whole.insert(self.at(own)));
        whole
    }

    /// The channel of the whole that is the `own`-th of these.
    pub(super) fn at(&self, own: usize) -> usize {
        let (block, channel) = (own / self.count.max(1), own % self.count.max(1));
        (self.first + block) * self.width + self.begin + channel
    }
}

impl Held {
    /// The number of the one weight that holds it, and which of how many runs of that it is, if not all of it.
    pub(super) fn single(&self) -> Option<(usize, Option<(u64, u64)>)> {
        let [part] = self.parts[..] else {
            return None;
        };
        let extent = part.extent?;
        let all = Extent {
            chunk: None,
            ..extent
        };
        (all == Extent::WHOLE).then_some((part.number, extent.chunk))
    }

    /// The number of the one weight that is all of it.
    pub(super) fn whole(&self) -> Option<usize> {
        let (number, chunk) = self.single()?;
        chunk.is_none().then_some(number)
    }

    /// The stored weights as pieces of the matrix that it is meant to be; `None` where they do not make one.
    pub(super) fn pieces(&self, form: Form, weights: &[Weight]) -> Option<Vec<Piece>> {
        let blocks = form.groups.max(1);
        let (rows, inputs) = form.sides(&self.shape)?;
        let whole = |all: usize| {
            let width = all.checked_div(blocks).filter(|n| n * blocks == all)?;
            Some(Span::whole(blocks, width))
        };
        let spans = (whole(rows)?, whole(inputs)?);
        if let Some(number) = self.whole() {
            return Some(vec![Piece {
                number,
                meant: Meant {
                    form,
                    shape: Some(self.shape.clone()),
                },
                rows: spans.0,
                inputs: spans.1,
                own: spans.0,
            }]);
        }
        // Groups of a convolution lie in dimension 0, which parts may cut anywhere.
        if !form.stacked && blocks > 1 {
            return None;
        }
        let piece = |part: &Part| self.piece(part, form, spans, &weights[part.number]);
        let pieces: Vec<Piece> = self.parts.iter().map(piece).collect::<Option<_>>()?;
        let area = |piece: &Piece| piece.rows.len() as u128 * piece.inputs.count as u128;
        let all = rows as u128 * spans.1.width as u128;
        (pieces.iter().map(area).sum::<u128>() == all).then_some(pieces)
    }

    fn piece(
        &self,
        part: &Part,
        form: Form,
        (rows, inputs): (Span, Span),
        weight: &Weight,
    ) -> Option<Piece> {
        let extent = part.extent?;
        let shape = weight.shape.clone()?;
        let mut sides = shape.to_vec();
        let n = sides.len();
        // An item lacks the dimension that counts items.
        let lacking = usize::from(extent.item.is_some());
        let first = usize::from(form.stacked);
        let is_matrix = n + lacking == first + 2;
        if n + lacking != self.shape.len() || lacking > first || extent.transposed && !is_matrix {
            return None;
        }
        if extent.transposed {
            sides.swap(n - 1, n - 2);
        }
        let stored = Form {
            groups: if lacking == 1 { 1 } else { form.groups },
            transposed: form.transposed != extent.transposed,
            stacked: form.stacked && lacking == 0,
        };
        let mut own = Span::whole(1, stored.sides(&shape)?.0);
        if let Some((number, of)) = extent.chunk {
            // Dimension 0 has to be rows.
            if form != Form::MATRIX {
                return None;
            }
            sides[0] = sides[0].checked_div(of)?;
            let begin = usize::try_from(sides[0].checked_mul(number)?).ok()?;
            own = own.cut(None, begin, usize::try_from(sides[0]).ok()?)?;
        }
        let span = |whole: Span, at: usize| {
            let begin = if extent.along == at { extent.begin } else { 0 };
            let count = usize::try_from(*sides.get(at - lacking)?).ok()?;
            whole.cut(extent.item, usize::try_from(begin).ok()?, count)
        };
        let turned = usize::from(form.transposed);
        Some(Piece {
            number: part.number,
            rows: span(rows, first + turned)?,
            inputs: span(inputs, first + 1 - turned)?,
            own,
            meant: Meant {
                form: stored,
                shape: Some(shape),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_a_run_of_one_block_or_of_all() {
        // Two blocks of 5 channels.
        let whole = Span::whole(2, 5);
        let null = Channels::of(10, |channel| [1, 3, 8].contains(&channel));
        let of = |span: Span| span.of(&null).iter().collect::<Vec<_>>();
        assert_eq!(of(whole), [1, 3, 8]);
        // Channels 1 to 3 of both: 8 is channel 3 of the second.
        let run = whole.cut(None, 1, 3).expect("a run");
        assert_eq!((of(run), run.len()), (vec![0, 2, 5], 6));
        assert_eq!([0, 2, 5].map(|own| run.at(own)), [1, 3, 8]);
        assert_eq!(run.spread(&run.of(&null)), null);
        let run = whole.cut(Some(1), 2, 3).expect("a run");
        assert_eq!((of(run), run.at(1)), (vec![1], 8));
        assert_eq!(
            (whole.cut(Some(2), 0, 5), whole.cut(None, 3, 3)),
            (None, None)
        );
    }

    #[test]
    fn what_is_known_of_other_channels_says_nothing() {
        assert!(Span::whole(2, 5).of(&Channels::all(9)).is_empty());
    }
}
