//! Two versions of the binary on one database.

use nereid_store::StoreError;

use crate::support::db;

#[tokio::test]
async fn an_older_binary_uses_a_newer_schema_until_that_is_forbidden() {
    let db = db().await;
    // As a newer binary's additive migration would leave it.
    db.sql("ALTER TABLE jobs ADD COLUMN of_tomorrow text").await;
    db.sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'of tomorrow', true, '\\x00', 0)")
        .await;
    db.store.check_schema().await.unwrap();
    db.store.migrate().await.unwrap();
    db.trained("m").await;

    db.sql("UPDATE settings SET value = '9999' WHERE key = 'oldest_binary'")
        .await;
    for refused in [db.store.check_schema().await, db.store.migrate().await] {
        let StoreError::Schema(text) = refused.unwrap_err() else {
            panic!("no schema error")
        };
        assert!(text.contains("knows migration 9999"), "{text}");
    }
}

#[tokio::test]
async fn a_newer_binary_refuses_an_older_schema_and_says_how_to_mend_it() {
    let db = db().await;
    db.sql("DELETE FROM _sqlx_migrations WHERE version = 2")
        .await;
    let refused = db.store.check_schema().await.unwrap_err().to_string();
    assert!(refused.contains("migration 2") && refused.contains("run `nereid migrate`"));
}
