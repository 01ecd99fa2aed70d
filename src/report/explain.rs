//! An explanation as a tree of lines.

use crate::model::Step;
use crate::units;

/// The lines of an explanation.
pub fn text(step: &Step) -> String {
    let mut out = String::new();
    lines(step, "", "", &mut out);
    out
}

fn lines(step: &Step, first: &str, rest: &str, out: &mut String) {
    *out += first;
    *out += &units::visible(&step.label);
    if let Some(value) = step
        .value
        .filter(|_| step.formula.is_none() && step.numbers.is_none())
    {
        *out += &format!(": {} {}", units::grouped(value), step.unit);
    }
    out.push('\n');
    let gap = if step.steps.is_empty() {
        format!("{rest}    ")
    } else {
        format!("{rest}│   ")
    };
    for text in [&step.formula, &step.numbers].into_iter().flatten() {
        *out += &format!("{gap}= {}\n", units::visible(text));
    }
    if let Some(value) = step
        .value
        .filter(|_| step.formula.is_some() || step.numbers.is_some())
    {
        *out += &format!("{gap}= {} {}\n", units::grouped(value), step.unit);
    }
    for (i, inner) in step.steps.iter().enumerate() {
        let last = i + 1 == step.steps.len();
        let (branch, below) = if last {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        lines(
            inner,
            &format!("{rest}{branch}"),
            &format!("{rest}{below}"),
            out,
        );
    }
}
