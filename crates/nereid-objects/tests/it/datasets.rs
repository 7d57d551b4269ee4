//! Files of a dataset that are made of many objects.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::Arc,
};

use nereid_core::{
    datasets::{DatasetFile, DatasetFormat, FileRole},
    engine::DataFiles,
};
use nereid_objects::{
    ObjectError,
    datasets::{PinnedFiles, find},
};

use crate::{Store, pattern};

/// Finds the tables below a prefix and writes down which they are.
async fn register(store: &Store, prefix: &str) -> DatasetFile {
    let uri = store.uri(prefix);
    let found = find(&store.objects, &[uri], true, DatasetFormat::Csv).await;
    let found = found.unwrap();
    let kept = found.keep(&store.objects, "lists", "x".to_owned()).await;
    kept.unwrap()
}

fn files(store: &Store, file: DatasetFile) -> Arc<PinnedFiles> {
    let files = BTreeMap::from([(FileRole::Data, file)]);
    Arc::new(PinnedFiles::of_version(&store.objects, files).unwrap())
}

async fn read(files: Arc<PinnedFiles>) -> io::Result<Vec<u8>> {
    let read = move || {
        let mut bytes = Vec::new();
        let (mut reader, length) = files.open_sized(FileRole::Data)?;
        let all = reader.read_to_end(&mut bytes);
        // What went wrong once must not look like an end afterwards.
        if all.is_err() {
            assert!(reader.read(&mut [0]).is_err());
        }
        all?;
        assert_eq!(bytes.len() as u64, length);
        Ok(bytes)
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn objects_of_all_sizes_are_one_tar_in_the_order_of_their_keys() {
    let store = Store::start().await;
    let mut expected = Vec::new();
    let large = [1 << 19, (1 << 19) + 1, 3_000_007];
    let sizes = large.into_iter().chain((0..60).map(|i| i * 37));
    for (i, size) in sizes.enumerate() {
        // Large ones stand between small ones.
        let name = format!("{:02}/{}.csv", i * 5 % 63, "part".repeat(i % 40 + 1));
        store.put(&format!("tables/{name}"), pattern(size)).await;
        expected.push((name, pattern(size)));
    }
    expected.sort();
    let file = register(&store, "tables/").await;
    let total: usize = expected.iter().map(|(_, content)| content.len()).sum();
    assert_eq!(file.bytes, total as u64);
    assert_eq!(file.objects.as_ref().unwrap().count, 63);
    assert_eq!(register(&store, "tables/").await, file);
    let found = files(&store, file);
    let bytes = read(Arc::clone(&found)).await.unwrap();
    assert!(read(Arc::clone(&found)).await.unwrap() == bytes);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned());
        (name.unwrap(), content)
    });
    let read: Vec<_> = entries.collect();
    assert!(read == expected);
    // Whoever has read enough may go.
    let some = move || found.open(FileRole::Data)?.read(&mut [0; 10]);
    let some = tokio::task::spawn_blocking(some).await.unwrap();
    assert!(some.unwrap() > 0);
}

#[tokio::test]
async fn an_object_or_a_list_that_has_changed_is_named() {
    let store = Store::start().await;
    for (name, size) in [("a", 10), ("b", 2 << 20), ("c", 10)] {
        store.put(&format!("t/{name}.csv"), pattern(size)).await;
    }
    let file = register(&store, "t/").await;
    let changed = async |key: &str| {
        let error = read(files(&store, file.clone())).await.unwrap_err();
        match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(ObjectError::PreconditionFailed { target }) => {
                assert_eq!(*target, store.uri(key).to_string());
            }
            other => panic!("{other:?}"),
        }
    };
    store.put("t/b.csv", pattern((2 << 20) + 1)).await;
    changed("t/b.csv").await;
    store.put("t/a.csv", "another").await;
    changed("t/a.csv").await;
    let list = file.uri.strip_prefix("s3://nereid/").unwrap();
    store.put(list, "{}").await;
    changed(list).await;
}
