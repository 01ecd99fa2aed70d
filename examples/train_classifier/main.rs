//! Trains a small classifier of BitLinear layers on generated data, evaluates it, deploys it, and shows that nothing changed
//! on the way: `cargo run --release --example train_classifier`.

#![allow(clippy::print_stdout)]

mod classifier;

use bitcost::bitlinear::{LayerError, PackedBitLinear};
use bitcost::kernels::{Packing, Pool, best};
use classifier::{Classifier, Data, Training, logits};
use std::ops::Deref;

fn main() -> Result<(), LayerError> {
    let training = Training::default();
    let data = Data::generated(1, 2400);
    let (train, test) = data.split(2000);
    println!(
        "{} classes in {} dimensions: {} samples to learn, {} to test",
        Data::CLASSES,
        Data::DIMENSIONS,
        train.len(),
        test.len()
    );

    let mut classifier = Classifier::new(training.seed)?;
    let losses = classifier.train(&train, &training)?;
    for (epoch, loss) in losses.iter().enumerate() {
        if epoch % 5 == 0 || epoch + 1 == losses.len() {
            println!("epoch {epoch:2}  loss {loss:.4}");
        }
    }

    let pool = Pool::alone();
    let packing = Packing::Planes;
    let kernel = best(packing, test.len());
    let evaluating = classifier.eval(packing)?;
    let evaluated = logits(evaluating.iter().map(Deref::deref), &test.x, kernel, &pool)?;
    println!(
        "evaluated with {}: {:.1} % of the test samples are right",
        kernel.name,
        100.0 * test.accuracy(&evaluated)
    );

    let float_bytes = classifier.bytes();
    let deployed = classifier.deploy(packing)?;
    let bytes: u64 = deployed.iter().map(PackedBitLinear::bytes).sum();
    println!(
        "deployed: {float_bytes} bytes of float layers became {bytes}, {:.1} times smaller",
        float_bytes as f64 / bytes as f64
    );
    for layer in &deployed {
        println!(
            "  {} -> {}: {:.1} % of the weights are 0",
            layer.in_features(),
            layer.out_features(),
            100.0 * layer.zero_share()
        );
    }
    let same = logits(&deployed, &test.x, kernel, &pool)? == evaluated;
    println!(
        "deployed outputs are those of evaluation, bit for bit: {}",
        if same { "yes" } else { "NO" }
    );
    assert!(same, "evaluation and deployment differ");
    Ok(())
}
