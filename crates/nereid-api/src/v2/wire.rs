//! Bodies of inference requests and answers: JSON, perhaps with tensors as bytes after it.
//!
//! Triton's binary tensor extension
//! (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md>).

use std::{
    io::{self, Read},
    time::Instant,
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nereid_core::{limits::MAX_INFERENCE_BODY_BYTES, tensors::TensorValues};
use serde::Deserialize;

use super::infer::{InferResponse, OipBinaryOutput, OipOutput, OutputData};
use crate::{
    extract::{PARSE_INLINE_BYTES, parse_lenient, read_body, too_large},
    oip::{
        inputs::{Input, fill_from},
        outputs::{Output, Requested},
        parameters::Parameters,
        raw,
        serve::{Answer, Inference, refused},
    },
    problem::{Code, Problem},
};

/// Header that says how long the JSON before binary tensors is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Media types of bodies: without and with binary tensors, and what curl says if told nothing.
const MEDIA: [&str; 3] = [
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
];

/// The JSON of a request; unknown fields are some client's own and passed over.
#[derive(Deserialize)]
struct InferRequest {
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    inputs: Vec<Input>,
    outputs: Option<Vec<Requested>>,
}

/// How the body of a request is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Deflate,
}

/// Reads an inference request that began to arrive at `started`.
///
/// # Errors
/// A body of another kind, too large, or that is not what its headers say.
pub(super) async fn read(request: Request, started: Instant) -> Result<Inference, Problem> {
    let (parts, body) = request.into_parts();
    check_media(&parts.headers)?;
    let encoding = encoding(&parts.headers)?;
    let json_length = json_length(&parts.headers)?;
    let bytes = read_body(&parts.headers, body, MAX_INFERENCE_BODY_BYTES).await?;
    tracing::trace!(bytes = bytes.len(), elapsed = ?started.elapsed(), "request read");
    if encoding == Encoding::Plain && bytes.len() <= PARSE_INLINE_BYTES {
        return parse(bytes, json_length);
    }
    tokio::task::spawn_blocking(move || parse(unpack(bytes, encoding)?, json_length))
        .await
        .map_err(Problem::internal)?
}

/// Refuses bodies that say of themselves that they are something else; many clients say nothing.
fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if MEDIA.iter().any(|known| media.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let detail = format!("Send {} or {}, not {given:?}.", MEDIA[0], MEDIA[1]);
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let Some(given) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(Encoding::Plain);
    };
    match given
        .to_str()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "identity" => Ok(Encoding::Plain),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::Deflate),
        other => {
            let shown: String = other.chars().take(32).collect();
            let detail = format!("Content-Encoding {shown:?} is not known; use gzip or deflate.");
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(given) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let length = given.to_str().ok().and_then(|v| v.trim().parse().ok());
    let length = length.filter(|&n: &usize| n <= MAX_INFERENCE_BODY_BYTES);
    length.map(Some).ok_or_else(|| {
        let detail = format!(
            "{JSON_LENGTH} is the length of the JSON in bytes, from 0 to {MAX_INFERENCE_BODY_BYTES}."
        );
        Problem::new(Code::InvalidParameter, detail)
    })
}

/// Unpacks a body without ever holding more than is allowed.
fn unpack(bytes: Bytes, encoding: Encoding) -> Result<Bytes, Problem> {
    let limit = MAX_INFERENCE_BODY_BYTES as u64 + 1;
    let mut out = Vec::new();
    let read: io::Result<usize> = match encoding {
        Encoding::Plain => return Ok(bytes),
        Encoding::Gzip => MultiGzDecoder::new(&bytes[..])
            .take(limit)
            .read_to_end(&mut out),
        Encoding::Deflate => ZlibDecoder::new(&bytes[..])
            .take(limit)
            .read_to_end(&mut out),
    };
    read.map_err(|e| {
        let detail = format!("The body is not what Content-Encoding says: {e}.");
        Problem::new(Code::InvalidBody, detail)
    })?;
    if out.len() > MAX_INFERENCE_BODY_BYTES {
        return Err(too_large(MAX_INFERENCE_BODY_BYTES as u64));
    }
    Ok(out.into())
}

fn parse(mut body: Bytes, json_length: Option<usize>) -> Result<Inference, Problem> {
    let length = match json_length {
        Some(0) => {
            return Ok(Inference {
                raw: Some(body),
                ..Inference::default()
            });
        }
        Some(length) if length > body.len() => {
            let given = body.len();
            let detail = format!("{JSON_LENGTH} is {length}, the body has {given} bytes.");
            return Err(Problem::new(Code::InvalidBody, detail));
        }
        Some(length) => length,
        None => body.len(),
    };
    let json = body.split_to(length);
    let mut request: InferRequest = parse_lenient(&json)?;
    fill_from(&mut request.inputs, body).map_err(refused)?;
    Ok(Inference {
        id: request.id,
        parameters: request.parameters.unwrap_or_default(),
        inputs: request.inputs,
        outputs: request.outputs.unwrap_or_default(),
        ..Inference::default()
    })
}

/// Writes an answer down: JSON, and after it the outputs that come as bytes.
pub(super) fn write(answer: Answer) -> Result<Response, Problem> {
    let mut binary = Vec::new();
    let any = answer.outputs.iter().any(|o| o.binary);
    let outputs = answer.outputs.into_iter();
    let response = InferResponse {
        model_name: answer.model,
        model_version: answer.version.to_string(),
        id: answer.id,
        outputs: outputs.map(|o| output(o, &mut binary)).collect(),
    };
    let mut body = serde_json::to_vec(&response).map_err(Problem::internal)?;
    if !any {
        return Ok(([(header::CONTENT_TYPE, MEDIA[0])], body).into_response());
    }
    let length = HeaderValue::from(body.len());
    body.append(&mut binary);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA[1])),
        (JSON_LENGTH, length),
    ];
    Ok((headers, body).into_response())
}

fn output(output: Output, binary: &mut Vec<u8>) -> OipOutput {
    let tensor = output.tensor;
    let datatype = tensor.values.datatype();
    let (parameters, data) = if output.binary {
        let binary_data_size = raw::encode(&tensor.values, binary);
        (Some(OipBinaryOutput { binary_data_size }), None)
    } else {
        let data = match tensor.values {
            TensorValues::Fp32(v) => OutputData::Fp32(v),
            TensorValues::Int64(v) => OutputData::Int64(v),
            TensorValues::Bytes(v) => OutputData::Bytes(v),
        };
        (None, Some(data))
    };
    OipOutput {
        name: tensor.name,
        shape: tensor.shape,
        datatype,
        parameters,
        data,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nereid_core::tensors::Tensor;
    use serde_json::{Value, json};

    use super::*;

    const JSON: &str = r#"{"model_name": "x", "extra": [1], "inputs": [
        {"name": "input", "shape": [1, 2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}}
    ]}"#;

    #[test]
    fn the_length_is_that_of_the_unpacked_json() {
        let body = [JSON.as_bytes(), &[7, 8]].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&body).unwrap();
        let packed = Bytes::from(gzip.finish().unwrap());
        let unpacked = unpack(packed.clone(), Encoding::Gzip).unwrap();
        let read = parse(unpacked, Some(JSON.len())).unwrap();
        assert_eq!(read.inputs[0].data.as_ref().unwrap().values, [7.0, 8.0]);
        assert!(unpack(packed, Encoding::Deflate).is_err());
        assert!(parse(Bytes::from(body), Some(10_000)).is_err());
        let alone = parse(Bytes::from_static(&[1, 2]), Some(0)).unwrap();
        assert_eq!(alone.raw.as_deref(), Some(&[1, 2][..]));
    }

    #[test]
    fn a_small_body_that_unpacks_to_a_huge_one_is_refused() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let block = vec![0; 1 << 20];
        for _ in 0..=(MAX_INFERENCE_BODY_BYTES >> 20) {
            gzip.write_all(&block).unwrap();
        }
        let packed = Bytes::from(gzip.finish().unwrap());
        let refused = unpack(packed, Encoding::Gzip).unwrap_err();
        assert_eq!(refused.kind(), Code::TooLarge);
    }

    #[test]
    fn no_content_type_is_asked_for_but_a_wrong_one_refused() {
        let mut headers = HeaderMap::new();
        assert!(check_media(&headers).is_ok());
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/JSON; x=y"),
        );
        assert!(check_media(&headers).is_ok());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv"));
        assert_eq!(
            check_media(&headers).unwrap_err().kind(),
            Code::UnsupportedMediaType
        );
    }

    #[test]
    fn outputs_read_like_the_protocol_has_them() {
        let tensor = || Tensor {
            name: "class".to_owned(),
            shape: vec![1],
            values: TensorValues::Bytes(vec!["x".to_owned()]),
        };
        let written = |binary| -> (Value, Vec<u8>) {
            let tensor = tensor();
            let mut bytes = Vec::new();
            let out = output(Output { tensor, binary }, &mut bytes);
            (serde_json::to_value(out).unwrap(), bytes)
        };
        let text = json!({"name": "class", "shape": [1], "datatype": "BYTES", "data": ["x"]});
        assert_eq!(written(false), (text, Vec::new()));
        let parameters = json!({"binary_data_size": 5});
        let bytes =
            json!({"name": "class", "shape": [1], "datatype": "BYTES", "parameters": parameters});
        assert_eq!(written(true), (bytes, b"\x01\0\0\0x".to_vec()));
    }
}
