//! Local folders of data: images become one tar, other files are shards.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use tar::{Builder, Header};

/// A part of a data file.
#[derive(Debug)]
pub enum Place {
    /// A local file or an S3 URI.
    File(String),
    /// A local folder of images.
    Images(Folder),
}

impl Place {
    /// A name that shows the format.
    pub fn name(&self) -> String {
        match self {
            Self::File(file) => file.clone(),
            Self::Images(_) => "images.tar".to_owned(),
        }
    }
}

/// Images in a local folder, and the files that hold their classes.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    /// Paths below the root, in the order of keys in S3.
    files: Vec<String>,
}

/// Replaces local folders by what is in them.
pub fn expand(files: Vec<String>) -> anyhow::Result<Vec<Place>> {
    let mut places = Vec::with_capacity(files.len());
    for file in files {
        let root = Path::new(&file);
        if file.starts_with("s3://") || !root.is_dir() {
            places.push(Place::File(file));
            continue;
        }
        let mut found = Vec::new();
        walk(root, "", &mut found).with_context(|| format!("cannot read the folder {file}"))?;
        found.sort();
        ensure!(!found.is_empty(), "there is no file in {file}");
        if found.iter().any(|name| is_image(name)) {
            places.push(Place::Images(Folder {
                root: root.to_owned(),
                files: found,
            }));
            continue;
        }
        let shards = found.iter().map(|name| root.join(name));
        places.extend(shards.map(|path| Place::File(path.display().to_string())));
    }
    Ok(places)
}

fn is_image(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".png", ".jpg", ".jpeg"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Finds all files below a folder but hidden ones.
fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str();
        let name = name.with_context(|| format!("{} is no UTF-8", entry.path().display()))?;
        if name.starts_with('.') || name == "__MACOSX" {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

impl Folder {
    /// Writes the files into a tar in which the folder that an image lies in is its class: the
    /// outermost one, as below a prefix in S3.
    pub fn pack(&self, path: &Path) -> anyhow::Result<()> {
        let mut builder = Builder::new(BufWriter::new(File::create(path)?));
        for name in &self.files {
            let file = self.root.join(name);
            let opened =
                File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let member = match name.split_once('/') {
                Some((class, rest)) => format!("{class}/{}", rest.replace('/', "%2F")),
                None => name.clone(),
            };
            let mut header = Header::new_gnu();
            header.set_size(opened.metadata()?.len());
            header.set_mode(0o644);
            header.set_mtime(0);
            builder.append_data(&mut header, member, opened)?;
        }
        builder.into_inner()?.into_inner()?.sync_all()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_become_what_a_dataset_is_made_of() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        };
        for name in [
            "images/dog/1.png",
            "images/cat/old/2.jpg",
            "images/.x",
            "shards/b.csv",
            "shards/a.csv",
        ] {
            write(name);
        }
        let folder = |name: &str| root.path().join(name).display().to_string();
        let places = expand(vec![
            folder("images"),
            folder("shards"),
            "s3://b/p/".to_owned(),
        ])
        .unwrap();
        let [
            Place::Images(images),
            Place::File(a),
            Place::File(b),
            Place::File(prefix),
        ] = &places[..]
        else {
            panic!("{places:?}")
        };
        assert!(a.ends_with("a.csv") && b.ends_with("b.csv") && prefix == "s3://b/p/");
        let tar = root.path().join("images.tar");
        images.pack(&tar).unwrap();
        let mut archive = tar::Archive::new(File::open(&tar).unwrap());
        let names = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["cat/old%2F2.jpg", "dog/1.png"]);
        fs::create_dir(root.path().join("none")).unwrap();
        assert!(expand(vec![folder("none")]).is_err());
    }
}
