//! `nereid dataset …`

mod folders;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use nereid_client::{Client, NewDataset};
use nereid_core::datasets::{DatasetFormat, DatasetSource, FileRole, FileUris};

use self::folders::{Folder, Place, expand};
use super::Context;
use crate::{
    cli::{DatasetAdd, DatasetCommand},
    output,
};

pub async fn run(context: &Context, command: DatasetCommand) -> anyhow::Result<()> {
    match command {
        DatasetCommand::Add(args) => add(context, args).await,
        DatasetCommand::List => list(context).await,
    }
}

async fn add(context: &Context, args: DatasetAdd) -> anyhow::Result<()> {
    let places = expand(args.file)?;
    let first = places.iter().map(Place::name).next().unwrap_or_default();
    let format = match args.format {
        Some(format) => format,
        None => guess_format(&first)?,
    };
    let mut uris = Vec::with_capacity(places.len());
    for place in &places {
        uris.push(locate(&context.client, place).await?);
    }
    let data = match <[String; 1]>::try_from(uris) {
        Ok([uri]) => FileUris::One(uri),
        Err(uris) => FileUris::Several(uris),
    };
    let mut files = BTreeMap::from([(FileRole::Data, data)]);
    if let Some(labels) = args.labels {
        let uri = locate(&context.client, &Place::File(labels)).await?;
        files.insert(FileRole::Labels, uri.into());
    }
    let new = NewDataset {
        name: args.name,
        description: args.description,
        tags: BTreeMap::new(),
        source: DatasetSource {
            format,
            files,
            label_column: args.label_column,
            label_columns: args.label_columns,
            shape: args.shape,
            target: args.target,
            columns: BTreeMap::new(),
            arrays: BTreeMap::new(),
        },
    };
    let version = context.client.register_dataset(&new).await?;
    if context.json {
        return output::json(&version);
    }
    println!(
        "{}@{}: {} rows of shape {:?}{}",
        version.dataset,
        version.version,
        version.statistics.rows,
        version.schema.shape,
        version
            .schema
            .classes()
            .map_or(String::new(), |c| format!(", {} classes", c.len())),
    );
    Ok(())
}

/// Uploads what is local; an S3 URI is already where it should be.
async fn locate(client: &Client, place: &Place) -> anyhow::Result<String> {
    let file = match place {
        Place::File(file) if file.starts_with("s3://") => return Ok(file.clone()),
        Place::File(file) => file,
        Place::Images(folder) => return upload_images(client, folder).await,
    };
    Ok(client.upload_file(Path::new(file)).await?.uri)
}

/// Uploads a folder of images as one tar.
async fn upload_images(client: &Client, images: &Folder) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("images.tar");
    let (images, target) = (images.clone(), path.clone());
    tokio::task::spawn_blocking(move || images.pack(&target)).await??;
    Ok(client.upload_file(&path).await?.uri)
}

fn guess_format(file: &str) -> anyhow::Result<DatasetFormat> {
    let name = Path::new(file)
        .file_name()
        .and_then(|n| n.to_str())
        .context("no file name")?;
    let name = name.to_ascii_lowercase();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    Ok(match stem.rsplit(['.', '-']).next() {
        Some("csv") => DatasetFormat::Csv,
        Some("npy") => DatasetFormat::Npy,
        Some("npz") => DatasetFormat::Npz,
        Some("jsonl" | "ndjson") => DatasetFormat::Jsonl,
        Some("parquet") => DatasetFormat::Parquet,
        Some("tar" | "tgz") => DatasetFormat::Images,
        Some("idx" | "ubyte") => DatasetFormat::Idx,
        _ => {
            bail!(
                "the format of {file:?} does not show in its name; give --format csv, jsonl, parquet, npy, npz, idx or images"
            )
        }
    })
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let datasets = context.client.datasets(1000).await?;
    if context.json {
        return output::json(&datasets);
    }
    let rows = datasets
        .iter()
        .map(|d| {
            [
                d.name.to_string(),
                d.latest.version.to_string(),
                d.latest.statistics.rows.to_string(),
                format!("{:?}", d.latest.schema.shape),
                d.latest
                    .schema
                    .classes()
                    .map_or_else(|| "-".to_owned(), |c| c.len().to_string()),
                output::time(d.latest.created_at),
            ]
        })
        .collect();
    output::table(
        ["NAME", "VERSION", "ROWS", "SHAPE", "CLASSES", "REGISTERED"],
        rows,
    )
}
