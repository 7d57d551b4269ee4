//! Header of NPY, the format of `numpy.save`.

use nereid_core::engine::EngineError;

use super::{
    bytes::{Place, Source},
    elements::{Header, Kind},
};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Reads magic number, version and the dictionary that describes the array.
pub(super) fn read_header(source: &mut Source) -> Result<Header, EngineError> {
    let mut start = [0; 8];
    source.read_exact(&mut start)?;
    let place = source.place.clone();
    if &start[..6] != MAGIC {
        return Err(place.fault("bad_header", "it does not begin with \\x93NUMPY"));
    }
    let length = if start[6] == 1 {
        let mut length = [0; 2];
        source.read_exact(&mut length)?;
        usize::from(u16::from_le_bytes(length))
    } else {
        let mut length = [0; 4];
        source.read_exact(&mut length)?;
        u32::from_le_bytes(length) as usize
    };
    if start[6] == 0 || start[6] > 3 || length > MAX_HEADER_BYTES {
        let detail = format!(
            "version {} or a header of {length} bytes is unknown",
            start[6]
        );
        return Err(place.fault("bad_header", detail));
    }
    let mut text = vec![0; length];
    source.read_exact(&mut text)?;
    parse(&place, &String::from_utf8_lossy(&text))
}

fn parse(place: &Place, text: &str) -> Result<Header, EngineError> {
    let missing = |key: &str| place.fault("bad_header", format!("its header lacks {key:?}"));
    let descr = value(text, "descr").ok_or_else(|| missing("descr"))?;
    let order = value(text, "fortran_order").ok_or_else(|| missing("fortran_order"))?;
    let shape = value(text, "shape").ok_or_else(|| missing("shape"))?;
    let (kind, big_endian) = element(descr).ok_or_else(|| {
        let given: String = descr.chars().take(40).collect();
        place.fault(
            "unsupported_dtype",
            format!("elements of type {given} are not plain numbers"),
        )
    })?;
    let dims = shape
        .strip_prefix('(')
        .and_then(|s| s.split_once(')'))
        .map(|(dims, _)| dims)
        .ok_or_else(|| missing("shape"))?;
    let shape: Result<Vec<usize>, _> = dims
        .split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .map(str::parse)
        .collect();
    let shape = shape.map_err(|e| place.fault("bad_header", format!("shape ({dims}): {e}")))?;
    Ok(Header {
        kind,
        big_endian,
        fortran: order.starts_with("True"),
        shape,
    })
}

/// Returns what follows `'key':` in the header's dictionary.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let at = quoted.iter().find_map(|q| Some(text.find(q)? + q.len()))?;
    Some(text[at..].trim_start().strip_prefix(':')?.trim_start())
}

fn element(descr: &str) -> Option<(Kind, bool)> {
    let quote = descr.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let name = descr[1..].split(quote).next()?;
    let (order, code) = name.split_at_checked(1)?;
    let kind = match code {
        "b1" => Kind::Bool,
        "u1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ => return None,
    };
    matches!(order, "<" | ">" | "|" | "=").then_some((kind, order == ">"))
}
