//! Binaries and schemas of different versions: they fit, or say what to do.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::installation::{Installation, Role};

async fn execute(services: &Installation, statement: &str) {
    let mut session = PgConnection::connect(&services.database()).await.unwrap();
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut session)
        .await
        .unwrap();
}

/// Both roles refuse to start, and say this.
async fn both_refuse(services: &Installation, words: &[&str]) {
    for role in ["api", "worker"] {
        let (started, _, message) = services.run(&[role]).await;
        assert!(!started, "{role} started");
        for word in words {
            assert!(
                message.contains(word),
                "{role} does not say {word}: {message}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_does_not_fit_the_schema_says_so_and_refuses() {
    let services = Installation::start().await;
    both_refuse(&services, &["schema", "nereid migrate"]).await;
    assert!(services.run(&["migrate"]).await.0);
    services.key("admin").await;

    // A newer Nereid has migrated, and allows this one to go on during the upgrade.
    execute(
        &services,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', true, '\\x00', 0)",
    )
    .await;
    let api = Role::start(services.nereid(&["api"])).await;
    let worker = Role::start(services.nereid(&["worker"])).await;
    assert!(worker.line.contains("takes jobs"), "{}", worker.line);
    drop((api, worker));
    // It does not any more.
    execute(
        &services,
        "UPDATE settings SET value = '9999' WHERE key = 'oldest_binary'",
    )
    .await;
    both_refuse(&services, &["9999", "newer"]).await;

    // The schema is older than this binary.
    execute(
        &services,
        "UPDATE settings SET value = '2' WHERE key = 'oldest_binary'",
    )
    .await;
    execute(
        &services,
        "DELETE FROM _sqlx_migrations WHERE version IN (2, 9999)",
    )
    .await;
    both_refuse(&services, &["nereid migrate"]).await;
}
