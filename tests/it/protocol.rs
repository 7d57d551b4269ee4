//! The Open Inference Protocol over REST and gRPC: one answer, however tensors come and go.

use nereid_api::grpc::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelReadyRequest,
    ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, ServerMetadataRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

use crate::support::*;

type Grpc = GrpcInferenceServiceClient<Channel>;

async fn grpc(server: &Server) -> Grpc {
    let address = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    Grpc::new(address.connect().await.unwrap())
}

/// Some samples of the digits, flat.
async fn samples(server: &Server, name: &str) -> (usize, Vec<f32>) {
    let preview = server.client().dataset_preview(name, 1).await.unwrap();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "pixels are small whole numbers"
    )]
    let values = preview
        .iter()
        .flat_map(|r| r.features.iter().map(|&v| v as f32));
    (preview.len(), values.collect())
}

async fn post(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, Vec<u8>, Option<usize>) {
    let mut request = reqwest::Client::new().post(server.url(path)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let length = response.headers().get("inference-header-content-length");
    let length = length.map(|v| v.to_str().unwrap().parse().unwrap());
    let status = response.status().as_u16();
    (status, response.bytes().await.unwrap().to_vec(), length)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| f32::from_le_bytes(b))
        .collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A gRPC request for all samples.
fn tensor(name: &str, rows: usize) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "input".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![i64::try_from(rows).unwrap(), 8, 8, 1],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: name.to_owned(),
        inputs: vec![input],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn json_bytes_and_grpc_give_the_same_answer() {
    let server = Server::shared();
    let name = deployed_digits(&server.client()).await;
    let (rows, values) = samples(&server, &name).await;
    let path = format!("/v2/models/{name}/versions/1/infer");
    let input = json!({"name": "input", "shape": [rows, 8, 8, 1], "datatype": "FP32"});
    let mut as_json = input.clone();
    as_json["data"] = json!(values);
    // What a client adds of its own is passed over; no content type is asked for.
    let body = json!({"model_name": name, "extra": [1], "inputs": [as_json]}).to_string();
    let (status, answer, length) = post(&server, &path, &[], body.into_bytes()).await;
    assert_eq!(
        (status, length),
        (200, None),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let output = |name: &str| {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().find(|o| o["name"] == name).unwrap()["data"].clone()
    };
    let expected: Vec<f32> = serde_json::from_value(output("probabilities")).unwrap();
    assert_eq!(expected.len(), rows * 10);

    let mut as_bytes = input;
    as_bytes["parameters"] = json!({"binary_data_size": values.len() * 4});
    let wanted = json!([{"name": "probabilities", "parameters": {"binary_data": true}}]);
    let head = json!({"id": "x", "inputs": [as_bytes], "outputs": wanted}).to_string();
    let body = [head.clone().into_bytes(), bytes_of(&values)].concat();
    let plain = head.len().to_string();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &body).unwrap();
    let length = ("Inference-Header-Content-Length", plain.as_str());
    for (headers, body) in [
        (vec![length], body),
        (
            vec![length, ("Content-Encoding", "gzip")],
            packed.finish().unwrap(),
        ),
    ] {
        let (status, answer, length) = post(&server, &path, &headers, body).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let (head, tail) = answer.split_at(length.unwrap());
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(
            head["outputs"][0]["parameters"]["binary_data_size"],
            tail.len()
        );
        assert_eq!(floats(tail), expected);
    }

    let mut client = grpc(&server).await;
    let mut raw = tensor(&name, rows);
    raw.raw_input_contents.push(bytes_of(&values).into());
    let found = client.model_infer(raw).await.unwrap().into_inner();
    assert_eq!(floats(&found.raw_output_contents[0]), expected);
    let mut typed = tensor(&name, rows);
    typed.inputs[0].contents = Some(InferTensorContents {
        fp32_contents: values,
        ..InferTensorContents::default()
    });
    let found = client.model_infer(typed).await.unwrap().into_inner();
    assert_eq!(
        found.outputs[0].contents.as_ref().unwrap().fp32_contents,
        expected
    );
    assert!(found.raw_output_contents.is_empty());
    let counters = ModelStatisticsRequest {
        name: name.clone(),
        version: "1".to_owned(),
    };
    let counters = client
        .model_statistics(counters)
        .await
        .unwrap()
        .into_inner();
    let counted = &counters.model_stats[0];
    assert_eq!(
        (counted.execution_count, counted.inference_count),
        (5, 5 * rows as u64)
    );
}

#[tokio::test]
async fn errors_are_as_the_protocol_has_them() {
    let server = Server::shared();
    let name = deployed_digits(&server.client()).await;
    let infer = format!("/v2/models/{name}/infer");
    let input = |shape: Value, datatype: &str, data: Value| {
        let input = json!({"name": "input", "shape": shape, "datatype": datatype, "data": data});
        json!({"inputs": [input]}).to_string()
    };
    let length = ("Inference-Header-Content-Length", "99999");
    for (method, path, headers, body, expected) in [
        (
            Method::GET,
            "/v2/nothing".to_owned(),
            vec![],
            String::new(),
            404,
        ),
        (
            Method::GET,
            "/v2/models/nobody".to_owned(),
            vec![],
            String::new(),
            404,
        ),
        (
            Method::GET,
            format!("/v2/models/{name}/versions/9"),
            vec![],
            String::new(),
            404,
        ),
        (Method::DELETE, infer.clone(), vec![], String::new(), 405),
        (
            Method::POST,
            infer.clone(),
            vec![("Content-Type", "text/csv")],
            "1".to_owned(),
            415,
        ),
        (
            Method::POST,
            infer.clone(),
            vec![("Content-Encoding", "br")],
            "1".to_owned(),
            415,
        ),
        (
            Method::POST,
            infer.clone(),
            vec![("Content-Encoding", "gzip")],
            "1".to_owned(),
            400,
        ),
        (
            Method::POST,
            infer.clone(),
            vec![length],
            "{}".to_owned(),
            400,
        ),
        (Method::POST, infer.clone(), vec![], "{".to_owned(), 400),
        (Method::POST, infer.clone(), vec![], "{}".to_owned(), 422),
        (
            Method::POST,
            infer.clone(),
            vec![],
            input(json!([1, 3]), "FP32", json!([1, 2, 3])),
            422,
        ),
        (
            Method::POST,
            infer.clone(),
            vec![],
            input(json!([-1]), "FP32", json!([])),
            422,
        ),
        (
            Method::POST,
            infer.clone(),
            vec![],
            input(json!([1, 64]), "FP8", json!([1])),
            422,
        ),
    ] {
        let what = format!("{method} {path} {headers:?} {body}");
        let mut request = reqwest::Client::new()
            .request(method, server.url(&path))
            .body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let error: Value = response.json().await.unwrap();
        assert_eq!(status, expected, "{what}: {error}");
        let fields = error.as_object().unwrap();
        assert!(
            fields.len() == 1 && fields["error"].is_string(),
            "{what}: {error}"
        );
    }

    let mut client = grpc(&server).await;
    let mut code = async |request: Request<ModelInferRequest>| {
        client.model_infer(request).await.unwrap_err().code()
    };
    assert_eq!(
        code(Request::new(tensor("nobody", 1))).await,
        Code::NotFound
    );
    assert_eq!(
        code(Request::new(tensor("No Name", 1))).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(Request::new(tensor(&name, 1))).await,
        Code::InvalidArgument
    );
    let mut late = tensor(&name, 1);
    late.raw_input_contents.push(vec![0; 256].into());
    let option = InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(1)),
    };
    late.parameters.insert("timeout".to_owned(), option);
    assert_eq!(code(Request::new(late)).await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_model_is_unloaded_and_loaded_again() {
    let server = Server::shared();
    let name = deployed_digits(&server.client()).await;
    let mut client = grpc(&server).await;
    let extensions = client
        .server_metadata(ServerMetadataRequest {})
        .await
        .unwrap();
    assert!(
        extensions
            .into_inner()
            .extensions
            .contains(&"statistics".to_owned())
    );
    let ready = || ModelReadyRequest {
        name: name.clone(),
        version: String::new(),
    };
    assert!(
        client
            .model_ready(ready())
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let unload = RepositoryModelUnloadRequest {
        model_name: name.clone(),
        ..Default::default()
    };
    client.repository_model_unload(unload).await.unwrap();
    assert!(
        !client
            .model_ready(ready())
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let index = client
        .repository_index(RepositoryIndexRequest::default())
        .await
        .unwrap();
    let index = index.into_inner().models;
    let entry = index.iter().find(|e| e.name == name).unwrap();
    assert_eq!(
        (entry.state.as_str(), entry.reason.as_str()),
        ("UNAVAILABLE", "unloaded")
    );
    let path = format!("/v2/models/{name}/ready");
    assert_eq!(reqwest::get(server.url(&path)).await.unwrap().status(), 503);
    // As KServe's clients name it.
    let load = RepositoryModelLoadRequest {
        repository_name: name.clone(),
        ..Default::default()
    };
    client.repository_model_load(load).await.unwrap();
    assert_eq!(reqwest::get(server.url(&path)).await.unwrap().status(), 200);
    let index = reqwest::Client::new()
        .post(server.url("/v2/repository/index"))
        .send();
    let index: Vec<Value> = index.await.unwrap().json().await.unwrap();
    assert!(
        index
            .iter()
            .any(|e| e["name"] == *name && e["state"] == "READY" && e["version"] == "1")
    );
}
