//! The Open Inference Protocol over gRPC, on a port of its own.
//!
//! Whatever it answers comes from [`crate::oip`], as over REST; here are only messages, metadata
//! and status codes.

mod admission;
mod messages;
mod service;
mod status;

use std::{io, time::Duration};

use nereid_core::limits::MAX_INFERENCE_BODY_BYTES;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    codec::CompressionEncoding,
    transport::{Server, server::TcpIncoming},
};

use self::{
    proto::grpc_inference_service_server::GrpcInferenceServiceServer, service::InferenceService,
};
use crate::ApiState;

/// Messages, client and server, made out of `proto/inference.proto`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("inference");
}

/// Room for names and shapes beside the tensors of a message.
const MESSAGE_OVERHEAD: usize = 1 << 20;
/// Longest wait for calls under way at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause between two signs of life on a quiet connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Most calls under way on one connection.
const MAX_STREAMS: u32 = 256;

/// Serves gRPC until `shutdown`, then lets calls under way finish for a few seconds.
///
/// # Errors
/// [`io::Error`] if the listener has no local address or fails.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening for gRPC");
    let limit = MAX_INFERENCE_BODY_BYTES + MESSAGE_OVERHEAD;
    let service = GrpcInferenceServiceServer::new(InferenceService::new(state))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => served.map_err(io::Error::other),
        () = overdue => {
            tracing::warn!("gRPC connections cut at shutdown");
            Ok(())
        }
    }
}
