//! Pages of keys in S3's order, with common prefixes folded.

use std::{io::Result, path::Path};

use super::keys;

/// One entry of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Key(String),
    CommonPrefix(String),
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::CommonPrefix(name) => name,
        }
    }
}

/// What to list.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: Option<&'a str>,
    /// Last name of the page before.
    pub(super) after: Option<&'a str>,
    pub(super) limit: usize,
}

/// A page, and the name to go on after if there is more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    pub(super) next: Option<String>,
}

/// Lists a bucket's folder.
pub(super) fn list(bucket: &Path, query: &Query<'_>) -> Result<Page> {
    let mut keys = Vec::new();
    let start = query.prefix.rsplit_once('/').map(|(folders, _)| folders);
    collect(&keys::folder_of(bucket, query.prefix), start, &mut keys)?;
    keys.retain(|key| key.starts_with(query.prefix));
    keys.sort_unstable();
    Ok(page(keys, query))
}

fn collect(folder: &Path, name: Option<&str>, keys: &mut Vec<String>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // Never there, or just emptied by a deletion.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let file_name = entry?.file_name();
        let Some((part, is_file)) = file_name.to_str().and_then(keys::part_of) else {
            continue;
        };
        let key = name.map_or_else(|| part.clone(), |name| format!("{name}/{part}"));
        if is_file {
            keys.push(key);
        } else {
            collect(&folder.join(&file_name), Some(&key), keys)?;
        }
    }
    Ok(())
}

fn page(keys: Vec<String>, query: &Query<'_>) -> Page {
    let mut entries: Vec<Entry> = Vec::new();
    for key in keys {
        let entry = match folded(&key, query) {
            Some(prefix) => Entry::CommonPrefix(prefix),
            None => Entry::Key(key),
        };
        let is_past = query.after.is_none_or(|after| entry.name() > after);
        if !is_past || entries.last() == Some(&entry) {
            continue;
        }
        if entries.len() == query.limit {
            let next = entries.last().map(|last| last.name().to_owned());
            return Page { entries, next };
        }
        entries.push(entry);
    }
    Page {
        entries,
        next: None,
    }
}

/// The common prefix that a key is folded into.
fn folded(key: &str, query: &Query<'_>) -> Option<String> {
    let delimiter = query.delimiter.filter(|d| !d.is_empty())?;
    let rest = key.strip_prefix(query.prefix)?;
    let end = query.prefix.len() + rest.find(delimiter)? + delimiter.len();
    key.get(..end).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(keys: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for key in keys {
            let path = keys::path_of(dir.path(), key).unwrap();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    fn names(page: &Page) -> Vec<&str> {
        page.entries.iter().map(Entry::name).collect()
    }

    #[test]
    fn keys_come_in_byte_order_whatever_the_folders() {
        let dir = bucket(&["a/b", "a", "a-b", "b/c/d", "é"]);
        let query = Query {
            limit: 10,
            ..Query::default()
        };
        let all = list(dir.path(), &query).unwrap();
        assert_eq!(names(&all), ["a", "a-b", "a/b", "b/c/d", "é"]);
    }

    #[test]
    fn a_prefix_need_not_end_at_a_folder() {
        let dir = bucket(&["data/train-0", "data/train-1", "data/test-0", "database/x"]);
        let list = |prefix| {
            let query = Query {
                prefix,
                limit: 10,
                ..Query::default()
            };
            list(dir.path(), &query).unwrap()
        };
        assert_eq!(names(&list("data/tr")), ["data/train-0", "data/train-1"]);
        assert_eq!(names(&list("data")).len(), 4);
        assert_eq!(names(&list("nothing/here")), [""; 0]);
    }

    #[test]
    fn pages_fold_and_go_on_without_gap_or_repeat() {
        let dir = bucket(&["a/1", "a/2", "b", "c/1", "c/2", "d"]);
        let mut after: Option<String> = None;
        let mut seen = Vec::new();
        loop {
            let query = Query {
                delimiter: Some("/"),
                after: after.as_deref(),
                limit: 1,
                ..Query::default()
            };
            let page = list(dir.path(), &query).unwrap();
            seen.extend(page.entries);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let key = |k: &str| Entry::Key(k.to_owned());
        let prefix = |p: &str| Entry::CommonPrefix(p.to_owned());
        assert_eq!(seen, [prefix("a/"), key("b"), prefix("c/"), key("d")]);
    }
}
