//! A weight of a checkpoint as a packed layer: ternary codes as they are, everything else quantized.

use super::super::args::{LinearClassArg, RunArgs};
use super::super::{Failure, input, usage};
use crate::bitlinear::{BitLinear, Dequantization, PackedBitLinear, QuantConfig, StoredCodes};
use crate::checkpoint::packed::{Padding, Weight};
use crate::checkpoint::scan::{Wanted, values};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::formula::did_you_mean;
use crate::join::Headers;
use crate::kernels::{Granularity, Packed, Packing};
use crate::source::{self, ModelFiles, Settings};
use crate::value::{Object, Value};

/// A checkpoint, opened as far as its headers.
pub(super) struct Opened {
    pub(super) files: ModelFiles,
    pub(super) headers: Headers,
}

/// The weight of a layer, found.
pub(super) struct Found<'o> {
    opened: &'o Opened,
    weight: &'o Weight,
    /// The layer's path in the model.
    pub(super) path: String,
    /// Features that go out.
    pub(super) rows: usize,
    /// Features that come in.
    pub(super) cols: usize,
    bias: Option<Vec<f32>>,
}

/// A layer that can run.
pub(super) struct Loaded {
    pub(super) layer: PackedBitLinear,
    /// What its weights were.
    pub(super) source: String,
    /// What its scale means.
    pub(super) rule: &'static str,
    pub(super) activations: Granularity,
    /// Of weights that were quantized: length of the error over length of the weights.
    pub(super) weight_error: Option<f64>,
}

fn unreadable(e: CheckpointError) -> Failure {
    input(e.to_string())
}

impl Opened {
    pub(super) fn open(args: &RunArgs) -> Result<Opened, Failure> {
        let id = args.id();
        let wanted = super::super::inspect::wanted(&args.source, args.quiet);
        let files = source::open(id, &wanted, &Settings::from_env())?;
        let missing = || {
            input(format!(
                "{}: there are no weights here; `bitcost fetch {id} --weights` downloads those of a model of the Hub",
                files.file
            ))
        };
        let place = files.files.clone().ok_or_else(missing)?;
        let headers = Headers::read(&*place, files.config.as_deref()).map_err(unreadable)?;
        let headers = headers.ok_or_else(missing)?;
        Ok(Opened { files, headers })
    }

    pub(super) fn id(&self) -> String {
        self.files.id.clone()
    }

    fn checkpoint(&self) -> &Checkpoint {
        &self.headers.checkpoint
    }

    /// The weight of the layer that was named; without a name, of the only layer.
    pub(super) fn find(&self, args: &RunArgs) -> Result<Found<'_>, Failure> {
        let weights = &self.headers.weights.weights;
        let is_matrix = |weight: &&Weight| {
            weight
                .shape
                .as_deref()
                .is_some_and(|shape| shape.len() == 2)
        };
        let path = |weight: &Weight| {
            weight
                .name
                .strip_suffix(".weight")
                .unwrap_or(&weight.name)
                .to_string()
        };
        let matrices: Vec<&Weight> = weights.iter().filter(is_matrix).collect();
        let paths: Vec<String> = matrices.iter().map(|weight| path(weight)).collect();
        let weight = match &args.layer.layer {
            None if matrices.len() == 1 => matrices[0],
            None if matrices.is_empty() => {
                return Err(input(format!("{}: it has no matrix", self.files.file)));
            }
            None => {
                let some: Vec<&str> = paths.iter().take(4).map(String::as_str).collect();
                return Err(usage(format!(
                    "{}: name one of its {} matrices with --layer, such as {}; or give --prompt or --ids to run the whole model",
                    self.files.file,
                    matrices.len(),
                    some.join(", ")
                )));
            }
            Some(name) => {
                let name = name.strip_suffix(".weight").unwrap_or(name);
                let at = paths.iter().position(|path| path == name).ok_or_else(|| {
                    let other = weights.iter().find(|weight| path(weight) == name);
                    input(match other.map(|weight| weight.shape.as_deref()) {
                        Some(shape) => format!(
                            "{}: layer `{name}` is no matrix{}",
                            self.files.file,
                            shape
                                .map_or(String::new(), |shape| format!(", its shape is {shape:?}"))
                        ),
                        None => format!(
                            "{}: there is no layer `{name}`{}; `bitcost inspect` lists them",
                            self.files.file,
                            did_you_mean(name, paths.iter().map(String::as_str))
                        ),
                    })
                })?;
                matrices[at]
            }
        };
        let path = path(weight);
        let bias = self.numbers(&format!("{path}.bias"))?;
        let shape = weight.shape.as_deref().unwrap_or_default();
        let size = |side: u64| {
            usize::try_from(side)
                .map_err(|_| input(format!("{}: {side} is too large a side", weight.name)))
        };
        let (mut rows, cols) = (size(shape[0])?, size(shape[1])?);
        // Rows that only fill the last bytes of a packed weight are told by whatever knows the layer's real size.
        if let (Padding::Rows(most), Some(bias)) = (weight.padding, &bias)
            && bias.len() <= rows
            && rows - bias.len() <= most as usize
        {
            rows = bias.len();
        }
        if rows == 0 || cols == 0 {
            let empty = crate::kernels::KernelError::Empty { rows, cols };
            return Err(input(format!("{path}: {empty}")));
        }
        if let Some(asked) = args.layer.out_features {
            let Padding::Rows(most) = weight.padding else {
                return Err(usage(format!(
                    "--out-features: {path} has {rows} rows and no padding"
                )));
            };
            if asked > rows || rows - asked > most as usize {
                return Err(usage(format!(
                    "--out-features {asked}: {path} holds {rows} rows, of which at most {most} are padding"
                )));
            }
            rows = asked;
        }
        Ok(Found {
            opened: self,
            weight,
            path,
            rows,
            cols,
            bias,
        })
    }

    /// All numbers of a weight of a name, if there is one.
    fn numbers(&self, name: &str) -> Result<Option<Vec<f32>>, Failure> {
        let Some(weight) = self.headers.weights.get(name) else {
            return Ok(None);
        };
        let mut out = Vec::new();
        let told = values(
            self.checkpoint(),
            weight,
            &Wanted::default(),
            0..u64::MAX,
            &mut out,
        );
        match told.map_err(unreadable)? {
            true => Ok(Some(out)),
            false => {
                let reason = weight.without_values(self.checkpoint());
                let reason = reason.unwrap_or("they are not here");
                Err(input(format!(
                    "the numbers of {name} cannot be told: {reason}"
                )))
            }
        }
    }

    /// Refuses layers that do more to their inputs than to round them.
    pub(super) fn only_rounds(&self) -> Result<(), Failure> {
        let config = self.files.config.as_deref();
        let settings = config.and_then(|config| config.get("quantization_config"));
        match settings
            .and_then(Value::as_object)
            .and_then(|settings| settings.get("use_rms_norm"))
        {
            Some(Value::Bool(true)) => Err(input(format!(
                "{}: `use_rms_norm` says that layers normalize their inputs, which `run` does not do",
                self.files.file
            ))),
            _ => Ok(()),
        }
    }

    /// Whether some of its weights are ternary codes.
    pub(super) fn has_codes(&self) -> bool {
        self.headers.weights.weights.iter().any(StoredCodes::is)
    }

    /// What the config says of how scales are meant.
    pub(super) fn linear_class(&self, args: &RunArgs) -> Result<Dequantization, Failure> {
        let file = &self.files.file;
        let config = self.files.config.as_deref();
        let settings = config.and_then(|config: &Object| config.get("quantization_config"));
        let setting = |key: &str| match settings {
            Some(Value::Object(settings)) => settings.get(key),
            _ => None,
        };
        if let Some(class) = args.linear_class {
            return Ok(class.rule());
        }
        let is_quantized = matches!(settings, Some(Value::Object(_)));
        match setting("linear_class") {
            // What transformers takes where a config of packed weights says nothing.
            None | Some(Value::None) if is_quantized => Ok(Dequantization::BitLinear),
            Some(class) => match class.as_str().and_then(LinearClassArg::named) {
                Some(class) => Ok(class.rule()),
                None => Err(input(format!(
                    "{file}: `linear_class` is {}, which is neither autobitlinear nor bitlinear; --linear-class says which is \
                     meant",
                    class.describe()
                ))),
            },
            None => Err(usage(format!(
                "{file}: no config says whether outputs are multiplied by the stored scale or divided by it; give --linear-class \
                 autobitlinear or bitlinear"
            ))),
        }
    }
}

impl Found<'_> {
    /// Packs the layer for kernels.
    pub(super) fn load(&self, args: &RunArgs, packing: Packing) -> Result<Loaded, Failure> {
        let config = QuantConfig::named(
            "int8",
            &args.layer.activation_granularity,
            &args.layer.weight_granularity,
        )
        .map_err(|e| usage(e.to_string()))?;
        if StoredCodes::is(self.weight) {
            self.import(args, packing, config)
        } else {
            self.quantize(packing, config)
        }
    }

    /// Ternary codes as they are stored.
    fn import(
        &self,
        args: &RunArgs,
        packing: Packing,
        config: QuantConfig,
    ) -> Result<Loaded, Failure> {
        let checkpoint = self.opened.checkpoint();
        self.opened.only_rounds()?;
        let rule = self.opened.linear_class(args)?;
        let stored = StoredCodes::of(checkpoint, self.weight, self.rows, self.cols);
        let StoredCodes { form, scales } = stored.map_err(|e| input(e.to_string()))?;
        let packed = Packed::pack(packing, self.rows, self.cols, |row, out| form.row(row, out));
        let packed = packed.map_err(|e| input(format!("{}: {e}", self.path)))?;
        let layer = PackedBitLinear::from_parts(
            vec![packed],
            rule,
            &scales,
            self.bias.clone(),
            config.activation_granularity,
        )
        .map_err(|e| input(format!("{}: {e}", self.path)))?;
        Ok(Loaded {
            layer,
            source: self.weight.label.clone(),
            rule: match rule {
                Dequantization::AutoBitLinear => "autobitlinear",
                Dequantization::BitLinear => "bitlinear",
                Dequantization::Online => "online",
            },
            activations: config.activation_granularity,
            weight_error: None,
        })
    }

    /// Numbers, rounded to ternary ones.
    fn quantize(&self, packing: Packing, config: QuantConfig) -> Result<Loaded, Failure> {
        let numbers = self.opened.numbers(&self.weight.name)?.ok_or_else(|| {
            let reason = self
                .weight
                .without_values(self.opened.checkpoint())
                .unwrap_or("it is not here");
            input(format!(
                "{}: the numbers of {} cannot be told: {reason}",
                self.path, self.weight.label
            ))
        })?;
        let named = |e: crate::bitlinear::LayerError| input(format!("{}: {e}", self.path));
        let layer =
            BitLinear::from_weights(self.cols, self.rows, numbers, self.bias.clone(), config)
                .map_err(named)?;
        let rounded = layer.quantized_weight().map_err(named)?;
        let (mut error, mut length) = (0.0, 0.0);
        for (weight, rounded) in layer.weight().iter().zip(&rounded) {
            error += f64::from(weight - rounded).powi(2);
            length += f64::from(*weight).powi(2);
        }
        drop(rounded);
        Ok(Loaded {
            layer: layer.deploy(packing).map_err(named)?,
            source: self.weight.label.clone(),
            rule: "online",
            activations: config.activation_granularity,
            weight_error: Some(if length > 0.0 {
                (error / length).sqrt()
            } else {
                0.0
            }),
        })
    }
}
