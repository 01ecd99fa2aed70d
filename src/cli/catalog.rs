//! `bitcost catalog`: models whose configs are embedded.

use super::args::{CatalogArgs, DbFormat};
use super::{Exit, Outcome, input, to_json, write_out};
use crate::source::Catalog;
use crate::units;
use serde::Serialize;

#[derive(Serialize)]
struct Line {
    id: String,
    published_params: u128,
    exact: bool,
    source: String,
}

pub(super) fn run(args: &CatalogArgs) -> Outcome {
    let catalog = Catalog::embedded();
    let filter = args.filter.as_deref().unwrap_or("").to_lowercase();
    let models = catalog
        .ids()
        .filter(|id| id.to_lowercase().contains(&filter))
        .filter_map(|id| catalog.get(id));
    let lines: Vec<Line> = models
        .map(|m| Line {
            id: m.id.to_string(),
            published_params: m.published.params,
            exact: m.published.digits.is_none(),
            source: m.published.source.to_string(),
        })
        .collect();
    if lines.is_empty() {
        return Err(input(format!(
            "no model of the catalog contains `{}`; `bitcost catalog` lists all",
            args.filter.as_deref().unwrap_or("")
        )));
    }
    let text = match args.format {
        DbFormat::Json => to_json(&lines)?,
        DbFormat::Table => {
            let width = lines.iter().map(|l| l.id.len()).max().unwrap_or(0);
            let line = |l: &Line| {
                format!(
                    "{:width$}  {:>19}  {}",
                    l.id,
                    format!(
                        "{}{}",
                        if l.exact { "" } else { "about " },
                        units::grouped(l.published_params)
                    ),
                    l.source
                )
            };
            let list: Vec<String> = lines.iter().map(line).collect();
            format!(
                "{:width$}  {:>19}  published in\n{}\n{} models",
                "model",
                "parameters",
                list.join("\n"),
                lines.len()
            )
        }
    };
    write_out(&text, None)?;
    Ok(Exit::Ok)
}
