//! Changes of a model's or a version's description and tags, as JSON Merge Patch (RFC 7396) has it.

use std::collections::BTreeMap;

use crate::limits;

/// What to change; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Replaces the description.
    pub description: Option<String>,
    /// Whether all tags are taken away, before `tags` are set.
    pub clear_tags: bool,
    /// Tags to set, and those to take away.
    pub tags: BTreeMap<String, Option<String>>,
}

impl Edit {
    /// Changes tags.
    ///
    /// # Errors
    /// Their number, if that is more than are allowed.
    pub fn apply(&self, tags: &mut BTreeMap<String, String>) -> Result<(), usize> {
        if self.clear_tags {
            tags.clear();
        }
        for (key, value) in &self.tags {
            match value {
                Some(value) => tags.insert(key.clone(), value.clone()),
                None => tags.remove(key),
            };
        }
        if tags.len() > limits::MAX_TAGS {
            return Err(tags.len());
        }
        Ok(())
    }
}
