//! Safetensors files with data, written with the `safetensors` crate.

use safetensors::tensor::{Dtype, TensorView};

/// A tensor of 32-bit floats: name, shape, numbers.
pub(crate) type Floats<'n> = (&'n str, &'n [usize], Vec<f32>);

/// The bytes of a file with these tensors.
pub(crate) fn floats(tensors: &[Floats<'_>]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, numbers)| numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        (*name, view)
    });
    safetensors::serialize(views.collect::<Vec<_>>(), None).expect("written")
}
