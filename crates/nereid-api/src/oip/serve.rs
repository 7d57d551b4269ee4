//! One inference from its tensors to its answer, however they came and go.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nereid_core::{
    Name,
    ids::ProjectId,
    inference::InferOptions,
    tensors::{Batch, Tensor},
};

use super::{
    inputs::{Input, batch, whole},
    outputs::{Output, Requested, Selection},
    parameters::Parameters,
    statistics::Taken,
};
use crate::{
    ApiState,
    gateway::{Target, Variant},
    problem::{Code, Problem},
};

/// A request for inference.
#[derive(Debug, Default)]
pub(crate) struct Inference {
    pub(crate) id: Option<String>,
    pub(crate) parameters: Parameters,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Requested>,
    /// The only input, of a request that is nothing else.
    pub(crate) raw: Option<Bytes>,
    /// Time that the way here leaves for the answer, from when this was made.
    pub(crate) timeout: Option<Duration>,
}

/// What an inference answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) model: Name,
    pub(crate) version: u32,
    pub(crate) id: Option<String>,
    pub(crate) outputs: Vec<Output>,
}

/// Infers by an endpoint, or by one of the versions that it serves.
///
/// # Errors
/// An unknown endpoint or version, inputs that do not fit, and whatever keeps replicas from
/// answering.
pub(crate) async fn infer(
    state: &ApiState,
    project: ProjectId,
    name: Name,
    version: Option<u32>,
    inference: Inference,
) -> Result<Answer, Problem> {
    let started = Instant::now();
    let target = state.gateway.target(project, &name).await?;
    let variant = variant(&target, &name, version)?;
    let mut options = inference.parameters.options().map_err(refused)?;
    options.timeout = match (options.timeout, inference.timeout) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let binary = inference.parameters.binary_data_output().map_err(refused)?;
    let signature = &variant.signature;
    let selection = Selection::new(inference.outputs, binary, signature).map_err(refused)?;
    let mut inputs = inference.inputs;
    if let Some(bytes) = &inference.raw {
        inputs.push(whole(bytes, signature).map_err(refused)?);
    }
    let batch = batch(inputs, signature, variant.encoder()).map_err(refused)?;
    let pick = |outputs| selection.pick(outputs, signature);
    let call = Call {
        project,
        endpoint: &name,
        variant,
        started,
        options,
    };
    let outputs = call.run(state, batch, pick).await?;
    let version = variant.version;
    Ok(Answer {
        model: name,
        version,
        id: inference.id,
        outputs,
    })
}

/// An inference that is ready to be computed.
pub(crate) struct Call<'a> {
    pub(crate) project: ProjectId,
    pub(crate) endpoint: &'a Name,
    pub(crate) variant: &'a Variant,
    /// When reading the request began.
    pub(crate) started: Instant,
    pub(crate) options: InferOptions,
}

impl Call<'_> {
    /// Runs a batch, makes the answer out of its outputs, and counts it.
    ///
    /// # Errors
    /// Whatever keeps replicas from answering, and an answer that would come too late.
    pub(crate) async fn run<T>(
        &self,
        state: &ApiState,
        batch: Batch,
        finish: impl FnOnce(Vec<Tensor>) -> T,
    ) -> Result<T, Problem> {
        let counters = state
            .statistics
            .of(self.project, self.endpoint, self.variant.version);
        let rows = batch.rows;
        let read = Instant::now();
        let asked = state.gateway.infer(
            self.project,
            self.endpoint,
            self.variant,
            batch,
            self.options,
        );
        let outputs = match self.options.timeout {
            None => asked.await,
            Some(limit) => within(limit, self.started, asked).await,
        };
        let computed = Instant::now();
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(problem) => {
                counters.failed(self.started.elapsed());
                return Err(problem);
            }
        };
        let answer = finish(outputs);
        let now = state.clock.now().timestamp_millis();
        let taken = Taken {
            input: read - self.started,
            infer: computed - read,
            output: computed.elapsed(),
        };
        counters.succeeded(rows, u64::try_from(now).unwrap_or(0), taken);
        Ok(answer)
    }
}

/// Finds the variant that is to answer: one by weight, or that of a version.
///
/// # Errors
/// A version that the endpoint does not serve.
pub(crate) fn variant<'a>(
    target: &'a Target,
    name: &Name,
    version: Option<u32>,
) -> Result<&'a Variant, Problem> {
    match version {
        None => target
            .choose()
            .ok_or_else(|| Problem::internal("a route without variants")),
        Some(version) => target.of_version(version).ok_or_else(|| {
            let detail = format!("Endpoint {name} does not serve version {version}.");
            Problem::new(Code::NotFound, detail)
        }),
    }
}

/// Makes the answer to a request that does not fit the model.
pub(crate) fn refused(detail: String) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

/// Waits until `limit` after `started`; an answer that comes later is none.
async fn within<T>(
    limit: Duration,
    started: Instant,
    asked: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let left = limit.saturating_sub(started.elapsed());
    if left.is_zero() {
        return Err(late(limit));
    }
    let answer = tokio::time::timeout(left, asked).await;
    // Timers are coarse.
    match answer {
        Ok(answer) if started.elapsed() <= limit => answer,
        _ => Err(late(limit)),
    }
}

fn late(limit: Duration) -> Problem {
    let detail = format!("No answer within the {limit:?} that the request allows.");
    Problem::new(Code::Timeout, detail)
}
