//! An installation of several processes with keys: Postgres and S3 are given, API and worker run
//! apart, and nobody gets in without a key.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use nereid_client::Client;
use nereid_local::{EmbeddedS3, EmbeddedS3Options, ManagedPostgres};
use serde_json::json;
use tempfile::TempDir;

use crate::support::*;

/// Postgres and S3 as an operator would provide them.
struct Services {
    database: String,
    s3: EmbeddedS3,
    folder: TempDir,
}

impl Services {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let s3 = EmbeddedS3::start(EmbeddedS3Options {
            root: folder.path().join("s3"),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            access_key: "operator".to_owned(),
            secret_key: "operator-secret".to_owned(),
            buckets: Vec::new(),
            durable: false,
        })
        .await
        .unwrap();
        let postgres = ManagedPostgres::ephemeral().await.unwrap();
        Self {
            database: postgres.url(),
            s3,
            folder,
        }
    }

    /// A command of the binary that is configured for these services.
    fn nereid(&self, args: &[&str]) -> Command {
        let mut command = nereid();
        command
            .args(args)
            .env("DATABASE_URL", &self.database)
            .env("NEREID__OBJECTS__BUCKET", "models")
            .env("NEREID__OBJECTS__ENDPOINT", self.s3.endpoint())
            .env("NEREID__OBJECTS__REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "operator")
            .env("AWS_SECRET_ACCESS_KEY", "operator-secret")
            .env("NEREID__API__LISTEN", "127.0.0.1:0")
            .env(
                "NEREID__WORKER__DATA_DIR",
                self.folder.path().join("worker"),
            );
        command
    }

    /// Runs a command to its end, off the thread that serves S3.
    async fn run(&self, args: &[&str]) -> (bool, String, String) {
        let mut command = tokio::process::Command::from(self.nereid(args));
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    async fn key(&self, role: &str) -> String {
        let (made, key, error) = self.run(&["key", "create", "--role", role]).await;
        assert!(made && key.starts_with("nrd_"), "{error}");
        key
    }
}

/// A role's process; ended when dropped.
struct Role(Child);

impl Role {
    /// Starts a role and returns what it prints when it is ready.
    async fn start(mut command: Command) -> (Self, String) {
        let start = move || {
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let line = lines.next().expect("it gets ready").unwrap();
            std::thread::spawn(move || lines.for_each(drop));
            (Self(child), line)
        };
        tokio::task::spawn_blocking(start).await.unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        signal_process(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn api_and_worker_run_apart_and_keys_decide_who_may_do_what() {
    let services = Services::start().await;
    let (started, _, message) = services.run(&["api"]).await;
    assert!(
        !started && message.contains("schema"),
        "before migrate: {message}"
    );
    assert!(services.run(&["migrate"]).await.0);
    let (started, _, message) = services.run(&["api"]).await;
    assert!(
        !started && message.contains("without authentication"),
        "{message}"
    );

    let admin = services.key("admin").await;
    let (viewer, trainer, deployer) = (
        services.key("viewer").await,
        services.key("trainer").await,
        services.key("deployer").await,
    );
    let (api, line) = Role::start(services.nereid(&["api"])).await;
    let base = line
        .trim()
        .strip_prefix("API")
        .expect("the address")
        .trim()
        .to_owned();
    let (worker, _) = Role::start(services.nereid(&["worker"])).await;
    let as_role = |key: &str| Client::new(&base, Some(key.to_owned())).unwrap();
    let refused = |e: nereid_client::ClientError| e.problem().unwrap().status;

    let nobody = Client::new(&base, None).unwrap();
    assert_eq!(refused(nobody.models(1).await.unwrap_err()), 401);
    let wrong = as_role(
        &admin
            .replace("nrd_", "nrd_x")
            .chars()
            .take(admin.len())
            .collect::<String>(),
    );
    assert_eq!(refused(wrong.models(1).await.unwrap_err()), 401);

    every_operation_wants_a_key(&base).await;

    let name = unique("apart");
    assert_eq!(
        refused(
            as_role(&viewer)
                .upload_bytes("x", vec![1])
                .await
                .unwrap_err()
        ),
        403
    );
    let trainer = as_role(&trainer);
    add_digits(&trainer, &name).await;
    succeed(&trainer, &tiny_job(&name, &name, 2)).await;
    assert_eq!(
        refused(
            trainer
                .deploy_model(&name, 1, &json!({}))
                .await
                .unwrap_err()
        ),
        403
    );
    let deployer = as_role(&deployer);
    let job = deployer.deploy_model(&name, 1, &json!({})).await.unwrap();
    finish(&deployer, job.id).await;
    // The API holds no replica: it asks the worker over the network.
    let row = json!(deployer.dataset_preview(&name, 1).await.unwrap()[0].features);
    let answer = as_role(&viewer).predict(&name, &[row]).await.unwrap();
    assert_eq!((answer.version, answer.predictions.len()), (1, 1));
    drop((api, worker));
    services.s3.shutdown().await;
}

/// Walks the served document: without a key nothing answers but what is declared open.
async fn every_operation_wants_a_key(base: &str) {
    let http = reqwest::Client::new();
    let document = http
        .get(format!("{base}/openapi.json"))
        .send()
        .await
        .unwrap();
    let document: serde_json::Value = document.json().await.unwrap();
    let (mut closed, mut open) = (0, Vec::new());
    for (template, item) in document["paths"].as_object().unwrap() {
        let path: Vec<_> = template
            .split('/')
            .map(|part| if part.starts_with('{') { "1" } else { part })
            .collect();
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            let request = http.request(method, format!("{base}{}", path.join("/")));
            let status = request.send().await.unwrap().status().as_u16();
            match operation["security"].as_array() {
                Some(schemes) if !schemes.is_empty() => {
                    assert_eq!(status, 401, "{template}");
                    closed += 1;
                }
                _ => {
                    assert_ne!(status, 401, "{template}");
                    open.push(template.as_str());
                }
            }
        }
    }
    assert!(closed > 40, "{closed}");
    open.sort_unstable();
    let expected = [
        "/livez",
        "/openapi.json",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
    ];
    assert_eq!(open, expected);
}
