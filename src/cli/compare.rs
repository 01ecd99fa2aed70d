//! `bitcost compare`: what a compressed checkpoint saves against its base.

use super::args::{CompareArgs, FormatArg, NullRuleArg};
use super::progress::WorkBar;
use super::{Exit, Failure, Outcome, database, input, to_json, usage, write_out};
use crate::compare::{self, Apart, BitsRules, CompareError, Conventions, Graph, Side, Totals};
use crate::db::Db;
use crate::flow::Rule;
use crate::join::Headers;
use crate::model::{Asked, Model, ModelError};
use crate::report::compare::{CompareMeta, CompareNote, Pair, csv, json, table};
use crate::source::{self, ModelFiles, Settings, SourceKind};
use crate::stats::Stats;
use crate::value::{Object, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

impl From<CompareError> for Failure {
    fn from(e: CompareError) -> Failure {
        input(e.to_string())
    }
}

pub(super) fn run(args: &CompareArgs) -> Outcome {
    let db = database(&args.module_db)?;
    let settings = Settings::from_env();
    let open = |id: &String| checkpoint(args, &settings, id);
    let (base_id, others) = match (&args.only, args.inputs.as_slice()) {
        (Some(only), []) => (only, std::slice::from_ref(only)),
        (None, [base, others @ ..]) if !others.is_empty() => (base, others),
        _ => {
            return Err(usage(
                "compare takes a base and at least one compressed checkpoint, or --only FILE; `bitcost compare --help` shows examples",
            ));
        }
    };
    let base = open(base_id)?;
    let mut exit = Exit::Ok;
    let mut objects = Vec::new();
    let mut texts = Vec::new();
    for id in others {
        let other = open(id)?;
        let compared = Compared::new(args, &db, (base_id, &base), (id, &other))?;
        match args.format {
            FormatArg::Json => objects.push(compared.json()?),
            format => texts.push(compared.text(format)),
        }
        if !compared.gates_hold(args) {
            exit = Exit::Failed;
        }
    }
    let text = match (args.format, objects.as_slice()) {
        (FormatArg::Json, [one]) => one.clone(),
        (FormatArg::Json, several) => format!("[{}]", several.join(",\n")),
        _ => texts.join("\n"),
    };
    if !args.quiet || args.output.is_some() {
        write_out(&text, args.output.as_deref())?;
    }
    Ok(exit)
}

/// Width that a checkpoint is held against where there is no base.
const BASELINE_BITS: u32 = 32;

/// A checkpoint, opened as far as its headers.
struct Opened {
    files: ModelFiles,
    headers: Headers,
    /// Statistics in place of its data.
    stats: Option<Stats>,
}

fn checkpoint(args: &CompareArgs, settings: &Settings, id: &str) -> Result<Opened, Failure> {
    let wanted = super::inspect::wanted(&args.source, args.quiet);
    if let Some(stats) = super::stats::written(id)? {
        let fail = |e: crate::checkpoint::CheckpointError| input(e.to_string());
        let checkpoint = stats.headers(id).map_err(fail)?;
        let weights = stats.logical(&checkpoint).map_err(fail)?;
        let beside = Path::new(id).with_file_name("config.json");
        let beside = beside.to_str().filter(|_| beside.is_file());
        let beside = beside.map(|config| source::open(config, &wanted, settings));
        let files = ModelFiles {
            id: id.into(),
            revision: None,
            source: SourceKind::Local,
            config: beside.transpose()?.and_then(|files| files.config),
            root: None,
            file: id.into(),
            notes: Vec::new(),
            files: None,
        };
        return Ok(Opened {
            files,
            headers: Headers {
                checkpoint,
                weights,
            },
            stats: Some(stats),
        });
    }
    let files = source::open(id, &wanted, settings)?;
    let missing = || {
        input(format!(
            "{}: there are no weights here; `bitcost fetch {id} --weights` downloads them",
            files.file
        ))
    };
    let place = files.files.as_deref().ok_or_else(missing)?;
    let headers =
        Headers::read(place, files.config.as_deref()).map_err(|e| input(e.to_string()))?;
    let headers = headers.ok_or_else(missing)?;
    Ok(Opened {
        headers,
        files,
        stats: None,
    })
}

/// A base and a compressed checkpoint, counted.
struct Compared {
    meta: CompareMeta,
    base: Side,
    compressed: Side,
    /// Numbers of the layers of both, in the order of the compressed one.
    pairs: Vec<(usize, usize)>,
    /// How far the weights of each pair are apart.
    apart: Vec<Option<Apart>>,
    notes: Vec<CompareNote>,
}

impl Compared {
    fn new(
        args: &CompareArgs,
        db: &Db,
        (base_id, base): (&str, &Opened),
        (other_id, other): (&str, &Opened),
    ) -> Result<Compared, Failure> {
        let conventions = Conventions {
            rule: match args.null_rule {
                NullRuleArg::Weights => Rule::Weights,
                NullRuleArg::Exact => Rule::Exact,
            },
            bops: args.bops,
            activation_bits: args.activation_bits,
        };
        let given = args
            .bits
            .as_deref()
            .map_or(Ok(BTreeMap::new()), read_bits)?;
        let plain = BitsRules {
            given: BTreeMap::new(),
            float_bits: args.float_bits,
            infer: !args.no_infer_bits,
        };
        let rules = BitsRules {
            given,
            ..plain.clone()
        };
        // Each side once for its counts, and once more where the two are held against each other.
        let bytes = |opened: &Opened| {
            opened
                .headers
                .weights
                .weights
                .iter()
                .map(|w| w.bytes)
                .sum::<u64>()
        };
        let has_data = base.stats.is_none() && other.stats.is_none();
        let both = args.only.is_none();
        let errors = both && !args.no_errors && has_data;
        let passes = 1 + u64::from(errors);
        let all = bytes(other) * passes + if both { bytes(base) * passes } else { 0 };
        let bar = WorkBar::new("scanning", all, args.quiet);
        let watch = |bytes: u64| bar.iter().for_each(|bar| bar.done(bytes));
        let (mut side, graph) = count(args, db, other, base, &conventions, &rules, &watch)?;
        let mut base_side = match args.only {
            Some(_) => side.without_zeros(BASELINE_BITS, &conventions),
            None => count(args, db, base, base, &conventions, &plain, &watch)?.0,
        };
        let mut notes = Vec::new();
        for (path, message) in &side.notes {
            notes.push(CompareNote {
                code: "dataflow",
                path: path.clone(),
                message: message.clone(),
            });
        }
        let pairs = pair(args, &base_side, &side, &mut notes)?;
        // A layer that one side lacks is no saving.
        let (of_base, of_other) = pairs.iter().copied().unzip::<_, _, Vec<_>, Vec<_>>();
        base_side.totals = Totals::of(of_base.iter().map(|n| &base_side.layers[*n]), args.bops);
        side.totals = Totals::of(of_other.iter().map(|n| &side.layers[*n]), args.bops);
        notes.extend(remarks(&side, &rules)?);
        if both && !args.no_errors && !has_data {
            notes.push(CompareNote {
                code: "no_errors",
                path: String::new(),
                message: "statistics do not tell weight errors and kinds of zeros".into(),
            });
        }
        let mut apart = vec![None; pairs.len()];
        if errors {
            for (slot, (at, number)) in apart.iter_mut().zip(&pairs) {
                let (a, b) = (&base_side.layers[*at], &side.layers[*number]);
                let found = compare::apart((&base.headers, a), (&other.headers, b));
                *slot = found.map_err(|e| input(e.to_string()))?;
                watch(a.bytes + b.bytes);
            }
        }
        let meta = CompareMeta {
            base: base_id.into(),
            compressed: other_id.into(),
            alone: args.only.is_some(),
            bops: args.bops.name(),
            null_rule: match args.null_rule {
                NullRuleArg::Weights => "weights",
                NullRuleArg::Exact => "exact",
            },
            activation_bits: args.activation_bits,
            graph,
        };
        Ok(Compared {
            meta,
            base: base_side,
            compressed: side,
            pairs,
            apart,
            notes,
        })
    }

    fn layers(&self) -> Vec<Pair<'_>> {
        let pair = |((base, compressed), apart): (&(usize, usize), &Option<Apart>)| Pair {
            base: &self.base.layers[*base],
            compressed: &self.compressed.layers[*compressed],
            apart: *apart,
        };
        self.pairs.iter().zip(&self.apart).map(pair).collect()
    }

    fn json(&self) -> Result<String, Failure> {
        to_json(&json(
            &self.meta,
            &self.base,
            &self.compressed,
            &self.layers(),
            &self.notes,
        ))
    }

    fn text(&self, format: FormatArg) -> String {
        match format {
            FormatArg::Csv => csv(&self.layers()),
            format => {
                let markdown = format == FormatArg::Markdown;
                table(
                    &self.meta,
                    &self.base,
                    &self.compressed,
                    &self.layers(),
                    &self.notes,
                    markdown,
                )
            }
        }
    }

    fn gates_hold(&self, args: &CompareArgs) -> bool {
        let (b, c) = (&self.base.totals, &self.compressed.totals);
        let gates = [
            (
                "--min-bop-ratio",
                args.min_bop_ratio,
                compare::ratio(b.bops.to_f64(), c.bops.to_f64()),
            ),
            (
                "--min-mac-ratio",
                args.min_mac_ratio,
                compare::ratio(b.macs as f64, c.macs as f64),
            ),
        ];
        let mut hold = true;
        for (name, least, ratio) in gates {
            // No ratio is an infinite one.
            if let (Some(least), Some(ratio)) = (least, ratio)
                && ratio < least
            {
                eprintln!(
                    "gate: {}: {ratio:.4} is less than {name} {least}",
                    crate::units::visible(&self.meta.compressed)
                );
                hold = false;
            }
        }
        let worst = self
            .pairs
            .iter()
            .zip(&self.apart)
            .filter_map(|((_, number), apart)| Some((apart.as_ref()?.relative_l2, *number)));
        let worst = worst.max_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some(most), Some((error, number))) = (args.max_relative_error, worst)
            && error > most
        {
            let layer = crate::units::visible(&self.compressed.layers[number].name);
            eprintln!(
                "gate: {layer}: relative error {error:.6} is more than --max-relative-error {most}"
            );
            hold = false;
        }
        hold
    }
}

/// Counts one side; its graph comes from its own config, else from that of the base.
fn count(
    args: &CompareArgs,
    db: &Db,
    side: &Opened,
    base: &Opened,
    conventions: &Conventions,
    bits: &BitsRules,
    watch: &dyn Fn(u64),
) -> Result<(Side, String), Failure> {
    let checkpoint = compare::Source {
        headers: &side.headers,
        stats: side.stats.as_ref(),
    };
    let counted =
        |graph: &Graph<'_, '_>| compare::count(db, checkpoint, graph, conventions, bits, watch);
    let asked = Asked {
        seq_len: Some(args.seq_len),
        image_size: args.input.map(|(_, height, _)| height),
        ..Asked::default()
    };
    match args.graph.as_str() {
        "none" => Ok((counted(&Graph::None)?, "none".into())),
        "sequential" if side.stats.is_some() => Err(usage(
            "--graph sequential goes by the order of a file's data, which statistics do not keep",
        )),
        "sequential" => {
            let input = args.input.unwrap_or((1, 1, 1));
            Ok((counted(&Graph::Sequential(input))?, "sequential".into()))
        }
        name => match model(db, name, side, base)? {
            Some((model, name)) => {
                let asked = match model.task() {
                    crate::db::Task::Vision => Asked {
                        seq_len: None,
                        ..asked
                    },
                    _ => Asked {
                        image_size: None,
                        ..asked
                    },
                };
                Ok((counted(&Graph::Model(&model, &asked))?, name))
            }
            None => Ok((counted(&Graph::None)?, "none".into())),
        },
    }
}

/// The model of a graph's name, or what config and tensors tell; `None` where nothing does.
fn model<'d>(
    db: &'d Db,
    name: &str,
    side: &Opened,
    base: &Opened,
) -> Result<Option<(Model<'d>, String)>, Failure> {
    let fail = |e: ModelError| input(e.to_string());
    let configs = [&side.files, &base.files];
    if name == "auto" {
        for files in configs {
            let Some(config) = &files.config else {
                continue;
            };
            match Model::load(db, config.clone(), files.root.as_deref()) {
                Ok(model) if model.root.is_some() => {
                    let name = model.architecture.to_string();
                    return Ok(Some((model, name)));
                }
                Ok(_) | Err(ModelError::NoArchitecture(_)) => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }
    let graphs = db.graphs()?;
    let weights = &side.headers.weights;
    let names: Vec<&str> = weights.weights.iter().map(|weight| &*weight.name).collect();
    let shape = |name: &str| weights.get(name).and_then(|weight| weight.shape.as_deref());
    for graph in graphs
        .iter()
        .filter(|graph| name == "auto" || *graph.name == *name)
    {
        let Some(told) = graph.config_of(shape, &names) else {
            if name == "auto" {
                continue;
            }
            return Err(input(format!(
                "--graph {name}: the checkpoint lacks one of {}",
                graph.when.join(", ")
            )));
        };
        // A config that lies beside it says more than names do.
        let beside = configs.iter().find_map(|files| files.config.clone());
        let config = merged(told, beside.as_deref());
        let model = Model::load(db, config, Some(&graph.class)).map_err(fail)?;
        return Ok(Some((model, graph.name.to_string())));
    }
    if name == "auto" {
        return Ok(None);
    }
    if let Some(known) = source::Catalog::embedded().get(name) {
        let model = Model::load(db, known.config, known.root.as_deref()).map_err(fail)?;
        return Ok(Some((model, name.to_string())));
    }
    let known: Vec<&str> = graphs.iter().map(|graph| &*graph.name).collect();
    Err(usage(format!(
        "--graph {name} is not known; there are auto, none, sequential, {}, and the ids of the catalog",
        known.join(", ")
    )))
}

fn merged(told: Object, beside: Option<&Object>) -> Arc<Object> {
    let mut config = told;
    for (key, value) in beside.iter().flat_map(|beside| beside.0.iter()) {
        match config.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value.clone(),
            None => config.0.push((key.clone(), value.clone())),
        }
    }
    Arc::new(config)
}

/// Joins layers by name; those of one side only are an error, or a note where that is allowed.
fn pair(
    args: &CompareArgs,
    base: &Side,
    side: &Side,
    notes: &mut Vec<CompareNote>,
) -> Result<Vec<(usize, usize)>, Failure> {
    let names: BTreeMap<&str, usize> = base
        .layers
        .iter()
        .enumerate()
        .map(|(n, layer)| (layer.name.as_str(), n))
        .collect();
    let mut pairs = Vec::new();
    let mut alone: Vec<&str> = Vec::new();
    for (number, layer) in side.layers.iter().enumerate() {
        match names.get(layer.name.as_str()) {
            Some(at) if base.layers[*at].shape == layer.shape || args.allow_missing => {
                pairs.push((*at, number))
            }
            Some(at) => {
                return Err(input(format!(
                    "layer {} has the shape {:?} in the base and {:?} in the other; --allow-missing compares them all the same",
                    layer.name, base.layers[*at].shape, layer.shape
                )));
            }
            None => alone.push(&layer.name),
        }
    }
    let paired: BTreeSet<usize> = pairs.iter().map(|(at, _)| *at).collect();
    let lost: Vec<&str> = base
        .layers
        .iter()
        .enumerate()
        .filter(|(n, _)| !paired.contains(n))
        .map(|(_, layer)| layer.name.as_str())
        .collect();
    for (code, what, layers) in [
        ("only_in_base", "only the base has", &lost),
        (
            "only_in_compressed",
            "only the compressed checkpoint has",
            &alone,
        ),
    ] {
        let Some(first) = layers.first() else {
            continue;
        };
        let shown: Vec<&str> = layers.iter().take(6).copied().collect();
        let more = if layers.len() > shown.len() {
            ", ..."
        } else {
            ""
        };
        let message = format!("{what} {} layers: {}{more}", layers.len(), shown.join(", "));
        if !args.allow_missing {
            return Err(input(format!(
                "{message}; --allow-missing compares the rest"
            )));
        }
        notes.push(CompareNote {
            code,
            path: first.to_string(),
            message,
        });
    }
    if pairs.is_empty() {
        return Err(input("the two have no layer in common"));
    }
    Ok(pairs)
}

/// What the reader has to know of the compressed side.
fn remarks(side: &Side, rules: &BitsRules) -> Result<Vec<CompareNote>, Failure> {
    let known: BTreeSet<&str> = side
        .layers
        .iter()
        .map(|layer| layer.name.as_str())
        .collect();
    if let Some(unknown) = rules
        .given
        .keys()
        .find(|name| !known.contains(name.as_str()))
    {
        let names = known.iter().copied();
        let hint = crate::formula::did_you_mean(unknown, names);
        return Err(input(format!(
            "--bits names the layer `{unknown}`, which there is not{hint}"
        )));
    }
    let mut notes = Vec::new();
    if let Some((first, _)) = side.differing.first() {
        let channels: usize = side.differing.iter().map(|(_, channels)| channels).sum();
        let message = format!(
            "the two rules for null channels differ on {channels} inputs of {} layers",
            side.differing.len()
        );
        notes.push(CompareNote {
            code: "null_rules_differ",
            path: first.clone(),
            message,
        });
    }
    for layer in side.layers.iter().filter(|layer| layer.not_finite > 0) {
        let message = format!(
            "{} weights are not finite; they count as non-zero",
            layer.not_finite
        );
        notes.push(CompareNote {
            code: "not_finite",
            path: layer.name.clone(),
            message,
        });
    }
    for layer in side.layers.iter().filter(|layer| layer.nnz.is_none()) {
        let message = "the numbers of its format cannot be told; every weight counts".into();
        notes.push(CompareNote {
            code: "no_values",
            path: layer.name.clone(),
            message,
        });
    }
    Ok(notes)
}

/// Widths by layer, from a JSON object of numbers.
fn read_bits(path: &Path) -> Result<BTreeMap<String, u32>, Failure> {
    let fail = |reason: String| input(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let value = crate::json::read(&text).map_err(|e| fail(e.to_string()))?;
    let Value::Object(object) = value else {
        return Err(fail(format!(
            "widths are an object of layers, this is {}",
            value.describe()
        )));
    };
    let width = |(layer, value): &(Arc<str>, Value)| {
        let bits = value.as_int().and_then(|bits| u32::try_from(bits).ok());
        let bits = bits.filter(|bits| (1..=64).contains(bits));
        let bits = bits.ok_or_else(|| {
            fail(format!(
                "{layer}: a width is 1 to 64 bits, not {}",
                value.describe()
            ))
        })?;
        let layer = layer.strip_suffix(".weight").unwrap_or(layer);
        Ok((layer.to_string(), bits))
    };
    object.0.iter().map(width).collect()
}
