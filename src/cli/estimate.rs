//! `bitcost estimate`: what blocks cost bit by bit, operation by operation.

use super::args::{EstimateArgs, FormatArg};
use super::{Exit, Failure, Outcome, input, read_text, to_json, usage, write_out};
use crate::cost::{Chain, ChainError, ChainFile, Conventions, Operand, Precision};
use crate::report::estimate as report;

pub(super) fn run(args: &EstimateArgs) -> Outcome {
    if args.blocks {
        write_out(&report::blocks(), args.output.as_deref())?;
        return Ok(Exit::Ok);
    }
    let asked = asked(args)?;
    let from = operand(args, &asked)?;
    let conventions = conventions(args, &asked);
    let count = |precision: Precision| {
        let conventions = Conventions {
            precision,
            ..conventions
        };
        let counted = asked.chain.count(from, conventions);
        counted.map_err(|e| failure(args, e))
    };
    let text = if args.compare_precision.is_empty() {
        let register = count(conventions.precision)?;
        match args.format {
            FormatArg::Json => to_json(&report::json(from, &register))?,
            FormatArg::Csv => report::csv(&register),
            format => report::table(from, &register, format == FormatArg::Markdown),
        }
    } else {
        let each = args.compare_precision.iter().map(|p| count(*p));
        let registers = each.collect::<Result<Vec<_>, _>>()?;
        match args.format {
            FormatArg::Json => to_json(&report::precisions_json(from, &registers))?,
            FormatArg::Csv => report::precisions_csv(&registers),
            format => report::precisions(from, &registers, format == FormatArg::Markdown),
        }
    };
    write_out(&text, args.output.as_deref())?;
    Ok(Exit::Ok)
}

/// A fault of the command line, or of the file that it names.
fn failure(args: &EstimateArgs, error: ChainError) -> Failure {
    match &args.file {
        None => usage(error.to_string()),
        Some(file) => input(format!("{}: {error}", file.display())),
    }
}

/// The blocks, and what a file says beside them.
fn asked(args: &EstimateArgs) -> Result<ChainFile, Failure> {
    let read = match &args.file {
        Some(file) => Chain::from_json(&read_text(file)?),
        None => Chain::parse(&args.chain).map(|chain| ChainFile {
            chain,
            ..ChainFile::default()
        }),
    };
    read.map_err(|e| failure(args, e))
}

/// What flows in; the command line says more than a file.
fn operand(args: &EstimateArgs, asked: &ChainFile) -> Result<Operand, Failure> {
    let bits = args.input_bits.or(asked.input_bits).unwrap_or(32);
    let given = args.input.as_ref().map(|shape| shape.sides().to_vec());
    let Some(sides) = given.or_else(|| asked.input.clone()) else {
        return Err(usage(
            "what flows in is not known; write --input 128x32, positions and features",
        ));
    };
    Operand::new(&sides, bits).map_err(|fault| {
        let fault = format!("`input`: {fault}");
        match &args.file {
            Some(file) => input(format!("{}: {fault}", file.display())),
            None => usage(fault),
        }
    })
}

/// How things are counted.
fn conventions(args: &EstimateArgs, asked: &ChainFile) -> Conventions {
    let usual = Conventions::default();
    let precision = args.precision.or(asked.precision);
    let accumulator_bits = args.accumulator_bits.or(asked.accumulator_bits);
    Conventions {
        bops: args.bops.or(asked.bops).unwrap_or(usual.bops),
        bias: args.bias.or(asked.bias).unwrap_or(usual.bias),
        precision: precision.unwrap_or(usual.precision),
        accumulator_bits: accumulator_bits.unwrap_or(usual.accumulator_bits),
    }
}
