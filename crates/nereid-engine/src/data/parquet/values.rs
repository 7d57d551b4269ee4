//! Values of Parquet's columns as cells.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ::parquet::{
    column::reader::ColumnReaderImpl,
    data_type::{ByteArray, DataType},
    errors::{ParquetError, Result},
};
use chrono::{DateTime, NaiveDate};

use super::{ColumnDescriptor, ColumnReader, ConvertedType, LogicalType, PhysicalType, TimeUnit};

/// A value of a column.
pub(super) enum Value {
    Missing,
    Number(f64),
    Boolean(bool),
    Text(String),
    Bytes(ByteArray),
}

/// How a column's stored values are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Plain,
    Unsigned,
    /// Divided by this.
    Decimal(f64),
    /// Days since 1970.
    Date,
    /// Units per second since 1970.
    Timestamp(i64),
    Float16,
}

impl Kind {
    /// Returns how to read a column, or why it cannot be.
    pub(super) fn of(column: &ColumnDescriptor) -> std::result::Result<Self, String> {
        use {ConvertedType as C, LogicalType as L, PhysicalType as P};
        let (physical, converted) = (column.physical_type(), column.converted_type());
        let unit = |unit: &TimeUnit| match unit {
            TimeUnit::MILLIS => 1_000,
            TimeUnit::MICROS => 1_000_000,
            TimeUnit::NANOS => 1_000_000_000,
        };
        let refused = |what: &str| {
            Err(format!(
                "values of type {what} are no numbers, words or times; cast them, or declare the column as ignore"
            ))
        };
        let scale = || Self::Decimal(10_f64.powi(column.type_scale().clamp(0, 38)));
        match (physical, column.logical_type_ref(), converted) {
            (P::INT32 | P::INT64, Some(L::Decimal(_)), _)
            | (P::INT32 | P::INT64, None, C::DECIMAL) => Ok(scale()),
            (P::INT32, Some(L::Date), _) | (P::INT32, None, C::DATE) => Ok(Self::Date),
            (P::INT64, Some(L::Timestamp(t)), _) => Ok(Self::Timestamp(unit(&t.unit))),
            (P::INT64, None, C::TIMESTAMP_MILLIS) => Ok(Self::Timestamp(1_000)),
            (P::INT64, None, C::TIMESTAMP_MICROS) => Ok(Self::Timestamp(1_000_000)),
            (P::INT32 | P::INT64, Some(L::Integer(int)), _) if !int.is_signed => Ok(Self::Unsigned),
            (P::INT32 | P::INT64, None, C::UINT_8 | C::UINT_16 | C::UINT_32 | C::UINT_64) => {
                Ok(Self::Unsigned)
            }
            (P::INT32 | P::INT64, Some(L::Time(_)), _) => refused("time of day"),
            (P::BOOLEAN | P::FLOAT | P::DOUBLE | P::INT32 | P::INT64 | P::INT96, ..) => {
                Ok(Self::Plain)
            }
            (P::BYTE_ARRAY, Some(L::String | L::Enum | L::Json | L::Unknown) | None, c)
                if c != C::DECIMAL && c != C::BSON =>
            {
                Ok(Self::Plain)
            }
            (P::FIXED_LEN_BYTE_ARRAY, Some(L::Float16), _) => Ok(Self::Float16),
            (physical, logical, _) => {
                let name = logical.map_or(format!("{physical}"), |l| format!("{l:?}"));
                refused(&name.chars().take(80).collect::<String>())
            }
        }
    }
}

/// Appends up to `n` values of a column, missing ones among them.
///
/// The decoders panic on some damaged pages; the reader is of no use after an error.
pub(super) fn read_values(
    reader: &mut ColumnReader,
    kind: &Kind,
    max_level: i16,
    n: usize,
    out: &mut Vec<Value>,
) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| decode(reader, kind, max_level, n, out)))
        .unwrap_or_else(|_| Err(ParquetError::General("a page is damaged".to_owned())))
}

fn decode(
    reader: &mut ColumnReader,
    kind: &Kind,
    max_level: i16,
    n: usize,
    out: &mut Vec<Value>,
) -> Result<()> {
    match reader {
        ColumnReader::BoolColumnReader(r) => read(r, max_level, n, out, Value::Boolean),
        ColumnReader::Int32ColumnReader(r) => read(r, max_level, n, out, |v| match kind {
            Kind::Date => date(v),
            Kind::Unsigned => Value::Number(f64::from(v.cast_unsigned())),
            _ => decimal(f64::from(v), *kind),
        }),
        #[expect(
            clippy::cast_precision_loss,
            reason = "integers beyond 2^53 lose digits, as in any float network"
        )]
        ColumnReader::Int64ColumnReader(r) => read(r, max_level, n, out, |v| match kind {
            Kind::Timestamp(units) => timestamp(v, *units),
            Kind::Unsigned => Value::Number(v.cast_unsigned() as f64),
            _ => decimal(v as f64, *kind),
        }),
        ColumnReader::Int96ColumnReader(r) => read(r, max_level, n, out, |v| {
            timestamp(v.to_micros(), 1_000_000)
        }),
        ColumnReader::FloatColumnReader(r) => {
            read(r, max_level, n, out, |v| Value::Number(f64::from(v)))
        }
        ColumnReader::DoubleColumnReader(r) => read(r, max_level, n, out, Value::Number),
        ColumnReader::ByteArrayColumnReader(r) => read(r, max_level, n, out, Value::Bytes),
        ColumnReader::FixedLenByteArrayColumnReader(r) => {
            read(r, max_level, n, out, |v| match v.data() {
                [a, b] => Value::Number(super::super::elements::half(u16::from_le_bytes([*a, *b]))),
                _ => Value::Missing,
            })
        }
    }
}

fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    max_level: i16,
    n: usize,
    out: &mut Vec<Value>,
    convert: impl Fn(T::T) -> Value,
) -> Result<()> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(n, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter().map(convert);
    if max_level == 0 {
        out.extend(values.take(records));
        return Ok(());
    }
    for level in levels {
        out.push(if level == max_level {
            values.next().unwrap_or(Value::Missing)
        } else {
            Value::Missing
        });
    }
    Ok(())
}

fn decimal(value: f64, kind: Kind) -> Value {
    Value::Number(match kind {
        Kind::Decimal(scale) => value / scale,
        _ => value,
    })
}

/// Days since 1970 as ISO 8601, which is how the other formats write dates.
fn date(days: i32) -> Value {
    let date = NaiveDate::from_epoch_days(days);
    date.map_or(Value::Missing, |d| Value::Text(d.to_string()))
}

fn timestamp(value: i64, units: i64) -> Value {
    let (seconds, rest) = (value.div_euclid(units), value.rem_euclid(units));
    let nanos = u32::try_from(rest * (1_000_000_000 / units)).unwrap_or(0);
    let time = DateTime::from_timestamp(seconds, nanos);
    let text = |t: DateTime<_>| t.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string();
    time.map_or(Value::Missing, |t| Value::Text(text(t)))
}
