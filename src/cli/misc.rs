//! `bitcost schema`, `completions` and `man`: what other programs read.

use super::args::{Cli, CompletionsArgs, ManArgs, SchemaArgs};
use super::{Exit, Outcome, input, usage, write_out};
use crate::formula::did_you_mean;
use clap::CommandFactory;

/// The JSON Schemas there are.
const SCHEMAS: &[(&str, &str)] = &[
    ("inspect", include_str!("../report/schemas/inspect.json")),
    ("sweep", include_str!("../report/schemas/sweep.json")),
    ("models", include_str!("../report/schemas/models.json")),
    ("by-class", include_str!("../report/schemas/by-class.json")),
    ("db-eval", include_str!("../report/schemas/db-eval.json")),
    ("fetch", include_str!("../report/schemas/fetch.json")),
    ("compare", include_str!("../report/schemas/compare.json")),
    ("run", include_str!("../report/schemas/run.json")),
    ("generate", include_str!("../report/schemas/generate.json")),
    (
        "bench-kernel",
        include_str!("../report/schemas/bench-kernel.json"),
    ),
    ("stats", include_str!("../report/schemas/stats.json")),
    ("deploy", include_str!("../report/schemas/deploy.json")),
    ("device", include_str!("../report/schemas/device.json")),
    ("estimate", include_str!("../report/schemas/estimate.json")),
    (
        "estimate-precisions",
        include_str!("../report/schemas/estimate-precisions.json"),
    ),
];

pub(super) fn schema(args: &SchemaArgs) -> Outcome {
    // `bitcost.inspect/1` is how the outputs call themselves.
    let name = args
        .name
        .trim_start_matches("bitcost.")
        .split('/')
        .next()
        .unwrap_or_default();
    let Some((_, text)) = SCHEMAS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = SCHEMAS.iter().map(|(known, _)| *known).collect();
        return Err(usage(format!(
            "no schema `{}`{}; there are {}",
            args.name,
            did_you_mean(name, known.iter().copied()),
            known.join(", ")
        )));
    };
    write_out(text, None)?;
    Ok(Exit::Ok)
}

pub(super) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bitcost", &mut script);
    write_out(&String::from_utf8_lossy(&script), None)?;
    Ok(Exit::Ok)
}

pub(super) fn man(args: &ManArgs) -> Outcome {
    let mut command = Cli::command();
    command.build();
    let page = match &args.command {
        None => command,
        Some(name) => match command.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                let known: Vec<&str> = command
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .collect();
                return Err(usage(format!(
                    "no subcommand `{name}`{}",
                    did_you_mean(name, known.iter().copied())
                )));
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|e| input(e.to_string()))?;
    write_out(&String::from_utf8_lossy(&text), None)?;
    Ok(Exit::Ok)
}
