//! Between protobuf messages and what the protocol means.

use std::collections::HashMap;

use bytes::Bytes;
use nereid_core::tensors::{TensorSpec, TensorValues};

use super::proto::{
    self, DataType, InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    StatisticDuration,
    infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor,
    model_metadata_response::TensorMetadata,
    model_version_policy::{PolicyChoice, Specific},
};
use crate::{
    numbers::{Given, Numbers},
    oip::{
        config::{ModelConfig, TensorConfig},
        datatype::Datatype,
        inputs::Input,
        outputs::Requested,
        parameters::Parameters,
        raw,
        serve::{Answer, Inference},
        statistics::{ModelStatistics, SpanStatistics},
    },
};

/// Most dimensions of an input.
const MAX_DIMENSIONS: usize = 8;

/// Reads an inference request, and whether its tensors come as bytes: then so does the answer.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn inference(request: ModelInferRequest) -> Result<(Inference, bool), String> {
    let raw = request.raw_input_contents;
    let given = request.inputs.len();
    if !raw.is_empty() && raw.len() != given {
        let n = raw.len();
        return Err(format!(
            "raw_input_contents has {n} entries for {given} inputs; it has one for each or none"
        ));
    }
    let as_bytes = !raw.is_empty();
    let mut contents = raw.into_iter();
    let inputs = request.inputs.into_iter().enumerate();
    let inputs = inputs
        .map(|(at, tensor)| input(at, tensor, contents.next()))
        .collect::<Result<_, _>>()?;
    let outputs = request.outputs.into_iter().map(|o| Requested {
        name: o.name,
        parameters: Some(parameters(o.parameters)),
    });
    let inference = Inference {
        id: Some(request.id).filter(|id| !id.is_empty()),
        parameters: parameters(request.parameters),
        inputs,
        outputs: outputs.collect(),
        ..Inference::default()
    };
    Ok((inference, as_bytes))
}

fn input(at: usize, tensor: InferInputTensor, raw: Option<Bytes>) -> Result<Input, String> {
    let refused = |detail: String| format!("/inputs/{at}: {detail}");
    let parameters = parameters(tensor.parameters);
    parameters.refuse_shared_memory().map_err(refused)?;
    if tensor.shape.len() > MAX_DIMENSIONS {
        let n = tensor.shape.len();
        let detail = format!("{n} dimensions are more than the {MAX_DIMENSIONS} allowed");
        return Err(refused(detail));
    }
    let shape = tensor.shape.iter().map(|&n| {
        usize::try_from(n).map_err(|_| refused(format!("dimension {n} is not between 0 and 2^63")))
    });
    let mut input = Input {
        name: tensor.name,
        shape: shape.collect::<Result<_, _>>()?,
        datatype: Datatype::parse(&tensor.datatype).map_err(refused)?,
        parameters: None,
        data: None,
    };
    match (raw, tensor.contents) {
        (Some(bytes), None) => input.fill(at, &bytes)?,
        // Some clients leave an empty message beside the bytes.
        (Some(bytes), Some(c)) if c == InferTensorContents::default() => input.fill(at, &bytes)?,
        (Some(_), Some(_)) => {
            return Err(refused(
                "it has both contents and raw_input_contents".to_owned(),
            ));
        }
        (None, contents) => {
            let contents = contents.unwrap_or_default();
            input.data = Some(typed(input.datatype, contents).map_err(refused)?);
        }
    }
    Ok(input)
}

/// Reads elements out of the field for their type.
fn typed(datatype: Datatype, contents: InferTensorContents) -> Result<Numbers, String> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "models compute in FP32; integers are exact up to 2^53"
    )]
    Ok(match datatype {
        Datatype::Bool => {
            let flags = contents.bool_contents.into_iter();
            raw::numbers(flags.map(|b| f32::from(u8::from(b))).collect(), Vec::new())
        }
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => {
            raw::wide(contents.int_contents.into_iter().map(f64::from).collect())
        }
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => {
            raw::wide(contents.uint_contents.into_iter().map(f64::from).collect())
        }
        Datatype::Int64 => {
            let values = contents.int64_contents.into_iter();
            raw::wide(values.map(|v| v as f64).collect())
        }
        Datatype::Uint64 => {
            let values = contents.uint64_contents.into_iter();
            raw::wide(values.map(|v| v as f64).collect())
        }
        Datatype::Fp32 => raw::numbers(contents.fp32_contents, Vec::new()),
        Datatype::Fp64 => raw::wide(contents.fp64_contents),
        Datatype::Fp16 | Datatype::Bf16 => {
            let name = datatype.name();
            return Err(format!("{name} only comes in raw_input_contents"));
        }
        Datatype::Bytes => {
            let texts = contents.bytes_contents.iter().enumerate();
            let text = |(i, bytes): (usize, &Bytes)| {
                let text = std::str::from_utf8(bytes);
                text.map(str::to_owned)
                    .map_err(|_| format!("string {i} is not UTF-8"))
            };
            raw::of_texts(texts.map(text).collect::<Result<_, _>>()?)
        }
    })
}

fn parameters(given: HashMap<String, InferParameter>) -> Parameters {
    #[expect(
        clippy::cast_precision_loss,
        reason = "what means something here is far below 2^53"
    )]
    let value = |p: InferParameter| match p.parameter_choice {
        None => Given::Null,
        Some(ParameterChoice::BoolParam(b)) => Given::Boolean(b),
        Some(ParameterChoice::Int64Param(n)) => Given::Number(n as f64),
        Some(ParameterChoice::Uint64Param(n)) => Given::Number(n as f64),
        Some(ParameterChoice::DoubleParam(n)) => Given::Number(n),
        Some(ParameterChoice::StringParam(text)) => Given::Text(text),
    };
    Parameters::from_pairs(given.into_iter().map(|(name, p)| (name, value(p))))
}

/// Writes an answer down, with its tensors as bytes or not, as those of the request came.
pub(super) fn response(answer: Answer, as_bytes: bool) -> ModelInferResponse {
    let mut response = ModelInferResponse {
        model_name: answer.model.to_string(),
        model_version: answer.version.to_string(),
        id: answer.id.unwrap_or_default(),
        ..ModelInferResponse::default()
    };
    for output in answer.outputs {
        let tensor = output.tensor;
        let dimension = |&n: &usize| i64::try_from(n).unwrap_or(i64::MAX);
        let mut message = InferOutputTensor {
            name: tensor.name,
            datatype: tensor.values.datatype().as_str().to_owned(),
            shape: tensor.shape.iter().map(dimension).collect(),
            ..InferOutputTensor::default()
        };
        if as_bytes {
            let mut bytes = Vec::new();
            raw::encode(&tensor.values, &mut bytes);
            response.raw_output_contents.push(bytes.into());
        } else {
            message.contents = Some(contents(tensor.values));
        }
        response.outputs.push(message);
    }
    response
}

fn contents(values: TensorValues) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match values {
        TensorValues::Fp32(v) => contents.fp32_contents = v,
        TensorValues::Int64(v) => contents.int64_contents = v,
        TensorValues::Bytes(v) => {
            contents.bytes_contents = v.into_iter().map(Bytes::from).collect();
        }
    }
    contents
}

/// Tells whether the last answer to a request of a stream is to say that it is the last.
pub(super) fn wants_final(request: &ModelInferRequest) -> bool {
    let name = "triton_enable_empty_final_response";
    let given = request
        .parameters
        .get(name)
        .and_then(|p| p.parameter_choice.as_ref());
    matches!(given, Some(ParameterChoice::BoolParam(true)))
}

/// Writes the option down that marks the last answer to a request of a stream.
pub(super) fn mark_final(response: &mut ModelInferResponse) {
    let yes = InferParameter {
        parameter_choice: Some(ParameterChoice::BoolParam(true)),
    };
    let name = "triton_final_response".to_owned();
    response.parameters.insert(name, yes);
}

/// Writes the description of a tensor down.
pub(super) fn tensor(tensor: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: tensor.name.clone(),
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.clone(),
    }
}

/// Writes a model's configuration down.
pub(super) fn config(config: ModelConfig) -> proto::ModelConfig {
    let kind = |t: &TensorConfig| {
        DataType::from_str_name(t.data_type)
            .unwrap_or_default()
            .into()
    };
    let versions = config.version_policy.specific.versions;
    let specific = Specific {
        versions: versions.into_iter().map(i64::from).collect(),
    };
    let input = config.input.into_iter().map(|t| proto::ModelInput {
        data_type: kind(&t),
        name: t.name,
        dims: t.dims,
    });
    let output = config.output.into_iter().map(|t| proto::ModelOutput {
        data_type: kind(&t),
        name: t.name,
        dims: t.dims,
    });
    proto::ModelConfig {
        name: config.name.to_string(),
        platform: config.platform.to_owned(),
        backend: config.backend.to_owned(),
        version_policy: Some(proto::ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Specific(specific)),
        }),
        max_batch_size: i32::try_from(config.max_batch_size).unwrap_or(i32::MAX),
        input: input.collect(),
        output: output.collect(),
    }
}

/// Writes a model's counters down.
pub(super) fn statistics(found: ModelStatistics) -> proto::ModelStatistics {
    let stats = found.inference_stats;
    let batches = found.batch_stats.iter();
    let batches = batches.map(|b| proto::InferBatchStatistics {
        batch_size: b.batch_size,
        compute_input: span(b.compute_input),
        compute_infer: span(b.compute_infer),
        compute_output: span(b.compute_output),
    });
    proto::ModelStatistics {
        batch_stats: batches.collect(),
        name: found.name.to_string(),
        version: found.version,
        last_inference: found.last_inference,
        inference_count: found.inference_count,
        execution_count: found.execution_count,
        inference_stats: Some(proto::InferStatistics {
            success: span(stats.success),
            fail: span(stats.fail),
            queue: span(stats.queue),
            compute_input: span(stats.compute_input),
            compute_infer: span(stats.compute_infer),
            compute_output: span(stats.compute_output),
            cache_hit: span(stats.cache_hit),
            cache_miss: span(stats.cache_miss),
        }),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "messages within messages are options"
)]
fn span(span: SpanStatistics) -> Option<StatisticDuration> {
    Some(StatisticDuration {
        count: span.count,
        ns: span.ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        datatype: &str,
        contents: Option<InferTensorContents>,
        raw: &[&'static [u8]],
    ) -> ModelInferRequest {
        let tensor = InferInputTensor {
            name: "input".to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![1, 2],
            contents,
            ..InferInputTensor::default()
        };
        ModelInferRequest {
            inputs: vec![tensor],
            raw_input_contents: raw.iter().map(|b| Bytes::from_static(b)).collect(),
            ..ModelInferRequest::default()
        }
    }

    #[test]
    fn typed_and_raw_contents_read_alike() {
        let read = |request| {
            let (found, as_bytes) = inference(request).unwrap();
            (found.inputs[0].data.clone().unwrap().values, as_bytes)
        };
        let typed = InferTensorContents {
            int_contents: vec![1, -2],
            ..InferTensorContents::default()
        };
        assert_eq!(
            read(request("INT16", Some(typed), &[])),
            (vec![1.0, -2.0], false)
        );
        let raw = b"\x01\x00\xfe\xff".as_slice();
        assert_eq!(
            read(request("INT16", None, &[raw])),
            (vec![1.0, -2.0], true)
        );
    }

    #[test]
    fn contents_are_given_once_and_in_the_field_of_their_type() {
        let contents = || InferTensorContents {
            fp32_contents: vec![1.0, 2.0],
            ..InferTensorContents::default()
        };
        assert!(inference(request("FP32", Some(contents()), &[b"\0"])).is_err());
        assert!(inference(request("FP16", Some(contents()), &[])).is_err());
        assert!(inference(request("FP8", Some(contents()), &[])).is_err());
        assert!(inference(request("FP32", None, &[b"", b""])).is_err());
        let mut negative = request("FP32", Some(contents()), &[]);
        negative.inputs[0].shape = vec![-1, 2];
        assert!(inference(negative).is_err());
    }
}
