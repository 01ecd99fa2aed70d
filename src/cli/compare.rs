//! `bitcost compare`: what a compressed checkpoint saves against its base.

use super::args::{CompareArgs, FormatArg, NullRuleArg};
#[cfg(feature = "hub")]
use super::fetch::Fetcher;
use super::output::{Broken, write_with};
use super::progress::WorkBar;
use super::{Exit, Failure, Outcome, database, input, usage};
use crate::checkpoint::packed::Weight;
use crate::checkpoint::{CheckpointError, batches, made};
use crate::compare::{self, Apart, BitsRules, CompareError, Conventions, Graph, Side, Totals};
use crate::db::{Db, Task, Tensors};
use crate::flow::Rule;
use crate::join::{Finding, Headers, contradictions};
use crate::json::Escaped;
use crate::model::{Asked, Model, ModelError};
use crate::report::compare::{CompareMeta, CompareNote, Pair, csv, json, table};
#[cfg(feature = "hub")]
use crate::source::MAIN;
use crate::source::{self, ModelFiles, RepoId, Settings, SourceKind};
use crate::stats::Stats;
use crate::value::{Object, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

impl From<CompareError> for Failure {
    fn from(e: CompareError) -> Failure {
        input(e.to_string())
    }
}

pub(super) fn run(args: &CompareArgs) -> Outcome {
    let db = database(&args.module_db)?;
    let settings = Settings::from_env();
    let place = Place::new(args, &settings);
    let open = |id: &String| place.open(id);
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
    let mut counted_base = None;
    let mut all = Vec::new();
    for id in others {
        let other = open(id)?;
        let sides = ((base_id.as_str(), &base), (id.as_str(), &other));
        all.push(Compared::new(args, &db, sides, &mut counted_base)?);
    }
    if !args.quiet || args.output.is_some() {
        write_with(args.output.as_deref(), |out| match args.format {
            FormatArg::Json => write_json(&all, out),
            format => {
                for (number, one) in all.iter().enumerate() {
                    let gap = if number == 0 { "" } else { "\n" };
                    write!(out, "{gap}{}", one.text(format))?;
                }
                Ok(())
            }
        })?;
    }
    // Each says what fails.
    let hold: Vec<bool> = all.iter().map(|one| one.gates_hold(args)).collect();
    Ok(if hold.contains(&false) {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

/// One object, or a list of several.
fn write_json(all: &[Compared], out: &mut dyn Write) -> Result<(), Broken> {
    let ends = if let [_] = all {
        ["", "\n"]
    } else {
        ["[", "]\n"]
    };
    out.write_all(ends[0].as_bytes())?;
    for (number, one) in all.iter().enumerate() {
        if number > 0 {
            out.write_all(b",\n")?;
        }
        one.json(out)?;
    }
    Ok(out.write_all(ends[1].as_bytes())?)
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

/// Where checkpoints are looked for.
struct Place<'a> {
    args: &'a CompareArgs,
    settings: &'a Settings,
    /// What fetches weights that are not here, from the first such model on.
    #[cfg(feature = "hub")]
    fetcher: std::cell::OnceCell<Fetcher>,
}

impl<'a> Place<'a> {
    fn new(args: &'a CompareArgs, settings: &'a Settings) -> Place<'a> {
        Place {
            args,
            settings,
            #[cfg(feature = "hub")]
            fetcher: std::cell::OnceCell::new(),
        }
    }

    fn open(&self, id: &str) -> Result<Opened, Failure> {
        let wanted = super::inspect::wanted(&self.args.source, self.args.quiet);
        if let Some(stats) = super::stats::written(id)? {
            return statistics(id, stats, &wanted, self.settings);
        }
        let files = source::open(id, &wanted, self.settings)?;
        let is_of_hub = files.source != SourceKind::Local && RepoId::parse(id).is_some();
        let headers = headers(&files);
        let is_here = matches!(&headers, Ok(Some(headers)) if has_data(headers));
        if is_of_hub && !is_here && self.may_fetch() {
            return self.fetched(id, &files);
        }
        match headers? {
            Some(headers) if is_here || !is_of_hub => Ok(Opened {
                headers,
                files,
                stats: None,
            }),
            _ if is_of_hub && cfg!(feature = "hub") => Err(input(format!(
                "{}: its weights are not here; `bitcost fetch {id} --weights` fetches them, and so does --download",
                files.file
            ))),
            _ => Err(input(format!("{}: there are no weights here", files.file))),
        }
    }
}

#[cfg(feature = "hub")]
impl Place<'_> {
    fn may_fetch(&self) -> bool {
        self.args.download
    }

    /// Fetches a model's weights, and opens what came.
    fn fetched(&self, id: &str, asked: &ModelFiles) -> Result<Opened, Failure> {
        let fetcher = match self.fetcher.get() {
            Some(fetcher) => fetcher,
            None => {
                let new = Fetcher::new(self.args.quiet)?;
                self.fetcher.get_or_init(|| new)
            }
        };
        let revision = self.args.source.revision.as_deref();
        let repo = RepoId::parse(id).ok_or_else(|| input(format!("{id} is no id of the Hub")))?;
        let folder = fetcher.weights(&repo, revision.unwrap_or(MAIN), self.settings)?;
        let wanted = source::Wanted {
            source: Some(SourceKind::Local),
            ..source::Wanted::default()
        };
        let folder = folder.to_string_lossy();
        let files = source::open(&folder, &wanted, self.settings)?;
        let missing = || input(format!("{}: its repository has no weights", asked.file));
        Ok(Opened {
            headers: headers(&files)?.ok_or_else(missing)?,
            files,
            stats: None,
        })
    }
}

#[cfg(not(feature = "hub"))]
impl Place<'_> {
    fn may_fetch(&self) -> bool {
        false
    }

    fn fetched(&self, id: &str, _: &ModelFiles) -> Result<Opened, Failure> {
        Err(source::SourceError::NotBuilt(id.into()).into())
    }
}

/// The headers of a model's weights, if it has any.
fn headers(files: &ModelFiles) -> Result<Option<Headers>, Failure> {
    let Some(place) = files.files.as_deref() else {
        return Ok(None);
    };
    Headers::read(place, files.config.as_deref()).map_err(|e| input(e.to_string()))
}

/// Whether the data lies here too, not only its headers.
fn has_data(headers: &Headers) -> bool {
    let mut paths = headers.checkpoint.files.iter().map(|file| &file.path);
    paths.all(|path| path.as_ref().is_some_and(|path| path.exists()))
}

/// Statistics in place of a checkpoint; a config that lies beside them is its.
fn statistics(
    id: &str,
    stats: Stats,
    wanted: &source::Wanted,
    settings: &Settings,
) -> Result<Opened, Failure> {
    let fail = |e: CheckpointError| input(e.to_string());
    let checkpoint = stats.headers(id).map_err(fail)?;
    let weights = stats.logical(&checkpoint).map_err(fail)?;
    let beside = Path::new(id).with_file_name("config.json");
    let beside = beside.to_str().filter(|_| beside.is_file());
    let beside = beside.map(|config| source::open(config, wanted, settings));
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
    Ok(Opened {
        files,
        headers: Headers {
            checkpoint,
            weights,
        },
        stats: Some(stats),
    })
}

/// A base and a compressed checkpoint, counted.
struct Compared {
    meta: CompareMeta,
    base: Rc<Side>,
    /// Sums over the layers of the base that both have.
    base_totals: Totals,
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
        ((base_id, base), (other_id, other)): ((&str, &Opened), (&str, &Opened)),
        counted_base: &mut Option<Rc<Side>>,
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
        let of_base = u64::from(both && counted_base.is_none()) + u64::from(errors);
        let all = bytes(other) * (1 + u64::from(errors)) + bytes(base) * of_base;
        let bar = WorkBar::new("scanning", all, args.quiet);
        let watch = |bytes: u64| bar.iter().for_each(|bar| bar.done(bytes));
        let Counted {
            mut side,
            graph,
            resembled,
        } = count(args, db, other, base, &conventions, &rules, &watch)?;
        let base_side = match (&args.only, &counted_base) {
            (Some(_), _) => Rc::new(side.without_zeros(BASELINE_BITS, &conventions)),
            (None, Some(counted)) => counted.clone(),
            (None, None) => {
                Rc::new(count(args, db, base, base, &conventions, &plain, &watch)?.side)
            }
        };
        *counted_base = Some(base_side.clone());
        let mut notes = Vec::new();
        for (path, message) in &side.notes {
            notes.push(CompareNote {
                code: "dataflow",
                path: path.clone(),
                message: message.clone(),
            });
        }
        if args.only.is_some() && side.layers.is_empty() {
            return Err(input(format!(
                "{other_id}: it has no layer (graph {graph}); `bitcost stats` lists what it holds"
            )));
        }
        for opened in [Some(other), both.then_some(base)].into_iter().flatten() {
            notes.extend(oddities(opened));
        }
        let pairs = pair(args, &base_side, &side, &mut notes)?;
        // A layer that one side lacks is no saving.
        let (of_base, of_other) = pairs.iter().copied().unzip::<_, _, Vec<_>, Vec<_>>();
        let base_totals = Totals::of(of_base.iter().map(|n| &base_side.layers[*n]), args.bops);
        side.totals = Totals::of(of_other.iter().map(|n| &side.layers[*n]), args.bops);
        notes.extend(remarks(&side, &rules)?);
        notes.extend(not_layers(args, &graph, other));
        notes.extend(resembled);
        let bases = of_base.iter().map(|n| &base_side.layers[*n]);
        for layer in bases.filter(|layer| both && layer.not_finite > 0) {
            notes.push(CompareNote {
                code: "not_finite_in_base",
                path: layer.name.clone(),
                message: format!("{} weights of the base are not finite", layer.not_finite),
            });
        }
        if both && !args.no_errors && !has_data {
            notes.push(CompareNote {
                code: "no_errors",
                path: String::new(),
                message: "statistics do not tell weight errors and kinds of zeros".into(),
            });
        }
        let mut apart = vec![None; pairs.len()];
        if errors {
            apart.clear();
            let (of_base, of_other) = (&base_side.layers, &side.layers);
            let bytes =
                |(at, number): &(usize, usize)| of_base[*at].bytes + of_other[*number].bytes;
            for batch in batches(&pairs, bytes) {
                let found = made(batch, |(at, number)| {
                    let base = (&base.headers, &of_base[*at]);
                    compare::apart(base, (&other.headers, &of_other[*number]))
                });
                for (found, pair) in found.into_iter().zip(batch) {
                    apart.push(found.map_err(|e| input(e.to_string()))?);
                    watch(bytes(pair));
                }
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
            base_totals,
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

    fn json(&self, out: &mut dyn Write) -> Result<(), Broken> {
        let totals = (&self.base_totals, &self.compressed.totals);
        let layers = self.layers();
        let value = json(&self.meta, totals, &layers, &self.notes);
        Ok(serde_json::to_writer_pretty(Escaped(out), &value)?)
    }

    fn text(&self, format: FormatArg) -> String {
        match format {
            FormatArg::Csv => csv(&self.layers()),
            format => {
                let markdown = format == FormatArg::Markdown;
                let totals = (&self.base_totals, &self.compressed.totals);
                table(&self.meta, totals, &self.layers(), &self.notes, markdown)
            }
        }
    }

    fn gates_hold(&self, args: &CompareArgs) -> bool {
        let (b, c) = (&self.base_totals, &self.compressed.totals);
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

/// One side, counted.
struct Counted {
    side: Side,
    /// The name of its graph.
    graph: String,
    /// What speaks against the graph that it resembles, where it has none.
    resembled: Option<CompareNote>,
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
) -> Result<Counted, Failure> {
    let checkpoint = compare::Source {
        headers: &side.headers,
        stats: side.stats.as_ref(),
    };
    let counted = |graph: &Graph<'_, '_>, name: &str| -> Result<Counted, Failure> {
        Ok(Counted {
            side: compare::count(db, checkpoint, graph, conventions, bits, watch)?,
            graph: name.into(),
            resembled: None,
        })
    };
    match args.graph.as_str() {
        "none" => counted(&Graph::None, "none"),
        "sequential" if side.stats.is_some() => Err(usage(
            "--graph sequential goes by the order of a file's data, which statistics do not keep",
        )),
        "sequential" => {
            let input = args.input.unwrap_or((1, 1, 1));
            counted(&Graph::Sequential(input), "sequential")
        }
        name => match model(db, name, side, base)? {
            Told::Model(model, name) => {
                let asked = Asked::default();
                let asked = match model.task() {
                    Task::Vision => Asked {
                        image_size: args.input.map(|(_, height, _)| height),
                        ..asked
                    },
                    // One sample is less than a model of audio takes.
                    Task::Audio => Asked {
                        seq_len: args.seq_len,
                        ..asked
                    },
                    _ => Asked {
                        seq_len: Some(args.seq_len.unwrap_or(1)),
                        ..asked
                    },
                };
                counted(&Graph::Model(&model, &asked), &name)
            }
            Told::Nothing(resembled) => Ok(Counted {
                resembled,
                ..counted(&Graph::None, "none")?
            }),
        },
    }
}

/// What config and tensors tell of the model of a checkpoint.
enum Told<'d> {
    /// The model, and the name of its graph.
    Model(Model<'d>, String),
    /// Nothing; and what speaks against the model that they resemble, if they do one.
    Nothing(Option<CompareNote>),
}

/// The model of a graph's name, or what config and tensors tell.
fn model<'d>(db: &'d Db, name: &str, side: &Opened, base: &Opened) -> Result<Told<'d>, Failure> {
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
                    return Ok(Told::Model(model, name));
                }
                Ok(_) | Err(ModelError::NoArchitecture(_)) => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }
    let graphs = db.graphs()?;
    let weights = &side.headers.weights;
    let named = weights.weights.iter();
    let tensors = Tensors::new(named.map(|weight| (&*weight.name, weight.shape.as_deref())));
    let mut nearest: Option<(&str, Vec<Finding>)> = None;
    for graph in graphs
        .iter()
        .filter(|graph| name == "auto" || *graph.name == *name)
    {
        let Some(told) = graph.config_of(&tensors) else {
            if name == "auto" {
                continue;
            }
            return Err(input(format!(
                "--graph {name}: the checkpoint lacks one of {}, or has other shapes",
                graph.when.join(", ")
            )));
        };
        // A config that lies beside it says more than names do.
        let beside = configs.iter().find_map(|files| files.config.clone());
        let config = merged(told, beside.as_deref());
        // Names tell a model only together with all shapes; a conjecture that does not even expand is none.
        let mut resembling = None;
        for class in &graph.classes {
            let model = Model::load(db, config.clone(), Some(class)).map_err(fail)?;
            match contradictions(&model, &side.headers) {
                Ok(found) if found.is_empty() => {
                    return Ok(Told::Model(model, graph.name.to_string()));
                }
                Ok(found)
                    if nearest
                        .as_ref()
                        .is_none_or(|(_, least)| found.len() < least.len()) =>
                {
                    nearest = Some((&graph.name, found));
                }
                _ => {}
            }
            resembling.get_or_insert(model);
        }
        if let Some(model) = resembling.filter(|_| name != "auto") {
            return Ok(Told::Model(model, graph.name.to_string()));
        }
    }
    if name == "auto" {
        return Ok(Told::Nothing(
            nearest.map(|(graph, found)| resembled(graph, &found)),
        ));
    }
    if let Some(known) = source::Catalog::embedded().get(name) {
        let model = Model::load(db, known.config, known.root.as_deref()).map_err(fail)?;
        return Ok(Told::Model(model, name.to_string()));
    }
    let known: Vec<&str> = graphs.iter().map(|graph| &*graph.name).collect();
    Err(usage(format!(
        "--graph {name} is not known; there are auto, none, sequential, {}, and the ids of the catalog",
        known.join(", ")
    )))
}

/// A note of what speaks against a graph.
fn resembled(graph: &str, found: &[Finding]) -> CompareNote {
    let reasons: Vec<&str> = found
        .iter()
        .map(|finding| finding.message.as_str())
        .collect();
    CompareNote {
        code: "resembles",
        path: found
            .first()
            .map_or_else(String::new, |finding| finding.path.clone()),
        message: format!(
            "its tensors resemble those of {graph}, but there are {}; --graph {graph} takes them for it",
            reasons.join("; ")
        ),
    }
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
    let names: HashMap<&str, usize> = base
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
            // Codes that make no weight are why a layer is not there.
            let odd = notes.iter().find(|note| note.code == CHECKPOINT);
            let odd = odd.map_or_else(String::new, |note| {
                format!(" (`{}` {})", note.path, note.message)
            });
            return Err(input(format!(
                "{message}{odd}; --allow-missing compares the rest"
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

/// The code of notes about how a checkpoint is stored, as `inspect` has it.
const CHECKPOINT: &str = "checkpoint";

/// What is odd about how a checkpoint stores its weights.
fn oddities(side: &Opened) -> impl Iterator<Item = CompareNote> + '_ {
    side.headers.weights.notes.iter().map(|odd| {
        let more = match odd.more {
            0 => String::new(),
            more => format!(
                " (and {} more)",
                crate::units::counted(more.into(), "tensor")
            ),
        };
        CompareNote {
            code: CHECKPOINT,
            path: odd.tensor.as_deref().unwrap_or_default().into(),
            message: format!("{}{more}", odd.text),
        }
    })
}

/// What counts for less than one may think where no model says how weights are used.
fn not_layers(args: &CompareArgs, graph: &str, side: &Opened) -> Vec<CompareNote> {
    let mut notes = Vec::new();
    if !matches!(graph, "none" | "sequential") {
        return notes;
    }
    let sides = |weight: &&Weight| weight.shape.as_ref().map_or(0, |shape| shape.len());
    let weights = || side.headers.weights.weights.iter();
    let is_odd = |weight: &&Weight| matches!(sides(weight), 3 | 5..);
    if let Some(first) = weights().find(is_odd) {
        let message = format!(
            "{} weights of 3, or of more than 4, dimensions are no layers without a graph that says what they mean",
            weights().filter(is_odd).count()
        );
        notes.push(CompareNote {
            code: "not_layers",
            path: first.name.to_string(),
            message,
        });
    }
    let image = |weight: &&Weight| sides(weight) == 4;
    if let Some(first) = weights()
        .find(image)
        .filter(|_| graph == "sequential" && args.input.is_none())
    {
        notes.push(CompareNote {
            code: "no_input",
            path: first.name.to_string(),
            message: "convolutions count at one position; --input CxHxW says how large images are"
                .into(),
        });
    }
    notes
}

/// What the reader has to know of the compressed side.
fn remarks(side: &Side, rules: &BitsRules) -> Result<Vec<CompareNote>, Failure> {
    let names = || side.layers.iter().map(|layer| layer.name.as_str());
    let unknown = match rules.given.is_empty() {
        true => None,
        false => {
            let known: HashSet<&str> = names().collect();
            let given = rules.given.keys().map(String::as_str);
            given.into_iter().find(|name| !known.contains(name))
        }
    };
    if let Some(unknown) = unknown {
        let hint = crate::formula::did_you_mean(unknown, names());
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
    let width = |(layer, value): &(Arc<str>, Value)| -> Result<(String, u32), Failure> {
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
    let mut widths = BTreeMap::new();
    for entry in &object.0 {
        let (layer, bits) = width(entry)?;
        if widths.insert(layer.clone(), bits).is_some() {
            return Err(fail(format!(
                "{layer} stands twice, with and without `.weight`"
            )));
        }
    }
    Ok(widths)
}
