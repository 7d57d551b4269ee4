//! Aliases: names such as `champion` that point to one version of a model, and can be moved.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::{
    Name, ids::ModelVersionId, keys::KeyRef, names::InvalidName, validation::Violations,
    words::words,
};

/// The word that always means the newest version.
pub const LATEST: &str = "latest";

/// A name for a version of a model: as any name, but never `latest`, a number, or `v` and a number.
///
/// So `digits@3` and `digits@champion` cannot be mistaken for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, min_length = 1, max_length = 63, pattern = "^[a-z0-9][a-z0-9._-]*$", example = "champion")]
pub struct Alias(Name);

/// Why a string is not an [`Alias`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAlias {
    /// Not even a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A name that means something else.
    #[error(
        "{0} cannot be an alias: \"latest\" is the newest version, and numbers (3, v3) are versions"
    )]
    Reserved(Name),
}

impl Alias {
    /// Returns the alias as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<Name> for Alias {
    type Error = InvalidAlias;

    fn try_from(name: Name) -> Result<Self, InvalidAlias> {
        let word = name.as_str();
        let number = word.strip_prefix('v').unwrap_or(word);
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if word == LATEST || is_number {
            return Err(InvalidAlias::Reserved(name));
        }
        Ok(Self(name))
    }
}

impl FromStr for Alias {
    type Err = InvalidAlias;

    fn from_str(s: &str) -> Result<Self, InvalidAlias> {
        s.parse::<Name>()?.try_into()
    }
}

impl TryFrom<String> for Alias {
    type Error = InvalidAlias;

    fn try_from(s: String) -> Result<Self, InvalidAlias> {
        s.parse()
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> Self {
        alias.0.into()
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which version of a model, as people write it behind `@`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionSelector {
    /// By number.
    Number(u32),
    /// The one that an alias points to.
    Alias(Alias),
    /// The newest.
    Latest,
}

/// Why a string selects no version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSelector {
    /// A number outside the range of versions.
    #[error("version {given} is not between 1 and 2147483647")]
    Number {
        /// What was given, shortened.
        given: String,
    },
    /// Neither number nor alias.
    #[error("neither the number of a version nor an alias: {0}")]
    Alias(#[from] InvalidAlias),
}

impl FromStr for VersionSelector {
    type Err = InvalidSelector;

    fn from_str(s: &str) -> Result<Self, InvalidSelector> {
        if s == LATEST {
            return Ok(Self::Latest);
        }
        if !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) {
            let number = s
                .parse()
                .ok()
                .filter(|n| i32::try_from(*n).is_ok() && *n > 0);
            return number
                .map(Self::Number)
                .ok_or_else(|| InvalidSelector::Number {
                    given: s.chars().take(20).collect(),
                });
        }
        Ok(Self::Alias(s.parse()?))
    }
}

impl fmt::Display for VersionSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
            Self::Latest => f.write_str(LATEST),
        }
    }
}

/// A model, and which of its versions: `digits`, `digits@3`, `digits@champion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// Name of the model.
    pub model: Name,
    /// Which version, if one is named.
    pub version: Option<VersionSelector>,
}

impl FromStr for ModelRef {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (model, version) = match s.split_once('@') {
            None => (s, None),
            Some((model, version)) => (model, Some(version)),
        };
        let model = model.parse().map_err(|e| format!("the model's name {e}"))?;
        let version = version.map(str::parse).transpose();
        let version = version.map_err(|e: InvalidSelector| e.to_string())?;
        Ok(Self { model, version })
    }
}

/// Records that a version is named both ways, or (unless it may be left out) neither way.
pub fn check_one_of(
    version: Option<u32>,
    alias: Option<&Alias>,
    needed: bool,
    pointer: &str,
    v: &mut Violations,
) {
    if let Some(version) = version {
        let at = format!("{pointer}/version");
        v.check_range(&at, version, 1, i32::MAX.unsigned_abs());
    }
    let both = version.is_some() && alias.is_some();
    v.check(!both, &format!("{pointer}/alias"), "conflict", || {
        "name the version by its number or by an alias, not by both".to_owned()
    });
    let neither = version.is_none() && alias.is_none();
    v.check(
        !(needed && neither),
        &format!("{pointer}/version"),
        "missing",
        || "\"version\" is required, or \"alias\" in its place".to_owned(),
    );
}

/// An alias of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelAlias {
    /// Name of the model.
    pub model: Name,
    /// The alias.
    pub alias: Alias,
    /// Number of the version that it points to.
    pub version: u32,
    /// Identifier of that version.
    pub version_id: ModelVersionId,
    /// Version that a demotion would go back to; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<u32>,
    /// Who moved it last; absent for the anonymous administrator of `dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<KeyRef>,
    /// When it was moved last.
    pub updated_at: DateTime<Utc>,
}

words! {
    /// What was done to an alias.
    AliasAction {
        /// Put on a version.
        Set = "set",
        /// Moved to a version by a promotion.
        Promote = "promote",
        /// Moved back to the version that had it before.
        Demote = "demote",
        /// Taken away.
        Delete = "delete",
    }
}

/// One change of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AliasChange {
    /// What was done.
    pub action: AliasAction,
    /// Version that it pointed to before; absent if there was no such alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<u32>,
    /// Version that it points to since; absent if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_version: Option<u32>,
    /// Who did it; absent for the anonymous administrator of `dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<KeyRef>,
    /// When.
    pub at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_never_mistaken_for_a_version() {
        for good in ["champion", "production", "v", "v3a", "3-stable", "latest2"] {
            assert!(good.parse::<Alias>().is_ok(), "{good}");
        }
        for bad in ["latest", "3", "03", "v3", "v0", "Champion", "", "a@b"] {
            assert!(bad.parse::<Alias>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references_name_number_alias_or_newest() {
        let version = |s: &str| {
            s.parse::<ModelRef>()
                .map(|r| r.version.map(|v| v.to_string()))
        };
        for (given, expected) in [
            ("digits", None),
            ("digits@3", Some("3")),
            ("digits@champion", Some("champion")),
            ("digits@latest", Some("latest")),
        ] {
            assert_eq!(version(given).unwrap().as_deref(), expected, "{given}");
        }
        for bad in [
            "digits@",
            "digits@0",
            "digits@99999999999",
            "digits@v3",
            "@3",
            "a@b@c",
        ] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
