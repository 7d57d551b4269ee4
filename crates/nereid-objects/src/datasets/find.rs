//! Finds the objects of a file by what a client declared: one, a list, or all below a prefix.

use futures::{StreamExt, TryStreamExt, stream};
use nereid_core::{datasets::DatasetFormat, limits};

use super::{Member, Pin, PinnedFile};
use crate::{ListedObject, ObjectError, Objects, S3Uri};

/// Objects asked for at a time.
const AT_ONCE: usize = 16;

/// Why the objects of a file are not to be had.
#[derive(Debug)]
pub struct FindFault {
    /// Position in the list of the object that it is about.
    pub index: Option<usize>,
    /// What is the matter.
    pub cause: FindCause,
}

/// What may be the matter with the objects of a file.
#[derive(Debug)]
pub enum FindCause {
    /// They cannot be read.
    Storage(ObjectError),
    /// They are not what a file is made of.
    Refused {
        /// Kind of mistake, stable for programs.
        code: &'static str,
        /// What was found and what would be right.
        detail: String,
    },
}

impl From<ObjectError> for FindFault {
    fn from(error: ObjectError) -> Self {
        Self {
            index: None,
            cause: FindCause::Storage(error),
        }
    }
}

fn refused(code: &'static str, detail: String) -> FindFault {
    FindFault {
        index: None,
        cause: FindCause::Refused { code, detail },
    }
}

/// Finds and pins the objects of a file in `format`: if it may be `many`, those of a list or below
/// a prefix, else the one that is named.
///
/// # Errors
/// If there are none, too many, too large ones or such as do not belong to the format.
pub async fn find(
    objects: &Objects,
    uris: &[S3Uri],
    many: bool,
    format: DatasetFormat,
) -> Result<PinnedFile, FindFault> {
    match uris {
        [uri] if !many => {
            let pin = pin(objects, uri.clone()).await?;
            check_total(pin.bytes)?;
            Ok(PinnedFile::One(pin))
        }
        [prefix] if prefix.key().ends_with('/') => below(objects, prefix, format).await,
        uris => listed(objects, uris, format).await,
    }
}

async fn pin(objects: &Objects, uri: S3Uri) -> Result<Pin, ObjectError> {
    let info = objects.head(&uri).await?;
    Ok(Pin {
        uri,
        bytes: info.bytes,
        etag: info.etag,
    })
}

async fn listed(
    objects: &Objects,
    uris: &[S3Uri],
    format: DatasetFormat,
) -> Result<PinnedFile, FindFault> {
    let at = |index, cause| FindFault {
        index: Some(index),
        cause,
    };
    // Of a table's files only the content counts, of images also what the names say.
    let known = |uri: &S3Uri| format.is_table() || is_known(format, uri.file_name());
    if let Some((i, uri)) = uris.iter().enumerate().find(|(_, uri)| !known(uri)) {
        let detail = unknown(format, uri);
        let code = "unknown_extension";
        return Err(at(i, FindCause::Refused { code, detail }));
    }
    // Owned, so that the future of whoever awaits this may change threads.
    let asked: Vec<(usize, S3Uri)> = uris.iter().cloned().enumerate().collect();
    let pins: Vec<Pin> = stream::iter(asked)
        .map(|(i, uri)| {
            let objects = objects.clone();
            async move {
                let pinned = pin(&objects, uri).await;
                pinned.map_err(|e| at(i, FindCause::Storage(e)))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    check_total(pins.iter().map(|p| p.bytes).sum())?;
    let folder = shared_folder(uris).to_owned();
    let members = pins.into_iter().map(|pin| Member {
        name: pin.uri.key()[folder.len()..].to_owned(),
        pin,
    });
    Ok(PinnedFile::Many(members.collect()))
}

async fn below(
    objects: &Objects,
    prefix: &S3Uri,
    format: DatasetFormat,
) -> Result<PinnedFile, FindFault> {
    let mut found = objects.list(prefix.bucket(), prefix.key());
    let (mut members, mut seen, mut total) = (Vec::new(), 0_usize, 0_u64);
    while let Some(ListedObject { uri, info }) = found.try_next().await? {
        let max = limits::MAX_DATASET_OBJECTS;
        seen += 1;
        if seen > max {
            let detail = format!(
                "there are more than the {max} objects allowed below {prefix}; put them into shards (.tar)"
            );
            return Err(refused("too_many", detail));
        }
        let name = &uri.key()[prefix.key().len()..];
        if is_passed_over(format, name) {
            continue;
        }
        if !is_known(format, name) {
            return Err(refused("unknown_extension", unknown(format, &uri)));
        }
        total += info.bytes;
        check_total(total)?;
        members.push(Member {
            name: name.to_owned(),
            pin: Pin {
                bytes: info.bytes,
                etag: info.etag,
                uri,
            },
        });
    }
    if members.is_empty() {
        let of = extensions(format).join(", ");
        let detail = format!("there is no object below {prefix} that ends in {of}");
        return Err(refused("empty", detail));
    }
    Ok(PinnedFile::Many(members.into()))
}

fn check_total(bytes: u64) -> Result<(), FindFault> {
    let max = limits::MAX_DECODED_DATASET_BYTES;
    if bytes > max {
        let detail = format!("{bytes} bytes are more than the {max} allowed");
        return Err(refused("too_large", detail));
    }
    Ok(())
}

/// Returns the folder, with its `/`, that all keys lie in.
fn shared_folder(uris: &[S3Uri]) -> &str {
    let folder = |key: &str| key.rfind('/').map_or(0, |at| at + 1);
    let Some(first) = uris.first().map(S3Uri::key) else {
        return "";
    };
    let mut shared = &first[..folder(first)];
    for uri in uris {
        while !uri.key().starts_with(shared) {
            let above = shared.trim_end_matches('/');
            // Of a path with empty parts each `/` is a folder.
            let shorter = if above.len() + 1 < shared.len() {
                &shared[..shared.len() - 1]
            } else {
                &shared[..folder(above)]
            };
            shared = shorter;
        }
    }
    shared
}

/// Names end in one of these.
fn extensions(format: DatasetFormat) -> &'static [&'static str] {
    match format {
        DatasetFormat::Images => &[".png", ".jpg", ".jpeg", ".cls", ".tar", ".tar.gz", ".tgz"],
        DatasetFormat::Csv => &[".csv", ".csv.gz"],
        DatasetFormat::Jsonl => &[
            ".jsonl",
            ".jsonl.gz",
            ".ndjson",
            ".ndjson.gz",
            ".json",
            ".json.gz",
        ],
        DatasetFormat::Parquet => &[".parquet", ".parquet.gz"],
        DatasetFormat::Idx | DatasetFormat::Npy | DatasetFormat::Npz => &[],
    }
}

fn is_known(format: DatasetFormat, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    extensions(format).iter().any(|end| name.ends_with(end))
}

/// Tells whether an object below a prefix is a folder, a note of an operating system, or one of
/// what programs like Spark write beside their data (`_SUCCESS`).
fn is_passed_over(format: DatasetFormat, name: &str) -> bool {
    let mut parts = name.split('/');
    name.is_empty()
        || name.ends_with('/')
        || parts.clone().any(|p| p.starts_with('.') || p == "__MACOSX")
        || (!is_known(format, name) && parts.any(|p| p.starts_with('_')))
}

fn unknown(format: DatasetFormat, uri: &S3Uri) -> String {
    let known = extensions(format).join(", ");
    let format = format.as_str();
    format!("{uri} is none of the objects that format {format} is made of: they end in {known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_the_data_is_passed_over_and_what_may_be_meant_is_not() {
        use DatasetFormat::{Images, Parquet};
        for name in [
            "",
            "cat/",
            ".DS_Store",
            "cat/._1.png",
            "__MACOSX/1.png",
            "_SUCCESS",
        ] {
            assert!(is_passed_over(Images, name), "{name}");
        }
        assert!(is_passed_over(Parquet, "_delta_log/0.json"));
        for name in ["cat/1.gif", "readme.txt", "_1.png", "_cat/1.PNG"] {
            assert!(!is_passed_over(Images, name), "{name}");
        }
        assert!(is_known(Images, "_cat/1.PNG") && !is_known(Images, "cat/1.gif"));
    }

    #[test]
    fn names_in_a_list_begin_below_what_all_share() {
        let shared = |keys: &[&str]| {
            let uris = keys.iter().map(|&key| S3Uri::new("data", key).unwrap());
            shared_folder(&uris.collect::<Vec<_>>()).to_owned()
        };
        assert_eq!(shared(&["p/cat/1.png", "p/dog/1.png"]), "p/");
        assert_eq!(shared(&["p/cat/1.png", "p/cats/1.png"]), "p/");
        assert_eq!(shared(&["p/x/1.tar"]), "p/x/");
        assert_eq!(shared(&["1.tar", "p/2.tar"]), "");
        assert_eq!(shared(&["p//1.tar", "p/2.tar"]), "p/");
        assert_eq!(shared(&["a///b/1", "a//c"]), "a//");
    }
}
