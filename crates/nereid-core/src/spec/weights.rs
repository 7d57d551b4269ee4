//! The weights of each layer: names, shapes, order and initial values, as Keras has them.

use std::ops::Range;

use super::{
    initializers::Initializer,
    layers::{
        Conv2DTranspose, DepthwiseConv2D, Embedding, GRU, LSTM, Layer, MultiHeadAttention, PReLU,
        PositionEmbedding, Recurrent, SeparableConv2D, SimpleRNN,
    },
    network::Defaults,
    regularizers::Regularizer,
    shapes::{Shape, size},
};

/// A weight that a layer has.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Its part in the layer: `kernel`, `query/bias`.
    pub role: String,
    /// Shape in Keras.
    pub shape: Shape,
    /// Whether training changes it by gradients.
    pub trainable: bool,
    /// Initial values.
    pub initializer: Initializer,
    /// Inputs and outputs that initial values follow from, if not those of its shape.
    pub fans: Option<[usize; 2]>,
    /// What [`Initializer::PytorchUniform`] divides by the root of.
    pub fan: f64,
    /// What is added to the loss for it.
    pub regularizer: Option<Regularizer>,
    /// Values that start at 1 whatever the initialiser says: the forget gate's bias.
    pub ones: Option<Range<usize>>,
}

impl Weight {
    /// Number of values, `u64::MAX` on overflow.
    #[must_use]
    pub fn values(&self) -> u64 {
        size(&self.shape)
    }
}

/// Returns a layer's weights in Keras' order; `inputs` are the shapes of what it takes.
#[must_use]
pub fn weights(layer: &Layer, inputs: &[Shape], defaults: Defaults) -> Vec<Weight> {
    let input = inputs.first().map_or(&[][..], Vec::as_slice);
    let channels = input.last().copied().unwrap_or(1);
    let mut list = List::new(defaults);
    match layer {
        Layer::Dense(l) => {
            list.kernel("kernel", vec![channels, l.units], l.kernel_initializer);
            list.bias(l.use_bias, l.units, l.bias_initializer);
        }
        Layer::Conv1D(l) => {
            let shape = vec![l.kernel_size, channels / l.groups.max(1), l.filters];
            list.kernel("kernel", shape, l.kernel_initializer);
            list.bias(l.use_bias, l.filters, l.bias_initializer);
        }
        Layer::Conv2D(l) => {
            let [h, w] = l.kernel_size.get();
            let shape = vec![h, w, channels / l.groups.max(1), l.filters];
            list.kernel("kernel", shape, l.kernel_initializer);
            list.bias(l.use_bias, l.filters, l.bias_initializer);
        }
        Layer::Conv2DTranspose(l) => list.transposed(l, channels),
        Layer::DepthwiseConv2D(l) => list.depthwise(l, channels),
        Layer::SeparableConv2D(l) => list.separable(l, channels),
        Layer::BatchNormalization(_) => {
            list.affine(channels);
            list.moving("moving_mean", channels, Initializer::ZEROS);
            list.moving("moving_variance", channels, Initializer::ONES);
        }
        Layer::LayerNormalization(_) | Layer::GroupNormalization(_) => list.affine(channels),
        Layer::RMSNormalization(_) => list.add("scale", vec![channels], Initializer::ONES),
        Layer::PReLU(l) => list.slopes(l, input),
        Layer::Embedding(l) => list.table(l),
        Layer::PositionEmbedding(l) => list.positions(l, channels),
        Layer::SimpleRNN(l) => list.simple_rnn("", l, channels),
        Layer::LSTM(l) => list.lstm("", l, channels),
        Layer::GRU(l) => list.gru("", l, channels),
        Layer::Bidirectional(l) => {
            list.recurrent("forward/", &l.layer, channels);
            list.recurrent("backward/", &l.layer, channels);
        }
        Layer::MultiHeadAttention(l) => list.attention(l, inputs),
        _ => {}
    }
    let kernel = list.weights.iter_mut().find(|w| w.role == "kernel");
    if let Some(kernel) = kernel {
        kernel.regularizer = layer.kernel_regularizer();
    }
    list.weights
}

/// Weights of one layer, as they are listed.
struct List {
    defaults: Defaults,
    weights: Vec<Weight>,
    fan: f64,
}

impl List {
    fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            weights: Vec::new(),
            fan: 1.0,
        }
    }

    fn add(&mut self, role: impl Into<String>, shape: Shape, initializer: Initializer) {
        self.weights.push(Weight {
            role: role.into(),
            shape,
            trainable: true,
            initializer,
            fans: None,
            fan: self.fan,
            regularizer: None,
            ones: None,
        });
    }

    fn pick(&self, given: Option<Initializer>, keras: Initializer) -> Initializer {
        given.unwrap_or(match self.defaults {
            Defaults::Keras => keras,
            Defaults::Pytorch => Initializer::PytorchUniform {},
        })
    }

    /// Adds a kernel whose last axis is its output; its fan is also that of a bias that follows.
    fn kernel(&mut self, role: &str, shape: Shape, given: Option<Initializer>) {
        let outputs = shape.last().copied().unwrap_or(1) as u64;
        self.set_fan(size(&shape) / outputs.max(1));
        self.add(role, shape, self.pick(given, Initializer::GLOROT));
    }

    #[expect(clippy::cast_precision_loss, reason = "fans are far below 2^52")]
    fn set_fan(&mut self, fan: u64) {
        self.fan = fan.max(1) as f64;
    }

    fn bias(&mut self, wanted: bool, n: usize, given: Option<Initializer>) {
        if wanted {
            self.add("bias", vec![n], self.pick(given, Initializer::ZEROS));
        }
    }

    fn affine(&mut self, channels: usize) {
        self.add("gamma", vec![channels], Initializer::ONES);
        self.add("beta", vec![channels], Initializer::ZEROS);
    }

    fn moving(&mut self, role: &str, channels: usize, initializer: Initializer) {
        self.add(role, vec![channels], initializer);
        if let Some(weight) = self.weights.last_mut() {
            weight.trainable = false;
        }
    }

    fn transposed(&mut self, l: &Conv2DTranspose, channels: usize) {
        let [h, w] = l.kernel_size.get();
        self.set_fan((h * w) as u64 * l.filters as u64);
        let kernel = self.pick(l.kernel_initializer, Initializer::GLOROT);
        self.add("kernel", vec![h, w, l.filters, channels], kernel);
        self.bias(l.use_bias, l.filters, l.bias_initializer);
    }

    fn depthwise(&mut self, l: &DepthwiseConv2D, channels: usize) {
        let [h, w] = l.kernel_size.get();
        // PyTorch counts the one input channel of each group.
        self.set_fan((h * w) as u64);
        let kernel = self.pick(l.depthwise_initializer, Initializer::GLOROT);
        self.add("kernel", vec![h, w, channels, l.depth_multiplier], kernel);
        let outputs = channels.saturating_mul(l.depth_multiplier);
        self.bias(l.use_bias, outputs, l.bias_initializer);
    }

    fn separable(&mut self, l: &SeparableConv2D, channels: usize) {
        let [h, w] = l.kernel_size.get();
        self.set_fan((h * w) as u64);
        let depthwise = self.pick(l.depthwise_initializer, Initializer::GLOROT);
        let shape = vec![h, w, channels, l.depth_multiplier];
        self.add("depthwise_kernel", shape, depthwise);
        let between = channels.saturating_mul(l.depth_multiplier);
        let shape = vec![1, 1, between, l.filters];
        self.kernel("pointwise_kernel", shape, l.pointwise_initializer);
        self.bias(l.use_bias, l.filters, l.bias_initializer);
    }

    fn slopes(&mut self, l: &PReLU, input: &[usize]) {
        let shared = |axis: usize| l.shared_axes.contains(&(axis + 1));
        let sizes = input.iter().enumerate();
        let shape = sizes.map(|(axis, &n)| if shared(axis) { 1 } else { n });
        let keras = match self.defaults {
            Defaults::Keras => Initializer::ZEROS,
            Defaults::Pytorch => Initializer::Constant { value: 0.25 },
        };
        self.add(
            "alpha",
            shape.collect(),
            l.alpha_initializer.unwrap_or(keras),
        );
    }

    fn normal_table(&self, given: Option<Initializer>, keras: Initializer) -> Initializer {
        given.unwrap_or(match self.defaults {
            Defaults::Keras => keras,
            Defaults::Pytorch => Initializer::STANDARD_NORMAL,
        })
    }

    fn table(&mut self, l: &Embedding) {
        let initializer = self.normal_table(l.embeddings_initializer, Initializer::UNIFORM);
        self.add("embeddings", vec![l.input_dim, l.output_dim], initializer);
    }

    fn positions(&mut self, l: &PositionEmbedding, channels: usize) {
        let initializer = self.normal_table(l.initializer, Initializer::GLOROT);
        let shape = vec![l.sequence_length, channels];
        self.add("position_embeddings", shape, initializer);
    }

    fn recurrent(&mut self, prefix: &str, layer: &Recurrent, channels: usize) {
        match layer {
            Recurrent::SimpleRNN(l) => self.simple_rnn(prefix, l, channels),
            Recurrent::LSTM(l) => self.lstm(prefix, l, channels),
            Recurrent::GRU(l) => self.gru(prefix, l, channels),
        }
    }

    /// Adds both kernels of a recurrent layer of `gates` times `units` columns.
    fn kernels(
        &mut self,
        prefix: &str,
        [channels, units, gates]: [usize; 3],
        given: [Option<Initializer>; 2],
    ) {
        self.set_fan(units as u64);
        let columns = gates * units;
        let kernel = self.pick(given[0], Initializer::GLOROT);
        self.add(format!("{prefix}kernel"), vec![channels, columns], kernel);
        let recurrent = self.pick(given[1], Initializer::ORTHOGONAL);
        let role = format!("{prefix}recurrent_kernel");
        self.add(role, vec![units, columns], recurrent);
    }

    fn simple_rnn(&mut self, prefix: &str, l: &SimpleRNN, channels: usize) {
        let given = [l.kernel_initializer, l.recurrent_initializer];
        self.kernels(prefix, [channels, l.units, 1], given);
        if l.use_bias {
            let bias = self.pick(l.bias_initializer, Initializer::ZEROS);
            self.add(format!("{prefix}bias"), vec![l.units], bias);
        }
    }

    fn lstm(&mut self, prefix: &str, l: &LSTM, channels: usize) {
        let given = [l.kernel_initializer, l.recurrent_initializer];
        self.kernels(prefix, [channels, l.units, 4], given);
        if l.use_bias {
            let bias = self.pick(l.bias_initializer, Initializer::ZEROS);
            self.add(format!("{prefix}bias"), vec![4 * l.units], bias);
            if let (true, Some(weight)) = (l.unit_forget_bias, self.weights.last_mut()) {
                weight.ones = Some(l.units..2 * l.units);
            }
        }
    }

    fn gru(&mut self, prefix: &str, l: &GRU, channels: usize) {
        let given = [l.kernel_initializer, l.recurrent_initializer];
        self.kernels(prefix, [channels, l.units, 3], given);
        if l.use_bias {
            let bias = self.pick(l.bias_initializer, Initializer::ZEROS);
            let columns = 3 * l.units;
            // Reset after the product, the products of input and state have biases of their own.
            let shape = if l.reset_after {
                vec![2, columns]
            } else {
                vec![columns]
            };
            self.add(format!("{prefix}bias"), shape, bias);
        }
    }

    /// Says what the weight last added takes and yields, as a matrix.
    fn set_fans(&mut self, inputs: usize, outputs: usize) {
        if let Some(weight) = self.weights.last_mut() {
            weight.fans = Some([inputs, outputs]);
        }
    }

    fn attention(&mut self, l: &MultiHeadAttention, inputs: &[Shape]) {
        let width = |i: usize| inputs.get(i).and_then(|s| s.last()).copied();
        let query = width(0).unwrap_or(1);
        let value = width(1).unwrap_or(query);
        let key = width(2).unwrap_or(value);
        let values = l.value_dim.unwrap_or(l.key_dim);
        let heads = l.num_heads;
        for (role, from, dim) in [
            ("query", query, l.key_dim),
            ("key", key, l.key_dim),
            ("value", value, values),
        ] {
            // PyTorch draws the three as one matrix by Glorot's rule.
            self.set_fan(from as u64);
            self.fan *= 2.0 / 3.0;
            let kernel = self.pick(l.kernel_initializer, Initializer::GLOROT);
            self.add(format!("{role}/kernel"), vec![from, heads, dim], kernel);
            self.set_fans(from, heads.saturating_mul(dim));
            let bias = l.bias_initializer.unwrap_or(Initializer::ZEROS);
            if l.use_bias {
                self.add(format!("{role}/bias"), vec![heads, dim], bias);
            }
        }
        self.set_fan(heads as u64 * values as u64);
        let kernel = self.pick(l.kernel_initializer, Initializer::GLOROT);
        let shape = vec![heads, values, query];
        self.add("attention_output/kernel", shape, kernel);
        self.set_fans(heads.saturating_mul(values), query);
        if l.use_bias {
            let bias = l.bias_initializer.unwrap_or(Initializer::ZEROS);
            self.add("attention_output/bias", vec![query], bias);
        }
    }
}
