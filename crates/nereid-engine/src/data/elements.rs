//! Numbers as binary files store them, and rows of them.

use std::io::Cursor;

use nereid_core::{engine::EngineError, limits, spec::shapes};

use super::{
    Check,
    bytes::{Place, Source},
    rows::{Label, Layout},
};

/// Element type of a binary file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Returns the Open Inference Protocol's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "UINT8",
            Self::I8 => "INT8",
            Self::U16 => "UINT16",
            Self::I16 => "INT16",
            Self::U32 => "UINT32",
            Self::I32 => "INT32",
            Self::U64 => "UINT64",
            Self::I64 => "INT64",
            Self::F16 => "FP16",
            Self::F32 => "FP32",
            Self::F64 => "FP64",
        }
    }

    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Decodes one element of `self.bytes()` bytes.
    #[expect(
        clippy::cast_precision_loss,
        reason = "integers beyond 2^53 lose digits, as in any float network"
    )]
    fn decode(self, bytes: &[u8], big_endian: bool) -> f64 {
        let mut le = [0_u8; 8];
        let n = bytes.len().min(8);
        le[..n].copy_from_slice(&bytes[..n]);
        if big_endian {
            le[..n].reverse();
        }
        let bits = u64::from_le_bytes(le);
        let [b0, b1, b2, b3, ..] = le;
        match self {
            Self::Bool | Self::U8 => f64::from(b0),
            Self::I8 => f64::from(i8::from_le_bytes([b0])),
            Self::U16 => f64::from(u16::from_le_bytes([b0, b1])),
            Self::I16 => f64::from(i16::from_le_bytes([b0, b1])),
            Self::F16 => half(u16::from_le_bytes([b0, b1])),
            Self::U32 => f64::from(u32::from_le_bytes([b0, b1, b2, b3])),
            Self::I32 => f64::from(i32::from_le_bytes([b0, b1, b2, b3])),
            Self::F32 => f64::from(f32::from_le_bytes([b0, b1, b2, b3])),
            Self::U64 => bits as f64,
            Self::I64 => bits.cast_signed() as f64,
            Self::F64 => f64::from_bits(bits),
        }
    }
}

/// Converts an IEEE 754 half.
pub(super) fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2_f64.powi(-14),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1.0 + fraction) * 2_f64.powi(exponent - 15),
    }
}

/// Rows of a binary file with a fixed number of elements each.
pub(super) struct BinaryRows {
    source: Source,
    kind: Kind,
    big_endian: bool,
    rows: u64,
    next: u64,
    row: Vec<u8>,
}

/// What a binary file's header states.
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) big_endian: bool,
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl BinaryRows {
    /// Starts reading the rows that `header` states and `source` is placed at.
    pub(super) fn new(
        mut source: Source,
        header: &Header,
        check: &mut Check<'_>,
    ) -> Result<(Self, Layout), EngineError> {
        let place = source.place.clone();
        let (rows, sample) = check_shape(&place, &header.shape)?;
        let size: usize = sample.iter().product();
        if header.fortran && header.shape.len() > 1 {
            source.reader = Box::new(Cursor::new(to_c_order(&mut source, header, check)?));
        }
        let reader = Self {
            source,
            kind: header.kind,
            big_endian: header.big_endian,
            rows,
            next: 0,
            row: vec![0; size * header.kind.bytes()],
        };
        let layout = Layout {
            shape: sample,
            dtype: header.kind.name(),
            columns: None,
        };
        Ok((reader, layout))
    }

    /// Reads the next row as features.
    pub(super) fn features(&mut self, out: &mut Vec<f32>) -> Result<bool, EngineError> {
        out.clear();
        if !self.advance()? {
            return Ok(false);
        }
        if matches!(self.kind, Kind::U8 | Kind::Bool) {
            out.extend(self.row.iter().map(|&b| f32::from(b)));
            return Ok(true);
        }
        let row = self.next - 1;
        for (i, bytes) in self.row.chunks_exact(self.kind.bytes()).enumerate() {
            let value = self.kind.decode(bytes, self.big_endian);
            out.push(to_f32(&self.source.place, value, row, || i.to_string())?);
        }
        Ok(true)
    }

    /// Reads the next row as a label.
    pub(super) fn label(&mut self, label: &mut Label) -> Result<bool, EngineError> {
        if !self.advance()? {
            return Ok(false);
        }
        let value = self.kind.decode(&self.row, self.big_endian);
        if !value.is_finite() {
            let detail = format!("{value} is not a finite number");
            let row = Some(self.next - 1);
            return Err(self
                .source
                .place
                .fault_at("not_a_number", row, None, detail));
        }
        label.set_number(value);
        Ok(true)
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn place(&self) -> &Place {
        &self.source.place
    }

    fn advance(&mut self) -> Result<bool, EngineError> {
        if self.next == self.rows {
            self.source.expect_end()?;
            return Ok(false);
        }
        self.source.read_exact(&mut self.row)?;
        self.next += 1;
        Ok(true)
    }
}

/// Narrows a feature, refusing what is not finite.
#[expect(
    clippy::cast_possible_truncation,
    reason = "networks compute in f32; what overflows is refused"
)]
pub(super) fn to_f32(
    place: &Place,
    value: f64,
    row: u64,
    column: impl Fn() -> String,
) -> Result<f32, EngineError> {
    let narrow = value as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    let (code, detail) = if value.is_finite() {
        (
            "out_of_range",
            format!("{value} does not fit a 32-bit float"),
        )
    } else {
        ("not_a_number", format!("{value} is not a finite number"))
    };
    Err(place.fault_at(code, Some(row), Some(&column()), detail))
}

fn check_shape(place: &Place, shape: &[usize]) -> Result<(u64, Vec<usize>), EngineError> {
    let Some((&rows, sample)) = shape.split_first() else {
        return Err(place.fault("bad_header", "it holds a single number, not rows"));
    };
    let (rows, max_rows) = (rows as u64, limits::MAX_DATASET_ROWS);
    if rows == 0 {
        return Err(place.fault("empty", "it has no rows"));
    }
    if rows > max_rows {
        let detail = format!("{rows} rows are more than the {max_rows} allowed");
        return Err(place.fault("too_large", detail));
    }
    let sample = if sample.is_empty() {
        vec![1]
    } else {
        sample.to_vec()
    };
    check_sample(place, &sample)?;
    Ok((rows, sample))
}

/// Checks rank and size of a sample.
pub(super) fn check_sample(place: &Place, sample: &[usize]) -> Result<(), EngineError> {
    let size = shapes::size(sample);
    let (max, max_rank) = (limits::MAX_FEATURES as u64, limits::MAX_RANK);
    if size == 0 || size > max {
        let detail = format!("a sample holds {size} values, not between 1 and {max}");
        return Err(place.fault("too_large", detail));
    }
    if sample.len() > max_rank {
        let shape = shapes::show(sample);
        let detail = format!("samples of shape {shape} have more than {max_rank} dimensions");
        return Err(place.fault("too_large", detail));
    }
    Ok(())
}

/// Reads a column-major array whole and reorders its bytes, since rows lie scattered in it.
fn to_c_order(
    source: &mut Source,
    header: &Header,
    check: &mut Check<'_>,
) -> Result<Vec<u8>, EngineError> {
    let width = header.kind.bytes();
    let total = shapes::size(&header.shape).saturating_mul(width as u64);
    if total > limits::MAX_DECODED_DATASET_BYTES {
        let max = limits::MAX_DECODED_DATASET_BYTES;
        let detail = format!("{total} bytes are more than the {max} allowed");
        return Err(source.place.fault("too_large", detail));
    }
    let mut fortran = Vec::new();
    let mut chunk = vec![0; 1 << 20];
    let mut left = usize::try_from(total).unwrap_or(usize::MAX);
    while left > 0 {
        let n = left.min(chunk.len());
        source.read_exact(&mut chunk[..n])?;
        fortran.extend_from_slice(&chunk[..n]);
        left -= n;
        check()?;
    }
    source.expect_end()?;
    let mut strides = vec![width; header.shape.len()];
    for d in 1..strides.len() {
        strides[d] = strides[d - 1] * header.shape[d - 1];
    }
    let mut out = Vec::with_capacity(fortran.len());
    let mut index = vec![0; header.shape.len()];
    let mut at = 0;
    for element in 0..fortran.len() / width {
        if element.is_multiple_of(1 << 20) {
            check()?;
        }
        out.extend_from_slice(&fortran[at..at + width]);
        for d in (0..index.len()).rev() {
            index[d] += 1;
            at += strides[d];
            if index[d] < header.shape[d] {
                break;
            }
            at -= strides[d] * header.shape[d];
            index[d] = 0;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn converts_halves() {
        assert_eq!(half(0x3c00).to_bits(), 1.0_f64.to_bits());
        assert_eq!(half(0xc500).to_bits(), (-5.0_f64).to_bits());
        assert!((half(0x0001) - 5.960_464_477_539_063e-8).abs() < 1e-20);
        assert!(half(0x7e00).is_nan());
    }
}
