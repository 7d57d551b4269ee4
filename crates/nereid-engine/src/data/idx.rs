//! Header of IDX, the format of MNIST.

use nereid_core::engine::EngineError;

use super::{
    bytes::Source,
    elements::{Header, Kind},
};

/// Most axes that are read; more are refused later by the limit on ranks anyway.
const MAX_AXES: u8 = 8;

/// Reads the header: two zeros, element type, number of axes, then each axis' length.
pub(super) fn read_header(source: &mut Source) -> Result<Header, EngineError> {
    let mut magic = [0; 4];
    source.read_exact(&mut magic)?;
    let place = source.place.clone();
    let bad = |detail: String| place.fault("bad_header", detail);
    let [0, 0, code, axes] = magic else {
        return Err(bad(format!(
            "it begins with {magic:02x?}, not with IDX' two zeros"
        )));
    };
    let kind = match code {
        0x08 => Kind::U8,
        0x09 => Kind::I8,
        0x0b => Kind::I16,
        0x0c => Kind::I32,
        0x0d => Kind::F32,
        0x0e => Kind::F64,
        _ => return Err(bad(format!("{code:#04x} is no element type of IDX"))),
    };
    if axes == 0 || axes > MAX_AXES {
        return Err(bad(format!("{axes} axes are not between 1 and {MAX_AXES}")));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let mut length = [0; 4];
        source.read_exact(&mut length)?;
        shape.push(u32::from_be_bytes(length) as usize);
    }
    Ok(Header {
        kind,
        big_endian: true,
        fortran: false,
        shape,
    })
}
