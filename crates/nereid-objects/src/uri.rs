//! `s3://bucket/key`, checked once and never taken apart by string surgery elsewhere.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Longest key in bytes, as S3 has it.
const MAX_KEY_LEN: usize = 1_024;

/// Address of an object, or of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct S3Uri {
    bucket: String,
    key: String,
}

/// Why a text is no address of an object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidUri {
    /// It does not begin with `s3://`.
    #[error("{0:?} is no S3 URI: it must look like s3://bucket/key")]
    Scheme(String),
    /// The bucket's name is empty or not allowed.
    #[error("{0:?} is no valid bucket name: use 3 to 63 of a-z, 0-9, '-' and '.'")]
    Bucket(String),
    /// There is no key behind the bucket.
    #[error("there is no key in s3://{0}/: name an object, as in s3://{0}/path/to/file")]
    EmptyKey(String),
    /// The key is longer than S3 allows.
    #[error("the key has {0} bytes, at most {MAX_KEY_LEN} are allowed")]
    KeyTooLong(usize),
    /// The key holds a control character, which no list of keys could carry.
    #[error("the key {0:?} holds a control character")]
    ControlCharacter(String),
}

impl S3Uri {
    /// Puts a checked address together.
    ///
    /// # Errors
    /// If the bucket or the key is not allowed.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Result<Self, InvalidUri> {
        let (bucket, key) = (bucket.into(), key.into());
        if !is_bucket_name(&bucket) {
            return Err(InvalidUri::Bucket(bucket));
        }
        if key.is_empty() {
            return Err(InvalidUri::EmptyKey(bucket));
        }
        if key.len() > MAX_KEY_LEN {
            return Err(InvalidUri::KeyTooLong(key.len()));
        }
        if key.chars().any(char::is_control) {
            return Err(InvalidUri::ControlCharacter(key));
        }
        Ok(Self { bucket, key })
    }

    /// Name of the bucket.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Key within the bucket.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The last part of the key; empty for a prefix that ends in `/`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The address of something below this one.
    ///
    /// # Errors
    /// If the longer key is not allowed.
    pub fn join(&self, path: &str) -> Result<Self, InvalidUri> {
        let key = format!("{}/{path}", self.key.trim_end_matches('/'));
        Self::new(self.bucket.clone(), key)
    }
}

impl FromStr for S3Uri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("s3://")
            .ok_or_else(|| InvalidUri::Scheme(text.to_owned()))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        Self::new(bucket, key)
    }
}

impl fmt::Display for S3Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// The rules that all S3 servers share; `/`, `?` and upper case would change the request.
fn is_bucket_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (3..=63).contains(&name.len())
        && edge(name.chars().next())
        && edge(name.chars().last())
        && !name.contains("..")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_shown_as_it_was_read() {
        for text in [
            "s3://data/train.csv",
            "s3://my.bucket-1/a//b/ c/é",
            "s3://abc/x/",
        ] {
            let uri: S3Uri = text.parse().unwrap();
            assert_eq!(uri.to_string(), text);
        }
        let uri: S3Uri = "s3://data/a/b.csv".parse().unwrap();
        assert_eq!(
            (uri.bucket(), uri.key(), uri.file_name()),
            ("data", "a/b.csv", "b.csv")
        );
        assert_eq!(uri.join("c").unwrap().to_string(), "s3://data/a/b.csv/c");
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let parse = |text: &str| text.parse::<S3Uri>().unwrap_err();
        for text in ["", "data/train.csv", "https://data/x", "S3://data/x"] {
            assert_eq!(parse(text), InvalidUri::Scheme(text.to_owned()));
        }
        for bucket in ["", "ab", "UPPER", "a..b", "-ab", "a_b", &"x".repeat(64)] {
            assert_eq!(
                parse(&format!("s3://{bucket}/k")),
                InvalidUri::Bucket(bucket.to_owned())
            );
        }
        assert_eq!(parse("s3://data"), InvalidUri::EmptyKey("data".to_owned()));
        assert_eq!(parse("s3://data/"), InvalidUri::EmptyKey("data".to_owned()));
        let long = "x".repeat(1_025);
        assert_eq!(
            parse(&format!("s3://data/{long}")),
            InvalidUri::KeyTooLong(1_025)
        );
        assert_eq!(
            parse("s3://data/a\0b"),
            InvalidUri::ControlCharacter("a\0b".to_owned())
        );
    }
}
