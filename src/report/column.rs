//! The columns that tables, CSV and Markdown share: a name, a heading, what it says of a row.

use crate::analysis::{Analysis, Metrics, Row};
use crate::units;

/// A column of a report.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The name used by `--columns` and `--sort`, and the heading of CSV.
    pub name: &'static str,
    /// The heading of tables.
    pub heading: &'static str,
    /// What it shows, for `--help`.
    pub doc: &'static str,
    /// What it takes from a module.
    pub of: Content,
}

/// What a column takes from a module.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// Text that is not a number.
    Text(fn(&Row) -> String),
    /// A count of things.
    Count(fn(&Metrics) -> u128),
    /// A count of bytes.
    Bytes(fn(&Metrics) -> u128),
    /// Its part of the total.
    Share(fn(&Metrics) -> u128),
    /// FLOPs per byte moved.
    Intensity,
    /// Bits that each stored weight takes.
    BitsPerWeight,
}

/// Every column, in the order in which tables show them.
pub const COLUMNS: &[Column] = &[
    Column {
        name: "class",
        heading: "class",
        doc: "class of the module",
        of: Content::Text(|row| row.class.rsplit('.').next().unwrap_or_default().into()),
    },
    Column {
        name: "status",
        heading: "status",
        doc: "resolved, estimated or unresolved",
        of: Content::Text(|row| row.status.name().into()),
    },
    Column {
        name: "params",
        heading: "params",
        doc: "parameters",
        of: Content::Count(|m| m.params),
    },
    Column {
        name: "weights",
        heading: "weights",
        doc: "bytes of the parameters",
        of: Content::Bytes(|m| m.weight_bytes),
    },
    Column {
        name: "stored",
        heading: "stored",
        doc: "bytes in the checkpoint, side tensors included",
        of: Content::Bytes(|m| m.stored_bytes),
    },
    Column {
        name: "bpw",
        heading: "bits/w",
        doc: "stored bits per weight, side tensors included",
        of: Content::BitsPerWeight,
    },
    Column {
        name: "scheme",
        heading: "stored as",
        doc: "how the checkpoint holds the module's own weights",
        of: Content::Text(|row| {
            row.stored
                .as_ref()
                .map_or_else(String::new, |stored| stored.label.to_string())
        }),
    },
    Column {
        name: "macs",
        heading: "MACs",
        doc: "multiply-accumulates",
        of: Content::Count(|m| m.macs),
    },
    Column {
        name: "flops",
        heading: "FLOPs",
        doc: "floating-point operations",
        of: Content::Count(|m| m.flops),
    },
    Column {
        name: "share",
        heading: "share",
        doc: "part of the model's FLOPs",
        of: Content::Share(|m| m.flops),
    },
    Column {
        name: "bops",
        heading: "BOPs",
        doc: "bit operations of the MACs",
        of: Content::Count(|m| m.bops),
    },
    Column {
        name: "bops_share",
        heading: "BOPs share",
        doc: "part of the model's BOPs",
        of: Content::Share(|m| m.bops),
    },
    Column {
        name: "read_weights",
        heading: "weights read",
        doc: "bytes of weights read",
        of: Content::Bytes(|m| m.read.weights),
    },
    Column {
        name: "read_activations",
        heading: "activations",
        doc: "bytes of activations read",
        of: Content::Bytes(|m| m.read.activations),
    },
    Column {
        name: "read_kv",
        heading: "KV read",
        doc: "bytes of the cache read",
        of: Content::Bytes(|m| m.read.kv_cache),
    },
    Column {
        name: "writes",
        heading: "written",
        doc: "bytes written, the cache included",
        of: Content::Bytes(|m| m.write.activations.saturating_add(m.write.kv_cache)),
    },
    Column {
        name: "intermediates",
        heading: "held",
        doc: "bytes held between operations inside modules",
        of: Content::Bytes(|m| m.intermediate_bytes),
    },
    Column {
        name: "traffic",
        heading: "traffic",
        doc: "all bytes read and written",
        of: Content::Bytes(Metrics::traffic),
    },
    Column {
        name: "intensity",
        heading: "FLOPs/B",
        doc: "FLOPs per byte of traffic",
        of: Content::Intensity,
    },
];

/// The column of that name.
pub fn find(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|c| c.name == name)
}

/// The columns of the groups that `--flops`, `--memory` and `--bops` choose; without a choice, what is `stored` is shown
/// where a checkpoint is at hand.
pub fn group(flops: bool, memory: bool, bops: bool, stored: bool) -> Vec<&'static Column> {
    // The class leaves when there are so many columns that 100 characters would not hold both.
    let plain = !(flops || memory || bops);
    let mut names = if memory || (plain && stored) {
        vec![]
    } else {
        vec!["class"]
    };
    match (flops, bops, memory) {
        (false, false, false) if stored => {
            names.extend(["scheme", "params", "weights", "bpw", "flops", "share"]);
        }
        (false, false, false) => names.extend(["params", "weights", "flops", "share"]),
        (_, _, false) => {
            names.extend(["params", "macs"].iter().filter(|_| flops));
            names.extend(["flops", "share"].iter().filter(|_| flops));
            names.extend(["macs", "bops", "bops_share"].iter().filter(|_| bops));
        }
        (_, _, true) => {
            names.extend(["flops"].iter().filter(|_| flops));
            names.extend(["bops"].iter().filter(|_| bops));
            names.extend([
                "read_weights",
                "read_activations",
                "read_kv",
                "writes",
                "intermediates",
            ]);
        }
    }
    let mut columns: Vec<&'static Column> = Vec::new();
    for column in names.into_iter().filter_map(find) {
        if !columns.iter().any(|c| c.name == column.name) {
            columns.push(column);
        }
    }
    columns
}

/// Why sums over rows cannot overflow: they are parts of the root's sum, which was added up with checks.
const FITS: &str = "a part of the root's checked sum";

/// A row's metrics for all the modules that it stands for.
pub fn of_all(row: &Row) -> Metrics {
    let mut all = Metrics::default();
    all.add_all(&row.all, row.count).expect(FITS);
    all
}

impl Column {
    /// Whether the column is a number.
    pub fn numeric(&self) -> bool {
        !matches!(self.of, Content::Text(_))
    }

    /// Whether it is a part of a whole, which says nothing about whole models.
    pub fn is_share(&self) -> bool {
        matches!(self.of, Content::Share(_))
    }

    /// The cell for people.
    pub fn cell(&self, row: &Row, totals: &Metrics) -> String {
        self.show(row, &of_all(row), totals)
    }

    /// The cell for the given metrics.
    pub fn show(&self, row: &Row, metrics: &Metrics, totals: &Metrics) -> String {
        match self.of {
            Content::Text(text) => units::visible(&text(row)),
            Content::Count(n) => units::decimal(n(metrics)),
            Content::Bytes(n) => units::binary(n(metrics)),
            Content::Share(n) => units::share(n(metrics), n(totals)),
            Content::Intensity => {
                intensity(metrics).map_or_else(|| "-".into(), |i| format!("{i:.1}"))
            }
            Content::BitsPerWeight => {
                units::bits_per_weight(metrics.stored_bytes, metrics.stored_params)
            }
        }
    }

    /// The cell for programs: raw digits.
    pub fn raw(&self, row: &Row, totals: &Metrics) -> String {
        let metrics = of_all(row);
        match self.of {
            Content::Text(text) => text(row),
            Content::Count(n) | Content::Bytes(n) => n(&metrics).to_string(),
            Content::Share(n) => {
                let whole = n(totals);
                if whole == 0 {
                    "0".into()
                } else {
                    (n(&metrics) as f64 / whole as f64).to_string()
                }
            }
            Content::Intensity => intensity(&metrics).map_or_else(String::new, |i| i.to_string()),
            Content::BitsPerWeight => {
                bits_per_weight(&metrics).map_or_else(String::new, |bits| bits.to_string())
            }
        }
    }

    /// What rows are sorted by: the largest number first, text in alphabetical order.
    pub fn order(&self, a: &Row, b: &Row) -> std::cmp::Ordering {
        match self.of {
            Content::Text(text) => text(a).cmp(&text(b)),
            Content::Count(n) | Content::Bytes(n) | Content::Share(n) => {
                n(&of_all(b)).cmp(&n(&of_all(a)))
            }
            Content::Intensity => intensity(&of_all(b))
                .unwrap_or(0.0)
                .total_cmp(&intensity(&of_all(a)).unwrap_or(0.0)),
            Content::BitsPerWeight => bits_per_weight(&of_all(b))
                .unwrap_or(0.0)
                .total_cmp(&bits_per_weight(&of_all(a)).unwrap_or(0.0)),
        }
    }
}

fn intensity(metrics: &Metrics) -> Option<f64> {
    let bytes = metrics.traffic();
    (bytes > 0).then(|| metrics.flops as f64 / bytes as f64)
}

/// Bits that each stored weight takes; `None` where nothing is stored.
pub fn bits_per_weight(metrics: &Metrics) -> Option<f64> {
    (metrics.stored_params > 0)
        .then(|| metrics.stored_bytes as f64 * 8.0 / metrics.stored_params as f64)
}

/// Rows summed per class, largest FLOPs first; own metrics, so that nothing counts twice.
pub fn by_class(analysis: &Analysis) -> Vec<Row> {
    let mut classes: Vec<Row> = Vec::new();
    for row in &analysis.rows {
        let mut own = Metrics::default();
        own.add_all(&row.own, row.count).expect(FITS);
        match classes.iter_mut().find(|c| c.class == row.class) {
            Some(class) => {
                class.all.add_all(&own, 1).expect(FITS);
                class.modules += row.count;
            }
            None => classes.push(Row {
                path: row.class.to_string(),
                count: 1,
                depth: 0,
                all: own,
                own,
                experts: None,
                stored: None,
                ..row.clone()
            }),
        }
    }
    for class in &mut classes {
        class.own = class.all;
    }
    classes.sort_by(|a, b| {
        b.all
            .flops
            .cmp(&a.all.flops)
            .then(b.all.params.cmp(&a.all.params))
    });
    classes
}
