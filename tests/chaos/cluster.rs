//! The whole of Nereid as real processes: two APIs, three workers, Postgres, S3, links between.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use nereid_client::Client;
use nereid_local::{EmbeddedS3, EmbeddedS3Options};
use nereid_objects::{ObjectStoreConfig, Objects};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use crate::{
    clock::Clock,
    postgres::{DATABASE, Postgres},
    process::{Process, Role},
    proxy::{Proxy, Server, Weather},
    support::nereid,
};

const BUCKET: &str = "chaos";
const ACCESS_KEY: &str = "chaos";
const SECRET_KEY: &str = "chaos-secret";
const REGION: &str = "us-east-1";

/// How long a claim lasts without a heartbeat; everything here is measured in it.
pub const LEASE: Duration = Duration::from_secs(3);
/// Time between heartbeats with that lease.
const HEARTBEAT: Duration = Duration::from_millis(500);

pub struct Cluster {
    // In this order: processes end before what they use, and the folder goes last.
    pub processes: Vec<Process>,
    pub postgres: Postgres,
    /// Held while something is done to Postgres.
    pub postgres_turn: Mutex<()>,
    _s3: EmbeddedS3,
    /// The store itself, past all proxies.
    pub objects: Objects,
    pub key: String,
    pub folder: TempDir,
}

impl Cluster {
    /// Starts everything, with short leases, and waits until all of it is ready.
    pub async fn start(apis: usize, workers: usize) -> Self {
        Self::with_leases(apis, workers, LEASE, HEARTBEAT).await
    }

    /// As [`Cluster::start`], with other leases.
    pub async fn with_leases(
        apis: usize,
        workers: usize,
        lease: Duration,
        heartbeat: Duration,
    ) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nereid-chaos-")
            // Postgres may run as another user, who has to get through.
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let path = folder.path();
        let postgres = Postgres::start(&path.join("postgres")).await;
        let (s3, objects) = start_s3(path).await;
        let key = prepare(&postgres).await;
        let (_, s3_place) = watch::channel(Server::Tcp(s3.addr()));
        let mut processes = Vec::new();
        for number in 1..=apis + workers {
            let links = (
                Proxy::open(postgres.place()).await,
                Proxy::open(s3_place.clone()).await,
            );
            let mut environment = environment(&links.0, &links.1);
            for (key, time) in [("LEASE", lease), ("HEARTBEAT", heartbeat)] {
                let value = format!("{}ms", time.as_millis());
                environment.push((format!("NEREID__WORKER__{key}"), value));
            }
            let (role, name) = role(number, apis);
            // The last worker's clock is one that can be stepped.
            let clock = (number == apis + workers)
                .then(|| Clock::new(path))
                .flatten();
            processes.push(Process::new(role, name, path, links, clock, environment));
        }
        futures::future::join_all(processes.iter().map(Process::start)).await;
        Self {
            processes,
            postgres,
            postgres_turn: Mutex::default(),
            _s3: s3,
            objects,
            key,
            folder,
        }
    }

    pub fn apis(&self) -> Vec<&Process> {
        self.of(Role::Api)
    }

    pub fn workers(&self) -> Vec<&Process> {
        self.of(Role::Worker)
    }

    fn of(&self, role: Role) -> Vec<&Process> {
        self.processes.iter().filter(|p| p.role == role).collect()
    }

    /// A client of one of the APIs.
    pub fn client(&self, api: usize) -> Client {
        Client::new(&self.apis()[api].url(), Some(self.key.clone())).unwrap()
    }

    /// Ends all bad weather.
    pub fn clear(&self) {
        for process in &self.processes {
            process.postgres.set(Weather::Clear);
            process.s3.set(Weather::Clear);
        }
    }
}

fn role(number: usize, apis: usize) -> (Role, String) {
    if number <= apis {
        (Role::Api, format!("api-{number}"))
    } else {
        (Role::Worker, format!("worker-{}", number - apis))
    }
}

fn environment(postgres: &Proxy, s3: &Proxy) -> Vec<(String, String)> {
    let url = format!(
        "postgres://nereid@{}/{DATABASE}?sslmode=disable",
        postgres.addr
    );
    let pairs = [
        ("DATABASE_URL", url),
        ("NEREID__OBJECTS__BUCKET", BUCKET.to_owned()),
        ("NEREID__OBJECTS__ENDPOINT", format!("http://{}", s3.addr)),
        ("NEREID__OBJECTS__REGION", REGION.to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("NEREID__LOG__FILTER", "info,nereid_worker=debug".to_owned()),
        ("NO_COLOR", "1".to_owned()),
    ];
    let owned = pairs.map(|(key, value)| (key.to_owned(), value));
    owned.into()
}

async fn start_s3(folder: &Path) -> (EmbeddedS3, Objects) {
    let s3 = EmbeddedS3::start(EmbeddedS3Options {
        root: folder.join("s3"),
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        durable: true,
    })
    .await
    .unwrap();
    let objects = Objects::connect(ObjectStoreConfig {
        bucket: BUCKET.to_owned(),
        endpoint: Some(s3.endpoint()),
        region: Some(REGION.to_owned()),
        path_style: true,
        credentials: Some((ACCESS_KEY.to_owned(), SECRET_KEY.to_owned())),
    })
    .await
    .unwrap();
    (s3, objects)
}

/// Makes the schema and an administrator's key, which is returned.
async fn prepare(postgres: &Postgres) -> String {
    let url = postgres.url().await;
    let run = async |args: &[&str]| {
        let mut command = nereid();
        command.args(args).env("DATABASE_URL", &url);
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {text}{errors}");
        text
    };
    run(&["migrate"]).await;
    let printed = run(&["key", "create", "--role", "admin"]).await;
    let mut words = printed.split_whitespace();
    let key = words.find(|word| word.starts_with("nrd_"));
    key.unwrap_or_else(|| panic!("no key: {printed}"))
        .to_owned()
}
