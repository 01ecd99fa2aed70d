//! Weights that are sums of vectors from codebooks: AQLM.
//!
//! ```text
//! codes      I8 or I16 [N / og, K / ig, M]     og outputs by ig inputs share M codes
//! codebooks  float [M, 2^B, og, ig]
//! scales     float [N / og, 1, 1, 1]
//! ```

use super::zeros::Rule;
use super::{Answer, Found, Seen};

/// AQLM. No number has a code of its own, so none can be counted as 0.
pub(super) fn aqlm(seen: &Seen) -> Answer {
    let (codes, Some(books)) = (seen.codes(), seen.side(".codebooks")) else {
        return Ok(None);
    };
    let ([high, wide, count], [books, size, out_group, in_group]) = (&*codes.shape, &*books.shape)
    else {
        return Err("its codes or codebooks have other dimensions");
    };
    if books != count || !matches!(codes.dtype.name, "I8" | "I16" | "U8" | "U16" | "I32") {
        return Err("codes and codebooks do not fit each other");
    }
    let (Some(rows), Some(columns)) = (high.checked_mul(*out_group), wide.checked_mul(*in_group))
    else {
        return Err("its numbers cannot be counted");
    };
    let bits = size.max(&1).ilog2();
    let rule = Rule::None("its numbers are sums of vectors from codebooks; no code stands for 0");
    let label = format!(
        "aqlm {count}x{bits} g{}",
        out_group.saturating_mul(*in_group)
    );
    Ok(
        Found::new([rows, columns], label, bits, rule).map(|found| Found {
            code_bits: None,
            ..found
        }),
    )
}
