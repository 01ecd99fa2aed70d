//! Attention: projections onto heads, scores of queries and keys, their softmax, and the values that it weighs.

use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::primitives::Share;
use crate::cost::{BitCostRegister, CostError, Fault, Operand};

/// Heads and what they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub queries: u64,
    /// Heads of keys and values; groups of query heads share one.
    pub keys: u64,
    /// Features of a head of queries and keys, and of one of values.
    pub depth: u64,
    /// Positions in the cache before those that flow in.
    pub past: u64,
    /// Whether a position sees only those up to itself.
    pub causal: bool,
    /// Whether positions are rotated into queries and keys.
    pub rope: bool,
    /// Whether the projections onto heads have biases, and whether the one behind them has.
    pub biased: (bool, bool),
}

/// Options of [`attention`].
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values; as many for none.
    pub kv_heads: Option<u64>,
    /// Features of a head; features over heads for none.
    pub head_dim: Option<u64>,
    /// Positions in the cache.
    pub past: u64,
    /// Whether a position sees only those up to itself.
    pub causal: bool,
    /// Whether positions are rotated into queries and keys.
    pub rope: bool,
    /// Whether the projections have biases.
    pub biased: bool,
}

impl Default for Attention {
    fn default() -> Attention {
        Attention {
            heads: 4,
            kv_heads: None,
            head_dim: None,
            past: 0,
            causal: false,
            rope: false,
            biased: true,
        }
    }
}

impl Attention {
    pub(super) fn read(a: &mut Arguments) -> Result<Attention, ArgumentError> {
        Attention::read_with(a, &Attention::default())
    }

    pub(super) fn read_with(
        a: &mut Arguments,
        usual: &Attention,
    ) -> Result<Attention, ArgumentError> {
        Ok(Attention {
            heads: a.size("heads", usual.heads)?,
            kv_heads: a.optional("kv_heads", "heads")?,
            head_dim: a.optional("head_dim", "features / heads")?,
            past: a.count("past", usual.past)?,
            causal: a.choice("mask", "none", &["none", "causal"])? == "causal",
            rope: a.flag("rope", usual.rope)?,
            biased: a.flag("attention_bias", usual.biased)?,
        })
    }

    pub(super) fn heads(&self, features: u64) -> Result<Heads, Fault> {
        let keys = self.kv_heads.unwrap_or(self.heads);
        divides("the query heads", self.heads, "key-value heads", keys)?;
        let depth = match self.head_dim {
            Some(depth) => depth,
            None => divides("features", features, "heads", self.heads)?,
        };
        Ok(Heads {
            queries: self.heads,
            keys,
            depth,
            past: self.past,
            causal: self.causal,
            rope: self.rope,
            biased: (self.biased, self.biased),
        })
    }
}

/// `size / parts`, if it is whole.
pub(super) fn divides(
    what: &'static str,
    size: u64,
    parts_of: &'static str,
    parts: u64,
) -> Result<u64, Fault> {
    if parts == 0 {
        return Err(Fault::Zero(parts_of));
    }
    if !size.is_multiple_of(parts) {
        return Err(Fault::Divides {
            what,
            size,
            parts_of,
            parts,
        });
    }
    Ok(size / parts)
}

/// Attention by itself.
pub fn attention(
    x: Operand,
    o: &Attention,
    register: &mut BitCostRegister,
) -> Result<Operand, CostError> {
    let heads = o.heads(x.shape.last())?;
    register.scope("attention", |r| attend(x, heads, r))
}

/// Projections, scores, softmax, values, output projection.
pub(super) fn attend(
    x: Operand,
    heads: Heads,
    r: &mut BitCostRegister,
) -> Result<Operand, CostError> {
    let &[.., positions, features] = x.shape.sides() else {
        return Err(Fault::rank(x.shape, "attention needs positions x features").into());
    };
    let wide = |count: u64| {
        let all = count.checked_mul(heads.depth);
        all.ok_or(Fault::Overflow("the features of all heads"))
    };
    let (of_queries, of_keys) = (wide(heads.queries)?, wide(heads.keys)?);
    let mut q = r.linear("query", x, of_queries, heads.biased.0)?;
    let mut k = r.linear("key", x, of_keys, heads.biased.0)?;
    let mut v = r.linear("value", x, of_keys, heads.biased.0)?;
    if heads.rope {
        q = r.rope(q, Share::ALL)?;
        k = r.rope(k, Share::ALL)?;
    }
    let mut seen = positions;
    if heads.past > 0 {
        let cached = x.shape.with_last(&[heads.past, of_keys])?;
        let cached = Operand { shape: cached, ..k };
        k = r.concat(cached, k)?;
        v = r.concat(cached, v)?;
        seen = k.shape.sides()[k.shape.sides().len() - 2];
    }
    let share = if heads.causal {
        causal(positions, heads.past)?
    } else {
        Share::ALL
    };
    let groups = heads.queries / heads.keys;
    let q = split(q, groups, [heads.keys, groups, positions, heads.depth])?;
    let k = split(k, groups, [heads.keys, 1, heads.depth, seen])?;
    let v = split(v, groups, [heads.keys, 1, seen, heads.depth])?;
    let scores = r.matmul_share(q, k, share)?;
    let scores = r.scale(scores, share)?;
    let weights = r.softmax(scores, share)?;
    let out = r.matmul_share(weights, v, share)?;
    let joined = x.shape.with_last(&[positions, of_queries])?;
    let out = out.reshape(joined.sides())?;
    r.linear("output", out, features, heads.biased.1)
}

/// `[.., positions, features]` as `[.., keys, groups, .., ..]`, without the groups where there is one.
fn split(x: Operand, groups: u64, [keys, group, a, b]: [u64; 4]) -> Result<Operand, Fault> {
    let outer = &x.shape.sides()[..x.shape.sides().len() - 2];
    let heads = if groups == 1 {
        vec![keys, a, b]
    } else {
        vec![keys, group, a, b]
    };
    x.reshape(&[outer, &heads].concat())
}

/// Pairs that a causal mask leaves: each of S positions sees the past, and those up to itself.
fn causal(positions: u64, past: u64) -> Result<Share, Fault> {
    let (s, past) = (u128::from(positions), u128::from(past));
    let pairs = || {
        let kept = s
            .checked_mul(past)?
            .checked_add(s.checked_mul(s + 1)? / 2)?;
        Some(Share {
            kept,
            of: s.checked_mul(past.checked_add(s)?)?,
        })
    };
    pairs().ok_or(Fault::Overflow("the pairs of positions"))
}
