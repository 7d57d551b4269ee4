//! Where a data file lies: in one object, in several, or in all below a prefix.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use utoipa::ToSchema;

use super::DatasetFormat;
use crate::{limits, validation::Violations};

/// The S3 URI of an object or of a prefix that ends in `/`, or the URIs of several objects, which
/// are read in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum FileUris {
    /// An object, or a prefix that ends in `/`: all objects below it, in the order of their keys.
    One(String),
    /// Several objects.
    Several(Vec<String>),
}

impl FileUris {
    /// Tells whether the file is made of several objects, or may be.
    ///
    /// The engine then reads a tar of them: a member for each, named by its path below the prefix
    /// or below the folder that all of a list share.
    #[must_use]
    pub fn is_many(&self) -> bool {
        match self {
            Self::One(uri) => uri.ends_with('/'),
            Self::Several(_) => true,
        }
    }

    /// Returns the URIs as written.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(uri) => std::slice::from_ref(uri),
            Self::Several(uris) => uris,
        }
    }

    /// Records every mistake that shows without asking the storage.
    pub(super) fn check(&self, format: DatasetFormat, pointer: &str, v: &mut Violations) {
        let takes_many = format.takes_many();
        v.check(takes_many || !self.is_many(), pointer, "conflict", || {
            let format = format.as_str();
            format!(
                "format {format} is read from one object; several, or a prefix, are for csv, jsonl, parquet and images"
            )
        });
        let Self::Several(uris) = self else { return };
        let (n, max) = (uris.len(), limits::MAX_LISTED_OBJECTS);
        v.check(n > 0, pointer, "empty", || {
            "the list names no object".to_owned()
        });
        v.check(n <= max, pointer, "too_many", || {
            format!("{n} objects are more than the {max} that a list may name; name their prefix")
        });
        for (i, uri) in uris.iter().enumerate() {
            v.check(
                !uri.ends_with('/'),
                &format!("{pointer}/{i}"),
                "invalid_value",
                || format!("{uri:?} is a prefix, which has to stand alone instead of in a list"),
            );
        }
    }
}

impl From<String> for FileUris {
    fn from(uri: String) -> Self {
        Self::One(uri)
    }
}

impl<'de> Deserialize<'de> for FileUris {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UriVisitor;
        impl<'de> Visitor<'de> for UriVisitor {
            type Value = FileUris;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an S3 URI or a list of S3 URIs")
            }

            fn visit_str<E>(self, uri: &str) -> Result<FileUris, E> {
                Ok(FileUris::One(uri.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, uris: A) -> Result<FileUris, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(uris)).map(FileUris::Several)
            }
        }
        deserializer.deserialize_any(UriVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mistakes(format: &str, data: &Value) -> Vec<(String, String)> {
        let source = json!({"format": format, "files": {"data": data}});
        let mut v = Violations::default();
        let source: Option<super::super::DatasetSource> =
            crate::validation::parse(source, "", &mut v);
        if let Some(source) = source {
            source.check("", &mut v);
        }
        let pairs = v.into_vec().into_iter().map(|v| (v.pointer, v.code));
        pairs.collect()
    }

    #[test]
    fn one_uri_is_written_as_before_and_several_as_a_list() {
        for (value, many) in [
            (json!("s3://b/k.csv"), false),
            (json!("s3://b/photos/"), true),
            (json!(["s3://b/1.tar"]), true),
        ] {
            let uris: FileUris = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(uris.is_many(), many, "{value}");
            assert_eq!(serde_json::to_value(uris).unwrap(), value);
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let at = |pointer: &str, code: &str| vec![(pointer.to_owned(), code.to_owned())];
        assert!(mistakes("parquet", &json!(["s3://b/1", "s3://b/2"])).is_empty());
        assert!(mistakes("images", &json!("s3://b/photos/")).is_empty());
        assert_eq!(mistakes("csv", &json!([])), at("/files/data", "empty"));
        assert_eq!(
            mistakes("npy", &json!("s3://b/arrays/")),
            at("/files/data", "conflict")
        );
        assert_eq!(
            mistakes("csv", &json!(["s3://b/1", "s3://b/"])),
            at("/files/data/1", "invalid_value")
        );
        assert_eq!(
            mistakes("csv", &json!(["s3://b/1", 2])),
            at("/files/data/1", "invalid_value")
        );
        assert_eq!(
            mistakes("csv", &json!(7)),
            at("/files/data", "invalid_value")
        );
        let many = vec!["s3://b/1"; limits::MAX_LISTED_OBJECTS + 1];
        assert_eq!(mistakes("csv", &json!(many)), at("/files/data", "too_many"));
    }
}
