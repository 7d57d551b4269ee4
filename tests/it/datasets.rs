//! Datasets: versions, formats, and what protects them.

use nereid_core::datasets::{DatasetFormat, FileRole, TargetSchema};

use crate::support::*;

#[tokio::test]
async fn another_registration_is_another_version_and_the_same_bytes_are_not() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("versions");
    let add = |csv: &'static str| {
        let (client, name) = (client.clone(), name.clone());
        async move {
            let files = [(FileRole::Data, "t.csv", csv.as_bytes().to_vec())];
            add_dataset(&client, &name, DatasetFormat::Csv, &files, Some("y"), None).await
        }
    };
    let first = add("a,y\n1.5,0.25\n2.5,0.5\n4,0.75\n").await;
    assert_eq!(first.version, 1);
    assert!(matches!(
        first.schema.target,
        Some(TargetSchema::Value { .. })
    ));
    assert_eq!(first.statistics.max, [4.0]);
    assert_eq!(add("a,y\n1.5,0.25\n2.5,0.5\n4,0.75\n").await.id, first.id);
    assert_eq!(add("a,y\n1.5,0.25\n2.5,0.5\n5,0.75\n").await.version, 2);
    assert_eq!(client.dataset(&name).await.unwrap().latest.version, 2);
}

#[tokio::test]
async fn npy_arrays_are_read_with_their_labels() {
    let server = Server::shared();
    let client = server.client();
    let npy = |descr: &str, shape: &str, data: Vec<u8>| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let padded = format!("{header:<117}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(padded.len()).unwrap().to_le_bytes());
        bytes.extend(padded.as_bytes());
        bytes.extend(data);
        bytes
    };
    let values = (0..24_u8)
        .flat_map(|v| f32::from(v).to_le_bytes())
        .collect();
    let labels = (0..6_i64).flat_map(|v| (v % 3).to_le_bytes()).collect();
    let files = [
        (FileRole::Data, "x.npy", npy("<f4", "(6, 2, 2)", values)),
        (FileRole::Labels, "y.npy", npy("<i8", "(6,)", labels)),
    ];
    let name = unique("npy");
    let shape = Some(vec![2, 2, 1]);
    let version = add_dataset(&client, &name, DatasetFormat::Npy, &files, None, shape).await;
    assert_eq!(version.schema.shape, [2, 2, 1]);
    assert_eq!(version.schema.classes().unwrap(), ["0", "1", "2"]);
    assert_eq!(
        version.statistics.class_counts.as_deref(),
        Some(&[2, 2, 2][..])
    );
    assert_eq!(version.statistics.mean, [11.5]);
}

#[tokio::test]
async fn a_dataset_in_use_cannot_be_deleted() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("used");
    add_digits(&client, &name).await;
    let job = client
        .submit_job(&tiny_job(&name, &name, 50_000))
        .await
        .unwrap();
    let refusal = client.delete_dataset(&name).await.unwrap_err();
    assert_eq!(refusal.problem().unwrap().code, "in_use", "{refusal}");
    client.cancel_job(job.id).await.unwrap();
    client.watch_job(job.id, |_| {}).await.unwrap();
    client.delete_dataset(&name).await.unwrap();
    assert!(client.dataset(&name).await.is_err());
}
