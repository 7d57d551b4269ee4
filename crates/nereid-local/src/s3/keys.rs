//! Keys as paths: readable where possible, reversible always, and never outside their bucket.
//!
//! A key's `/` separates folders. Bytes beyond letters, digits and a little punctuation are
//! escaped as `%XX`, an empty part is a lone `%`, and the file of an object ends in `~`, which no
//! folder does: the keys `a` and `a/b` can both exist, unlike in a plain folder.

use std::path::{Path, PathBuf};

/// Ends the name of every object's file.
const FILE_MARK: char = '~';
/// Longest file name that Linux file systems take, in bytes.
const MAX_NAME: usize = 255;

/// Path of an object's file; `None` if a part of the key is too long for a file name.
pub(super) fn path_of(bucket: &Path, key: &str) -> Option<PathBuf> {
    let mut path = bucket.to_owned();
    let mut parts = key.split('/').peekable();
    while let Some(part) = parts.next() {
        let mut name = escape(part);
        if parts.peek().is_none() {
            name.push(FILE_MARK);
        }
        if name.len() > MAX_NAME {
            return None;
        }
        path.push(name);
    }
    Some(path)
}

/// Folder that holds all keys of a prefix, and maybe others.
pub(super) fn folder_of(bucket: &Path, prefix: &str) -> PathBuf {
    let mut path = bucket.to_owned();
    if let Some((folders, _)) = prefix.rsplit_once('/') {
        path.extend(folders.split('/').map(escape));
    }
    path
}

/// Part of a key that a file's or folder's name stands for, and whether it is a file.
pub(super) fn part_of(name: &str) -> Option<(String, bool)> {
    let (name, is_file) = match name.strip_suffix(FILE_MARK) {
        Some(name) => (name, true),
        None => (name, false),
    };
    unescape(name).map(|part| (part, is_file))
}

fn escape(part: &str) -> String {
    if part.is_empty() {
        return "%".to_owned();
    }
    // Such names would mean other folders.
    let is_dots = part == "." || part == "..";
    let mut name = String::with_capacity(part.len());
    for &byte in part.as_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.=+@,() ".contains(&byte);
        if plain && !is_dots {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.push_str(&hex::encode_upper([byte]));
        }
    }
    name
}

fn unescape(name: &str) -> Option<String> {
    if name == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (code, after) = after.split_at_checked(2)?;
            bytes.extend(hex::decode(code).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(key: &str) -> String {
        let path = path_of(Path::new("/b"), key).unwrap();
        let relative = path.strip_prefix("/b").unwrap();
        let parts: Vec<String> = relative
            .iter()
            .map(|name| part_of(name.to_str().unwrap()).unwrap().0)
            .collect();
        parts.join("/")
    }

    #[test]
    fn every_key_comes_back() {
        for key in [
            "a", "a/b", "a//b", "/a", "a/", "..", "../x", ".", "a/../b", "a~", "100%", "ünï",
            "a b", "a\\b", "x=1/y=2", "%41",
        ] {
            assert_eq!(round_trip(key), key);
        }
    }

    #[test]
    fn no_key_leaves_its_bucket_or_hides_another() {
        let bucket = Path::new("/b");
        for key in ["../other/x", "/etc/passwd", "..", "a/../../x"] {
            let path = path_of(bucket, key).unwrap();
            assert!(path.starts_with(bucket), "{}", path.display());
            assert!(path.iter().all(|part| part != ".."), "{}", path.display());
        }
        assert_eq!(path_of(bucket, "a").unwrap(), Path::new("/b/a~"));
        assert_eq!(path_of(bucket, "a/b").unwrap(), Path::new("/b/a/b~"));
        assert_eq!(path_of(bucket, "a~/b").unwrap(), Path::new("/b/a%7E/b~"));
    }

    #[test]
    fn long_keys_fit_as_long_as_their_parts_do() {
        let bucket = Path::new("/b");
        assert!(path_of(bucket, &"x/".repeat(500)).is_some());
        assert!(path_of(bucket, &"x".repeat(254)).is_some());
        assert!(path_of(bucket, &"x".repeat(255)).is_none());
    }
}
