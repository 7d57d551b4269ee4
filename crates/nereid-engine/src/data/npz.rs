//! Arrays of an NPZ, the zip of NPY files that `numpy.savez` writes.

use std::io::{self, BufReader, Read};

use flate2::{Crc, bufread::DeflateDecoder};
use nereid_core::{
    datasets::{DatasetSource, FileRole},
    engine::EngineError,
    limits,
};
use zip::{CompressionMethod, ZipArchive};

use super::{bytes::Source, spool::Spool};

/// Names that are looked for, features and labels: those of `keras.datasets` first.
const CONVENTION: [(&str, &[&str]); 6] = [
    ("x_train", &["y_train"]),
    ("x", &["y"]),
    ("X", &["y", "Y"]),
    ("data", &["labels", "label", "target"]),
    ("images", &["labels"]),
    ("arr_0", &["arr_1"]),
];
/// Most arrays in a file.
const MAX_ARRAYS: usize = 10_000;
/// Names shown in an error message.
const SHOWN_NAMES: usize = 20;

/// Finds the arrays of features and, if there are any, of labels.
pub(super) fn open(
    spool: &Spool,
    source: &DatasetSource,
) -> Result<(Source, Option<Source>), EngineError> {
    let place = &spool.place;
    let bad = |e: zip::result::ZipError| match e {
        zip::result::ZipError::Io(e) if e.kind() != io::ErrorKind::UnexpectedEof => place.io(e),
        other => place.fault("bad_zip", format!("it is no NPZ: {other}")),
    };
    let reader = place.watch(spool.reader());
    let mut archive = ZipArchive::new(reader).map_err(bad)?;
    if archive.len() > MAX_ARRAYS {
        let detail = format!(
            "{} arrays are more than the {MAX_ARRAYS} allowed",
            archive.len()
        );
        return Err(place.fault("too_large", detail));
    }
    let names: Vec<String> = archive
        .file_names_raw()
        .map(|n| String::from_utf8_lossy(n).into_owned())
        .collect();
    let (data, labels) = choose(&names, source).map_err(|wanted| {
        let shown: Vec<_> = names
            .iter()
            .take(SHOWN_NAMES)
            .map(|n| array_name(n))
            .collect();
        let detail = format!("it has no array {wanted}; arrays are {}", shown.join(", "));
        place.fault("missing_array", detail)
    })?;
    let mut member = |at: usize| {
        let name = array_name(&names[at]);
        let entry = archive.by_index_raw(at).map_err(bad)?;
        let place = place.within(name);
        if entry.encrypted() {
            return Err(place.fault("bad_zip", "it is encrypted"));
        }
        let (size, packed) = (entry.size(), entry.compressed_size());
        if size > limits::MAX_DECODED_DATASET_BYTES {
            let max = limits::MAX_DECODED_DATASET_BYTES;
            let detail = format!("{size} bytes are more than the {max} allowed");
            return Err(place.fault("too_large", detail));
        }
        let start = entry
            .data_start()
            .ok_or_else(|| place.fault("bad_zip", "its content cannot be found"))?;
        let raw = BufReader::new(place.watch(spool.range(start, packed)));
        let inner: Box<dyn Read + Send> = match entry.compression() {
            CompressionMethod::Stored => Box::new(raw),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(raw)),
            other => {
                let detail = format!("it is compressed by {other}; numpy stores or deflates");
                return Err(place.fault("bad_zip", detail));
            }
        };
        let checked = Checked {
            inner,
            left: size,
            expected: entry.crc32(),
            crc: Crc::new(),
        };
        Ok(Source {
            reader: Box::new(BufReader::with_capacity(128 << 10, checked)),
            place,
        })
    };
    let data = member(data)?;
    let labels = labels.map(member).transpose()?;
    Ok((data, labels))
}

fn array_name(file: &str) -> &str {
    file.strip_suffix(".npy").unwrap_or(file)
}

/// Returns the positions of both arrays, or what was looked for.
fn choose(names: &[String], source: &DatasetSource) -> Result<(usize, Option<usize>), String> {
    let find = |name: &str| names.iter().position(|n| array_name(n) == name);
    if let Some(data) = source.arrays.get(&FileRole::Data) {
        let at = find(data).ok_or_else(|| format!("{data:?}"))?;
        let labels = source.arrays.get(&FileRole::Labels);
        let labels = labels.map(|l| find(l).ok_or_else(|| format!("{l:?}")));
        return Ok((at, labels.transpose()?));
    }
    let known = CONVENTION
        .iter()
        .find_map(|(data, labels)| Some((find(data)?, labels.iter().find_map(|l| find(l)))));
    match (known, names) {
        (Some(found), _) => Ok(found),
        (None, [_]) => Ok((0, None)),
        _ => Err("\"x_train\", \"x\" or \"data\" (name them by \"arrays\")".to_owned()),
    }
}

/// Ends after the stated size and compares the checksum.
struct Checked {
    inner: Box<dyn Read + Send>,
    left: u64,
    expected: u32,
    crc: Crc,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.crc.update(&buffer[..n]);
        self.left -= n as u64;
        if self.left == 0 && self.crc.sum() != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong checksum"));
        }
        Ok(n)
    }
}
