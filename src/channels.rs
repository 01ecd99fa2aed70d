//! Sets of channels: which of `n` channels have a property, such as being null.

/// A set of channels out of `n`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channels {
    n: usize,
    words: Vec<u64>,
}

impl Channels {
    /// No channel of `n`.
    pub fn none(n: usize) -> Channels {
        Channels {
            n,
            words: vec![0; n.div_ceil(64)],
        }
    }

    /// Every channel of `n`.
    pub fn all(n: usize) -> Channels {
        let mut all = Channels::none(n);
        (0..n).for_each(|channel| all.insert(channel));
        all
    }

    /// The channels for which something holds.
    pub fn of(n: usize, holds: impl Fn(usize) -> bool) -> Channels {
        let mut set = Channels::none(n);
        (0..n).filter(|c| holds(*c)).for_each(|c| set.insert(c));
        set
    }

    /// How many channels there are, in the set or not.
    pub fn width(&self) -> usize {
        self.n
    }

    /// How many are in the set.
    pub fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether none is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether a channel is in the set; one beyond the last is not.
    pub fn contains(&self, channel: usize) -> bool {
        self.words
            .get(channel / 64)
            .is_some_and(|word| word >> (channel % 64) & 1 == 1)
    }

    /// Puts a channel into the set; one beyond the last is left out.
    pub fn insert(&mut self, channel: usize) {
        if channel < self.n {
            self.words[channel / 64] |= 1 << (channel % 64);
        }
    }

    /// The channels of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let of_word = |(at, word): (usize, &u64)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let first = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + first)
            })
        };
        self.words.iter().enumerate().flat_map(of_word)
    }

    /// Channels that are in both. Sets of different widths have nothing to do with each other: none is in both, except that
    /// a single channel stands for all of them, as in a sum that broadcasts.
    pub fn and(&self, other: &Channels) -> Channels {
        let (a, b) = self.broadcast(other);
        if a.n != b.n {
            return Channels::none(a.n.max(b.n));
        }
        let words = a.words.iter().zip(&b.words).map(|(x, y)| x & y).collect();
        Channels { n: a.n, words }
    }

    /// Channels that are in either. Of different widths: none.
    pub fn or(&self, other: &Channels) -> Channels {
        let (a, b) = self.broadcast(other);
        if a.n != b.n {
            return Channels::none(a.n.max(b.n));
        }
        let words = a.words.iter().zip(&b.words).map(|(x, y)| x | y).collect();
        Channels { n: a.n, words }
    }

    /// How many channels are in one of two sets of the same width, and not in the other.
    pub fn count_apart(&self, other: &Channels) -> usize {
        let words = self.words.iter().zip(&other.words);
        let apart = words.map(|(a, b)| (a ^ b).count_ones() as usize);
        apart.sum()
    }

    fn broadcast(&self, other: &Channels) -> (Channels, Channels) {
        match (self.n, other.n) {
            (1, n) if n > 1 => (self.each(n), other.clone()),
            (n, 1) if n > 1 => (self.clone(), other.each(n)),
            _ => (self.clone(), other.clone()),
        }
    }

    /// `n` channels, each in the set if the one that it comes from is.
    fn moved(&self, n: usize, from: impl Fn(usize) -> usize) -> Channels {
        if self.is_empty() {
            return Channels::none(n);
        }
        Channels::of(n, |channel| self.contains(from(channel)))
    }

    /// Each channel becomes `times` neighbours: a channel that is flattened to its positions.
    pub fn each(&self, times: usize) -> Channels {
        self.moved(self.n * times, |channel| channel / times.max(1))
    }

    /// The sets side by side.
    pub fn concat(parts: &[Channels]) -> Channels {
        let mut whole = Channels::none(parts.iter().map(|part| part.n).sum());
        let mut at = 0;
        for part in parts {
            part.iter().for_each(|channel| whole.insert(at + channel));
            at += part.n;
        }
        whole
    }

    /// The `i`-th of `of` equal runs.
    pub fn part(&self, i: usize, of: usize) -> Channels {
        let n = self.n / of.max(1);
        self.moved(n, |channel| i * n + channel)
    }

    /// Of each of `runs` equal runs, `count` channels from its `first` on.
    pub fn slice(&self, first: usize, count: usize, runs: usize) -> Channels {
        let run = self.n / runs.max(1);
        self.moved(runs * count, |channel| {
            channel / count.max(1) * run + first + channel % count.max(1)
        })
    }

    /// Runs of `run` channels, each repeated `times` over: key-value heads that serve several query heads.
    pub fn repeat_runs(&self, run: usize, times: usize) -> Channels {
        let (run, times) = (run.max(1), times.max(1));
        self.moved(self.n * times, |channel| {
            let head = channel / run / times;
            head * run + channel % run
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: usize, channels: &[usize]) -> Channels {
        Channels::of(n, |channel| channels.contains(&channel))
    }

    #[track_caller]
    fn check(set: &Channels, n: usize, expected: &[usize]) {
        assert_eq!(
            (set.width(), set.iter().collect::<Vec<_>>()),
            (n, expected.to_vec())
        );
        assert_eq!(set.count(), expected.len());
    }

    #[test]
    fn sets_of_one_width_intersect_and_unite() {
        let (a, b) = (set(130, &[0, 64, 129]), set(130, &[64, 128]));
        check(&a.and(&b), 130, &[64]);
        check(&a.or(&b), 130, &[0, 64, 128, 129]);
    }

    #[test]
    fn sets_of_different_widths_share_nothing() {
        check(&set(4, &[1]).and(&set(6, &[1])), 6, &[]);
        check(&set(4, &[1]).or(&set(6, &[1])), 6, &[]);
    }

    #[test]
    fn one_channel_stands_for_all() {
        check(&set(1, &[0]).and(&set(3, &[2])), 3, &[2]);
        check(&set(1, &[]).or(&set(3, &[2])), 3, &[2]);
    }

    #[test]
    fn flattening_widens_a_channel_to_its_positions() {
        check(&set(3, &[1]).each(2), 6, &[2, 3]);
    }

    #[test]
    fn parts_lie_side_by_side() {
        let whole = Channels::concat(&[set(2, &[1]), set(3, &[0])]);
        check(&whole, 5, &[1, 2]);
        check(&set(6, &[2, 5]).part(1, 3), 2, &[0]);
    }

    #[test]
    fn slices_come_from_every_run() {
        // Two runs of five: of each the third and fourth.
        check(&set(10, &[0, 2, 8]).slice(2, 2, 2), 4, &[0, 3]);
        check(&set(10, &[0, 2, 8]).slice(7, 3, 1), 3, &[1]);
        check(&set(10, &[0, 2, 8]).slice(0, 0, 2), 0, &[]);
    }

    #[test]
    fn key_value_heads_repeat_per_query_head() {
        // Two heads of two channels, each serving two query heads.
        check(&set(4, &[0, 3]).repeat_runs(2, 2), 8, &[0, 2, 5, 7]);
    }
}
