//! The calls of the protocol.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use nereid_core::{
    Name,
    ids::ProjectId,
    keys::{Actor, Role},
};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{
    admission::{admit, authorise, permit},
    messages,
    proto::{
        ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
        ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
        ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse,
        RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
        RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
        ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
        ServerReadyRequest, ServerReadyResponse,
        grpc_inference_service_server::GrpcInferenceService, repository_index_response::ModelIndex,
    },
    status::status,
};
use crate::{
    ApiState, health,
    oip::{
        self,
        config::ModelConfig,
        repository,
        serve::{self, refused, variant},
    },
    problem::{Code, Problem},
};

/// Requests of one stream that are worked on at the same time.
const STREAM_AHEAD: usize = 8;

/// Answers the calls of the protocol.
pub(super) struct InferenceService {
    state: ApiState,
}

impl InferenceService {
    pub(super) fn new(state: ApiState) -> Self {
        Self { state }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    type ModelStreamInferStream = Answers;

    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = health::postgres(&self.state).await.is_ok();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: ModelReadyRequest| async move {
            let (name, version) = model(&request.name, &request.version)?;
            let ready = match state.gateway.target(actor.project, &name).await {
                Ok(target) => variant(&target, &name, version).map(|_| true)?,
                Err(problem) if problem.kind() == Code::EndpointNotReady => false,
                Err(problem) => return Err(problem),
            };
            Ok(Response::new(ModelReadyResponse { ready }))
        };
        admit(state, Role::Viewer, request, call).await
    }

    async fn server_metadata(
        &self,
        request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let call = |_, _| async {
            Ok(Response::new(ServerMetadataResponse {
                name: oip::SERVER_NAME.to_owned(),
                version: nereid_core::VERSION.to_owned(),
                extensions: oip::EXTENSIONS.map(str::to_owned).to_vec(),
            }))
        };
        admit(&self.state, Role::Viewer, request, call).await
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: ModelMetadataRequest| async move {
            let (name, version) = model(&request.name, &request.version)?;
            let target = state.gateway.target(actor.project, &name).await?;
            let signature = &variant(&target, &name, version)?.signature;
            let versions = target.versions();
            Ok(Response::new(ModelMetadataResponse {
                name: name.to_string(),
                versions: versions.iter().map(ToString::to_string).collect(),
                platform: oip::PLATFORM.to_owned(),
                inputs: signature.inputs.iter().map(messages::tensor).collect(),
                outputs: signature.outputs.iter().map(messages::tensor).collect(),
            }))
        };
        admit(state, Role::Viewer, request, call).await
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request| async move {
            let answered = infer(state, actor.project, request).await;
            answered.map(Response::new)
        };
        admit(state, Role::Viewer, request, call).await
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let state = self.state.clone();
        let (metadata, _, requests) = request.into_parts();
        let actor = authorise(&state, Role::Viewer, metadata.as_ref());
        let project = actor.await.map_err(|problem| status(&problem))?.project;
        let shutdown = state.shutdown.clone();
        let answer = move |request: Result<ModelInferRequest, Status>| {
            let state = state.clone();
            async move { Ok(streamed(&state, project, request?).await) }
        };
        let answers = requests.map(answer).buffered(STREAM_AHEAD);
        // A stream has no end of its own; the process must not wait for its client to make one.
        let answers = answers.take_until(shutdown.cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: ModelConfigRequest| async move {
            let (name, version) = model(&request.name, &request.version)?;
            let target = state.gateway.target(actor.project, &name).await?;
            let signature = &variant(&target, &name, version)?.signature;
            let config = ModelConfig::new(name, target.versions(), signature);
            let config = Some(messages::config(config));
            Ok(Response::new(ModelConfigResponse { config }))
        };
        admit(state, Role::Viewer, request, call).await
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: ModelStatisticsRequest| async move {
            let project = actor.project;
            let found = if request.name.is_empty() {
                repository::statistics(state, project, None, None).await?
            } else {
                let (name, version) = model(&request.name, &request.version)?;
                repository::statistics(state, project, Some(&name), version).await?
            };
            let model_stats = found.into_iter().map(messages::statistics).collect();
            Ok(Response::new(ModelStatisticsResponse { model_stats }))
        };
        admit(state, Role::Viewer, request, call).await
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: RepositoryIndexRequest| async move {
            let entries = repository::index(state, actor.project).await?;
            let entries = entries
                .into_iter()
                .filter(|e| !request.ready || e.is_ready());
            let models = entries.map(|e| ModelIndex {
                name: e.name.to_string(),
                version: e.version.to_string(),
                state: e.state.to_owned(),
                reason: e.reason,
            });
            let models = models.collect();
            Ok(Response::new(RepositoryIndexResponse { models }))
        };
        admit(state, Role::Viewer, request, call).await
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: RepositoryModelLoadRequest| async move {
            let name = either(&request.model_name, &request.repository_name)?;
            repository::refuse_config(request.parameters.contains_key("config"))?;
            repository::load(state, &actor, &name).await?;
            Ok(Response::new(RepositoryModelLoadResponse {
                model_name: name.to_string(),
                is_loaded: true,
            }))
        };
        admit(state, Role::Deployer, request, call).await
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let state = &self.state;
        let call = |actor: Actor, request: RepositoryModelUnloadRequest| async move {
            let name = either(&request.model_name, &request.repository_name)?;
            repository::unload(state, &actor, &name).await?;
            Ok(Response::new(RepositoryModelUnloadResponse {
                model_name: name.to_string(),
                is_unloaded: true,
            }))
        };
        admit(state, Role::Deployer, request, call).await
    }
}

async fn infer(
    state: &ApiState,
    project: ProjectId,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, Problem> {
    let (name, version) = model(&request.model_name, &request.model_version)?;
    let bytes = request.encoded_len();
    let _admitted = state.gateway.admit(project, Some(&name), bytes)?;
    let (inference, as_bytes) = messages::inference(request).map_err(refused)?;
    let answer = serve::infer(state, project, name, version, inference).await?;
    Ok(messages::response(answer, as_bytes))
}

/// Answers one request of a stream; what is wrong with it does not end the stream.
async fn streamed(
    state: &ApiState,
    project: ProjectId,
    request: ModelInferRequest,
) -> ModelStreamInferResponse {
    let id = request.id.clone();
    let wants_final = messages::wants_final(&request);
    let admitted = async {
        let _permit = permit(state)?;
        infer(state, project, request).await
    };
    let limit = state.config.request_timeout;
    let answered = tokio::time::timeout(limit, admitted).await;
    let answered = answered.unwrap_or_else(|_| {
        let detail = format!("No answer within {limit:?}.");
        Err(Problem::new(Code::Timeout, detail))
    });
    let (mut response, error_message) = match answered {
        Ok(response) => (response, String::new()),
        Err(problem) => {
            // The request's id tells the client which of its requests it was.
            let response = ModelInferResponse {
                id,
                ..ModelInferResponse::default()
            };
            (response, status(&problem).message().to_owned())
        }
    };
    if wants_final {
        messages::mark_final(&mut response);
    }
    ModelStreamInferResponse {
        error_message,
        infer_response: Some(response),
    }
}

/// Reads the name of an endpoint and a version, which may be empty.
fn model(name: &str, version: &str) -> Result<(Name, Option<u32>), Problem> {
    let name = name
        .parse()
        .map_err(|e| refused(format!("model name: {e}")))?;
    if version.is_empty() {
        return Ok((name, None));
    }
    let number = version
        .parse()
        .ok()
        .filter(|n| (1..=i32::MAX.unsigned_abs()).contains(n));
    let number = number.ok_or_else(|| {
        let max = i32::MAX;
        refused(format!(
            "model version {version:?} is no number between 1 and {max}"
        ))
    })?;
    Ok((name, Some(number)))
}

/// Reads the name of a model, which KServe's clients put where Triton's name a repository.
fn either(model_name: &str, repository_name: &str) -> Result<Name, Problem> {
    let given = if model_name.is_empty() {
        repository_name
    } else {
        model_name
    };
    Ok(model(given, "")?.0)
}
