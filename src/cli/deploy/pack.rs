//! The files with weights, tensor by tensor.
//!
//! A weight is read twice, for its mean magnitude and for its codes, in pieces from the mapped file; what is held in memory is
//! the packed bytes of one weight. Every other tensor is copied byte for byte, but for one kind: where a layer multiplies its
//! scale to the sum of product and bias, the bias is divided by the scale, so that the layer adds what it added before.

use super::super::args::LinearClassArg;
use super::super::{Exit, Failure, input};
use super::Input;
use super::place::unwritten;
use super::plan::{Layer, Plan};
use crate::bitlinear::{AbsMean, NotFinite, codes};
use crate::checkpoint::scan::{Wanted, values};
use crate::checkpoint::write::{Planned, Writer};
use crate::checkpoint::{CheckpointError, Tensor};
use crate::dtype::StoredType;
use crate::float16;
use crate::kernels::packing::hf;
use crate::report::deploy::{PackedFile, PackedLayer, Report};
use crate::units::clipped;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Numbers that are read at once.
const PIECE: u64 = 1 << 20;

/// What is told while files are written, and asked.
#[derive(Clone, Copy)]
pub(super) struct Watch<'w> {
    /// Takes the bytes of the input that are done.
    pub(super) done: &'w dyn Fn(u64),
    /// Whether to stop.
    pub(super) stop: &'w AtomicBool,
}

impl Watch<'_> {
    fn check(self) -> Result<(), Failure> {
        match self.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Failure {
                exit: Exit::Interrupted,
                error: anyhow::anyhow!("interrupted; nothing was written"),
            }),
        }
    }
}

/// What becomes of a tensor.
#[derive(Clone, Copy)]
enum Role {
    /// It stays as it is.
    Kept,
    /// It becomes the codes and the scale of a layer.
    Weight(usize),
    /// It is added to the products of a layer before its scale is multiplied.
    Bias(usize),
}

/// Writes the files of a plan.
pub(super) struct Packer<'p> {
    source: &'p Input,
    plan: &'p Plan,
    watch: Watch<'p>,
    roles: Vec<Role>,
    /// The scales of layers that are known: a bias may lie in a file before its weight.
    scales: RefCell<HashMap<usize, Scale>>,
}

/// The scale of a layer.
#[derive(Clone, Copy)]
struct Scale {
    /// What a code of 1 stands for.
    one: f32,
    /// What is stored, as it is read again.
    stored: f32,
}

impl<'p> Packer<'p> {
    pub(super) fn new(source: &'p Input, plan: &'p Plan, watch: Watch<'p>) -> Packer<'p> {
        let mut roles = vec![Role::Kept; source.checkpoint().tensors.len()];
        for (number, layer) in plan.layers.iter().enumerate() {
            roles[layer.tensor] = Role::Weight(number);
            if let (Some(bias), LinearClassArg::Autobitlinear) = (layer.bias, plan.class) {
                roles[bias] = Role::Bias(number);
            }
        }
        Packer {
            source,
            plan,
            watch,
            roles,
            scales: RefCell::default(),
        }
    }

    /// Writes one file of the checkpoint anew.
    pub(super) fn write(
        &self,
        number: usize,
        path: &Path,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let checkpoint = self.source.checkpoint();
        let all = checkpoint.tensors.iter().enumerate();
        let mut tensors: Vec<(usize, &Tensor)> = all.filter(|(_, t)| t.file == number).collect();
        tensors.sort_by_key(|(_, tensor)| tensor.begin);
        let planned: Vec<Planned> = tensors
            .iter()
            .flat_map(|(at, t)| self.planned(*at, t))
            .collect();
        let file = &checkpoint.files[number];
        let fail = |e: std::io::Error| unwritten(path, &e);
        let mut writer = Writer::create(path, &planned, &file.metadata).map_err(fail)?;
        let mut place = 0;
        for (at, tensor) in &tensors {
            self.watch.check()?;
            match self.roles[*at] {
                Role::Kept => {
                    for piece in checkpoint.data(tensor).map_err(unread)?.pieces() {
                        self.watch.check()?;
                        writer.put(place, piece).map_err(fail)?;
                        (self.watch.done)(piece.len() as u64);
                    }
                }
                Role::Weight(layer) => {
                    let packed = self.weight(layer)?;
                    writer.put(place, &packed.bytes).map_err(fail)?;
                    place += 1;
                    let scale = bytes_of(packed.scale.stored, tensor.dtype);
                    writer.put(place, &scale).map_err(fail)?;
                    (self.watch.done)(tensor.bytes);
                    report
                        .layers
                        .insert(layer, self.layer(layer, tensor, &packed));
                }
                Role::Bias(layer) => {
                    let bias = self.bias(layer, tensor)?;
                    writer.put(place, &bias).map_err(fail)?;
                    (self.watch.done)(tensor.bytes);
                }
            }
            place += 1;
        }
        let bytes = writer.finish().map_err(fail)?;
        for tensor in planned {
            report.data_bytes += tensor.bytes().unwrap_or_default();
            report.tensors.insert(tensor.name, file.name.to_string());
        }
        report.files.push(PackedFile {
            name: file.name.to_string(),
            bytes_before: file.bytes,
            bytes_after: bytes,
        });
        Ok(())
    }

    /// The tensors that a tensor becomes.
    fn planned(&self, number: usize, tensor: &Tensor) -> Vec<Planned> {
        let same = Planned {
            name: tensor.name.to_string(),
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
        };
        let Role::Weight(_) = self.roles[number] else {
            return vec![same];
        };
        let (rows, cols) = sides(tensor);
        let scale = Planned {
            name: scale_name(&tensor.name),
            dtype: tensor.dtype,
            shape: vec![1],
        };
        let codes = Planned {
            dtype: StoredType::named("U8").expect("a dtype of safetensors"),
            shape: vec![rows.div_ceil(4), cols],
            ..same
        };
        vec![codes, scale]
    }

    /// The tensor of a layer's weight, which has two sides.
    fn tensor(&self, layer: &Layer) -> &'p Tensor {
        &self.source.checkpoint().tensors[layer.tensor]
    }

    /// Numbers of a weight of a layer, from row to row.
    fn rows(
        &self,
        layer: &Layer,
        rows: std::ops::Range<u64>,
        out: &mut Vec<f32>,
    ) -> Result<(), Failure> {
        let weight = &self.source.headers.weights.weights[layer.weight];
        let told = values(
            self.source.checkpoint(),
            weight,
            &Wanted::default(),
            rows,
            out,
        );
        match told.map_err(unread)? {
            true => Ok(()),
            false => Err(input(format!(
                "the numbers of `{}` cannot be told",
                shown(&weight.name)
            ))),
        }
    }

    /// The scale of a layer.
    fn scale(&self, number: usize) -> Result<Scale, Failure> {
        if let Some(known) = self.scales.borrow().get(&number) {
            return Ok(*known);
        }
        let layer = &self.plan.layers[number];
        let tensor = self.tensor(layer);
        let (rows, cols) = sides(tensor);
        let step = (PIECE / cols).max(1);
        let mut mean = AbsMean::default();
        let mut numbers = Vec::new();
        for begin in (0..rows).step_by(step as usize) {
            self.watch.check()?;
            self.rows(layer, begin..(begin + step).min(rows), &mut numbers)?;
            mean.push(&numbers).map_err(|NotFinite { at, value }| {
                input(format!(
                    "{}: tensor `{}`: the weight in row {}, column {} is {value}; only finite weights can be packed",
                    self.source.checkpoint().file(tensor).label,
                    shown(&tensor.name),
                    at as u64 / cols,
                    at as u64 % cols
                ))
            })?;
        }
        let one = mean.scale();
        let stored = match self.plan.class {
            LinearClassArg::Autobitlinear => one,
            LinearClassArg::Bitlinear => 1.0 / one,
        };
        let stored = rounded(stored, tensor.dtype);
        if !stored.is_finite() {
            return Err(input(format!(
                "tensor `{}`: the reciprocal of its mean magnitude {one:e} does not fit {}; --linear-class autobitlinear stores the mean itself",
                shown(&tensor.name),
                tensor.dtype
            )));
        }
        let scale = Scale { one, stored };
        self.scales.borrow_mut().insert(number, scale);
        Ok(scale)
    }

    /// The codes of a layer.
    fn weight(&self, number: usize) -> Result<Packed, Failure> {
        let scale = self.scale(number)?;
        let layer = &self.plan.layers[number];
        let tensor = self.tensor(layer);
        let (rows, cols) = sides(tensor);
        let too_large = || {
            input(format!(
                "tensor `{}` does not fit memory",
                shown(&tensor.name)
            ))
        };
        let size = |side: u64| usize::try_from(side).map_err(|_| too_large());
        let (rows, cols) = (size(rows)?, size(cols)?);
        let weight = &self.source.headers.weights.weights[layer.weight];
        // A row that cannot be read, though it was a moment ago.
        let failed: OnceLock<CheckpointError> = OnceLock::new();
        let wanted = Wanted::default();
        let fill = |row: usize, out: &mut [i8]| {
            let mut numbers = Vec::new();
            let here = row as u64..row as u64 + 1;
            match values(
                self.source.checkpoint(),
                weight,
                &wanted,
                here,
                &mut numbers,
            ) {
                Ok(_) => codes(&numbers, scale.one, out),
                Err(e) => {
                    let _ = failed.set(e);
                }
            }
        };
        let fail = |e: crate::kernels::KernelError| {
            input(format!("tensor `{}`: {e}", shown(&tensor.name)))
        };
        let bytes = hf::write(rows, cols, fill).map_err(fail)?;
        if let Some(e) = failed.into_inner() {
            return Err(unread(e));
        }
        let counts = hf::Form::new(rows, cols, &bytes).map_err(fail)?.counts();
        Ok(Packed {
            bytes,
            scale,
            counts: [counts.minus, counts.zero, counts.plus],
        })
    }

    /// The bias of a layer, divided by what the layer multiplies to it.
    fn bias(&self, number: usize, tensor: &Tensor) -> Result<Vec<u8>, Failure> {
        let scale = self.scale(number)?.stored;
        let weights = &self.source.headers.weights;
        let weight = weights.get(&tensor.name);
        let mut numbers = Vec::new();
        let elements = tensor.elements();
        let unfit = || {
            input(format!(
                "tensor `{}` is no bias of floats; --linear-class bitlinear leaves it as it is",
                shown(&tensor.name)
            ))
        };
        let weight = weight.filter(|_| tensor.dtype.is_float() && tensor.dtype.bits >= 16);
        let weight = weight.ok_or_else(unfit)?;
        let checkpoint = self.source.checkpoint();
        values(
            checkpoint,
            weight,
            &Wanted::default(),
            0..elements,
            &mut numbers,
        )
        .map_err(unread)?;
        let mut bytes = Vec::new();
        for number in &numbers {
            let divided = rounded(number / scale, tensor.dtype);
            if number.is_finite() && !divided.is_finite() {
                return Err(input(format!(
                    "tensor `{}`: the bias {number:e}, divided by the scale {scale:e} that its layer multiplies to it, does not fit {}; --linear-class bitlinear leaves it as it is",
                    shown(&tensor.name),
                    tensor.dtype
                )));
            }
            bytes.extend(bytes_of(divided, tensor.dtype));
        }
        Ok(bytes)
    }

    fn layer(&self, number: usize, tensor: &Tensor, packed: &Packed) -> PackedLayer {
        let (rows, cols) = sides(tensor);
        PackedLayer {
            name: self.plan.layers[number].path.clone(),
            tensor: tensor.name.to_string(),
            shape: [rows, cols],
            dtype: tensor.dtype.name,
            scale: packed.scale.stored,
            codes: packed.counts,
            bytes_before: tensor.bytes,
            bytes_after: packed.bytes.len() as u64 + u64::from(tensor.dtype.bits / 8),
        }
    }
}

/// A weight as it is written.
struct Packed {
    bytes: Vec<u8>,
    scale: Scale,
    /// How many codes stand for -1, 0 and 1.
    counts: [u64; 3],
}

/// The name of the scale of a weight.
pub(super) fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// Rows and columns of a tensor that the plan has found to have both.
fn sides(tensor: &Tensor) -> (u64, u64) {
    match *tensor.shape {
        [rows, cols] => (rows, cols),
        _ => unreachable!("the plan takes weights of two dimensions only"),
    }
}

/// A number as a dtype holds it.
fn rounded(x: f32, dtype: StoredType) -> f32 {
    match dtype.name {
        "BF16" => float16::rounded_to_bf16(x),
        "F16" => float16::rounded_to_f16(x),
        _ => x,
    }
}

/// The bytes of a number that a dtype holds.
fn bytes_of(x: f32, dtype: StoredType) -> Vec<u8> {
    match dtype.name {
        "BF16" => float16::to_bf16(x).to_le_bytes().into(),
        "F16" => float16::to_f16(x).to_le_bytes().into(),
        "F64" => f64::from(x).to_le_bytes().into(),
        _ => x.to_le_bytes().into(),
    }
}

fn shown(name: &str) -> String {
    clipped(name, 160)
}

fn unread(e: CheckpointError) -> Failure {
    input(e.to_string())
}
