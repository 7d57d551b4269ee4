//! `nereid key …`: works on the database, since the first key cannot come from the API.

use anyhow::bail;
use nereid_core::{
    Name,
    keys::{ApiKey, Role},
};
use nereid_store::{Begun, Store};
use serde::Serialize;

use crate::{cli::KeyCommand, config::Config, output, roles};

/// A new key with its secret.
#[derive(Serialize)]
pub struct Created {
    #[serde(flatten)]
    key: ApiKey,
    pub secret: String,
}

pub async fn run(config: &Config, command: KeyCommand, json: bool) -> anyhow::Result<()> {
    let store = roles::connect_store(config, "nereid key").await?;
    store.check_schema().await?;
    let KeyCommand::Create {
        role,
        name,
        project,
    } = command;
    let created = create(&store, role, name, &project).await?;
    store.close().await;
    if json {
        return output::json(&created);
    }
    println!("{}", created.secret);
    eprintln!(
        "key {} ({}), shown only this once",
        created.key.name, created.key.role
    );
    Ok(())
}

/// Makes a key; its name is made up unless given.
pub async fn create(
    store: &Store,
    role: Role,
    name: Option<Name>,
    project: &str,
) -> anyhow::Result<Created> {
    let name = match name {
        Some(name) => name,
        None => format!("{role}-{}", nereid_core::ids::KeyId::generate()).parse()?,
    };
    let project = store.project(project).await?;
    let Begun::Fresh(mut tx) = store.begin(project, None).await? else {
        bail!("a write without an idempotency key was answered with a stored response")
    };
    let secret = nereid_api::new_key_secret();
    let (prefix, hash) = (
        nereid_api::key_prefix(&secret),
        nereid_api::hash_key_secret(&secret),
    );
    let key = tx.create_key(&name, role, prefix, &hash).await?;
    tx.commit(201, &key).await?;
    Ok(Created { key, secret })
}
