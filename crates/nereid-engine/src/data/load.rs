//! Decodes a dataset for training, in one pass, into as much room as there is.

use nereid_core::{
    datasets::DatasetSchema,
    engine::{DataInput, DataResources, EngineError},
    spec::shapes,
};

use super::{
    Check,
    cache::{Cache, Partial},
    digest::Digest,
    records::{Header, Records},
    replay::Replay,
    rows::{Label, Rows},
    samples::{Encoder, Samples, Targets, Values, Width},
};

/// Values read between two checks whether to go on.
const CHECKED_VALUES: usize = 1 << 18;

/// Where the decoded data of a training may be held.
pub(crate) struct Room {
    /// Bytes of memory that are left.
    memory: u64,
    cache: Cache,
}

impl Room {
    /// Room as a training is given it; without a cache folder, files vanish with it.
    pub(crate) fn new(resources: &DataResources, scratch: &std::path::Path) -> Self {
        let folder = resources.cache_folder.as_deref();
        let limit = resources.cache_limit;
        Self {
            memory: resources.memory,
            cache: Cache::new(folder.unwrap_or(scratch), limit, folder.is_some()),
        }
    }
}

/// Reads a dataset whose target and columns are those of `schema`, the training data's.
///
/// Without a target in it, samples are their own: labels are not looked at.
///
/// What exceeds the memory goes into a file, and what exceeds the disk is left in its source if
/// it can be `streamed` from there.
pub(crate) fn load(
    input: &DataInput,
    schema: &DatasetSchema,
    room: &mut Room,
    streamed: bool,
    check: &mut Check<'_>,
) -> Result<Samples, EngineError> {
    let key = key(input, schema)?;
    if let Some(key) = &key
        && let Some((records, header, targets)) = room.cache.find(key, check)?
    {
        return Ok(samples(&header, targets, Values::File(records)));
    }
    let mut rows = Rows::open(&input.source, &*input.files, Some(schema), check)?;
    let layout = rows.layout();
    if layout.shape != schema.shape {
        let (got, expected) = (shapes::show(&layout.shape), shapes::show(&schema.shape));
        return Err(EngineError::InvalidInput(format!(
            "samples have shape {got}, the training data's {expected}"
        )));
    }
    if rows.target().is_none() && schema.target.is_some() {
        let detail = "the dataset has no label to compare with".to_owned();
        return Err(EngineError::InvalidInput(detail));
    }
    let size: usize = layout.shape.iter().product();
    let width = if matches!(layout.dtype, "UINT8" | "BOOL") {
        Width::U8
    } else {
        Width::F32
    };
    let mut hold = Hold::Memory(Vec::new());
    let mut targets = Encoder::new(schema);
    let mut digest = Digest::default();
    let (mut row, mut label) = (Vec::new(), Label::default());
    let (mut record, mut target) = (Vec::new(), Vec::new());
    let (mut count, mut unchecked) = (0_u32, 0);
    while rows.next(&mut row, &mut label)? {
        unchecked += size;
        if unchecked >= CHECKED_VALUES {
            check()?;
            unchecked = 0;
        }
        record.clear();
        width.encode(&row, &mut record);
        targets.push(&label, u64::from(count), &rows)?;
        target.clear();
        targets.targets.encode(count as usize, &mut target);
        digest.row(&record, &target);
        hold = hold.push(&record, room, streamed)?;
        // No dataset has as many rows as that.
        count = count.saturating_add(1);
    }
    if count == 0 {
        let place = rows.label_place();
        return Err(place.fault("empty", "it has a header but no rows"));
    }
    let header = Header {
        key: key.unwrap_or_default(),
        rows: count,
        size,
        width,
        targets: targets.targets.kind(),
        digest: digest.finish(),
    };
    let values = match hold {
        Hold::Memory(mut values) => {
            values.shrink_to_fit();
            room.memory = room.memory.saturating_sub(values.len() as u64);
            Values::Memory(values)
        }
        Hold::File(partial) => Values::File(complete(partial, &header, &targets.targets)?),
        Hold::Nothing => Values::Source(Box::new(Replay {
            input: input.clone(),
            schema: schema.clone(),
            width,
        })),
    };
    Ok(samples(&header, targets.targets, values))
}

fn samples(header: &Header, targets: Targets, values: Values) -> Samples {
    Samples {
        rows: header.rows as usize,
        size: header.size,
        width: header.width,
        targets,
        values,
        digest: header.digest,
    }
}

/// Names data and decoder, if it is known which data it is.
fn key(input: &DataInput, schema: &DatasetSchema) -> Result<Option<String>, EngineError> {
    let plain = |d: &&String| d.len() <= 128 && d.bytes().all(|b| b.is_ascii_hexdigit());
    let Some(digest) = input.digest.as_ref().filter(plain) else {
        return Ok(None);
    };
    let parts = (&input.source, schema, crate::framework_version());
    let parts = serde_json::to_vec(&parts)
        .map_err(|e| EngineError::Internal(format!("encoding a schema: {e}")))?;
    let mut how = Digest::default();
    how.bytes(&parts);
    how.bytes(env!("CARGO_PKG_VERSION").as_bytes());
    Ok(Some(format!("{digest}-{:016x}", how.finish())))
}

/// Where the rows read so far are.
enum Hold {
    Memory(Vec<u8>),
    File(Partial),
    Nothing,
}

impl Hold {
    fn push(mut self, record: &[u8], room: &Room, streamed: bool) -> Result<Self, EngineError> {
        let written = match &mut self {
            Self::Memory(values) if (values.len() + record.len()) as u64 <= room.memory => {
                values.extend_from_slice(record);
                Ok(())
            }
            Self::Memory(values) => match room.cache.begin() {
                Ok(mut partial) => {
                    let written = partial.write(values).and_then(|()| partial.write(record));
                    self = Self::File(partial);
                    written
                }
                Err(e) => Err(e),
            },
            Self::File(partial) => partial.write(record),
            Self::Nothing => Ok(()),
        };
        match written {
            Ok(()) => Ok(self),
            Err(e) if streamed => {
                tracing::info!(error = %e, "data is not cached on disk, it is read again instead");
                Ok(Self::Nothing)
            }
            Err(e) if e.kind() == std::io::ErrorKind::QuotaExceeded => {
                Err(EngineError::InvalidInput(does_not_fit(room.cache.limit())))
            }
            Err(source) => Err(EngineError::Io {
                context: "writing decoded data".to_owned(),
                source,
            }),
        }
    }
}

/// What to do about data that can neither be stored nor streamed.
pub(crate) fn does_not_fit(limit: u64) -> String {
    format!(
        "the decoded data needs more than the {limit} bytes that the worker's cache may hold: give \
         it more (worker.data_cache_limit), or set fit.shuffle_buffer to a number of rows, through \
         which the data is then streamed and shuffled"
    )
}

fn complete(
    mut partial: Partial,
    header: &Header,
    targets: &Targets,
) -> Result<Records, EngineError> {
    let mut bytes = Vec::with_capacity(1 << 16);
    let mut write = || {
        for row in 0..header.rows as usize {
            targets.encode(row, &mut bytes);
            if bytes.len() >= 1 << 16 {
                partial.write(&bytes)?;
                bytes.clear();
            }
        }
        partial.write(&bytes)
    };
    let written = write();
    written
        .and_then(|()| partial.finish(header))
        .map_err(|source| EngineError::Io {
            context: "writing decoded data".to_owned(),
            source,
        })
}
