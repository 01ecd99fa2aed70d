//! A classifier of BitLinear layers, the data it learns from, and the optimizer step that trains it.

use bitcost::bitlinear::{
    BitLinear, Evaluating, Gradients, Init, LayerError, PackedBitLinear, QuantConfig,
};
use bitcost::kernels::{Packing, Pool, Runnable};
use bitcost::random::Random;

/// Labelled points.
pub(crate) struct Data {
    /// `[samples, DIMENSIONS]`
    pub(crate) x: Vec<f32>,
    /// The class of each sample.
    pub(crate) labels: Vec<usize>,
}

impl Data {
    pub(crate) const DIMENSIONS: usize = 16;
    pub(crate) const CLASSES: usize = 4;

    /// Each class is made of three clouds whose centers lie anywhere, so that no plane parts one class from another.
    pub(crate) fn generated(seed: u64, samples: usize) -> Data {
        const CLOUDS: usize = 3;
        let mut random = Random::seeded(seed);
        let centers = Data::CLASSES * CLOUDS * Data::DIMENSIONS;
        let centers: Vec<f32> = (0..centers).map(|_| random.normal()).collect();
        let mut data = Data {
            x: Vec::new(),
            labels: Vec::new(),
        };
        for _ in 0..samples {
            let cloud = random.bits() as usize % (Data::CLASSES * CLOUDS);
            let center = &centers[cloud * Data::DIMENSIONS..][..Data::DIMENSIONS];
            data.x
                .extend(center.iter().map(|at| at + 0.9 * random.normal()));
            data.labels.push(cloud % Data::CLASSES);
        }
        data
    }

    /// The first samples, and the others.
    pub(crate) fn split(mut self, first: usize) -> (Data, Data) {
        let others = Data {
            x: self.x.split_off(first * Data::DIMENSIONS),
            labels: self.labels.split_off(first),
        };
        (self, others)
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The share of samples whose largest logit is that of their class.
    pub(crate) fn accuracy(&self, logits: &[f32]) -> f64 {
        let right = logits
            .chunks_exact(Data::CLASSES)
            .zip(&self.labels)
            .filter(|(logits, label)| logits.iter().all(|logit| *logit <= logits[**label]));
        right.count() as f64 / self.len() as f64
    }
}

/// How to train.
pub(crate) struct Training {
    pub(crate) seed: u64,
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    pub(crate) rate: f32,
    pub(crate) momentum: f32,
}

impl Default for Training {
    fn default() -> Training {
        Training {
            seed: 7,
            epochs: 30,
            batch: 50,
            rate: 0.05,
            momentum: 0.9,
        }
    }
}

/// Layers with a ReLU between them, while they learn.
pub(crate) struct Classifier(Vec<BitLinear>);

impl Classifier {
    pub(crate) fn new(seed: u64) -> Result<Classifier, LayerError> {
        let mut random = Random::seeded(seed);
        let widths = [Data::DIMENSIONS, 64, 64, Data::CLASSES];
        let layer = |widths: &[usize]| {
            let (init, config) = (Init::XavierUniform, QuantConfig::default());
            BitLinear::new(widths[0], widths[1], true, init, config, &mut random)
        };
        let layers: Result<Vec<BitLinear>, LayerError> = widths.windows(2).map(layer).collect();
        Ok(Classifier(layers?))
    }

    /// Stochastic gradient descent with momentum; gives the mean loss of each epoch.
    pub(crate) fn train(
        &mut self,
        data: &Data,
        training: &Training,
    ) -> Result<Vec<f32>, LayerError> {
        let mut random = Random::seeded(training.seed);
        let mut order: Vec<usize> = (0..data.len()).collect();
        let mut velocities: Vec<Velocity> = self.0.iter().map(Velocity::still).collect();
        let mut losses = Vec::new();
        for _ in 0..training.epochs {
            for last in (1..order.len()).rev() {
                order.swap(last, random.bits() as usize % (last + 1));
            }
            let mut sum = 0.0;
            for batch in order.chunks(training.batch) {
                let rows = batch
                    .iter()
                    .flat_map(|sample| &data.x[sample * Data::DIMENSIONS..][..Data::DIMENSIONS]);
                let x: Vec<f32> = rows.copied().collect();
                let labels: Vec<usize> = batch.iter().map(|sample| data.labels[*sample]).collect();
                let (loss, gradients) = self.loss(&x, &labels)?;
                sum += loss * batch.len() as f32;
                for ((layer, velocity), gradients) in
                    self.0.iter_mut().zip(&mut velocities).zip(&gradients)
                {
                    velocity.step(layer, gradients, training);
                }
            }
            losses.push(sum / data.len() as f32);
        }
        Ok(losses)
    }

    /// The mean cross-entropy of a batch, and how it changes with every layer.
    fn loss(&self, x: &[f32], labels: &[usize]) -> Result<(f32, Vec<Gradients>), LayerError> {
        let mut passes = Vec::new();
        let mut flowing = x.to_vec();
        for (number, layer) in self.0.iter().enumerate() {
            let pass = layer.train(&flowing)?;
            flowing.clone_from(&pass.output);
            if number + 1 < self.0.len() {
                relu(&mut flowing);
            }
            passes.push(pass);
        }
        let (loss, mut gradient) = cross_entropy(&flowing, labels);
        let mut gradients = Vec::new();
        for (number, pass) in passes.iter().enumerate().rev() {
            let of_layer = pass.backward(&gradient)?;
            gradient.clone_from(&of_layer.input);
            if let Some(before) = number.checked_sub(1) {
                // Where the ReLU gave 0, nothing comes back through it.
                for (gradient, output) in gradient.iter_mut().zip(&passes[before].output) {
                    if *output <= 0.0 {
                        *gradient = 0.0;
                    }
                }
            }
            gradients.push(of_layer);
        }
        gradients.reverse();
        Ok((loss, gradients))
    }

    pub(crate) fn eval(&self, packing: Packing) -> Result<Vec<Evaluating<'_>>, LayerError> {
        self.0.iter().map(|layer| layer.eval(packing)).collect()
    }

    pub(crate) fn deploy(self, packing: Packing) -> Result<Vec<PackedBitLinear>, LayerError> {
        let layers = self.0.into_iter();
        layers.map(|layer| layer.deploy(packing)).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(BitLinear::bytes).sum()
    }
}

/// What the layers of a classifier make of samples, once they run on codes.
pub(crate) fn logits<'l>(
    layers: impl IntoIterator<Item = &'l PackedBitLinear>,
    x: &[f32],
    kernel: Runnable,
    pool: &Pool,
) -> Result<Vec<f32>, LayerError> {
    let mut layers = layers.into_iter().peekable();
    let mut flowing = x.to_vec();
    while let Some(layer) = layers.next() {
        flowing = layer.forward(&flowing, kernel, pool)?;
        if layers.peek().is_some() {
            relu(&mut flowing);
        }
    }
    Ok(flowing)
}

/// What momentum remembers of a layer.
struct Velocity {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Velocity {
    fn still(layer: &BitLinear) -> Velocity {
        Velocity {
            weight: vec![0.0; layer.weight().len()],
            bias: vec![0.0; layer.bias().map_or(0, <[f32]>::len)],
        }
    }

    fn step(&mut self, layer: &mut BitLinear, gradients: &Gradients, training: &Training) {
        let move_by = |numbers: &mut [f32], velocity: &mut [f32], gradient: &[f32]| {
            for ((number, velocity), gradient) in numbers.iter_mut().zip(velocity).zip(gradient) {
                *velocity = training.momentum * *velocity + gradient;
                *number -= training.rate * *velocity;
            }
        };
        move_by(layer.weight_mut(), &mut self.weight, &gradients.weight);
        if let (Some(bias), Some(gradient)) = (layer.bias_mut(), &gradients.bias) {
            move_by(bias, &mut self.bias, gradient);
        }
    }
}

fn relu(numbers: &mut [f32]) {
    numbers
        .iter_mut()
        .for_each(|number| *number = number.max(0.0));
}

/// The mean of `-log softmax(logits)[label]`, and its gradient, `(softmax - one hot) / samples`.
fn cross_entropy(logits: &[f32], labels: &[usize]) -> (f32, Vec<f32>) {
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    let samples = labels.len() as f32;
    for (logits, label) in logits.chunks_exact(Data::CLASSES).zip(labels) {
        let most = logits
            .iter()
            .fold(f32::NEG_INFINITY, |most, it| most.max(*it));
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let sum: f32 = powers.iter().sum();
        loss -= (powers[*label] / sum).ln() / samples;
        gradient.extend(powers.iter().enumerate().map(|(class, power)| {
            (power / sum - if class == *label { 1.0 } else { 0.0 }) / samples
        }));
    }
    (loss, gradient)
}
