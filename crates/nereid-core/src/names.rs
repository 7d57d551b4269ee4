//! Names that users choose: what is allowed, in one place.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// Longest name in characters, that of a DNS label.
pub const MAX_NAME_LEN: usize = 63;

/// A resource name: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, starting with a letter or digit.
///
/// The alphabet needs no escaping in URLs, S3 keys, Prometheus labels or shell words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, min_length = 1, max_length = 63, pattern = "^[a-z0-9][a-z0-9._-]*$", example = "digits")]
pub struct Name(String);

/// Why a string is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "must be 1 to 63 characters of a-z, 0-9, '-', '_' and '.', starting with a letter or digit; got {given:?}"
)]
pub struct InvalidName {
    /// The refused string, shortened.
    pub given: String,
}

impl Name {
    /// Returns the name as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
        let starts_well = s
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if starts_well && s.len() <= MAX_NAME_LEN && s.chars().all(allowed) {
            Ok(Self(s.to_owned()))
        } else {
            Err(InvalidName {
                given: s.chars().take(MAX_NAME_LEN + 1).collect(),
            })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_dns_like_names_and_refuses_everything_else() {
        for good in ["a", "0", "digits", "a.b-c_d9", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "A",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "..",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
