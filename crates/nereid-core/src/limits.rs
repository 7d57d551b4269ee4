//! Limits on what comes from outside, each with its unit. Errors name them.

/// Largest JSON request body in bytes, except inference.
pub const MAX_JSON_BODY_BYTES: usize = 2 << 20;
/// Largest inference request body in bytes.
pub const MAX_INFERENCE_BODY_BYTES: usize = 64 << 20;
/// Largest direct upload in bytes; larger data is put into S3 by the client and named by URI.
pub const MAX_UPLOAD_BYTES: u64 = 2 << 30;
/// Largest decompressed size of a dataset that one process decodes, in bytes.
pub const MAX_DECODED_DATASET_BYTES: u64 = 8 << 30;
/// Most objects of one file of a dataset version.
pub const MAX_DATASET_OBJECTS: usize = 250_000;
/// Most objects that a file of a dataset names one by one.
pub const MAX_LISTED_OBJECTS: usize = 1_000;
/// Largest list of the objects of one file of a dataset version, in bytes.
pub const MAX_OBJECT_LIST_BYTES: u64 = 64 << 20;
/// Most rows in a dataset version.
pub const MAX_DATASET_ROWS: u64 = 100_000_000;
/// Most rows of the window through which training data is shuffled.
pub const MAX_SHUFFLE_BUFFER: u32 = 100_000_000;
/// Most values in one sample.
pub const MAX_FEATURES: usize = 1 << 20;
/// Most columns of a table whose kind is declared.
pub const MAX_DECLARED_COLUMNS: usize = 4_096;
/// Most columns of a table that hold labels.
pub const MAX_LABEL_COLUMNS: usize = 1_000;
/// Most categories of one column that each get an input of their own or an index.
pub const MAX_CATEGORIES: u32 = 10_000;
/// Most buckets of a hashed column.
pub const MAX_BUCKETS: u32 = 1 << 16;
/// Most words of a vocabulary.
pub const MAX_VOCABULARY: u32 = 100_000;
/// Most tokens of one text.
pub const MAX_TOKENS: u32 = 16_384;
/// Longest line of JSON Lines in bytes.
pub const MAX_JSON_LINE_BYTES: usize = 64 << 20;
/// Largest single image file of a dataset in bytes.
pub const MAX_IMAGE_FILE_BYTES: u64 = 64 << 20;
/// Largest width or height of an image before it is resized, in pixels.
pub const MAX_IMAGE_SIDE: u32 = 16_384;
/// Most memory that decoding one image may take, in bytes.
pub const MAX_IMAGE_DECODED_BYTES: u64 = 512 << 20;
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
/// Largest factor of a penalty on weights.
pub const MAX_REGULARIZATION: f64 = 1e6;
/// Largest number that an initialiser may be given.
pub const MAX_INITIAL_VALUE: f64 = 1e6;
/// Most trainable and non-trainable parameters of a network.
pub const MAX_PARAMETERS: u64 = 1_000_000_000;
/// Most values in one sample's activation of one layer.
pub const MAX_ACTIVATION: u64 = 1 << 26;
/// Most epochs of one training job.
pub const MAX_EPOCHS: u32 = 100_000;
/// Most boundaries of a learning-rate schedule.
pub const MAX_SCHEDULE_BOUNDARIES: usize = 1_000;
/// Most name patterns of one option.
pub const MAX_PATTERNS: usize = 64;
/// Longest name pattern in bytes.
pub const MAX_PATTERN_LEN: usize = 128;
/// Highest rank of a low-rank adaptation.
pub const MAX_LORA_RANK: u32 = 1_024;
/// Most steps over which gradients are accumulated.
pub const MAX_ACCUMULATION_STEPS: u32 = 65_536;
/// Largest factor on losses whose gradients are computed in 16 bits.
pub const MAX_LOSS_SCALE: f64 = 4_294_967_296.0;
/// Largest training batch in samples.
pub const MAX_BATCH_SIZE: u32 = 65_536;
/// Most augmentations of one training job.
pub const MAX_AUGMENTATIONS: usize = 32;
/// Most labels or numbers that one sample is to be given.
pub const MAX_TARGETS: usize = 10_000;
/// Most metrics of one training job.
pub const MAX_METRICS: usize = 16;
/// Most classes or labels of which the area under the ROC curve is measured.
pub const MAX_AUC_CLASSES: usize = 1_000;
/// Most callbacks of one training job.
pub const MAX_CALLBACKS: usize = 16;
/// Most rules that watch one training job.
pub const MAX_RULES: usize = 16;
/// Most rows of one prediction request.
pub const MAX_PREDICT_ROWS: usize = 4_096;
/// Most values of one prediction request's decoded images.
pub const MAX_PREDICT_VALUES: usize = 32 << 20;
/// Longest head of one part of a form in bytes.
pub const MAX_PART_HEAD_BYTES: usize = 8 << 10;
/// Most rows of one file of a batch prediction.
pub const MAX_ROWS_PER_PART: u32 = 1_000_000;
/// Most files that a batch prediction writes its predictions to.
pub const MAX_BATCH_PARTS: usize = 100_000;
/// Most input columns that a batch prediction keeps beside its predictions.
pub const MAX_ID_COLUMNS: usize = 64;
/// Most values that a batch prediction gives the model at a time, whatever its batch size.
pub const MAX_BATCH_VALUES: usize = 1 << 24;
/// Longest key of the prefix below which a batch prediction writes, in bytes.
pub const MAX_OUTPUT_KEY_LEN: usize = 900;
/// Most labels or tags on one resource.
pub const MAX_TAGS: usize = 64;
/// Longest label or tag key in characters.
pub const MAX_TAG_KEY_LEN: usize = 63;
/// Longest label or tag value in characters.
pub const MAX_TAG_VALUE_LEN: usize = 256;
/// Longest description in characters.
pub const MAX_DESCRIPTION_LEN: usize = 2_048;
/// Longest reason given for a decision in characters.
pub const MAX_REASON_LEN: usize = 2_048;
/// Most aliases of one model.
pub const MAX_ALIASES: i64 = 64;
/// Most versions compared at once.
pub const MAX_COMPARED: usize = 16;
/// Most differences of two documents that are listed.
pub const MAX_DIFFERENCES: usize = 1_000;
/// Longest search filter in bytes.
pub const MAX_FILTER_LEN: usize = 4_096;
/// Most conditions of a search filter.
pub const MAX_CONDITIONS: usize = 32;
/// Longest key or text in a search filter in characters.
pub const MAX_FILTER_TEXT_LEN: usize = 256;
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
/// Most jobs of its project that are counted ahead of a waiting one.
pub const COUNTED_AHEAD: i64 = 10_000;
/// Highest priority; 0 is the lowest and 50 the default.
pub const MAX_PRIORITY: u8 = 100;
/// Most replicas of one variant.
pub const MAX_REPLICAS: u32 = 64;
/// Longest wait of one state of a rollout in seconds.
pub const MAX_ROLLOUT_WAIT: u32 = 86_400;
/// Longest time that a rollout may take in seconds.
pub const MAX_ROLLOUT_TIME: u32 = 7 * 86_400;
/// Most rules that undo one rollout.
pub const MAX_ROLLBACK_RULES: usize = 8;
/// Longest time that such a rule looks back, in seconds.
pub const MAX_EVALUATION_SECONDS: u32 = 3_600;
/// Longest cooldown of autoscaling in seconds.
pub const MAX_COOLDOWN: u32 = 86_400;
/// Most scheduled least capacities of one variant.
pub const MAX_SCHEDULES: usize = 16;
/// Most variants of one endpoint.
pub const MAX_VARIANTS: usize = 8;
/// Most inferences that one process works on at the same time.
pub const MAX_INFERENCES_HELD: usize = 1_024;
/// Most bytes of inference requests that one process holds at the same time.
pub const MAX_INFERENCE_BYTES_HELD: usize = 512 << 20;
/// Most rows of one execution of a served model.
pub const MAX_SERVING_BATCH: u32 = 4_096;
/// Longest wait of an idle engine for a fuller batch, in microseconds.
pub const MAX_QUEUE_DELAY_US: u32 = 1_000_000;
/// Most sizes that a variant's batches should preferably have.
pub const MAX_PREFERRED_SIZES: usize = 16;
/// Most requests that wait in one replica.
pub const MAX_QUEUE_SIZE: u32 = 65_536;
/// Longest time that an inference may be given, in microseconds.
pub const MAX_INFERENCE_TIMEOUT_US: u64 = 600_000_000;
/// Most levels of priority of a variant.
pub const MAX_PRIORITY_LEVELS: u32 = 16;
/// Most executions at the same time in one replica.
pub const MAX_CONCURRENCY: u32 = 256;
/// Most bytes of answers that are kept for one variant.
pub const MAX_RESPONSE_CACHE_BYTES: u64 = 16 << 30;
/// Longest wait before a request is sent to a second replica, in microseconds.
pub const MAX_HEDGE_AFTER_US: u32 = 60_000_000;
/// Most rows shown in a dataset preview.
pub const PREVIEW_ROWS: usize = 10;
