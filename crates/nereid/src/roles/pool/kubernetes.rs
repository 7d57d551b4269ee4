//! Workers as pods of a Deployment, by its `scale` subresource.
//!
//! Kubernetes chooses which pods go by their deletion cost
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost>): pods
//! whose worker has nothing left to do are marked as the cheapest before the number falls.

use anyhow::Context;
use k8s_openapi::api::{apps::v1 as apps, core::v1::Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use nereid_store::workers::PoolMember;
use serde_json::json;

use crate::cli::PoolArgs;

/// Annotation by which Kubernetes chooses what to delete first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The Deployment whose pods are the pool's workers.
pub(super) struct Deployment {
    name: String,
    deployments: Api<apps::Deployment>,
    pods: Api<Pod>,
}

impl Deployment {
    /// Connects to the cluster of the environment: a service account, or a kubeconfig.
    pub(super) async fn connect(args: &PoolArgs) -> anyhow::Result<Self> {
        let config = kube::Config::infer().await.context(
            "no Kubernetes cluster: neither a service account nor a kubeconfig was found",
        )?;
        let namespace = args.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("connecting to Kubernetes")?;
        let name = args
            .deployment
            .clone()
            .context("--deployment names the Deployment to scale")?;
        Ok(Self::new(client, &namespace, name))
    }

    fn new(client: Client, namespace: &str, name: String) -> Self {
        Self {
            name,
            deployments: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client, namespace),
        }
    }

    /// Number of pods asked for.
    pub(super) async fn replicas(&self) -> anyhow::Result<u32> {
        let name = &self.name;
        let scale = self.deployments.get_scale(name).await;
        let scale = scale.with_context(|| format!("reading the scale of Deployment {name}"))?;
        let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or(0);
        Ok(u32::try_from(replicas).unwrap_or(0))
    }

    /// Asks for a number of pods.
    pub(super) async fn scale(&self, to: u32) -> anyhow::Result<()> {
        let name = &self.name;
        let patch = json!({"spec": {"replicas": to}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        self.deployments
            .patch_scale(name, &params, &patch)
            .await
            .with_context(|| format!("scaling Deployment {name} to {to}"))?;
        Ok(())
    }

    /// Asks for fewer pods, those of `drained` first.
    pub(super) async fn remove(&self, to: u32, drained: &[PoolMember]) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {DELETION_COST: "-1000"}}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        for member in drained {
            let marked = self.pods.patch(&member.host, &params, &patch);
            // A pod that is gone already needs no mark.
            match marked.await {
                Ok(_) => {}
                Err(kube::Error::Api(e)) if e.code == 404 => {}
                Err(e) => return Err(e).with_context(|| format!("marking pod {}", member.host)),
            }
        }
        self.scale(to).await
    }
}

#[cfg(test)]
mod tests {
    use nereid_core::{ids::WorkerId, workers::WorkerStatus};
    use serde_json::Value;
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
        sync::mpsc,
        task::JoinSet,
    };

    use super::*;

    /// Speaks as much of the Kubernetes API as a pool uses: the scale of one Deployment, and pods
    /// of which `gone` is none any more. Tells what it was asked to change.
    async fn cluster(asked: mpsc::UnboundedSender<(String, Value)>) -> (Client, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut replicas = json!(3);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let (request, body) = read_request(&mut stream).await;
                let scale = request.contains("/deployments/workers/scale");
                if request.starts_with("PATCH") {
                    asked.send((request.clone(), body.clone())).unwrap();
                    if scale {
                        replicas = body["spec"]["replicas"].clone();
                    }
                }
                let (status, answer) = if scale {
                    let (kind, version) = ("Scale", "autoscaling/v1");
                    let metadata = json!({"name": "workers"});
                    let spec = json!({"replicas": replicas});
                    let answer = json!({
                        "kind": kind, "apiVersion": version, "metadata": metadata, "spec": spec,
                    });
                    ("200 OK", answer)
                } else if request.contains("/pods/gone") {
                    let answer = json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "pods not found", "reason": "NotFound", "code": 404,
                    });
                    ("404 Not Found", answer)
                } else {
                    let answer =
                        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}});
                    ("200 OK", answer)
                };
                let answer = answer.to_string();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let uri = format!("http://{address}").parse().unwrap();
        (Client::try_from(kube::Config::new(uri)).unwrap(), serving)
    }

    /// Reads a request: its first line, and its body as JSON.
    async fn read_request(stream: &mut BufReader<tokio::net::TcpStream>) -> (String, Value) {
        let mut first = String::new();
        stream.read_line(&mut first).await.unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let line = line.trim().to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(n) = line.strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        (first.trim().to_owned(), body)
    }

    #[tokio::test]
    async fn idle_pods_are_marked_before_the_deployment_shrinks() {
        let (asked, mut seen) = mpsc::unbounded_channel();
        let (client, _serving) = cluster(asked).await;
        let deployment = Deployment::new(client, "ml", "workers".to_owned());
        assert_eq!(deployment.replicas().await.unwrap(), 3);
        let member = |host: &str| PoolMember {
            id: WorkerId::generate(),
            host: host.to_owned(),
            status: WorkerStatus::Draining,
            running: 0,
            replicas: 0,
        };
        let drained = [member("workers-a"), member("gone")];
        deployment.remove(1, &drained).await.unwrap();
        assert_eq!(deployment.replicas().await.unwrap(), 1);
        let (marked, body) = seen.recv().await.unwrap();
        assert!(marked.contains("/namespaces/ml/pods/workers-a"), "{marked}");
        assert_eq!(body["metadata"]["annotations"][DELETION_COST], "-1000");
        assert!(seen.recv().await.unwrap().0.contains("/pods/gone"));
        let (scaled, body) = seen.recv().await.unwrap();
        assert!(scaled.contains("/deployments/workers/scale"), "{scaled}");
        assert_eq!(body["spec"]["replicas"], 1);
    }
}
