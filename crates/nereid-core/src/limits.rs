//! Limits on what comes from outside, each with its unit. Errors name them.

/// Largest JSON request body in bytes, except inference.
pub const MAX_JSON_BODY_BYTES: usize = 2 << 20;
/// Largest inference request body in bytes.
pub const MAX_INFERENCE_BODY_BYTES: usize = 64 << 20;
/// Largest direct upload in bytes; larger data is put into S3 by the client and named by URI.
pub const MAX_UPLOAD_BYTES: u64 = 2 << 30;
/// Largest decompressed size of a dataset that one process decodes, in bytes.
pub const MAX_DECODED_DATASET_BYTES: u64 = 8 << 30;
/// Most rows in a dataset version.
pub const MAX_DATASET_ROWS: u64 = 100_000_000;
/// Most values in one sample.
pub const MAX_FEATURES: usize = 1 << 20;
/// Most classes of a categorical target.
pub const MAX_CLASSES: usize = 10_000;
/// Most dimensions of one sample.
pub const MAX_RANK: usize = 4;
/// Most layers in a network.
pub const MAX_LAYERS: usize = 512;
/// Most inputs of one layer.
pub const MAX_LAYER_INPUTS: usize = 64;
/// Most steps of a recurrent layer's input.
pub const MAX_STEPS: usize = 8_192;
/// Smaller side of the largest matrix that the initialiser `orthogonal` makes.
pub const MAX_ORTHOGONAL: u64 = 4_096;
/// Largest number that an initialiser may be given.
pub const MAX_INITIAL_VALUE: f64 = 1e6;
/// Most trainable and non-trainable parameters of a network.
pub const MAX_PARAMETERS: u64 = 1_000_000_000;
/// Most values in one sample's activation of one layer.
pub const MAX_ACTIVATION: u64 = 1 << 26;
/// Most epochs of one training job.
pub const MAX_EPOCHS: u32 = 100_000;
/// Largest training batch in samples.
pub const MAX_BATCH_SIZE: u32 = 65_536;
/// Most callbacks of one training job.
pub const MAX_CALLBACKS: usize = 16;
/// Most rows of one prediction request.
pub const MAX_PREDICT_ROWS: usize = 4_096;
/// Most labels or tags on one resource.
pub const MAX_TAGS: usize = 64;
/// Longest label or tag key in characters.
pub const MAX_TAG_KEY_LEN: usize = 63;
/// Longest label or tag value in characters.
pub const MAX_TAG_VALUE_LEN: usize = 256;
/// Longest description in characters.
pub const MAX_DESCRIPTION_LEN: usize = 2_048;
/// Longest `Idempotency-Key` in bytes.
pub const MAX_IDEMPOTENCY_KEY_LEN: usize = 255;
/// Most items of one page.
pub const MAX_PAGE_SIZE: u32 = 200;
/// Items of one page unless asked otherwise.
pub const DEFAULT_PAGE_SIZE: u32 = 50;
/// Most attempts of one job.
pub const MAX_ATTEMPTS: u32 = 20;
/// Most attempts of one job that may be lost with their workers.
pub const MAX_LEASE_LOSSES: u32 = 20;
/// Longest running or waiting time that a job may ask for, in seconds.
pub const MAX_JOB_SECONDS: u32 = 31_536_000;
/// Longest time that a no-op job does nothing, in seconds.
pub const MAX_NOOP_SECONDS: f64 = 86_400.0;
/// Checkpoints kept per job: the newest, and some to fall back on.
pub const KEPT_CHECKPOINTS: usize = 3;
/// Highest priority; 0 is the lowest and 50 the default.
pub const MAX_PRIORITY: u8 = 100;
/// Most replicas of one variant.
pub const MAX_REPLICAS: u32 = 64;
/// Most variants of one endpoint.
pub const MAX_VARIANTS: usize = 8;
/// Most rows shown in a dataset preview.
pub const PREVIEW_ROWS: usize = 10;
