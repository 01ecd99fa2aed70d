//! Recurrent cells over all positions of `[.., positions, features]`. A step is counted once and repeated.

use crate::cost::arguments::{ArgumentError, Arguments};
use crate::cost::{BitCostRegister, CostError, Fault, Operand};

/// Options of [`lstm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lstm {
    /// Features of the state.
    pub hidden: u64,
    /// Whether a LayerNorm stands behind every step, as in the original; frameworks have none.
    pub norm: bool,
}

impl Default for Lstm {
    fn default() -> Lstm {
        Lstm {
            hidden: 30,
            norm: true,
        }
    }
}

impl Lstm {
    pub(super) fn read(a: &mut Arguments) -> Result<Lstm, ArgumentError> {
        let usual = Lstm::default();
        Ok(Lstm {
            hidden: a.size("hidden", usual.hidden)?,
            norm: a.flag("norm", usual.norm)?,
        })
    }
}

/// What a step takes and the whole gives: one position, the state, all positions of the state.
struct Steps {
    positions: u64,
    input: Operand,
    state: Operand,
    states: Operand,
}

fn steps(x: Operand, hidden: u64, register: &BitCostRegister) -> Result<Steps, Fault> {
    let sides = x.shape.sides();
    let [outer @ .., positions, features] = sides else {
        return Err(Fault::rank(
            x.shape,
            "a recurrent cell needs positions x features",
        ));
    };
    let bits = register.conventions().accumulator_bits;
    let of = |sides: &[u64], bits| Operand::new(&[outer, sides].concat(), bits);
    Ok(Steps {
        positions: *positions,
        input: of(&[*features], x.bits)?,
        state: of(&[hidden], bits)?,
        states: of(&[*positions, hidden], bits)?,
    })
}

/// Four linear layers over input and state together; the gates forget, input and output; a candidate.
pub fn lstm(x: Operand, o: &Lstm, register: &mut BitCostRegister) -> Result<Operand, CostError> {
    let steps = steps(x, o.hidden, register)?;
    let features = steps.input.shape.last().checked_add(o.hidden);
    let features = features.ok_or(Fault::Overflow("input and state together"))?;
    register.scope("lstm", |r| {
        r.repeat("step", steps.positions, |r| {
            let input = Operand {
                shape: steps.input.shape.with_last(&[features])?,
                bits: x.bits.max(steps.state.bits),
            };
            let forget = r.linear("forget", input, o.hidden, true)?;
            let forget = r.sigmoid(forget)?;
            let take = r.linear("input", input, o.hidden, true)?;
            let take = r.sigmoid(take)?;
            let give = r.linear("output", input, o.hidden, true)?;
            let give = r.sigmoid(give)?;
            let candidate = r.linear("cell", input, o.hidden, true)?;
            let candidate = r.tanh(candidate)?;
            let kept = r.mul(forget, steps.state)?;
            let taken = r.mul(take, candidate)?;
            let cell = r.add(kept, taken)?;
            let shown = r.tanh(cell)?;
            let state = r.mul(give, shown)?;
            if o.norm {
                r.layer_norm("norm", state)?;
            }
            Ok(())
        })
    })?;
    Ok(steps.states)
}

/// Options of [`gru`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gru {
    /// Features of the state.
    pub hidden: u64,
}

impl Default for Gru {
    fn default() -> Gru {
        Gru { hidden: 30 }
    }
}

impl Gru {
    pub(super) fn read(a: &mut Arguments) -> Result<Gru, ArgumentError> {
        Ok(Gru {
            hidden: a.size("hidden", Gru::default().hidden)?,
        })
    }
}

/// Reset and update from input and state; a candidate of which the state's part is reset; a mean of it and the state.
pub fn gru(x: Operand, o: &Gru, register: &mut BitCostRegister) -> Result<Operand, CostError> {
    let steps = steps(x, o.hidden, register)?;
    register.scope("gru", |r| {
        r.repeat("step", steps.positions, |r| {
            let mut both = |names: [&str; 2]| -> Result<[Operand; 2], CostError> {
                Ok([
                    r.linear(names[0], steps.input, o.hidden, true)?,
                    r.linear(names[1], steps.state, o.hidden, true)?,
                ])
            };
            let [reset, reset_state] = both(["reset", "reset_state"])?;
            let [update, update_state] = both(["update", "update_state"])?;
            let [candidate, candidate_state] = both(["candidate", "candidate_state"])?;
            let reset = r.add(reset, reset_state)?;
            let reset = r.sigmoid(reset)?;
            let update = r.add(update, update_state)?;
            let update = r.sigmoid(update)?;
            let kept = r.mul(reset, candidate_state)?;
            let candidate = r.add(candidate, kept)?;
            let candidate = r.tanh(candidate)?;
            // (1 - update) * candidate + update * state, as candidate + update * (state - candidate).
            let apart = r.sub(steps.state, candidate)?;
            let moved = r.mul(update, apart)?;
            r.add(candidate, moved)
        })
    })?;
    Ok(steps.states)
}
